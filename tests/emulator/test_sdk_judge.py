"""The official SDK, unchanged, does every batch and file operation against the emulator."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from google import genai
from google.genai import types
from google.oauth2 import service_account

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator

GENERATE = "gemini-2.5-flash"
EMBED = "gemini-embedding-001"


@pytest.fixture
def sdk(gemini_batch_emulator: Emulator) -> Iterator[genai.Client]:
    """The SDK in API-key mode, pointed at the emulator."""
    with genai.Client(api_key="sdk-key", http_options={"base_url": gemini_batch_emulator.url}) as client:
        yield client


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _upload(sdk: genai.Client, path: Path) -> str:
    name = sdk.files.upload(file=path, config={"mime_type": "application/jsonl", "display_name": path.name}).name
    assert name is not None
    return name


def _name(job: types.BatchJob) -> str:
    assert job.name is not None
    return job.name


def test_the_sdk_creates_an_inline_job_and_reads_its_answers(
    sdk: genai.Client, gemini_batch_emulator: Emulator
) -> None:
    requests: list[Any] = [
        {
            "contents": [{"role": "user", "parts": [{"text": f"Question {n}. More words."}]}],
            "metadata": {"key": f"row-{n}"},
            "config": {
                "temperature": 0.1,
                "system_instruction": "Be brief.",
                "thinking_config": {"thinking_budget": 0},
            },
        }
        for n in range(3)
    ]
    created = sdk.batches.create(model=GENERATE, src=requests, config={"display_name": "judge"})
    assert created.state == types.JobState.JOB_STATE_PENDING
    assert created.display_name == "judge"
    gemini_batch_emulator.control.advance(60)
    job = sdk.batches.get(name=_name(created))
    assert job.state == types.JobState.JOB_STATE_SUCCEEDED
    assert job.dest is not None
    answers = job.dest.inlined_responses or []
    assert [answer.metadata for answer in answers] == [{"key": f"row-{n}"} for n in range(3)]
    first = answers[0].response
    assert first is not None
    assert (first.text or "").endswith("] Question 0.")


def test_the_sdk_runs_a_file_job_from_upload_to_download(
    sdk: genai.Client, gemini_batch_emulator: Emulator, tmp_path: Path
) -> None:
    rows = [{"key": f"k{n}", "request": {"contents": [{"parts": [{"text": f"Row {n}"}]}]}} for n in range(50)]
    name = _upload(sdk, _write_rows(tmp_path / "in.jsonl", rows))
    created = sdk.batches.create(model=GENERATE, src=name)
    gemini_batch_emulator.control.advance(60)
    job = sdk.batches.get(name=_name(created))
    assert job.dest is not None
    assert job.dest.file_name is not None
    answers = [json.loads(line) for line in sdk.files.download(file=job.dest.file_name).splitlines()]
    assert {answer["key"] for answer in answers} == {row["key"] for row in rows}


@pytest.mark.filterwarnings("ignore::google.genai._common.ExperimentalWarning")
def test_the_sdk_embeds_inline_and_from_a_file(
    sdk: genai.Client, gemini_batch_emulator: Emulator, tmp_path: Path
) -> None:
    inline = sdk.batches.create_embeddings(
        model=EMBED,
        src={"inlined_requests": {"contents": ["alpha", "beta"], "config": {"output_dimensionality": 4}}},
    )
    rows = [{"key": "d1", "request": {"content": {"parts": [{"text": "alpha"}]}, "output_dimensionality": 4}}]
    file = sdk.batches.create_embeddings(
        model=EMBED, src={"file_name": _upload(sdk, _write_rows(tmp_path / "e.jsonl", rows))}
    )
    gemini_batch_emulator.control.advance(60)
    answered = sdk.batches.get(name=_name(inline)).dest
    assert answered is not None
    vectors = [
        item.response.embedding.values
        for item in answered.inlined_embed_content_responses or []
        if item.response and item.response.embedding
    ]
    assert [len(vector or []) for vector in vectors] == [4, 4]
    landed = sdk.batches.get(name=_name(file)).dest
    assert landed is not None
    assert landed.file_name is not None
    (line,) = sdk.files.download(file=landed.file_name).splitlines()
    assert json.loads(line)["response"]["embedding"]["values"] == vectors[0]


def test_the_sdk_walks_all_pages_of_jobs_newest_first(sdk: genai.Client) -> None:
    requests: list[Any] = [{"contents": [{"parts": [{"text": "x"}]}]}]
    names = [_name(sdk.batches.create(model=GENERATE, src=requests)) for _ in range(7)]
    assert [job.name for job in sdk.batches.list(config={"page_size": 3})] == names[::-1]


def test_the_sdk_cancels_twice_and_deletes_once(sdk: genai.Client) -> None:
    requests: list[Any] = [{"contents": [{"parts": [{"text": "x"}]}]}]
    job = sdk.batches.create(model=GENERATE, src=requests)
    sdk.batches.cancel(name=_name(job))
    sdk.batches.cancel(name=_name(job))
    assert sdk.batches.get(name=_name(job)).state == types.JobState.JOB_STATE_CANCELLED
    sdk.batches.delete(name=_name(job))
    with pytest.raises(genai.errors.ClientError) as caught:
        sdk.batches.get(name=_name(job))
    assert caught.value.code == 404


def test_the_sdk_uploads_several_chunks_and_manages_files(sdk: genai.Client, tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    path.write_bytes(b"x" * (9 * 1024 * 1024 + 17))
    names = [_upload(sdk, path)] + [_upload(sdk, _write_rows(tmp_path / f"{n}.jsonl", [{}])) for n in range(3)]
    assert sdk.files.get(name=names[0]).size_bytes == path.stat().st_size
    assert [file.name for file in sdk.files.list(config={"page_size": 2})] == names[::-1]
    sdk.files.delete(name=names[0])
    with pytest.raises(genai.errors.ClientError) as caught:
        sdk.files.get(name=names[0])
    assert caught.value.code == 403
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert sdk.files.get(name=_upload(sdk, empty)).size_bytes in (0, None)


def test_the_sdk_reports_a_bad_key_and_a_bad_line(
    sdk: genai.Client, gemini_batch_emulator: Emulator, tmp_path: Path
) -> None:
    options = types.HttpOptions(base_url=gemini_batch_emulator.url)
    with (
        genai.Client(api_key="bad-key", http_options=options) as stranger,
        pytest.raises(genai.errors.ClientError, match="API key not valid"),
    ):
        list(stranger.batches.list())
    rows = [{"key": "a", "request": {"contents": [{"parts": [{"text": "x"}]}], "thinking_config": {}}}]
    name = _upload(sdk, _write_rows(tmp_path / "in.jsonl", rows))
    with pytest.raises(genai.errors.ClientError, match=r"Error on line 1: .*no such field: 'thinking_config'"):
        sdk.batches.create(model=GENERATE, src=name)
    assert gemini_batch_emulator.control.books()["created"] == 0


@pytest.fixture
def vertex_sdk(gemini_batch_emulator: Emulator) -> Iterator[genai.Client]:
    """The SDK in Vertex mode, with a service-account key made on the spot."""
    credentials = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
        gemini_batch_emulator.service_account_info(), scopes=["https://www.googleapis.com/auth/cloud-platform"]
    )
    with genai.Client(
        vertexai=True,
        project="demo-project",
        location="us-central1",
        credentials=credentials,
        http_options={"base_url": gemini_batch_emulator.url},
    ) as client:
        yield client


def test_the_sdk_runs_a_cloud_storage_job_on_vertex(vertex_sdk: genai.Client, gemini_batch_emulator: Emulator) -> None:
    job = vertex_sdk.batches.create(
        model=GENERATE, src="gs://in/x.jsonl", config={"dest": "gs://out/run", "display_name": "v"}
    )
    assert job.state == types.JobState.JOB_STATE_PENDING
    gemini_batch_emulator.control.advance(60)
    ended = vertex_sdk.batches.get(name=_name(job))
    assert ended.state == types.JobState.JOB_STATE_SUCCEEDED
    assert ended.dest is not None
    assert ended.dest.gcs_uri == "gs://out/run"


def test_the_sdk_runs_a_bigquery_job_on_vertex(vertex_sdk: genai.Client, gemini_batch_emulator: Emulator) -> None:
    job = vertex_sdk.batches.create(model=GENERATE, src="bq://p.d.t", config={"dest": "bq://p.d.answers"})
    gemini_batch_emulator.control.advance(60)
    ended = vertex_sdk.batches.get(name=_name(job))
    assert ended.completion_stats is not None
    assert ended.completion_stats.successful_count == 3


def test_the_sdk_lists_vertex_jobs_by_filter(vertex_sdk: genai.Client) -> None:
    wanted = [
        vertex_sdk.batches.create(model=GENERATE, src="bq://p.d.t", config={"display_name": f"genai_{n}"})
        for n in range(3)
    ]
    vertex_sdk.batches.create(model=GENERATE, src="bq://p.d.t", config={"display_name": "other"})
    found = vertex_sdk.batches.list(config={"page_size": 2, "filter": 'display_name:"genai_*"'})
    assert [job.name for job in found] == [job.name for job in wanted][::-1]


def test_the_sdk_cancels_and_deletes_a_vertex_job(vertex_sdk: genai.Client, gemini_batch_emulator: Emulator) -> None:
    job = vertex_sdk.batches.create(model=GENERATE, src="bq://p.d.t")
    vertex_sdk.batches.cancel(name=_name(job))
    assert vertex_sdk.batches.get(name=_name(job)).state == types.JobState.JOB_STATE_CANCELLING
    gemini_batch_emulator.control.advance(5)
    assert vertex_sdk.batches.get(name=_name(job)).state == types.JobState.JOB_STATE_CANCELLED
    assert vertex_sdk.batches.delete(name=_name(job)).done
    with pytest.raises(genai.errors.ClientError) as caught:
        vertex_sdk.batches.get(name=_name(job))
    assert caught.value.code == 404


def _inline(sdk: genai.Client, emulator: Emulator, request: dict[str, Any], model: str = GENERATE) -> Any:
    """Run one inline request and return its response as the SDK reads it."""
    requests: list[Any] = [request]
    job = sdk.batches.create(model=model, src=requests)
    emulator.control.advance(60)
    dest = sdk.batches.get(name=_name(job)).dest
    assert dest is not None
    (item,) = dest.inlined_responses or []
    return item.response


def test_the_sdk_reads_answers_that_are_not_text(sdk: genai.Client, gemini_batch_emulator: Emulator) -> None:
    contents = [{"role": "user", "parts": [{"text": "Paint."}]}]
    config: dict[str, Any] = {"response_modalities": ["TEXT", "IMAGE"]}
    response = _inline(sdk, gemini_batch_emulator, {"contents": contents, "config": config}, "gemini-2.5-flash-image")
    image = response.candidates[0].content.parts[1].inline_data
    assert image.mime_type == "image/png"
    assert image.data.startswith(b"\x89PNG")
    usage = response.usage_metadata
    assert [(item.modality.value, item.token_count) for item in usage.candidates_tokens_details] == [("IMAGE", 1290)]
    function = {"name": "f", "parameters": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}}
    config = {"tools": [{"function_declarations": [function]}], "candidate_count": 2}
    response = _inline(sdk, gemini_batch_emulator, {"contents": contents, "config": config})
    assert [candidate.content.parts[0].function_call.name for candidate in response.candidates] == ["f", "f"]
    config = {"tools": [{"google_search": {}}, {"code_execution": {}}, {"url_context": {}}]}
    response = _inline(sdk, gemini_batch_emulator, {"contents": contents, "config": config})
    assert response.candidates[0].grounding_metadata.web_search_queries
    assert response.usage_metadata.tool_use_prompt_token_count > 0


def test_the_sdk_sends_what_it_can_say_of_a_part(sdk: genai.Client, gemini_batch_emulator: Emulator) -> None:
    if "document_metadata" not in types.Part.model_fields:
        pytest.skip("document_metadata is newer than the lowest SDK that is supported, which runs this file as well")
    parts = [
        {
            "file_data": {"file_uri": "https://x/files/a1", "mime_type": "application/pdf"},
            "document_metadata": {"start_page": 2, "end_page": 5, "content_layers": ["PAGE_IMAGE"]},
        },
        {
            "file_data": {"file_uri": "https://x/files/a2", "mime_type": "audio/mpeg"},
            "audio_metadata": {"start_offset": "10s", "end_offset": "20.5s"},
        },
        {"text": "Summarise."},
    ]
    response = _inline(sdk, gemini_batch_emulator, {"contents": [{"role": "user", "parts": parts}]})
    details = {item.modality.value: item.token_count for item in response.usage_metadata.prompt_tokens_details}
    assert set(details) == {"TEXT", "IMAGE", "AUDIO"}


def test_the_sdk_follows_a_redirected_download(
    sdk: genai.Client, gemini_batch_emulator: Emulator, tmp_path: Path
) -> None:
    rows = [{"key": "a", "request": {"contents": [{"parts": [{"text": "x"}]}]}}]
    job = sdk.batches.create(model=GENERATE, src=_upload(sdk, _write_rows(tmp_path / "in.jsonl", rows)))
    gemini_batch_emulator.control.advance(60)
    gemini_batch_emulator.control.faults(download_redirect=True)
    dest = sdk.batches.get(name=_name(job)).dest
    assert dest is not None
    assert dest.file_name is not None
    (line,) = sdk.files.download(file=dest.file_name).splitlines()
    assert json.loads(line)["key"] == "a"


def test_the_sdk_shows_a_file_that_is_still_processed(
    sdk: genai.Client, gemini_batch_emulator: Emulator, tmp_path: Path
) -> None:
    gemini_batch_emulator.control.faults(file_processing={"looks": 1}, file_failed="Too odd.")
    path = _write_rows(tmp_path / "in.jsonl", [{}])
    file = sdk.files.upload(file=path, config={"mime_type": "application/jsonl"})
    assert file.name is not None
    assert file.state == types.FileState.PROCESSING
    assert sdk.files.get(name=file.name).state == types.FileState.PROCESSING
    failed = sdk.files.get(name=file.name)
    assert failed.state == types.FileState.FAILED
    assert failed.error is not None
    assert failed.error.message == "Too odd."
    with pytest.raises(genai.errors.ClientError, match="not in an ACTIVE state"):
        sdk.batches.create(model=GENERATE, src=file.name)
