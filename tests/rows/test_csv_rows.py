"""CSV as spreadsheets and databases write it: read as it is meant, or refused in words before anything is sent."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.rows.sources import from_file

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path, data: bytes | str, **arguments: Any) -> list[Any]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    source = from_file(str(path), **arguments)
    try:
        return [row.fault or row.value for row in source.rows]
    finally:
        source.close()


def refusal(path: Path, data: bytes | str, **arguments: Any) -> str:
    with pytest.raises(ConfigurationError) as refused:
        read(path, data, **arguments)
    return str(refused.value)


ADA = [{"id": "1", "text": "Grüße, Ada"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_and_byte_order_mark_are_found_out(encoding: str, delimiter: str, tmp_path: Path) -> None:
    text = f'id{delimiter}text\r\n1{delimiter}"Grüße, Ada"\r\n'
    assert read(tmp_path / "in.csv", text.encode(encoding)) == ADA


@pytest.mark.parametrize("delimiter", [";", ",", "^", "\t"])
def test_a_line_that_names_the_delimiter_is_obeyed_and_is_not_a_header(delimiter: str, tmp_path: Path) -> None:
    text = f'sep={delimiter}\r\nid{delimiter}text\r\n1{delimiter}"Grüße, Ada"\r\n'
    assert read(tmp_path / "in.csv", text.encode("utf-16")) == ADA
    assert read(tmp_path / "broken.csv", f"sep={delimiter}\nid{delimiter}text\n1\n") == ["1 cells, the header has 2"]


def test_lines_are_counted_as_an_editor_does_with_and_without_a_line_for_the_delimiter(tmp_path: Path) -> None:
    for lead, line in (("", 3), ("sep=;\n", 4)):
        (tmp_path / "in.csv").write_text(f"{lead}a;b\n1;2\n3\n")
        source = from_file(str(tmp_path / "in.csv"))
        assert [row.place for row in source.rows if row.fault] == [line]
        source.close()


def test_what_is_asked_for_is_asked_for_in_words(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    assert "encoding='cp1252'" in refusal(path, "id;text\n1;Grüße\n".encode("cp1252"))
    late = ("id;text\n" + "1;a\n" * 20_000 + "2;Grüße\n").encode("cp1252")
    assert "encoding='cp1252'" in read(path, late)[-1]
    assert read(path, "id;text\n1;Grüße\n".encode("cp1252"), encoding="cp1252") == [{"id": "1", "text": "Grüße"}]
    assert "encoding='utf-16-le'" in refusal(path, "id;text\n1;a\n".encode("utf-16-le"))
    assert read(path, "id;text\n1;a\n".encode("utf-16-le"), encoding="utf-16-le") == [{"id": "1", "text": "a"}]
    assert "give csv_delimiter" in refusal(path, "a;b,c\n1;2,3\n")
    assert read(path, "a;b,c\n1;2,3\n", csv_delimiter=";") == [{"a": "1", "b,c": "2,3"}]
    assert "says sep=;, but csv_delimiter is ','" in refusal(path, "sep=;\na;b\n1;2\n", csv_delimiter=",")
    assert "byte order mark" in refusal(path, "a;b\n1;2\n".encode("utf-8-sig"), encoding="cp1252")


@pytest.mark.parametrize("delimiter", ["^", "~", "\x01", ":"])
def test_one_column_whose_lines_fall_apart_alike_is_refused(delimiter: str, tmp_path: Path) -> None:
    lines = "".join(f"{number}{delimiter}A text, or so\n" for number in range(3)).replace(",", "")
    said = refusal(tmp_path / "in.csv", f"id{delimiter}text\n{lines}")
    assert "one column, but its lines look separated by" in said
    assert "csv_delimiter" in said
    assert len(read(tmp_path / "in.csv", f"id{delimiter}text\n{lines}", csv_delimiter=delimiter)[0]) == 2
    assert len(read(tmp_path / "in.csv", f"id{delimiter}text\n{lines}", csv_delimiter=",")[0]) == 1


def test_rows_with_more_columns_than_a_header_of_one_are_refused(tmp_path: Path) -> None:
    assert "separated by ';'" in refusal(tmp_path / "in.csv", "text\n1;one\n2;two\n")


@pytest.mark.parametrize(
    "text",
    [
        'text\n"Hello, world; and you"\n"Bye"\n',
        'id,text\n1,"a;b;c"\n2,"d|e"\n',
        "prompt\nWhat is a semicolon; and why?\nHi\n",
        "text\nOne; two.\n",
    ],
)
def test_delimiters_inside_texts_do_no_harm(text: str, tmp_path: Path) -> None:
    rows = read(tmp_path / "in.csv", text)
    assert all(isinstance(row, dict) and len(row) == text.partition("\n")[0].count(",") + 1 for row in rows)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,a\n1,2,3\n", "'a' is there twice"),
        ("a,b,\n1,2,3\n", "column 3 has no name"),
        ("Which country has the highest mountain?\nAnd the lowest?\n", "let the file's name end in .txt"),
        (b"PK\x03\x04rest", "an Excel or zip file"),
        (b"PAR1\x15rest", "a Parquet file"),
        (b"\x1f\x8brest", "let its name end in .gz"),
        ("<!DOCTYPE html><html>\n<body>Sign in</body>\n", "a page of HTML"),
        ('\ufeff\n<HTML lang="en">\n<p>\n', "a page of HTML"),
        ('<?xml version="1.0"?>\n<Error>\n', "XML, perhaps the error of a storage"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12\n", "a pointer of Git LFS"),
        ('{"text": "a"}\n{"text": "b"}\n', "the input is JSON: let its name end in .jsonl"),
        ('[\n {"text":"a"},\n {"text":"b"}]', "the input is JSON"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(text: bytes | str, words: str, tmp_path: Path) -> None:
    assert words in refusal(tmp_path / "in.csv", text)
    if "header" not in words and "there twice" not in words and "no name" not in words and ".txt" not in words:
        assert words in refusal(tmp_path / "in.txt", text)


@pytest.mark.parametrize("delimiter", ["\t", ";", "|"])
def test_a_text_that_is_a_table_is_refused(delimiter: str, tmp_path: Path) -> None:
    said = refusal(tmp_path / "in.txt", f"id{delimiter}text\n1{delimiter}a\n2{delimiter}b\n")
    assert "each would be one prompt: let the file's name end in .csv" in said
    assert len(read(tmp_path / "in.txt", f"One{delimiter} two.\nThree.\nFour{delimiter} five.\n")) == 3
    for prompt in (f"Answer yes{delimiter}no: is {{}} red?\n", f"Translate {{}}{delimiter} one word only.\n"):
        assert len(read(tmp_path / "in.txt", "".join(map(prompt.format, range(9))))) == 9


def test_each_line_of_a_text_may_be_a_document(tmp_path: Path) -> None:
    for line in ("<html><p>Hi</p></html>", "<!DOCTYPE html><p>Hi", "<?xml version='1.0'?><a/>"):
        assert read(tmp_path / "in.txt", f"{line}\n" * 2) == [line] * 2


def test_a_column_may_be_called_as_a_parquet_file_begins(tmp_path: Path) -> None:
    assert read(tmp_path / "in.csv", "PAR1,PAR2\n3,4\n") == [{"PAR1": "3", "PAR2": "4"}]


def test_the_name_tsv_is_believed_where_the_file_agrees(tmp_path: Path) -> None:
    path = tmp_path / "in.tsv"
    assert read(path, "id\ttext\n1\ta,b;c\n") == [{"id": "1", "text": "a,b;c"}]
    assert read(path, "text\nHello, you\nHi\n") == [{"text": "Hello, you"}, {"text": "Hi"}]
    assert read(path, "id,text\n1,a\n") == [{"id": "1", "text": "a"}]
    assert read(path, "id\ttext, head\n1\ta,b\n") == [{"id": "1", "text, head": "a,b"}]
    assert "give csv_delimiter" in refusal(path, "a;b,c\n1;2,3\n")


def test_an_encoding_that_would_garble_the_letters_is_refused(tmp_path: Path) -> None:
    for name in ("in.csv", "in.txt"):
        for encoding in ("cp1252", "latin-1", "cp437"):
            said = refusal(tmp_path / name, "text\nGrüße\n", encoding=encoding)
            assert "the file is UTF-8, and encoding=" in said
        assert read(tmp_path / name, "text\nGruss\n", encoding="cp1252")[-1] in ("Gruss", {"text": "Gruss"})


def test_quotes_of_windows_are_not_read_as_control_characters(tmp_path: Path) -> None:
    text = "text\n\u201cGruss\u201d \u2013 5 \u20ac\n".encode("cp1252")
    for encoding in ("latin-1", "iso8859-15"):
        for name in ("in.csv", "in.txt"):
            assert "give encoding='cp1252'" in refusal(tmp_path / name, text, encoding=encoding)
    assert read(tmp_path / "in.csv", "text\nGrüße\n".encode("latin-1"), encoding="latin-1") == [{"text": "Grüße"}]


def test_blank_lines_before_the_header_are_passed_over(tmp_path: Path) -> None:
    assert read(tmp_path / "in.csv", "\n\r\nid,text\n1,a\n") == [{"id": "1", "text": "a"}]
    assert read(tmp_path / "in.csv", "\n\n") == []
    assert read(tmp_path / "in.csv", "\nid,text\n1\n") == ["1 cells, the header has 2"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("in.xlsx", "save it as CSV"),
        ("in.csv.zip", "unpack it"),
        ("*.csv", "a folder or a pattern"),
        ("folder/", "a folder or a pattern"),
        ("in.arrow", "hand over the Arrow table"),
        ("in", "cannot tell the format"),
    ],
)
def test_a_name_that_is_not_read_is_refused_with_the_way_out(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        from_file(f"{tmp_path}/{name}")
    assert words in str(refused.value)


def test_json_is_told_from_json_lines(tmp_path: Path) -> None:
    assert read(tmp_path / "in.json", '{"a": 1}\n{"a": 2}\n') == [{"a": 1}, {"a": 2}]
    assert "one JSON array" in refusal(tmp_path / "in.json", '[{"a": 1},\n {"a": 2}]')
    assert "one JSON object over several lines" in refusal(tmp_path / "in.json", '{\n "a": 1\n}')
    assert "UTF-16" in refusal(tmp_path / "in.jsonl", '{"a": 1}\n'.encode("utf-16"))


def test_texts_and_packed_files_are_read_in_their_encoding(tmp_path: Path) -> None:
    assert read(tmp_path / "in.txt", "Grüße\n\nZwei\n".encode("utf-16")) == ["Grüße", "Zwei"]
    assert read(tmp_path / "in.txt", "Grüße\n".encode("cp1252"), encoding="cp1252") == ["Grüße"]
    assert "cp1252" in read(tmp_path / "in.txt", "Grüße\n".encode("cp1252"))[0]
    assert "NUL" in read(tmp_path / "in.txt", "a" * 2000 + "\na\0b\n")[1]
    assert read(tmp_path / "in.csv.gz", gzip.compress(b"a;b\n1;2\n")) == [{"a": "1", "b": "2"}]
    assert "not a whole gzip file" in refusal(tmp_path / "in.csv.gz", b"a;b\n1;2\n")
    assert "not a whole gzip file" in refusal(tmp_path / "in.jsonl.gz", b'"a"\n')
    assert "not a whole gzip file" in refusal(tmp_path / "in.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 9)[:-9])


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"))


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(CELL, min_size=2, max_size=2)))
def test_any_cells_that_are_written_with_quotes_are_read_back(rows: list[list[str]], tmp_path: Path) -> None:
    for delimiter in ",;\t|":
        quoted = [delimiter.join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row) for row in rows]
        text = f"left{delimiter}right\n" + "".join(f"{line}\n" for line in quoted)
        assert read(tmp_path / "in.csv", text) == [{"left": left, "right": right} for left, right in rows]
