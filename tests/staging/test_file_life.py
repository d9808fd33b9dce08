"""Files are used once the service has processed them, and uploaded again when it gave up on them."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.api.errors import ApiError, FileFailed, FileNotReady, InputError
from airflow_provider_gemini_batch.api.models import JobKind, Service
from airflow_provider_gemini_batch.batch.tag import Tag, tag_of
from airflow_provider_gemini_batch.rows import media as media_module
from airflow_provider_gemini_batch.rows.layout import ShardFile
from airflow_provider_gemini_batch.staging import attachments
from airflow_provider_gemini_batch.staging.attachments import AttachmentUploader
from airflow_provider_gemini_batch.staging.job_service import ClientJobService, JobSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from api.listener import Listener
    from api.virtual_time import VirtualTime

    from airflow_provider_gemini_batch.emulator import Emulator

FLASH = "gemini-2.5-flash"
TAG = Tag("abcdefghij", 0, 0, 0, 0, "0123456789ab")
LINE = b'{"key":"r0-a","request":{"contents":[{"parts":[{"text":"Row."}]}]}}\n'
PICTURE = b"picture"


class OneFile:
    """A supply of one shard."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(LINE)
        self._shard = ShardFile(path=path, rows=1, bytes=len(LINE), numbers=[0])

    def shard(self, index: int) -> ShardFile:
        assert index == 0
        return self._shard

    def subset(self, rows: Sequence[int], name: str) -> ShardFile:
        raise AssertionError((rows, name))

    def upload_attachments(self, lines: Path) -> None:
        """There is none."""


@pytest.fixture
def service(client: BatchClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClientJobService:
    """The jobs of one task whose rows are uploaded."""
    monkeypatch.setattr(media_module, "_INLINE_BYTES", 0)
    settings = JobSettings(model=FLASH, kind=JobKind.GENERATION)
    return ClientJobService(client, settings, supply=OneFile(tmp_path / "rows.jsonl"))


class SmallRow(OneFile):
    """A supply of one row with this generationConfig."""

    def __init__(self, path: Path, config: str) -> None:
        super().__init__(path)
        line = LINE.replace(b"]}}", b'],"generationConfig":' + config.encode() + b"}}")
        path.write_bytes(line)
        self._shard = ShardFile(path=path, rows=1, bytes=len(line), numbers=[0])


@pytest.mark.parametrize(
    ("model", "config", "is_upload"),
    [
        (FLASH, '{"temperature":0}', False),
        (f"{FLASH}-image", "{}", True),
        (FLASH, '{"responseModalities":["IMAGE"]}', True),
        (FLASH, '{"response_modalities":["AUDIO"]}', True),
        (FLASH, '{"responseLogprobs":true,"logprobs":20}', True),
        (FLASH, '{"candidateCount":8}', True),
    ],
)
def test_requests_whose_responses_may_be_too_large_for_one_piece_are_uploaded(
    client: BatchClient, tmp_path: Path, model: str, config: str, *, is_upload: bool
) -> None:
    settings = JobSettings(model=model, kind=JobKind.GENERATION)
    service = ClientJobService(client, settings, supply=SmallRow(tmp_path / "rows.jsonl", config))
    assert ("file_name" in service.prepare(TAG, None, reuse=False).source) is is_upload


def starts(emulator: Emulator) -> int:
    return int(emulator.control.books()["requests"].get("upload_start", 0))


def test_rows_that_are_processed_for_a_moment_are_waited_for(
    service: ClientJobService, emulator: Emulator, clock: VirtualTime
) -> None:
    emulator.control.faults(file_processing=5)
    job = service.create(service.prepare(TAG, None, reuse=False), TAG)
    assert job.name
    assert clock.pauses == [1, 2, 4]


def test_rows_that_are_processed_for_long_are_waited_for_without_a_worker_and_uploaded_once(
    service: ClientJobService, emulator: Emulator, clock: VirtualTime
) -> None:
    emulator.control.faults(file_processing=100)
    with pytest.raises(FileNotReady) as caught:
        service.prepare(TAG, None, reuse=False)
    assert caught.value.retryable
    assert sum(clock.pauses) == 30
    emulator.control.advance(100)
    service.create(service.prepare(TAG, None, reuse=True), TAG)
    assert starts(emulator) == 1


def test_rows_that_the_service_gives_up_on_are_uploaded_once_more(
    service: ClientJobService, client: BatchClient, emulator: Emulator
) -> None:
    emulator.control.faults(file_processing=3, file_failed={"value": "Too odd.", "times": 1})
    service.create(service.prepare(TAG, None, reuse=False), TAG)
    assert starts(emulator) == 2
    assert [file.state for file in client.list_files().files] == ["ACTIVE"]


def test_rows_that_fail_twice_fail_with_the_services_words_also_after_a_long_wait(
    service: ClientJobService, client: BatchClient, emulator: Emulator
) -> None:
    emulator.control.faults(file_processing=50, file_failed="Too odd.")
    for reuse in (False, True):
        with pytest.raises(FileNotReady):
            service.prepare(TAG, None, reuse=reuse)
        emulator.control.advance(50)
    with pytest.raises(FileFailed, match=r"Too odd\."):
        service.prepare(TAG, None, reuse=True)
    assert starts(emulator) == 2
    assert client.list_files().files == ()


def test_an_upload_is_removed_when_its_job_has_ended_and_not_before(
    service: ClientJobService, client: BatchClient, emulator: Emulator
) -> None:
    job = service.create(service.prepare(TAG, None, reuse=False), TAG)
    service.remove_inputs([job])
    assert [file.name for file in client.list_files().files] == [job.src.file_name]
    emulator.control.advance(600)
    service.remove_inputs([client.get(job.name)])
    assert job.src.file_name not in {file.name for file in client.list_files().files}


def test_active_jobs_are_counted_as_far_as_needed_and_none_that_should_have_ended_long_ago(
    service: ClientJobService, client: BatchClient, emulator: Emulator
) -> None:
    emulator.control.faults(hold_running=True)
    for _ in range(3):
        client.create(FLASH, inlined_requests=["One."])
    assert [service.count_active(most) for most in (2, 9)] == [2, 3]
    emulator.control.advance(60 * 3600)
    for job in client.list_all():
        emulator.control.set_job(job.name, state="RUNNING")
    assert service.count_active(9) == 0


def test_a_create_call_that_was_too_early_keeps_the_upload(service: ClientJobService, emulator: Emulator) -> None:
    prepared = service.prepare(TAG, None, reuse=False)
    words = "The File abc is not in an ACTIVE state and usage is not allowed."
    emulator.control.faults(
        http={"operation": "create", "status": 400, "error_status": "FAILED_PRECONDITION", "message": words, "times": 1}
    )
    with pytest.raises(FileNotReady):
        service.create(prepared, TAG)
    service.create(prepared, TAG)


def test_an_authors_own_file_is_waited_for_and_its_failure_is_told(
    client: BatchClient, emulator: Emulator, clock: VirtualTime
) -> None:
    def using(name: str) -> ClientJobService:
        return ClientJobService(
            client, JobSettings(model=FLASH, kind=JobKind.GENERATION, source={"file_name": name}), supply=None
        )

    emulator.control.faults(file_processing=5)
    good = using(client.upload_file(io.BytesIO(LINE), wait=0).name)
    good.create(good.prepare(TAG, None, reuse=False), TAG)
    assert clock.pauses == [1, 2, 4]
    emulator.control.faults(file_processing=None, file_failed="Too odd.")
    bad = using(client.upload_file(io.BytesIO(LINE), wait=0).name)
    with pytest.raises(FileFailed, match=r"Too odd\."):
        bad.prepare(TAG, None, reuse=False)


def test_media_that_failed_are_named_by_the_refusal_of_a_create_call(client: BatchClient, emulator: Emulator) -> None:
    emulator.control.faults(file_failed="Too odd.")
    media = client.upload_file(io.BytesIO(PICTURE), mime_type="image/png", wait=0)
    emulator.control.clear_faults()
    part = {"fileData": {"fileUri": media.uri, "mimeType": "image/png"}}
    line = json.dumps({"request": {"contents": [{"parts": [part]}]}}).encode()
    rows = client.upload_file(io.BytesIO(line))
    jobs = ClientJobService(
        client, JobSettings(model=FLASH, kind=JobKind.GENERATION, source={"file_name": rows.name}), supply=None
    )
    with pytest.raises(FileFailed, match=rf"{media.name}.*Too odd\."):
        jobs.create(jobs.prepare(TAG, None, reuse=False), TAG)
    assert emulator.control.books()["created"] == 0


def test_another_refusal_is_left_as_it_is(client: BatchClient, emulator: Emulator) -> None:
    file = client.upload_file(io.BytesIO(LINE))
    jobs = ClientJobService(
        client, JobSettings(model=FLASH, kind=JobKind.GENERATION, source={"file_name": file.name}), supply=None
    )
    emulator.control.faults(http={"operation": "create", "status": 400, "message": "No such thing."})
    with pytest.raises(ApiError, match="No such thing"):
        jobs.create(jobs.prepare(TAG, None, reuse=False), TAG)


@pytest.fixture
def media(client: BatchClient) -> AttachmentUploader:
    return AttachmentUploader(lambda: client, Service.GEMINI, lambda _: io.BytesIO(PICTURE), None)


def uploaded(media: AttachmentUploader, path: str = "/pictures/red.png") -> str:
    """Bring one file; gives its name at the service."""
    part = media.attach(path).part
    media.upload([json.dumps(part).encode()])
    return f"files/{part['fileData']['fileUri'].rpartition('/')[2]}"


def test_media_are_waited_for_and_used_again(
    media: AttachmentUploader, client: BatchClient, emulator: Emulator, clock: VirtualTime
) -> None:
    emulator.control.faults(file_processing=5)
    name = uploaded(media)
    assert client.get_file(name).state == "ACTIVE"
    assert clock.pauses == [1, 2, 4]
    assert uploaded(media) == name
    assert starts(emulator) == 1


def test_media_that_take_long_are_waited_for_without_a_worker(media: AttachmentUploader, emulator: Emulator) -> None:
    emulator.control.faults(file_processing=100)
    with pytest.raises(FileNotReady):
        uploaded(media)
    emulator.control.advance(100)
    uploaded(media)
    assert starts(emulator) == 1


@pytest.mark.parametrize("processing", [0, 5])
def test_media_that_failed_are_uploaded_again(
    media: AttachmentUploader, client: BatchClient, emulator: Emulator, processing: int
) -> None:
    emulator.control.faults(file_processing=processing, file_failed={"value": True, "times": 1})
    assert client.get_file(uploaded(media)).state == "ACTIVE"
    assert starts(emulator) == 2


def test_media_that_an_earlier_task_left_failed_are_uploaded_again(
    media: AttachmentUploader, client: BatchClient, emulator: Emulator
) -> None:
    name = uploaded(media)
    client.delete_file(name)
    emulator.control.faults(file_failed={"value": True, "times": 1})
    client.upload_file(io.BytesIO(PICTURE), name=name, mime_type="image/png", wait=0)
    assert client.get_file(uploaded(media)).state == "ACTIVE"


def test_media_that_fail_twice_fail_with_the_services_words_also_after_a_long_wait(
    media: AttachmentUploader, client: BatchClient, emulator: Emulator
) -> None:
    emulator.control.faults(file_processing=50, file_failed="Too odd.")
    for _ in range(2):
        with pytest.raises(FileNotReady):
            uploaded(media)
        emulator.control.advance(50)
    with pytest.raises(FileFailed, match="media_field"):
        uploaded(media)
    assert starts(emulator) == 2
    assert client.list_files().files == ()


def test_media_that_will_expire_soon_are_uploaded_again(
    media: AttachmentUploader, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = uploaded(media)
    monkeypatch.setattr(attachments, "_YOUNG", timedelta(seconds=-1))
    assert uploaded(media) == name
    assert starts(emulator) == 2


def test_media_are_compared_by_content_and_not_by_name(
    media: AttachmentUploader, client: BatchClient, emulator: Emulator
) -> None:
    name = uploaded(media)
    client.delete_file(name)
    client.upload_file(io.BytesIO(b"something else"), name=name, mime_type="image/png")
    assert uploaded(media) == name
    assert client.get_file(name).sha256_hex == hashlib.sha256(PICTURE).hexdigest()
    assert starts(emulator) == 3


def test_media_that_vanish_while_they_are_processed_are_uploaded_again(
    media: AttachmentUploader, client: BatchClient, emulator: Emulator
) -> None:
    gone: dict[str, Any] = {"operation": "file_get", "status": 404, "times": 1, "skip": 1}
    emulator.control.faults(file_processing=5, http=gone)
    assert client.get_file(uploaded(media)).state == "ACTIVE"
    assert starts(emulator) == 2


@pytest.mark.parametrize("own_rows", [True, False])
def test_a_job_keeps_the_name_that_the_response_to_its_create_call_leaves_out(
    listener: Listener, tmp_path: Path, *, own_rows: bool
) -> None:
    listener.answer = (200, {}, b'{"name": "batches/a"}')
    source = {} if own_rows else {"file_name": f"files/{'a' * 42}"}
    settings = JobSettings(model=FLASH, kind=JobKind.GENERATION, source=source)
    with BatchClient.for_gemini("a-key", base_url=listener.url) as client:
        service = ClientJobService(client, settings, supply=OneFile(tmp_path / "rows.jsonl") if own_rows else None)
        found = tag_of(service.create(service.prepare(TAG, None, reuse=False), TAG))
    assert found == TAG
    assert found.wrapped == own_rows


@pytest.mark.parametrize("service", Service)
@pytest.mark.parametrize("name", ["notes.txt.gz", "gs://bucket/drawing.svgz", "scan.pdf.bz2", "photo.jpeg.br"])
def test_a_packed_file_which_would_be_read_as_what_is_in_it_is_refused(
    client: BatchClient, service: Service, name: str
) -> None:
    uploader = AttachmentUploader(lambda: client, service, lambda _: io.BytesIO(PICTURE), "gs://bucket/staging")
    with pytest.raises(InputError, match=r"compressed \((gzip|bzip2|br)\)"):
        uploader.attach(name)


@pytest.mark.parametrize("service", Service)
def test_an_empty_file_is_refused(client: BatchClient, service: Service) -> None:
    uploader = AttachmentUploader(lambda: client, service, lambda _: io.BytesIO(), "gs://bucket/staging")
    with pytest.raises(InputError, match="the file is empty"):
        uploader.attach("photo.png")
