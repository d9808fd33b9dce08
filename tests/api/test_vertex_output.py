"""What a Vertex job leaves is found whatever its objects are called, and never taken for gone when it is there."""

from __future__ import annotations

import gzip
import json
import re
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from api.test_vertex import FLASH, connected, rows
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.backends import vertex
from airflow_provider_gemini_batch.api.backends.vertex import _job
from airflow_provider_gemini_batch.api.errors import (
    AccessDenied,
    ConfigurationError,
    NotFound,
    ResultsGone,
    TransportError,
    UnexpectedResponse,
    UnknownOutput,
)
from airflow_provider_gemini_batch.api.google.output_folder import StoredObject, choose
from airflow_provider_gemini_batch.api.google.storage import _matches
from airflow_provider_gemini_batch.api.google.vertex_output import LeftOutput, VertexOutput
from airflow_provider_gemini_batch.api.models import JobKind
from airflow_provider_gemini_batch.api.responses.lines import result_rows
from airflow_provider_gemini_batch.api.transport import WholeResponse
from airflow_provider_gemini_batch.batch.tag import Tag
from airflow_provider_gemini_batch.emulator import Emulator
from airflow_provider_gemini_batch.staging.job_service import ClientJobService, JobSettings
from emulator.storage_server import storage_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_gemini_batch.api.client import BatchClient
    from airflow_provider_gemini_batch.api.google.storage import ObjectStore


def chosen(*names: str, **sizes: int) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Objects of ten bytes by their names: which are read, which are missed, which nobody knows."""
    files = choose(StoredObject(name, sizes.get(name.partition(".")[0], 10)) for name in names)
    return files.responses, files.missing, files.unknown


def shards(pattern: str, count: int) -> tuple[str, ...]:
    return tuple(pattern.format(n=n, count=count) for n in range(count))


@pytest.mark.parametrize(
    "names",
    [
        ("predictions.jsonl",),
        ("predictions-2.jsonl", "predictions.jsonl"),
        shards("predictions.jsonl-{n:05d}-of-{count:05d}", 3),
        shards("predictions-{n:05d}-of-{count:05d}.jsonl", 12),
        shards("predictions_{n:05d}-of-{count:05d}", 2),
        shards("prediction.results-{n:05d}-of-{count:05d}", 4),
        ("prediction.results.jsonl",),
        ("predictions_0001.jsonl", "predictions_0002.jsonl", "errors_0001.jsonl"),
        ("predictions_0001", "errors_0001"),
        ("predictions_0001.json", "errors_0001.json"),
        shards("predictions.jsonl-{n}-of-{count}", 2),
        ("predictions.jsonl", "errors.jsonl"),
        shards("{n:012d}.jsonl", 3),
        shards("{n:012d}.json", 2),
        shards("predictions-{n:05d}-of-{count:05d}.jsonl.gz", 2),
        ("prediction.results-00000-of-00001", "prediction.errors-00000-of-00001"),
        ("predictions.jsonl.gz",),
        ("predictions.json",),
        ("incremental_predictions.jsonl",),
        ("errors_0001.jsonl",),
    ],
)
def test_all_names_that_were_seen_are_read_whole_answers_before_errors(names: tuple[str, ...]) -> None:
    assert chosen(*reversed(names)) == (names, (), ())


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (
            ("predictions.jsonl-00001-of-00003",),
            ("predictions.jsonl-00000-of-00003", "predictions.jsonl-00002-of-00003"),
        ),
        (("prediction.results-00000-of-00002",), ("prediction.results-00001-of-00002",)),
        (("predictions-00001-of-00002.jsonl",), ("predictions-00000-of-00002.jsonl",)),
        (("predictions_0001.jsonl", "predictions_0003.jsonl"), ("predictions_0002.jsonl",)),
        (("predictions_0002.jsonl",), ("predictions_0001.jsonl",)),
        (("000000000000.jsonl", "000000000002.jsonl"), ("000000000001.jsonl",)),
        (("errors.jsonl-00000-of-00002", "predictions.jsonl"), ("errors.jsonl-00001-of-00002",)),
        (("predictions-0-of-2.jsonl",), ("predictions-1-of-2.jsonl",)),
        (("predictions_00001.jsonl", "predictions_00003.jsonl"), ("predictions_00002.jsonl",)),
        (("predictions-000000000000.jsonl", "predictions-000000000002.jsonl"), ("predictions-000000000001.jsonl",)),
        (("incremental_predictions.jsonl-00001-of-00002",), ("incremental_predictions.jsonl-00000-of-00002",)),
    ],
)
def test_a_shard_that_the_other_names_promise_is_missed(names: tuple[str, ...], missing: tuple[str, ...]) -> None:
    assert chosen(*names)[1] == missing


def test_error_files_need_no_numbers_of_their_own() -> None:
    assert chosen("predictions_0001.jsonl", "predictions_0002.jsonl", "errors_0002.jsonl")[1] == ()


@pytest.mark.parametrize("name", ["predictions_20261126.jsonl", "999999999999.jsonl"])
def test_a_number_that_does_not_count_shards_promises_none(name: str) -> None:
    assert chosen(name) == ((name,), (), ())


def test_a_partial_dump_is_read_only_where_no_final_object_is() -> None:
    assert chosen("incremental_predictions.jsonl", "predictions.jsonl")[0] == ("predictions.jsonl",)
    assert chosen("incremental_predictions.jsonl", "predictions.jsonl", predictions=0)[0] == (
        "incremental_predictions.jsonl",
    )


@pytest.mark.parametrize("ending", ["", "-00000-of-00001"])
def test_a_partial_dump_is_read_beside_errors_and_beside_shards_that_lack_some(ending: str) -> None:
    dump = f"incremental_predictions.jsonl{ending}"
    assert chosen("errors_0001.jsonl", dump) == ((dump, "errors_0001.jsonl"), (), ())
    assert chosen("errors_0001.jsonl", dump, "predictions_0001.jsonl", predictions_0001=0)[0][0] == dump
    shard = "predictions.jsonl-00000-of-00002"
    files = choose(StoredObject(name, 10) for name in (dump, shard))
    assert (files.responses, files.missing, files.others) == ((shard,), (shard.replace("-00000", "-00001"),), (dump,))


def test_notes_and_empty_objects_are_neither_read_nor_missed() -> None:
    litter = ("_SUCCESS", "job.json", "predictions.metadata", "prediction.errors_stats-00000-of-00001", ".part")
    assert chosen("predictions.jsonl", *litter) == (("predictions.jsonl",), (), ())
    files = choose(
        [StoredObject("predictions.jsonl-00000-of-00002", 0), StoredObject("predictions.jsonl-00001-of-00002", 3)]
    )
    assert (files.responses, files.missing) == (("predictions.jsonl-00001-of-00002",), ())
    assert choose([StoredObject("predictions.jsonl", 0)])[:4] == ((), True, (), ())


@pytest.mark.parametrize("size", [10, 20])
def test_shards_that_were_put_together_and_not_removed_are_read_once(size: int) -> None:
    shards = [StoredObject(f"predictions.jsonl-0000{n}-of-00002", 10) for n in range(2)]
    answers = choose([*shards, StoredObject("predictions.jsonl", size)]).responses
    assert len(answers) == (1 if size == 20 else 3)
    assert "predictions.jsonl" in answers


NOON = datetime(2026, 11, 26, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("listed", "used"),
    [
        ({"-of-00002": (0,), "-of-00003": (0, 1, 2)}, "-of-00003"),
        ({"-of-00002": (0, 1), "-of-00003": (0, 2)}, "-of-00002"),
        ({"-of-00002": (0, 1), "-of-00003": (0, 1, 2)}, "-of-00002"),
        ({"-of-00002": (1,), "-of-00003": (0, 2)}, "-of-00002"),
    ],
    ids=["the newer one is not whole", "the older one is not whole", "both are whole", "neither is whole"],
)
@pytest.mark.parametrize("stem", ["predictions.jsonl", "incremental_predictions.jsonl"])
def test_shards_of_several_attempts_are_never_mixed(listed: dict[str, tuple[int, ...]], used: str, stem: str) -> None:
    files = choose(
        StoredObject(f"{stem}-{n:05d}{total}", 10, NOON - timedelta(minutes=int(total[-1])))
        for total, numbers in listed.items()
        for n in numbers
    )
    assert {name[-9:] for name in files.responses} == {used}
    assert len(files.responses) + len(files.missing) == int(used[-1])
    is_whole = not files.missing
    assert {name[-9:] for name in files.doubles if is_whole} == (listed.keys() - {used} if is_whole else set())
    assert {name[-9:] for name in files.others} == (set() if is_whole else listed.keys() - {used})


def test_shards_whose_names_differ_in_form_are_of_several_attempts_too() -> None:
    two, one = shards("predictions-{n:05d}-of-{count:05d}.jsonl", 2), ("predictions.jsonl-00000-of-00001",)
    files = choose([StoredObject(name, 10) for name in (*two, *one, "errors-00000-of-00001")])
    assert files.responses == (*two, "errors-00000-of-00001")
    assert files.doubles == one


def test_a_packed_copy_of_an_object_is_not_read_beside_it() -> None:
    files = choose([StoredObject("predictions.jsonl.gz", 3), StoredObject("predictions.jsonl", 10)])
    assert (files.responses, files.doubles) == (("predictions.jsonl",), ("predictions.jsonl.gz",))
    files = choose([StoredObject("predictions.jsonl.gz", 3), StoredObject("predictions.jsonl", 0)])
    assert files.responses == ("predictions.jsonl.gz",)


@pytest.mark.parametrize(
    "names",
    [
        shards("predictions-{n:05d}-of-{count:05d}.jsonl", 1),
        shards("predictions.jsonl-{n:05d}-of-{count:05d}", 3),
        ("predictions_0001.jsonl", "predictions_0002.jsonl"),
        shards("{n:012d}.jsonl", 2),
        ("incremental_predictions.jsonl",),
    ],
)
def test_a_packed_copy_of_a_shard_is_not_read_beside_it_and_may_stand_for_it(names: tuple[str, ...]) -> None:
    packed = tuple(f"{name}.gz" for name in names)
    files = choose([StoredObject(name, 10) for name in (*names, *packed)])
    assert (files.responses, files.missing, files.doubles, files.others) == (names, (), packed, ())
    files = choose([StoredObject(name, 10) for name in (*names, packed[-1])])
    assert (files.responses, files.missing, files.doubles) == (names, (), packed[-1:])
    files = choose([StoredObject(name, 10) for name in (*names[:-1], packed[-1])])
    assert (files.responses, files.missing, files.doubles) == ((*names[:-1], packed[-1]), (), ())


def test_a_missing_shard_among_packed_ones_has_a_packed_name() -> None:
    assert chosen("predictions-00001-of-00002.jsonl.gz")[1] == ("predictions-00000-of-00002.jsonl.gz",)


@pytest.mark.parametrize(
    "name",
    [
        "answers-00000.txt",
        "predictions.avro",
        "predictions.csv",
        "predictions.jsonl-00005-of-00003",
        "predictions.jsonl-0000٣-of-00005",
        "part-0/",
        "x",
    ],
)
def test_other_names_are_reported(name: str) -> None:
    assert chosen(name) == ((), (), (name,))


@given(st.lists(st.tuples(st.text(max_size=40), st.integers(0, 5)), max_size=8))
def test_any_listing_is_taken(listed: list[tuple[str, int]]) -> None:
    files = choose(StoredObject(name, size) for name, size in listed)
    names = {name for name, _ in listed}
    assert set(files.responses) <= names
    assert not set(files.responses) & set(files.unknown)


@pytest.fixture(scope="module")
def gcs() -> Iterator[str]:
    with storage_server("in", "out") as url:
        yield url


@pytest.fixture
def emulator(gcs: str) -> Iterator[Emulator]:
    with Emulator(speed=0, storage_endpoint=gcs) as made:
        yield made


@pytest.fixture
def client(emulator: Emulator, gcs: str) -> Iterator[BatchClient]:
    with connected(emulator, gcs) as made:
        yield made


@pytest.fixture
def where(request: pytest.FixtureRequest) -> str:
    """A folder for one test's answers."""
    return f"gs://out/{abs(hash(request.node.nodeid))}"


def in_one_list(client: BatchClient, name: str, listed: str = "") -> str:
    """Write the output of a job as one JSON list, or as this text; give its address."""
    source = client.output_source(name)
    assert source is not None
    (uri,) = source.gcs_uris
    lines = b"".join(client.storage.iter_bytes(uri)).decode().splitlines()
    put(client.storage, uri, (listed or f"[{','.join(lines)}]").encode())
    return uri


JOB = {"name": "projects/1/locations/l/batchPredictionJobs/2", "state": "JOB_STATE_EXPIRED"}


def put(store: ObjectStore, uri: str, content: bytes) -> None:
    with store.write_whole(uri) as handle:
        handle.write(content)


def ended(client: BatchClient, emulator: Emulator, where: str, count: int = 10, **faults: Any) -> str:
    """Run a job of so many rows; gives its name."""
    put(client.storage, f"{where}-in/rows.jsonl", rows(count))
    emulator.control.faults(**faults)
    job = client.create(FLASH, gcs_uri=f"{where}-in/rows.jsonl", destination=where)
    emulator.control.advance(100)
    return job.name


@pytest.mark.parametrize(
    "layout",
    [
        "predictions",
        {"layout": "shards", "count": 3},
        {"layout": "numbered", "count": 2},
        {"layout": "results", "count": 2},
        {"layout": "export", "count": 2},
        {"layout": "incremental"},
        {"layout": "shards", "incremental": True, "litter": True},
        {"layout": "shards", "count": 3, "older": True},
        {"layout": "shards", "count": 2, "older": True},
        {"form": "list"},
        {"layout": "shards", "form": "pretty", "packed": "name"},
    ],
)
@pytest.mark.parametrize("silent", [False, True])
def test_every_layout_gives_every_row_once(
    client: BatchClient,
    emulator: Emulator,
    where: str,
    layout: Any,
    silent: bool,  # noqa: FBT001
) -> None:
    name = ended(client, emulator, where, output_layout=layout, row_error_every=5, no_output_info=silent)
    answers = list(client.get_responses(name))
    assert sorted(str(answer.key) for answer in answers) == sorted(f"k{n}" for n in range(10))
    assert sum(answer.error is not None for answer in answers) == 2
    assert [answer.position for answer in answers] == list(range(10))


def test_unknown_names_are_listed_and_never_reported_as_gone(
    client: BatchClient, emulator: Emulator, where: str
) -> None:
    name = ended(client, emulator, where, output_layout={"layout": "unknown", "name": "answers.avro"})
    with pytest.raises(UnknownOutput, match=r"'answers\.avro'.*kept there.*update"):
        client.get_responses(name)
    with pytest.raises(UnknownOutput):
        client.output_source(name)


def test_a_missing_shard_is_named(client: BatchClient, emulator: Emulator, where: str) -> None:
    name = ended(client, emulator, where, output_layout={"layout": "shards", "count": 3, "missing": [1]})
    with pytest.raises(UnknownOutput, match=r"'predictions\.jsonl-00001-of-00003' is not there"):
        client.get_responses(name)


@pytest.mark.parametrize("state", ["JOB_STATE_EXPIRED", "JOB_STATE_CANCELLED", "JOB_STATE_FAILED"])
@pytest.mark.parametrize(
    ("layout", "count"),
    [
        ("incremental", 10),
        ({"layout": "shards", "count": 3, "missing": [2]}, 8),
        ({"layout": "shards", "count": 5, "missing": [0, 1, 4], "incremental": True}, 8),
    ],
)
def test_what_a_job_left_that_was_cut_short_is_read_and_can_be_gone_on_from_if_it_is_whole(
    client: BatchClient, emulator: Emulator, state: str, layout: Any, count: int
) -> None:
    where = f"gs://out/{state}-{count}"
    name = ended(client, emulator, where, output_layout=layout)
    emulator.control.set_job(name, state=state)
    assert len(list(client.get_responses(name))) == count
    source = client.output_source(name)
    assert (source is not None) == (count == 10)
    assert all(any(client.storage.iter_bytes(uri)) for uri in (source.gcs_uris if source is not None else ()))


def test_rows_that_only_an_unfinished_attempt_of_a_job_that_was_cut_short_holds_are_read(
    client: BatchClient, emulator: Emulator, where: str
) -> None:
    name = ended(client, emulator, where, output_layout={"layout": "shards", "count": 2, "missing": [1]})
    emulator.control.set_job(name, state="JOB_STATE_EXPIRED")
    (uri,) = left(client, {**JOB, "outputInfo": emulator.control.books()["jobs"][0]["output"]}).files or ()
    first = [str(result.key) for result in client.get_responses(name)]
    rest = sorted({f"k{n}" for n in range(10)} - {*first})[:-1]
    rows = [{"custom_id": key, "response": {"x": 1}} for key in (*first, *rest)]
    lines = [*map(json.dumps, rows), '{"custom_id": "k0", "status": "INTERNAL"}', '{"response": {}}']
    for shard in ("-00002-of-00007", "-00003-of-00008"):
        put(client.storage, uri.replace("-00000-of-00002", shard), "\n".join(lines).encode())
    put(client.storage, uri, b"".join(client.storage.iter_bytes(uri)))  # which makes it the newer one
    assert [result.key for result in client.get_responses(name)] == first + rest
    assert client.output_source(name) is None
    # A row that failed in the used attempt has a good response in another one, which alone counts.
    put(client.storage, uri, b'{"custom_id": "k1", "status": "INTERNAL"}\n{"custom_id": "k99", "status": "INTERNAL"}')
    results = [(result.key, result.error is None) for result in client.get_responses(name)]
    assert sorted(results) == sorted([("k99", False), *((key, True) for key in first + rest)])
    # Rows without a key are known by their order alone.
    put(client.storage, uri, b'{"response": {"x": 1}}\n{"status": "INTERNAL"}\n{"response": {"x": 2}}')
    keyless = [(result.position, result.error is None) for result in client.get_responses(name) if result.key is None]
    assert keyless == [(0, True), (1, False), (2, True)]


@pytest.mark.parametrize("counts", [{}, {"successfulCount": 5, "failedCount": 0}])
def test_an_output_without_the_rows_that_were_not_done_is_not_gone_on_from_whatever_the_counts_say(
    client: BatchClient, emulator: Emulator, where: str, counts: dict[str, int]
) -> None:
    name = ended(client, emulator, where, expire=True, partial_rows=0.5, unfinished_rows="omit")
    emulator.control.set_job(name, counts=counts)
    assert client.output_source(name) is None


def test_a_read_that_is_cut_short_is_an_error_and_no_shorter_object(
    client: BatchClient, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{where}-cut.txt"
    with client.storage.write_whole(uri) as handle:
        handle.write(b"0123456789")
    assert b"".join(client.storage.iter_bytes(uri)) == b"0123456789"
    cat = client.storage.filesystem.cat_file
    monkeypatch.setattr(client.storage.filesystem, "cat_file", lambda *place, **span: cat(*place, **span)[:-1])
    with pytest.raises(TransportError, match="9 bytes came instead of 10"):
        list(client.storage.iter_bytes(uri))


def test_an_output_is_not_gone_on_from_when_its_source_cannot_be_read_any_more(
    client: BatchClient, emulator: Emulator, where: str
) -> None:
    name = ended(client, emulator, where, job_ending="CANCELLED", partial_rows=0.5)
    assert client.output_source(name) is not None
    client.storage.delete_folder(f"{where}-in")
    assert client.output_source(name) is None


def test_what_others_wrote_is_not_taken_for_the_output_of_a_job_that_may_have_written_nothing(
    client: BatchClient, emulator: Emulator, where: str
) -> None:
    name = ended(client, emulator, where, expire=True, no_output_info=True)
    job = client.get(name)
    assert job.create_time is not None
    put(client.storage, f"{where}/prediction-model-{job.create_time:%Y-%m-%dT%H:%M:%S}.5Z/predictions.jsonl", rows(10))
    assert list(client.get_responses(name)) == []
    assert client.output_source(name) is None
    raw: dict[str, Any] = {"name": "projects/1/locations/l/batchPredictionJobs/2", "state": "JOB_STATE_EXPIRED"}
    raw |= {"outputConfig": {"bigqueryDestination": {"outputUri": "bq://p.ds.yesterday"}}}
    assert left(client, raw) == LeftOutput()


def test_a_folder_that_is_named_after_a_job_is_its_own(client: BatchClient, emulator: Emulator, where: str) -> None:
    tag = "gb1-abcdefghij-0-0.0.0-0123456789ab"
    put(client.storage, f"{where}-in/rows.jsonl", rows(10))
    emulator.control.faults(expire=True, partial_rows=0.5, no_output_info=True)
    source, target = f"{where}-in/rows.jsonl", f"{where}/{tag}/output"
    job = client.create(FLASH, gcs_uri=source, destination=target, display_name=f"nightly-{tag.replace('gb1', 'gb1s')}")
    emulator.control.advance(100)
    assert len(list(client.get_responses(job.name))) == 10
    assert client.output_source(job.name) is not None


def test_the_folder_of_another_time_is_not_taken_for_the_jobs(
    client: BatchClient, emulator: Emulator, where: str
) -> None:
    name = ended(client, emulator, where, no_output_info=True)
    job = client.get(name)
    assert job.create_time is not None
    for shift in (timedelta(days=-1), timedelta(days=1)):
        other = job.create_time + shift
        put(client.storage, f"{where}/prediction-model-{other:%Y-%m-%dT%H:%M:%S}.5Z/predictions.jsonl", b"{}\n")
    assert len(list(client.get_responses(name))) == 10
    put(client.storage, f"{where}/prediction-model-{job.create_time:%Y-%m-%dT%H:%M:%S}.5Z/predictions.jsonl", b"{}\n")
    with pytest.raises(UnknownOutput, match="several jobs wrote to"):
        client.get_responses(name)


def test_answers_directly_under_the_destination_are_read(client: BatchClient, emulator: Emulator, where: str) -> None:
    name = ended(client, emulator, where, no_output_info=True)
    client.storage.delete_folder(where)
    put(client.storage, f"{where}/predictions.jsonl", b'{"key": "a", "response": {"x": 1}}\n')
    assert [answer.key for answer in client.get_responses(name)] == ["a"]


def test_packed_answers_are_read(client: BatchClient, emulator: Emulator, where: str) -> None:
    name = ended(client, emulator, where)
    source = client.output_source(name)
    assert source is not None
    (uri,) = source.gcs_uris
    lines = b"".join(client.storage.iter_bytes(uri)).splitlines(keepends=True)
    packed = b"".join(gzip.compress(b"".join(part)) for part in (lines[:3], lines[3:]))
    client.storage.delete(uri)
    put(client.storage, f"{uri}.gz", packed)
    assert sorted(str(answer.key) for answer in client.get_responses(name)) == sorted(f"k{n}" for n in range(10))
    for broken, words in ((packed[:-20], "end early"), (packed[:15] + b"\x00" * 40, "damaged")):
        put(client.storage, f"{uri}.gz", broken)
        with pytest.raises(UnexpectedResponse, match=words):
            list(client.get_responses(name))


@pytest.mark.parametrize(
    "listed",
    [
        '[{"a": 1}, {"a": "' + "x" * 30_000 + '"}]',
        '[{"a": 1}, null]',
        '[{"a": 1},\n{"a"\n{"a": 1}]',
        '[{"a": 01}]',
    ],
)
def test_an_output_is_not_gone_on_from_if_a_row_is_damaged_or_too_long(
    client: BatchClient, emulator: Emulator, where: str, listed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = ended(client, emulator, where, count=2)
    in_one_list(client, name, listed)
    monkeypatch.setattr(vertex, "result_rows", partial(result_rows, limit=20_000))
    assert client.output_source(name) is None


def test_a_row_that_is_nested_deeply_raises_nothing(client: BatchClient, emulator: Emulator, where: str) -> None:
    name = ended(client, emulator, where, count=2)
    uri = in_one_list(client, name, '[{"a": ' + "[" * 5000 + "]" * 5000 + "}]")
    source = client.output_source(name)
    # How deep is too deep depends on Python.
    assert source is None or all(one != uri for one in source.gcs_uris)


def test_a_damaged_packed_output_is_not_gone_on_from(client: BatchClient, emulator: Emulator, where: str) -> None:
    name = ended(client, emulator, where, count=2)
    uri = in_one_list(client, name)
    put(client.storage, uri, gzip.compress(b'{"a": 1}\n' * 2)[:-9])
    assert client.output_source(name) is None
    emulator.control.set_job(name, state="JOB_STATE_EXPIRED", counts={})
    assert client.output_source(name) is None


def test_copies_as_lines_have_names_of_their_own(client: BatchClient, emulator: Emulator, where: str) -> None:
    name = ended(client, emulator, where, count=2)
    uri = in_one_list(client, name)
    for other in (
        uri.replace(".jsonl", ".json"),
        uri.replace(".jsonl", "-2.jsonl.gz"),
        uri.replace(".jsonl", "-2.json"),
    ):
        put(client.storage, other, b'[{"a": "%s"}]' % other[-9:].encode())
    source = client.output_source(name)
    assert source is not None
    assert len({b"".join(client.storage.iter_bytes(copy)) for copy in source.gcs_uris}) == 4


def test_a_copy_as_lines_that_is_refused_is_an_error_that_says_what_to_grant(
    client: BatchClient, emulator: Emulator, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = ended(client, emulator, where, count=2)
    in_one_list(client, name)

    def refuse(*_: object, **__: object) -> None:
        raise OSError("Forbidden: https://x/o?upload_id=1\nstorage.objects.create")

    monkeypatch.setattr("gcsfs.core.GCSFile._initiate_upload", refuse)
    monkeypatch.setattr("gcsfs.core.GCSFile._simple_upload", refuse)
    with pytest.raises(AccessDenied, match=r"_lines/.*create objects in this folder") as caught:
        client.output_source(name)
    assert "upload_id" not in str(caught.value)


@pytest.mark.parametrize(
    "told", ["{folder}/", "{prefix}", "{prefix}/", "{folder}/predictions.jsonl", "out/x", "https://x/y"]
)
def test_the_place_is_found_however_the_service_names_it(
    client: BatchClient, emulator: Emulator, where: str, told: str
) -> None:
    name = ended(client, emulator, where)
    folder = emulator.control.books()["jobs"][0]["output"]["gcsOutputDirectory"]
    raw: dict[str, Any] = {
        "name": name,
        "state": "JOB_STATE_SUCCEEDED",
        "outputConfig": {"gcsDestination": {"outputUriPrefix": where}},
    }
    raw["outputInfo"] = {"gcsOutputDirectory": told.format(folder=folder, prefix=where)}
    assert left(client, raw).files == (f"{folder}/predictions.jsonl",)


@pytest.mark.parametrize(
    ("address", "count"),
    [("{base}/", 3), ("{base}/*", 3), ("{base}/a*.jsonl", 2), ("{base}/a.jsonl", 1), ("gs://in/*", 3)],
)
def test_an_address_of_rows_means_what_it_means_to_the_service(
    client: BatchClient, request: pytest.FixtureRequest, address: str, count: int
) -> None:
    base = f"gs://in/{abs(hash(request.node.nodeid))}"
    for name in ("a.jsonl", "a/deep.jsonl", "b.jsonl"):
        put(client.storage, f"{base}/{name}", b"{}")
    found = client.storage.matching(address.format(base=base))
    assert len([uri for uri in found if uri.startswith(base)]) == count


def test_a_folder_is_not_an_object(client: BatchClient, where: str) -> None:
    put(client.storage, f"{where}/run[1]/a.csv", b"x")
    put(client.storage, f"{where}/placed[1]/", b"")
    assert client.storage.is_object(f"{where}/run[1]/a.csv")
    assert not any(client.storage.is_object(f"{where}/{name}") for name in ("run[1]", "placed[1]", "none[1]"))


@given(st.text("ab\n", max_size=8), st.lists(st.text("ab", max_size=3), min_size=2, max_size=5))
@example("aa", ["a", "a", "a"])
@example("ab", ["ab", "b"])
def test_stars_match_as_their_expression_would(text: str, pieces: list[str]) -> None:
    assert _matches(text, pieces) == bool(re.fullmatch(".*".join(pieces), text, re.DOTALL))


def test_a_long_name_is_compared_with_many_stars_in_no_time() -> None:
    assert not _matches("a" * 2000, ["a"] * 200 + ["b"])  # an expression would try for longer than the world is old


def test_a_folder_without_anything_is_gone(client: BatchClient, emulator: Emulator, where: str) -> None:
    name = ended(client, emulator, where)
    client.storage.delete_folder(where)
    with pytest.raises(ResultsGone):
        client.get_responses(name)
    assert client.output_source(name) is None


def test_the_answers_are_json_lines(client: BatchClient, emulator: Emulator, where: str) -> None:
    name = ended(client, emulator, where, count=1)
    source = client.output_source(name)
    assert source is not None
    (uri,) = source.gcs_uris
    assert json.loads(b"".join(client.storage.iter_bytes(uri)))["custom_id"] == "k0"


@pytest.mark.parametrize(
    ("asked", "info"),
    [
        ("bq://p.ds.answers", {}),
        ("bq://p.ds", {"bigqueryOutputDataset": "bq://p.ds", "bigqueryOutputTable": "answers"}),
        ("bq://p", {"bigqueryOutputTable": "bq://p.ds.answers"}),
    ],
)
def test_a_table_is_found_with_and_without_a_word_of_the_service(
    client: BatchClient, asked: str, info: dict[str, str]
) -> None:
    raw = {"name": "projects/1/locations/l/batchPredictionJobs/2", "state": "JOB_STATE_SUCCEEDED", "outputInfo": info}
    raw |= {"outputConfig": {"bigqueryDestination": {"outputUri": asked}}}
    assert left(client, raw) == LeftOutput(table="bq://p.ds.answers")


def test_the_error_says_that_the_table_of_a_dataset_is_not_named(client: BatchClient) -> None:
    raw = {"name": "projects/1/locations/l/batchPredictionJobs/2", "state": "JOB_STATE_SUCCEEDED"}
    with pytest.raises(UnknownOutput, match=r"which table of bq://p\.ds holds its responses"):
        left(client, {**raw, "outputConfig": {"bigqueryDestination": {"outputUri": "bq://p.ds"}}})
    assert left(client, raw) == LeftOutput()


def left(client: BatchClient, raw: dict[str, Any]) -> LeftOutput:
    return VertexOutput(client.storage).of(_job(raw, WholeResponse(200, {}, b"")), raw)


def test_where_the_answers_will_lie_is_looked_at_before_anything_is_paid(client: BatchClient) -> None:
    client.check_readable("gs://out/not/there/yet")
    with pytest.raises(NotFound):
        client.check_readable("gs://no-such-bucket/x")


def test_answers_that_could_not_be_read_make_no_job(client: BatchClient, emulator: Emulator) -> None:
    tag = Tag("abcdefghij", 0, 0, 0, 0, "0123456789ab")
    settings = JobSettings(
        model=FLASH,
        kind=JobKind.GENERATION,
        source={"gcs_uri": "gs://in/x.jsonl"},
        destination="gs://no-such-bucket/x",
    )
    jobs = ClientJobService(client, settings, supply=None)
    with pytest.raises(ConfigurationError, match=r"no job was made.*another destination"):
        jobs.prepare(tag, None, reuse=False)
    assert emulator.control.books()["created"] == 0
    ClientJobService(client, replace(settings, reads_responses=False), supply=None).prepare(tag, None, reuse=False)


def test_a_base_install_is_told_before_anything_is_paid(client: BatchClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gcsfs.core", "google.cloud.bigquery", "google.cloud"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match=r"\[vertex\]"):
        client.check_readable("gs://out/x")
    with pytest.raises(ConfigurationError, match=r"\[bigquery\]"):
        client.check_readable("bq://p.ds.answers")
