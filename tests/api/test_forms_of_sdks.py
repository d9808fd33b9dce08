"""Requests as Google's SDKs and newest reference write them arrive at a strict service as their authors mean them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from api.virtual_time import VirtualTime

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.errors import InputError
from airflow_provider_gemini_batch.api.models import JobKind, Service
from airflow_provider_gemini_batch.api.requests.request import normalise, request_body, request_defaults, with_roles
from airflow_provider_gemini_batch.api.vertex_rules import check_request
from airflow_provider_gemini_batch.emulator import Emulator
from airflow_provider_gemini_batch.rows.input_spec import InputSpec
from airflow_provider_gemini_batch.rows.record import RecordWriter
from airflow_provider_gemini_batch.rows.stage import stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = {"parts": [{"text": "x"}]}
EMBEDDINGS = JobKind.EMBEDDINGS
CUT = {"autoTruncate": False}
FILE = {"name": "files/abc", "uri": "https://example.com/files/abc", "sizeBytes": "9", "state": "ACTIVE"}
NAMED = {"fileData": {"fileUri": FILE["uri"], "mimeType": "image/png"}}


def spec_of(service: Service = Service.GEMINI, **more: Any) -> InputSpec:
    return InputSpec(service=service, model="a-model", **more)


@pytest.fixture(scope="module")
def strict() -> Iterator[Emulator]:
    with Emulator(strict=True) as made:
        made.control.speed(0)
        yield made


@pytest.fixture
def client(strict: Emulator) -> Iterator[BatchClient]:
    clock = VirtualTime(strict)
    with BatchClient.for_gemini("a-key", base_url=strict.url, timeout=5.0, sleep=clock.sleep, clock=clock) as made:
        yield made


@pytest.mark.parametrize(
    "row",
    [
        {"content": TEXT, "embedContentConfig": {"autoTruncate": False, "taskType": "RETRIEVAL_QUERY"}},
        {"content": TEXT, "taskType": "RETRIEVAL_QUERY", "autoTruncate": False},
        {"contents": "x", "config": {"document_ocr": True, "audio_track_extraction": True}},
        {"request": {"content": TEXT, "embed_content_config": {"auto_truncate": True}}},
    ],
    ids=["reference", "flat", "sdk", "snake case"],
)
def test_options_that_only_the_configuration_of_an_embedding_has_are_sent_there(
    client: BatchClient, strict: Emulator, row: dict[str, Any]
) -> None:
    job = client.create_embeddings("gemini-embedding-001", inlined_requests=[row])
    strict.control.advance(60)
    assert [result.error for result in client.get_responses(job)] == [None]


@pytest.mark.parametrize(
    "line", ['{"key": "a", "request": {"content": {"parts": [{"text": "x"}]}}}', '{"text": "x"}'], ids=["line", "text"]
)
@pytest.mark.parametrize("given", [CUT, {"embedContentConfig": CUT}], ids=["flat", "in the configuration"])
def test_such_an_option_for_all_rows_is_sent_there_too(tmp_path: Path, line: str, given: dict[str, Any]) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(line)
    staged = stage(spec_of(kind=EMBEDDINGS, path=str(source), request_defaults=given), tmp_path)
    assert b'"embedContentConfig":{"autoTruncate":false}' in staged.files[0].path.read_bytes()


def test_vertex_ai_gets_all_options_of_an_embedding_in_its_own_configuration() -> None:
    defaults = request_defaults(EMBEDDINGS, output_dimensionality=64)
    _, request = normalise({"content": TEXT, "autoTruncate": False}, kind=EMBEDDINGS, defaults=defaults)
    body = request_body(Service.VERTEX, EMBEDDINGS, request)
    assert b'"embed_content_config":{"auto_truncate":false,"output_dimensionality":64}' in body


@pytest.mark.parametrize("name", ["config", "generationConfig"])
def test_a_voice_is_named_by_a_text_as_in_the_sdk(client: BatchClient, name: str) -> None:
    row = {"contents": [TEXT], name: {"speechConfig": "Kore"}}
    assert client.create("gemini-2.5-flash", inlined_requests=[row])
    _, request = normalise(row)
    voice = request["generationConfig"]["speechConfig"]["voiceConfig"]
    assert voice == {"prebuiltVoiceConfig": {"voiceName": "Kore"}}


@pytest.mark.parametrize("mime_type", ["mimeType", "mime_type"])
def test_an_uploaded_file_is_a_part_as_in_the_sdk(mime_type: str) -> None:
    file = {**FILE, mime_type: "image/png"}
    assert normalise({"contents": ["What is this?", file]})[1]["contents"][0]["parts"][1] == NAMED
    assert normalise({"contents": [file]}, kind=EMBEDDINGS)[1]["content"]["parts"] == [NAMED]


@pytest.mark.parametrize(
    "metadata", [{"request_id": "7"}, {"key": "a", "tenant": "t"}, "a text"], ids=["no key", "more", "a text"]
)
def test_metadata_that_is_not_sent_gives_a_warning(
    client: BatchClient, caplog: pytest.LogCaptureFixture, metadata: object
) -> None:
    with caplog.at_level(logging.WARNING):
        client.create("gemini-2.5-flash", inlined_requests=[{"contents": "x", "metadata": metadata}])
    assert [record.getMessage()[:36] for record in caplog.records] == ["of 'metadata' only its 'key' is sent"]


def test_metadata_that_holds_only_a_key_gives_no_warning(client: BatchClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        client.create("gemini-2.5-flash", inlined_requests=[{"contents": "x", "metadata": {"key": "a"}}])
    assert not caplog.records


@pytest.mark.parametrize("role", ["function", "tool", "assistant", "system", "USER", 7, ["user"]])
def test_a_role_that_some_models_refuse_gives_a_warning(tmp_path: Path, role: object) -> None:
    rows = [{"contents": [{"role": role, **TEXT}]}, {"contents": [{"role": "user", **TEXT}]}]
    staged = stage(spec_of(rows=rows), tmp_path)
    assert [note.startswith("roles other than user and model") for note in staged.warnings] == [True]


@pytest.mark.parametrize("role", [None, ""], ids=["null", "empty"])
def test_a_content_with_an_empty_role_is_the_users(tmp_path: Path, role: object) -> None:
    row = {"contents": [{"role": role, **TEXT}]}
    staged = stage(spec_of(service=Service.VERTEX, rows=[row]), tmp_path)
    assert staged.warnings == ()
    assert with_roles(row)["contents"][0]["role"] == "user"


@pytest.mark.parametrize("uri", ["https://generativelanguage.googleapis.com/v1beta/files/abc", "files/abc"])
def test_a_file_of_the_gemini_api_is_refused_for_vertex_ai(uri: str) -> None:
    part = {"file_data": {"file_uri": uri, "mime_type": "image/png"}}
    with pytest.raises(InputError, match="reads no files of the Gemini API"):
        check_request({"contents": [{"role": "user", "parts": [{"text": "x"}, part]}]})


@pytest.mark.parametrize(
    ("member", "value"), [("store", False), ("tools", [{"file_search": {}}]), ("tools", {"fileSearch": {"topK": 3}})]
)
def test_what_only_the_gemini_api_has_is_refused_for_vertex_ai(member: str, value: object) -> None:
    with pytest.raises(InputError, match=r"only the Gemini API|file_search is empty"):
        check_request({"contents": [TEXT], member: value})


def test_metadata_can_be_carried(tmp_path: Path) -> None:
    record = RecordWriter(store=True, file=None, needed=True)
    with record:
        stage(spec_of(rows=[{"contents": "x", "metadata": {"tenant": "t"}}], carry=("metadata",)), tmp_path, record)
    assert '{"metadata":{"tenant":"t"}}' in str(record.finish().text)


@pytest.mark.parametrize("kind", JobKind)
@pytest.mark.parametrize(
    ("inline", "words"),
    [
        ({"mimeType": "image/png", "data": "data:image/png;base64,AAAA"}, "behind the comma alone"),
        ({"mime_type": "image/png", "data": "data:image/png;base64,AAAA"}, "behind the comma alone"),
        ({"data": "AAAA"}, "needs a 'mimeType'"),
    ],
)
@pytest.mark.parametrize("name", ["inlineData", "inline_data"])
def test_media_that_no_service_can_read_is_refused(
    kind: JobKind, inline: dict[str, str], words: str, name: str
) -> None:
    content = {"role": "user", "parts": [{"text": "x"}, {name: inline}]}
    with pytest.raises(InputError, match=words):
        normalise({"contents": [content]}, kind=kind)


def test_media_is_sent_as_it_is() -> None:
    content = {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}
    assert normalise({"contents": [content]})[1] == {"contents": [content]}
