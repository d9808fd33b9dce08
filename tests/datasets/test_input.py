"""Several files as one input: folders, patterns and lists of any format, with one schema over all of them."""

from __future__ import annotations

import gzip
import json
import tempfile
import tracemalloc
from contextlib import closing
from dataclasses import replace
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa
import pytest
from datasets.board import BreaksOff
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError
from airflow_provider_gemini_batch.api.models import Service
from airflow_provider_gemini_batch.rows.datasets import InputFile, from_files
from airflow_provider_gemini_batch.rows.input_spec import InputSpec
from airflow_provider_gemini_batch.rows.record import RecordWriter
from airflow_provider_gemini_batch.rows.sources import guess_format, open_local
from airflow_provider_gemini_batch.rows.stage import open_source, stage
from airflow_provider_gemini_batch.runtime.file_lists import addresses_of, means_several
from airflow_provider_gemini_batch.runtime.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Sequence


GZIP = b"\x1f\x8b"


def put(path: Path, rows: list[dict[str, Any]], **options: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows, schema=options.pop("schema", None)), path, **options)
    elif path.suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(given: str | Sequence[str]) -> list[Any]:
    with closing(from_files(addresses_of(Paths(), given), opener=open_local)) as source:
        return [row.value for row in source.rows]


def names(given: str | Sequence[str], root: Path) -> list[str]:
    return [address.removeprefix(f"{root}/") for address in addresses_of(Paths(), given)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", "deep/er/d.jsonl", "_SUCCESS", ".hidden.jsonl"):
        put(tmp_path / "in" / name, [{"text": name}])
    put(tmp_path / "in" / "_gemini_batch" / "part.jsonl", [{"text": "aside"}])
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("{}", ["a.jsonl", "b.jsonl", "deep/c.jsonl", "deep/er/d.jsonl"]),
        ("{}/", ["a.jsonl", "b.jsonl", "deep/c.jsonl", "deep/er/d.jsonl"]),
        ("{}/*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("{}/**/*.jsonl", ["a.jsonl", "b.jsonl", "deep/c.jsonl", "deep/er/d.jsonl"]),
        ("{}/deep/*", ["deep/c.jsonl"]),
        ("{}/?.jsonl", ["a.jsonl", "b.jsonl"]),
        ("{}/[b-z].jsonl", ["b.jsonl"]),
        ("{}/[!a].jsonl", ["b.jsonl"]),
        (["{}/b.jsonl", "{}/deep/", "{}/a.jsonl"], ["b.jsonl", "deep/c.jsonl", "deep/er/d.jsonl", "a.jsonl"]),
        (["{}/b.jsonl", "{}/*"], ["b.jsonl", "a.jsonl"]),
        ("file://{}/", ["a.jsonl", "b.jsonl", "deep/c.jsonl", "deep/er/d.jsonl"]),
    ],
    ids=str,
)
def test_a_folder_a_pattern_and_a_list_name_files_in_an_order_that_stays(
    given: Any, found: list[str], folder: Path
) -> None:
    filled = given.format(folder) if isinstance(given, str) else [one.format(folder) for one in given]
    assert means_several(filled)
    assert names(filled, folder) == found


@pytest.mark.parametrize("given", ["{}/none/", "{}/*.parquet"])
def test_an_input_without_files_is_refused(given: str, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="input_path"):
        addresses_of(Paths(), given.format(folder))


def test_one_file_is_not_a_dataset(folder: Path) -> None:
    assert not means_several(f"{folder}/a.jsonl")
    for name in ("in[1].csv", "what?.csv", "star*.csv"):
        path = f"{folder}/{name}"
        assert means_several(path)
        Path(path).write_text("text\na\n")
        assert not means_several(path)
        assert guess_format(path) == "csv"
        assert addresses_of(Paths(), [path]) == [path]
        Path(path).unlink()
    assert not means_several("gs://bucket/in.parquet")
    assert means_several("gs://bucket/in/")


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_hive_partitions_are_columns(ending: str, tmp_path: Path) -> None:
    for day, kind in (("2026-01-01", "a%20b"), ("2026-01-02", "__HIVE_DEFAULT_PARTITION__")):
        put(tmp_path / f"day={day}" / f"kind={kind}" / f"x.{ending}", [{"text": f"t {day}"}])
    assert read(f"{tmp_path}/") == [
        {"day": "2026-01-01", "kind": "a b", "text": "t 2026-01-01"},
        {"day": "2026-01-02", "kind": None, "text": "t 2026-01-02"},
    ]


def test_texts_have_the_columns_of_their_folders_too(tmp_path: Path) -> None:
    path = tmp_path / "day=2026-01-01" / "x.txt"
    path.parent.mkdir()
    path.write_text("One.\n\nTwo.\n")
    spec = InputSpec(
        service=Service.GEMINI,
        model="m",
        path="in",
        files=lambda: [str(path)],
        prompt_template="{text} ({day})",
        carry=("day",),
    )
    with RecordWriter(store=True, file=None, needed=True) as record:
        lines = stage(spec, tmp_path, record).files[0].path.read_text().splitlines()
    assert [json.loads(line)["request"]["contents"][0]["parts"][0]["text"] for line in lines] == [
        "One. (2026-01-01)",
        "Two. (2026-01-01)",
    ]
    assert str(record.finish().text).count('{"day":"2026-01-01"}') == 2
    plain = replace(spec, prompt_template=None)
    with RecordWriter(store=True, file=None, needed=True) as record:
        lines = stage(plain, tmp_path, record).files[0].path.read_text().splitlines()
    assert [json.loads(line)["request"]["contents"][0]["parts"][0]["text"] for line in lines] == ["One.", "Two."]
    assert str(record.finish().text).count('{"day":"2026-01-01"}') == 2


@pytest.mark.parametrize(
    ("folder", "column"),
    [("k%20k=%C3%BC", {"k k": "ü"}), ("größe=1", {"größe": "1"}), ("2026=a=b", {"2026": "a=b"}), ("no=", {"no": ""})],
)
def test_the_name_of_a_partition_may_have_any_characters(folder: str, column: dict[str, str]) -> None:
    assert InputFile(f"/in/{folder}/a.csv").partitions == column


def test_row_groups_of_a_file_are_read_alone(tmp_path: Path) -> None:
    path = put(tmp_path / "x.parquet", [{"text": str(number)} for number in range(10)], row_group_size=3)
    assert [row["text"] for row in read(f"{path}#row_groups=1-2")] == ["3", "4", "5", "6", "7", "8"]
    assert InputFile.parse(f"{path}#row_groups=1-2").address == f"{path}#row_groups=1-2"
    assert InputFile.parse("odd#name.csv") == InputFile("odd#name.csv")
    with pytest.raises(InputError, match="has 4 row groups"):
        read(f"{path}#row_groups=3-7")
    with pytest.raises(ConfigurationError, match="has no row groups: only Parquet does"):
        read([put(tmp_path / "x.jsonl", [{"text": "x"}]) + "#row_groups=0-1"])


def test_categories_within_a_column_are_read_over_several_row_groups(tmp_path: Path) -> None:
    categories = pa.array(["a", "b", "a"]).dictionary_encode()
    parquet.write_table(
        pa.table({"kinds": pa.ListArray.from_arrays([0, 1, 2, 3], categories)}),
        tmp_path / "x.parquet",
        row_group_size=1,
    )
    assert read(f"{tmp_path}/") == [{"kinds": ["a"]}, {"kinds": ["b"]}, {"kinds": ["a"]}]


@pytest.mark.parametrize("buffering", [0, 1 << 20], ids=["a store", "a disk"])
def test_parquet_is_read_without_what_nobody_asks_for_and_forgotten_row_by_row(tmp_path: Path, buffering: int) -> None:
    path, size = tmp_path / "wide.parquet", 2 << 20
    schema = pa.schema([("text", pa.string()), ("scan", pa.binary()), ("until", pa.timestamp("us"))])
    with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for group in range(24):
            # A day that Python cannot hold stops only those who ask for it.
            rows = {"text": [f"{group}" * 5_000] * 200, "scan": [bytes(10_000)] * 200, "until": [1 << 62] * 200}
            writer.write_table(pa.table(rows, schema=schema))

    def opened(name: str) -> BinaryIO:
        return Path(name).open("rb", buffering=buffering)

    spec = InputSpec(
        service=Service.GEMINI,
        model="m",
        path=str(path),
        opener=opened,
        prompt_template="{text}",
    )
    source = open_source(spec)
    tracemalloc.start()
    try:
        with closing(source):
            assert sum(len(row.value["text"]) for row in source.rows) > 10 * size
        assert tracemalloc.get_traced_memory()[1] < 6 * size
    finally:
        tracemalloc.stop()


def test_long_texts_of_parquet_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    path, size = tmp_path / "long.parquet", 1 << 20
    schema = pa.schema([("text", pa.string())])
    with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False, write_batch_size=1) as writer:
        writer.write_table(pa.table({"text": [f"{number:02d}" * (size // 2) for number in range(60)]}))
    source = open_source(InputSpec(service=Service.GEMINI, model="m", path=str(path)))
    tracemalloc.start()
    try:
        with closing(source):
            assert sum(1 for _ in source.rows) == 60
        assert tracemalloc.get_traced_memory()[1] < 15 * size
    finally:
        tracemalloc.stop()


def _resident() -> int:
    """Return how many bytes of memory this process holds, those of pyarrow too."""
    return int(Path("/proc/self/statm").read_text().split()[1]) << 12


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux says what a process holds")
def test_the_footers_of_many_files_are_not_held_at_a_time(tmp_path: Path) -> None:
    wide = {f"column_{number}": [f"value {number}"] * 30 for number in range(60)}
    path = put(tmp_path / "0.parquet", pa.table({"text": ["One."] * 30, **wide}).to_pylist(), row_group_size=1)
    files = [path, *(f"{tmp_path}/{number}.parquet" for number in range(1, 100))]
    for file in files[1:]:
        Path(file).hardlink_to(path)
    held: list[int] = []

    def opened(name: str) -> BinaryIO:
        held.append(_resident())
        return open_local(name)

    from_files(files, opener=opened).close()
    assert held[-1] - held[0] < 50 * Path(path).stat().st_size


@pytest.mark.parametrize("place", ["a", "z"])
@pytest.mark.parametrize("empty", [b"\xef\xbb\xbf", b"\r\n", gzip.compress(b"")], ids=["mark", "line end", "packed"])
def test_a_csv_without_even_a_header_has_no_rows(empty: bytes, place: str, tmp_path: Path) -> None:
    put(tmp_path / "m.csv", [{"id": 1, "text": "m"}])
    (tmp_path / f"{place}.csv{'.gz' * empty.startswith(GZIP)}").write_bytes(empty)
    assert read(f"{tmp_path}/") == [{"id": "1", "text": "m"}]
    put(tmp_path / "n.csv", [{"id": 2, "body": "n"}])
    with pytest.raises(InputError, match=r"n\.csv has other columns than .*m\.csv"):
        read(f"{tmp_path}/")


@pytest.mark.parametrize(
    "given",
    [
        {"prompt_template": "{title}: {text}"},
        {"prompt_template": "{title}: {day}"},
        {"key_field": "text", "prompt_template": "{title}"},
        {"media_field": "text", "prompt_template": "{title}"},
        {},
    ],
    ids=str,
)
def test_a_parquet_file_without_a_column_that_makes_the_request_is_refused(
    given: dict[str, Any], tmp_path: Path
) -> None:
    put(tmp_path / "day=1" / "a.parquet", [{"title": "A", "text": "One.", "size": 1}])
    put(tmp_path / "b.parquet", [{"title": "B", "Text": "Two."}])
    spec = InputSpec(
        service=Service.GEMINI, model="m", path="in", files=lambda: addresses_of(Paths(), f"{tmp_path}/"), **given
    )
    with pytest.raises(InputError, match=r"b\.parquet: there is no column '(text|day)', which other files"):
        stage(spec, tmp_path)
    carrying = replace(spec, prompt_template="{title}", key_field=None, media_field=None, carry=("size",))
    assert stage(carrying, tmp_path).layout.rows == 2


def test_parquet_files_have_one_schema_over_all_of_them(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet", [{"text": "a", "price": None, "size": 1, "day": None}])
    typed = pa.schema(
        [("text", pa.string()), ("price", pa.decimal128(8, 2)), ("size", pa.int32()), ("day", pa.date32())]
    )
    put(
        tmp_path / "b.parquet",
        [{"text": "b", "price": Decimal("1.50"), "size": 2, "day": date(2026, 1, 2)}],
        schema=typed,
    )
    put(tmp_path / "c.parquet", [{"text": "c", "at": datetime(2026, 1, 2, tzinfo=timezone.utc)}])
    spec = InputSpec(
        service=Service.GEMINI,
        model="m",
        path="in",
        files=lambda: addresses_of(Paths(), f"{tmp_path}/"),
        prompt_template="{text}",
        carry=("size", "price", "day", "at"),
    )
    assert stage(spec, tmp_path).carried_types == {
        "size": "int",
        "price": "decimal(8,2)",
        "day": "date",
        "at": "timestamp_utc",
    }
    assert [sorted(row) for row in read(f"{tmp_path}/*.parquet")] == [["at", "day", "price", "size", "text"]] * 3


def test_columns_whose_types_do_not_go_together_are_refused_naming_the_file(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet", [{"text": "a", "size": 1}])
    put(tmp_path / "b.parquet", [{"text": "b", "size": "large"}])

    def types(**given: Any) -> Any:
        spec = InputSpec(
            service=Service.GEMINI,
            model="m",
            path="in",
            files=lambda: addresses_of(Paths(), f"{tmp_path}/*.parquet"),
            **given,
        )
        return stage(spec, tmp_path).carried_types

    with pytest.raises(InputError, match=r"b\.parquet: the type of its column 'size' .* give a type in carry_types"):
        types(carry=("size",))
    assert types(carry=("size",), carry_types={"size": "str"}) == {"size": "str"}
    assert types() == {}


def test_files_of_several_formats_or_headers_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "a.csv", [{"id": 1, "text": "a"}])
    put(tmp_path / "b.csv", [{"id": 1, "body": "b"}])
    with pytest.raises(InputError, match=r"b\.csv has other columns than .*a\.csv"):
        read(f"{tmp_path}/")
    put(tmp_path / "b.csv", [{"text": "b", "id": 2}])
    assert [row["text"] for row in read(f"{tmp_path}/")] == ["a", "b"]
    put(tmp_path / "c.jsonl", [{"text": "c"}])
    with pytest.raises(ConfigurationError, match="several formats"):
        read(f"{tmp_path}/")


def test_a_bad_row_is_named_by_its_file_and_line(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "b"}])
    (tmp_path / "b.jsonl").write_text('\n{"text": "c"}\n{\n{"text": "d", "key": "k"}\n{"text": "e", "key": "k"}\n')
    spec = InputSpec(
        service=Service.GEMINI, model="m", path="in", files=lambda: addresses_of(Paths(), f"{tmp_path}/*.jsonl")
    )
    with pytest.raises(InputError, match=r"b\.jsonl, line 3: "):
        stage(spec, tmp_path)
    (tmp_path / "b.jsonl").write_text('{"text": "d", "key": "k"}\n{"text": "e", "key": "k"}\n')
    with pytest.raises(InputError, match=r"b\.jsonl, line 2: the key 'k' was used before, in .*b\.jsonl, line 1"):
        stage(spec, tmp_path)


def _damaged(*, footer: bool) -> bytes:
    """Return a Parquet file of which a piece is nonsense, as a broken copy leaves it."""
    whole = pa.BufferOutputStream()
    options: Any = {"compression": "gzip", "use_dictionary": False, "write_statistics": False}
    parquet.write_table(pa.table({"y": [f"text {number}" for number in range(999)]}), whole, **options)
    data = whole.getvalue().to_pybytes()
    place = len(data) - 30 if footer else 100
    return bytes(data[:place] + b"\xff" * 20 + data[place + 20 :])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("b.csv", b"id,text,text\n1,a,b\n", "the header must name each column once"),
        ("b.csv", b"\x1f\x8b\x08", "not a text but a gzip file"),
        ("b.csv.gz", b"id,text\n1,a\n", "not a whole gzip file"),
        ("b.json", b"[1]", "the file is one JSON array"),
        ("b.parquet", pa.Table.from_arrays([pa.array(["a"])] * 2, names=["x", "x"]), "two columns .* the same name"),
        ("b.parquet", pa.table({"day": pa.array([-(10**11)], pa.timestamp("s"))}), "the column 'day' holds a date"),
        ("b.parquet", pa.table({"day": pa.array([10**7], pa.int32()).cast(pa.date32())}), "the column 'day' holds"),
        ("b.parquet", pa.table({"y": pa.array([b"caf\xe9"]).view(pa.string())}), "the column 'y' .* not UTF-8"),
        ("b.parquet", pa.table({"y": pa.array([1], pa.timestamp("s", "Mars/Phobos"))}), "'y' .* a time zone that"),
        pytest.param("b.parquet", _damaged(footer=False), "not a Parquet file, or is damaged", id="rows"),
        pytest.param("b.parquet", _damaged(footer=True), "not a Parquet file, or is damaged", id="footer"),
    ],
)
def test_a_fault_of_a_whole_file_is_told_with_its_name(name: str, content: Any, words: str, tmp_path: Path) -> None:
    given = [{"id": 1, "text": "a"}]
    first = put(tmp_path / f"a.{name.split('.')[1]}", given if name != "b.parquet" else [{"y": "a"}])
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else parquet.write_table(content, path)
    with pytest.raises(InputError, match=rf"{path}: .*{words}"):
        read([first, str(path)])


@pytest.mark.parametrize("reads", [0, 1, 2, 5])
def test_a_storage_that_breaks_off_is_not_a_damaged_file(reads: int, tmp_path: Path) -> None:
    path = Path(put(tmp_path / "x.parquet", [{"text": f"{number}"} for number in range(60)], row_group_size=10))

    def opened(name: str) -> BinaryIO:
        return BreaksOff(Path(name).read_bytes(), reads)

    with pytest.raises(OSError, match="Socket is closed"):
        list(from_files([str(path)], opener=opened).rows)


def test_requests_as_they_stand_may_lie_in_folders_that_name_columns(tmp_path: Path) -> None:
    folder = tmp_path / "day=2026-01-01"
    folder.mkdir()
    request = {"contents": [{"parts": [{"text": "One."}]}]}
    lines = [{"key": "a", "request": request}, request, {**request, "id": 7}]
    (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    addresses = [str(folder / "a.jsonl")]
    plain = from_files(addresses, opener=open_local, asked_for=())
    assert [row.value for row in plain.rows] == lines
    asked = from_files(addresses, opener=open_local, asked_for=["day"])
    assert [row.value["day"] for row in asked.rows] == ["2026-01-01"] * 3


@given(files=st.lists(st.lists(st.sampled_from(["", " ", '"Say hello."']), max_size=5), min_size=1, max_size=4))
def test_lines_have_the_same_places_many_at_a_time_and_one_by_one(files: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "day=2026-01-01"
        folder.mkdir()
        addresses = [str(folder / f"{number}.jsonl") for number in range(len(files))]
        for address, lines in zip(addresses, files, strict=True):
            Path(address).write_text("\n".join(lines), encoding="utf-8")

        def places(asked_for: list[str]) -> list[tuple[int, str]]:
            with closing(from_files(addresses, opener=open_local, asked_for=asked_for)) as source:
                assert (source.blocks is None) == bool(asked_for)
                assert source.where is not None
                return [(row.place, source.where(row.place)) for row in source.rows]

        assert places([]) == places(["day"])


@pytest.mark.parametrize("form", ["{}/", "file://{}/", "{}//", "{}/*.csv", "file://{}/**/*.csv", "{}/../in/[ab].csv"])
def test_a_folder_may_lie_below_a_hidden_one_and_be_written_in_any_way(form: str, tmp_path: Path) -> None:
    folder = tmp_path / ".hidden" / "in"
    folder.mkdir(parents=True)
    for name in ("a.csv", ".b.csv", "_c.csv"):
        (folder / name).write_text("id,text\n1,One.\n", encoding="utf-8")
    found = addresses_of(Paths(), form.format(folder))
    assert [Path(one).name for one in found] == ["a.csv"]


def test_a_relative_pattern_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="relative"):
        addresses_of(Paths(), "*.csv")
