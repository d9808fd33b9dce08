"""Google's official SDK and our client, side by side on one service, see the same jobs, files and rows."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google import genai as genai_types

    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.emulator import Emulator

FLASH = "gemini-2.5-flash"
ROWS = b"".join(
    json.dumps({"key": f"k{n}", "request": {"contents": [{"parts": [{"text": f"Row {n}."}]}]}}).encode() + b"\n"
    for n in range(3)
)


@pytest.fixture
def sdk(emulator: Emulator) -> Iterator[genai_types.Client]:
    genai = pytest.importorskip("google.genai")
    client = genai.Client(api_key="a-key", http_options={"base_url": emulator.url, "api_version": "v1beta"})
    yield client
    client.close()


def text_of(response: dict[str, Any]) -> str:
    return str(response["candidates"][0]["content"]["parts"][0]["text"])


def test_inline_jobs_of_either_give_both_the_same_rows(client: BatchClient, sdk: Any, emulator: Emulator) -> None:
    ours = client.create(FLASH, inlined_requests=["Row 0.", "Row 1."], display_name="same").name
    contents = [{"contents": [{"parts": [{"text": f"Row {n}."}], "role": "user"}]} for n in range(2)]
    theirs = sdk.batches.create(model=FLASH, src=contents, config={"display_name": "same"}).name
    emulator.control.advance(60)
    seen = []
    for name in (ours, theirs):
        mine, job = list(client.get_responses(name)), sdk.batches.get(name=name)
        assert job.display_name == client.get(name).display_name == "same"
        assert job.state.name == "JOB_STATE_SUCCEEDED"
        texts = [text_of(answer.response or {}) for answer in mine]
        assert texts == [item.response.text for item in job.dest.inlined_responses]
        seen.append(texts)
    assert seen[0] == seen[1]


def test_files_and_file_jobs_of_either_are_the_others_too(client: BatchClient, sdk: Any, emulator: Emulator) -> None:
    ours = client.upload_file(io.BytesIO(ROWS), display_name="a")
    theirs = sdk.files.upload(file=io.BytesIO(ROWS), config={"mime_type": "application/jsonl", "display_name": "b"})
    assert {file.name for file in sdk.files.list()} == {file.name for file in client.list_files().files}
    assert client.get_file(theirs.name).sha256_hex == ours.sha256_hex
    assert sdk.files.get(name=ours.name).size_bytes == ours.size_bytes
    names = [
        client.create(FLASH, file_name=theirs.name).name,
        sdk.batches.create(model=FLASH, src=ours.name, config={"display_name": "x"}).name,
    ]
    emulator.control.advance(60)
    for name in names:
        dest = client.get(name).dest
        assert dest is not None
        assert dest.file_name is not None
        assert sdk.batches.get(name=name).dest.file_name == dest.file_name
        raw = sdk.files.download(file=dest.file_name)
        assert raw == b"".join(client.iter_download(dest.file_name))
        assert [answer.key for answer in client.get_responses(name)] == ["k0", "k1", "k2"]
    assert [job.name for job in sdk.batches.list()] == [job.name for job in client.list_all()]
    sdk.files.delete(name=ours.name)
    client.delete_file(theirs.name)
    assert client.list_files().files == ()


def test_cancelled_and_deleted_jobs_are_so_for_both(client: BatchClient, sdk: Any) -> None:
    ours = client.create(FLASH, inlined_requests=["One?"]).name
    theirs = sdk.batches.create(model=FLASH, src=[{"contents": "Two?"}]).name
    client.cancel(theirs)
    sdk.batches.cancel(name=ours)
    assert client.get(ours).cancelled
    assert sdk.batches.get(name=theirs).state.name == "JOB_STATE_CANCELLED"
    client.delete(theirs)
    sdk.batches.delete(name=ours)
    assert list(client.list_all()) == []
    assert list(sdk.batches.list()) == []
