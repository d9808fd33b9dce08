"""Files of the Gemini API: uploads that go on after every kind of trouble, downloads that go on after a cut."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.errors import (
    ApiError,
    ConfigurationError,
    FileFailed,
    FileNotReady,
    InputError,
    NotFound,
    TransportError,
    UnexpectedResponse,
)
from airflow_provider_gemini_batch.api.google import files
from airflow_provider_gemini_batch.api.responses.lines import lines_of

if TYPE_CHECKING:
    from pathlib import Path

    from api.virtual_time import VirtualTime

    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.emulator import Emulator

GRAIN = 256 * 1024


def calls(emulator: Emulator, operation: str) -> int:
    return int(emulator.control.books()["requests"].get(operation, 0))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of the service's smallest size, so that a small file has several."""
    monkeypatch.setattr(files, "CHUNK_BYTES", GRAIN)


@pytest.fixture
def content() -> bytes:
    return b"".join(b'{"key":"r%d"}\n' % number for number in range(70_000))[: 3 * GRAIN + 1000]


def test_a_file_is_uploaded_looked_up_listed_and_deleted(client: BatchClient, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"key":"a"}\n')
    file = client.upload_file(path)
    assert file.name.startswith("files/")
    assert (file.display_name, file.mime_type, file.size_bytes) == ("in.jsonl", "application/jsonl", 12)
    assert file.sha256_hex == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.create_time is not None
    assert file.expiration_time is not None
    assert (file.expiration_time - file.create_time).total_seconds() == 48 * 3600
    assert client.get_file(file.name) == file
    assert client.list_files().files == (file,)
    client.delete_file(file.name)
    assert client.list_files().files == ()


def test_a_file_that_is_gone_is_not_found_though_the_service_says_403(client: BatchClient) -> None:
    for do in (client.get_file, client.delete_file):
        with pytest.raises(NotFound, match="403 PERMISSION_DENIED"):
            do("files/abc")
    with pytest.raises(NotFound):
        client.create("gemini-2.5-flash", file_name="files/abc")


def test_files_are_listed_page_by_page(client: BatchClient) -> None:
    for number in range(3):
        client.upload_file(io.BytesIO(b"x"), display_name=str(number))
    first = client.list_files(page_size=2)
    assert len(first.files) == 2
    assert first.next_page_token
    assert len(client.list_files(page_size=2, page_token=first.next_page_token).files) == 1


def test_an_own_name_an_empty_file_and_a_file_read_from_its_middle(client: BatchClient) -> None:
    assert client.upload_file(io.BytesIO(b""), name="files/mine").name == "files/mine"
    stream = io.BytesIO(b"skipped kept")
    stream.seek(8)
    assert client.upload_file(stream).size_bytes == 4


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    ("faults", "chunks", "queries", "starts"),
    [
        ({}, 4, 0, 1),
        ({"reset": {"operation": "upload_chunk", "when": "before", "times": 1, "skip": 1}}, 5, 1, 1),
        # The chunk was taken, so it is not sent again.
        ({"reset": {"operation": "upload_chunk", "when": "after", "times": 1, "skip": 1}}, 4, 1, 1),
        ({"upload_partial": {"value": 1000, "times": 1}}, 5, 1, 1),
        ({"http": {"operation": "upload_chunk", "status": 503, "times": 2}}, 6, 2, 1),
        ({"upload_no_status": {"value": True, "times": 1}}, 4, 1, 1),
        ({"upload_cancelled": {"value": True, "times": 1}}, 5, 0, 2),
        ({"upload_lost": {"value": True, "times": 1}}, 5, 0, 2),
        ({"http": {"operation": "upload_start", "status": 503, "times": 2}}, 4, 0, 3),
    ],
)
def test_an_upload_outlasts_trouble_and_arrives_whole(  # noqa: PLR0917
    client: BatchClient,
    emulator: Emulator,
    content: bytes,
    faults: dict[str, Any],
    chunks: int,
    queries: int,
    starts: int,
) -> None:
    emulator.control.faults(**faults)
    file = client.upload_file(io.BytesIO(content))
    assert file.size_bytes == len(content)
    assert file.sha256_hex == hashlib.sha256(content).hexdigest()
    assert calls(emulator, "upload_start") == starts
    assert calls(emulator, "upload_query") == queries
    assert calls(emulator, "upload_chunk") == chunks
    assert len(emulator.control.books()["files"]) == 1


@pytest.mark.parametrize("when", ["garbage", "reset"])
def test_a_lost_answer_to_the_last_chunk_does_not_lose_the_file(
    client: BatchClient, emulator: Emulator, when: str
) -> None:
    fault: dict[str, Any] = {"operation": "upload_chunk", "times": 1, "when": "after"}
    emulator.control.faults(**{when: fault})
    file = client.upload_file(io.BytesIO(b"abc"))
    assert client.get_file(file.name).size_bytes == 3


def test_an_upload_that_never_moves_gives_up(client: BatchClient, emulator: Emulator) -> None:
    emulator.control.faults(http={"operation": "upload_chunk", "status": 503})
    with pytest.raises(ApiError, match=r"upload of the file on 127\.0\.0\.1"):
        client.upload_file(io.BytesIO(b"abc"))
    assert calls(emulator, "upload_chunk") == 4


def test_sessions_that_are_dropped_again_and_again_end_the_upload(client: BatchClient, emulator: Emulator) -> None:
    emulator.control.faults(upload_cancelled=True)
    with pytest.raises(UnexpectedResponse, match="dropped 3 upload sessions"):
        client.upload_file(io.BytesIO(b"abc"))


def test_the_address_of_an_upload_session_does_not_show(client: BatchClient, emulator: Emulator) -> None:
    emulator.control.faults(reset={"operation": "upload_chunk"})
    with pytest.raises(TransportError) as caught:
        client.upload_file(io.BytesIO(b"abc"))
    error: BaseException | None = caught.value
    assert "upload_id" not in str(error)
    assert error is not None
    assert error.__cause__ is None
    assert error.__suppress_context__


def test_a_refused_mime_type_is_the_services_error(client: BatchClient, emulator: Emulator) -> None:
    emulator.control.faults(refuse_mime="jsonl")
    with pytest.raises(ApiError, match="Unsupported MIME type: jsonl"):
        client.upload_file(io.BytesIO(b"abc"), mime_type="jsonl")


def test_a_file_above_the_limit_is_refused_before_it_is_sent(offline: BatchClient, tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        file.truncate(files.LARGEST_FILE_BYTES + 1)
    with pytest.raises(InputError, match=r"large.jsonl has 2\.00 GiB.*split it"):
        offline.upload_file(path)


def test_a_stream_that_cannot_seek_is_refused(offline: BatchClient) -> None:
    class Pipe(io.RawIOBase):
        def seekable(self) -> bool:
            return False

    with pytest.raises(ConfigurationError, match="that can seek"):
        offline.upload_file(Pipe())  # type: ignore[arg-type]


def test_an_upload_is_waited_for_until_the_service_has_processed_it(
    client: BatchClient, emulator: Emulator, clock: VirtualTime
) -> None:
    emulator.control.faults(file_processing=60)
    file = client.upload_file(io.BytesIO(b"abc"))
    assert file.state == "ACTIVE"
    assert clock.pauses == [1, 2, 4, 8, 15, 15, 15]


def test_an_upload_that_is_to_be_left_alone_is_given_as_it_is(
    client: BatchClient, emulator: Emulator, clock: VirtualTime
) -> None:
    emulator.control.faults(file_processing=60)
    assert client.upload_file(io.BytesIO(b"abc"), wait=0).state == "PROCESSING"
    assert clock.pauses == []


def test_a_file_that_stays_in_processing_is_not_waited_for_for_ever(
    client: BatchClient, emulator: Emulator, clock: VirtualTime
) -> None:
    emulator.control.faults(file_processing=10_000)
    with pytest.raises(FileNotReady, match="is still PROCESSING after 600 s") as caught:
        client.upload_file(io.BytesIO(b"abc"))
    assert caught.value.retryable
    assert sum(clock.pauses) == 600
    (file,) = client.list_files().files
    with pytest.raises(FileNotReady):
        client.wait_for_file(file.name, timeout=0)


@pytest.mark.parametrize("processing", [0, 20])
def test_what_the_service_gives_up_on_is_removed_and_uploaded_once_more(
    client: BatchClient, emulator: Emulator, processing: int
) -> None:
    emulator.control.faults(file_processing=processing, file_failed={"value": "Too odd.", "times": 1})
    stream = io.BytesIO(b"skipped abc")
    stream.seek(8)
    file = client.upload_file(stream)
    assert (file.state, file.sha256_hex) == ("ACTIVE", hashlib.sha256(b"abc").hexdigest())
    assert client.list_files().files == (file,)


def test_what_the_service_gives_up_on_twice_fails_with_its_words(client: BatchClient, emulator: Emulator) -> None:
    emulator.control.faults(file_failed="Too odd.")
    with pytest.raises(FileFailed, match=r"could not be processed by the service: Too odd\."):
        client.upload_file(io.BytesIO(b"abc"))
    assert calls(emulator, "upload_start") == 2


def test_a_file_that_vanishes_while_it_is_processed_is_uploaded_once_more(
    client: BatchClient, emulator: Emulator
) -> None:
    emulator.control.faults(
        file_processing=10,
        http={
            "operation": "file_get",
            "status": 403,
            "times": 1,
            "message": "You do not have permission to access the file abc or it may not exist.",
        },
    )
    assert client.upload_file(io.BytesIO(b"abc")).state == "ACTIVE"
    assert calls(emulator, "upload_start") == 2


def test_a_poll_that_fails_does_not_lose_an_upload(client: BatchClient, emulator: Emulator) -> None:
    emulator.control.faults(file_processing=30, http={"operation": "file_get", "status": 503, "times": 6})
    assert client.upload_file(io.BytesIO(b"abc")).state == "ACTIVE"
    assert calls(emulator, "upload_start") == 1


def test_a_create_call_that_is_too_early_says_so_and_may_be_sent_again(client: BatchClient, emulator: Emulator) -> None:
    emulator.control.faults(file_processing=5)
    file = client.upload_file(io.BytesIO(b'{"request":{"contents":[{"parts":[{"text":"x"}]}]}}'), wait=0)
    with pytest.raises(FileNotReady, match=r"not in an ACTIVE state.*No job was created") as caught:
        client.create("gemini-2.5-flash", file_name=file.name)
    assert (caught.value.retryable, caught.value.may_have_acted) == (True, False)
    emulator.control.advance(5)
    client.create("gemini-2.5-flash", file_name=file.name)


@pytest.fixture
def output(client: BatchClient, emulator: Emulator) -> str:
    """The output file of a job with 300 rows."""
    rows = b"".join(
        b'{"key":"k%d","request":{"contents":[{"parts":[{"text":"Row %d."}]}]}}\n' % (n, n) for n in range(300)
    )
    job = client.create("gemini-2.5-flash", file_name=client.upload_file(io.BytesIO(rows)).name)
    emulator.control.advance(60)
    dest = client.get(job.name).dest
    assert dest is not None
    assert dest.file_name is not None
    return dest.file_name


def test_an_output_is_downloaded_to_a_path_or_into_a_file(client: BatchClient, output: str, tmp_path: Path) -> None:
    assert len(output) - len("files/") == 42
    path, stream = tmp_path / "out.jsonl", io.BytesIO()
    assert client.download_file(output, path) == client.download_file(output, stream) == path.stat().st_size
    assert path.read_bytes() == stream.getvalue() == b"".join(client.iter_download(output))
    assert stream.getvalue().count(b"\n") == 300
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_download_goes_on_where_it_was_cut(client: BatchClient, emulator: Emulator, output: str) -> None:
    whole = b"".join(client.iter_download(output))
    before = calls(emulator, "download")
    emulator.control.faults(download_cut={"value": 5000, "times": 5})
    assert b"".join(client.iter_download(output)) == whole
    assert calls(emulator, "download") - before == 6


def test_a_download_that_gets_nowhere_gives_up_and_leaves_no_file(
    client: BatchClient, emulator: Emulator, output: str, tmp_path: Path
) -> None:
    emulator.control.faults(download_cut=0)
    with pytest.raises(TransportError):
        client.download_file(output, tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_download_waits_out_a_busy_service(client: BatchClient, emulator: Emulator, output: str) -> None:
    emulator.control.faults(http={"operation": "download", "status": 503, "times": 2})
    assert len(b"".join(client.iter_download(output))) > 0


def test_an_upload_cannot_be_downloaded(client: BatchClient) -> None:
    name = client.upload_file(io.BytesIO(b"abc")).name
    with pytest.raises(ApiError):
        client.iter_download(name)


@given(st.lists(st.sampled_from([b"", b"a", b"bc", b"\n", b"\r\n", b"d\n", b"\ne", b"f\ng\nh"])))
def test_lines_do_not_depend_on_how_the_bytes_were_cut(chunks: list[bytes]) -> None:
    expected = [line for line in io.BytesIO(b"".join(chunks)) if line.strip()]
    assert list(lines_of(chunks)) == expected
