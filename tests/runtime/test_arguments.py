"""What an author may write for each argument: read into one form, or refused with its name when the Dag is parsed."""

from __future__ import annotations

import pathlib
from collections import UserList
from dataclasses import FrozenInstanceError
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from numbers import Real
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, ObjectStoragePath, task
from airflow.sdk.exceptions import AirflowFailException
from airflow.serialization.serialized_objects import DagSerialization
from upath import UPath

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.api.requests.request import BatchRequest
from airflow_provider_gemini_batch.decorators import gemini_batch_task
from airflow_provider_gemini_batch.operators import (
    GeminiCancelBatchJobOperator,
    GeminiCreateBatchJobOperator,
    GeminiCreateEmbeddingsBatchJobOperator,
    GeminiDeleteBatchJobOperator,
    GeminiGetBatchJobOperator,
    GeminiGetBatchResponsesOperator,
    GeminiListBatchJobsOperator,
    GeminiUploadFileOperator,
)
from airflow_provider_gemini_batch.runtime.arguments import (
    BatchArguments,
    argument_names,
    default_deferrable,
    read_arguments,
)


class Model(Enum):
    FLASH = "gemini-2.5-flash"


class Word(str, Enum):
    SKIP = "skip"


class Elapsed:
    """Stands for numpy's span of time: a number by its word, of which nothing can be made."""


Real.register(Elapsed)


class DataFrame:
    """Stands for that of pandas: a comparison gives another frame, which is neither true nor false."""

    __module__ = "pandas.core.frame"

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise ValueError("The truth value of a DataFrame is ambiguous.")

    __hash__ = None  # type: ignore[assignment]


FRAME = DataFrame()
OUTPUT = {"job_name": "batches/abc", "responses": [{"text": "swordfish"}], "model": "gemini-2.5-flash"}


def operator(**arguments: Any) -> GeminiCreateBatchJobOperator:
    with DAG("d", schedule=None):
        given = {"model": "gemini-2.5-flash", "inlined_requests": ["x"], **arguments}
        return GeminiCreateBatchJobOperator(task_id="t", **given)


def read(**arguments: Any) -> BatchArguments:
    return read_arguments(BatchArguments, operator(**arguments)._given())


@pytest.mark.parametrize(
    ("argument", "given", "value"),
    [
        ("timeout", timedelta(hours=2), 7200.0),
        ("poll_interval", timedelta(minutes=1), 60.0),
        ("lookup_timeout", timedelta(0), 0.0),
        ("queue_timeout", "90", 90.0),
        ("progress_timeout", Decimal(30), 30.0),
        ("poll_interval", None, 60.0),
        ("lookup_timeout", None, 120.0),
        ("max_resubmits", None, 1),
        ("repair_rounds", None, 0),
        ("max_xcom_bytes", None, 48 * 1024),
        ("on_stall", None, "fail"),
        ("on_empty", None, "fail"),
        ("carry", None, ()),
        ("keep_input", None, False),
        ("cancel_on_kill", None, True),
        ("cancel_on_kill", "False", False),
        ("dry_run", "true", True),
        ("max_failed_rows", "3", 3),
        ("max_failed_rows", 3.0, 3),
        ("max_failure_rate", "0.5", 0.5),
        ("max_cost_usd", Decimal("2.50"), 2.5),
        ("priority", -1, -1),
        ("carry", "id", ("id",)),
        ("carry", ["id", "name"], ("id", "name")),
        ("carry", [Model.FLASH, Word.SKIP], ("gemini-2.5-flash", "skip")),
        ("display_name", 20260101, "20260101"),
        ("location", 7, "7"),
        ("key_field", 2026, "2026"),
        ("input_path", pathlib.Path("/data/in.csv"), "/data/in.csv"),
        ("output_path", ObjectStoragePath("s3://conn@bucket/out.jsonl"), "s3://conn@bucket/out.jsonl"),
        ("output_path", ObjectStoragePath("gs://bucket/out.jsonl", conn_id="other"), "gs://other@bucket/out.jsonl"),
        ("staging_path", ObjectStoragePath("file:///data/stage"), "file:///data/stage"),
        ("gcs_uri", [ObjectStoragePath("gs://b/a.jsonl"), "gs://b/b.jsonl"], ["gs://b/a.jsonl", "gs://b/b.jsonl"]),
        ("destination", ObjectStoragePath("gs://b/out"), "gs://b/out"),
        ("media_root", pathlib.Path("/pictures"), ("/pictures",)),
        ("media_root", ["/a", ObjectStoragePath("gs://b/c")], ("/a", "gs://b/c")),
        ("output_path", UPath("s3://bucket/out.jsonl"), "s3://bucket/out.jsonl"),
        ("output_path", UPath("/data/out.jsonl"), "/data/out.jsonl"),
        ("output_path", Asset(name="out", uri="s3://bucket/out.jsonl"), "s3://bucket/out.jsonl"),
        ("output_path", "\n  /data/out.jsonl\n", "/data/out.jsonl"),
        ("output_path", "file://localhost/data/out.jsonl", "file:///data/out.jsonl"),
        ("output_path", "FILE:/data/out.jsonl", "file:///data/out.jsonl"),
        ("output_path", ObjectStoragePath("file:///data/out.jsonl", conn_id="c"), "file:///data/out.jsonl"),
        ("output_path", "S3://c@b/out.jsonl", "s3://c@b/out.jsonl"),
        ("output_path", pathlib.Path("~/out.jsonl"), str(pathlib.Path.home() / "out.jsonl")),
        ("labels", '{"team": "search"}', {"team": "search"}),
        ("system_instruction", 2026, "2026"),
        ("labels", {"day": 20260101}, {"day": "20260101"}),
        ("labels", {"share": Decimal("0.5")}, {"share": "0.5"}),
        ("generation_config", ' {"temperature": 0.5}', {"temperature": 0.5}),
        ("timeout", "None", None),
        ("cancel_on_kill", "None", True),
        ("on_empty", "None", "fail"),
        ("model", "\n  gemini-2.5-flash\n", "gemini-2.5-flash"),
        ("location", "None", "None"),
        ("system_instruction", "None", None),
        ("input_path", UserList(["/a.txt", "/b.txt"]), ["/a.txt", "/b.txt"]),
        ("inlined_requests", FRAME, FRAME),
        ("carry", UserList(["a"]), ("a",)),
        ("media_root", UserList(["/a"]), ("/a",)),
        ("gcs_uri", UserList(["gs://b/a"]), ["gs://b/a"]),
        ("timeout", Fraction(3, 2), 1.5),
        ("model", Model.FLASH, "gemini-2.5-flash"),
        ("on_empty", Word.SKIP, "skip"),
        ("csv_delimiter", "\\t", "\t"),
        ("encoding", "Windows-1252", "cp1252"),
    ],
)
def test_a_value_is_read_into_its_one_form(argument: str, given: Any, value: Any) -> None:
    source = {"inlined_requests": None} if argument in {"input_path", "gcs_uri"} else {}
    found = getattr(read(**{argument: given}, **source), argument)
    assert found is value or (found, type(found)) == (value, type(value))
    if isinstance(found, str):
        assert f"{found}" == value  # a choice of an Enum shows its own name otherwise


@pytest.mark.parametrize(
    ("argument", "given", "words"),
    [
        ("timeout", "two hours", "timeout must be a number of seconds or a timedelta, not a text of 9 characters"),
        ("timeout", True, "not bool"),
        ("poll_interval", float("nan"), "poll_interval must be a number of seconds"),
        ("timeout", float("inf"), "timeout must be a number of seconds"),
        ("queue_timeout", timedelta(seconds=-1), "queue_timeout must be above 0"),
        ("max_failed_rows", 1.5, "max_failed_rows must be a whole number, not 1.5"),
        ("max_failed_rows", [1], "max_failed_rows must be a whole number, not list"),
        ("max_cost_usd", 0, "max_cost_usd must be above 0"),
        ("max_cost_usd", "much", "max_cost_usd must be a number of US dollars"),
        ("max_failure_rate", "2", "max_failure_rate must be between 0 and 1"),
        ("reattach", "maybe", "reattach must be True or False, not 'maybe'"),
        ("on_empty", "panic", "on_empty must be 'fail' or 'skip' or 'succeed', not 'panic'"),
        ("carry", [7], "carry must be a list of column names, not int"),
        ("carry", {"a": 1}, "carry must be a list of column names, not dict"),
        ("carry", "['a', 'b']", "carry: a template turns a list into text"),
        ("carry", '["a"]', "carry: a template turns a list into text"),
        ("labels", "a=b", "labels must be a dict, or the text of a JSON object"),
        ("generation_config", "{'a': 1}", "generation_config must be a dict, or the text of a JSON object"),
        ("generation_config", "[1]", "generation_config must be a dict, not list"),
        ("generation_config", BatchRequest(text="swordfish"), r"not BatchRequest; give its model_dump\(mode='json'"),
        ("timeout", Elapsed(), "timeout must be a number of seconds or a timedelta, not Elapsed"),
        ("timeout", 10**400, "timeout must be a number of seconds or a timedelta, and no larger than 1e\\+12"),
        ("timeout", timedelta.max, "timeout must be at most 315360000 seconds, which are ten years"),
        ("max_cost_usd", 10**400, "max_cost_usd must be a number of US dollars, and no larger"),
        ("model", "", "model is empty; a task or template that should give it has given nothing"),
        ("model", None, "model is empty"),
        ("gemini_conn_id", "", "gemini_conn_id is empty; a task or template that should give it has given nothing"),
        ("gemini_conn_id", "None", "gemini_conn_id is empty"),
        ("prompt_template", pathlib.Path("/p.txt"), r"not \w*Path; for what is in the file, read_text\(\) it"),
        ("system_instruction", b"swordfish", "must be a text, or a content as a dict, not bytes"),
        ("media_root", [Model.FLASH], "media_root must be a path: .*, not Model; give its value"),
        ("model", "None", "model is empty"),
        ("output_path", b"/data/out.jsonl", "output_path must be a path: .*, not bytes"),
        ("output_path", 7, "output_path must be a path: a text, a pathlib.Path or an ObjectStoragePath, not int"),
        ("output_path", OUTPUT, 'task.output\\["output"\\], with multiple_outputs=True on that task'),
        ("output_path", "rows/out.jsonl", "output_path: 'rows/out.jsonl' is relative; give the whole path"),
        ("output_path", "None", "output_path is empty"),
        ("staging_path", "stage", "staging_path: 'stage' is relative"),
        ("media_root", ["/a", "b"], "media_root: 'b' is relative"),
        ("media_path", str(["/a", "/b"]), "media_path: a template turns a list into text"),
        ("staging_path", str(["gs://a/b"]), "staging_path: a template turns a list into text"),
        ("model", OUTPUT, 'model must be a text, not dict; take the member .* task.output\\["model"\\]'),
        ("display_name", OUTPUT, "display_name must be a text, not dict"),
        ("key_field", ["a"], "key_field must be a text, not list"),
        ("csv_delimiter", ";;", "csv_delimiter must be one character, .*, not a text of 2 characters"),
        ("encoding", "klingon", "encoding must be an encoding that Python knows, .*, not 'klingon'"),
        ("encoding", "base64", "encoding must be an encoding that Python knows"),
        ("encoding", "undefined", "encoding must be an encoding that Python knows"),
        ("labels", {"team": None}, "labels\\['team'\\] must be a text, not NoneType"),
        ("inlined_requests", {"a"}, "set cannot be rows"),
        ("inlined_requests", "swordfish", "str cannot be rows"),
    ],
)
def test_a_value_that_means_nothing_is_refused_by_task_argument_and_type(argument: str, given: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as refused:
        operator(**{argument: given})
    assert "'t' (test_arguments.py, line " in str(refused.value)
    assert "swordfish" not in str(refused.value)


@pytest.mark.parametrize("wrong", ["retrieval_query", "SEARCH"])
def test_a_kind_of_embedding_that_the_service_does_not_know_is_refused(wrong: str) -> None:
    words = f"task_type must be 'RETRIEVAL_DOCUMENT' or .*, not '{wrong}'"
    with DAG("d", schedule=None), pytest.raises(ConfigurationError, match=words):
        GeminiCreateEmbeddingsBatchJobOperator(task_id="t", model="m", inlined_requests=["x"], task_type=wrong)
    assert read_arguments(BatchArguments, {"task_type": "RETRIEVAL_QUERY"}).task_type == "RETRIEVAL_QUERY"
    assert read_arguments(BatchArguments, {"task_type": "None"}).task_type is None


def test_what_another_task_returns_is_taken_wherever_airflow_renders() -> None:
    with DAG("d", schedule=None):

        @task
        def seconds() -> int:
            return 7

        value = seconds()
        made = GeminiCreateBatchJobOperator(
            task_id="t", model="m", inlined_requests=["x"], timeout=value, max_failed_rows="{{ params.n }}", carry=value
        )
        assert made.upstream_task_ids == {"seconds"}
        held: dict[str, Any] = {"input_path": [value, "/data/b.csv"], "carry": (value, "b"), "media_root": [value]}
        held["labels"] = {"team": value}
        several = GeminiCreateBatchJobOperator(task_id="several", model="m", **held)
        assert several.upstream_task_ids == {"seconds"}
        with pytest.raises(ConfigurationError, match=r"job_name must be a text, not .*; it is a task: give"):
            GeminiGetBatchJobOperator(task_id="whole", job_name=made)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="prompt_template must be known when the Dag is parsed"):
            GeminiCreateBatchJobOperator(task_id="u", model="m", inlined_requests=["x"], prompt_template=value)


@pytest.mark.parametrize(
    "made", [GeminiCreateBatchJobOperator, GeminiCreateEmbeddingsBatchJobOperator], ids=["generation", "embeddings"]
)
def test_a_template_stands_for_any_argument_and_is_read_when_it_is_rendered(made: Any) -> None:
    with DAG("d", schedule=None):
        given = made(task_id="t", model="m", inlined_requests=["x"], timeout="{{ n }}", keep_input="{{ n > 5 }}")
    given.render_template_fields({"n": 90})
    found = read_arguments(BatchArguments, given._given())
    assert (found.timeout, found.keep_input) == (90.0, True)
    given.timeout = "{{ n }}"
    given.render_template_fields({"n": "soon"})
    with pytest.raises(ConfigurationError, match="timeout must be a number of seconds"):
        read_arguments(BatchArguments, given._given())


def test_every_argument_but_two_is_rendered() -> None:
    rendered = {
        {"is_dry_run": "dry_run", "embedding_task_type": "task_type"}.get(name, name)
        for one in (GeminiCreateBatchJobOperator, GeminiCreateEmbeddingsBatchJobOperator)
        for name in one.template_fields
    }
    assert set(argument_names(BatchArguments)) - rendered == {"prompt_template", "output_schema"}


def test_a_dag_with_paths_and_spans_of_time_can_be_stored() -> None:
    made = operator(
        timeout=timedelta(hours=1),
        output_path=ObjectStoragePath("s3://conn@bucket/out.jsonl"),
        staging_path=pathlib.Path("/stage"),
    )
    first, again = (str(DagSerialization.to_dict(made.dag)) for _ in range(2))
    assert first == again
    assert "s3://" in first


@pytest.mark.parametrize(
    "made",
    [
        GeminiGetBatchJobOperator,
        GeminiCancelBatchJobOperator,
        GeminiDeleteBatchJobOperator,
        GeminiGetBatchResponsesOperator,
    ],
)
def test_a_whole_output_where_a_name_is_meant_is_refused_with_the_member_and_without_what_is_in_it(made: Any) -> None:
    with DAG("d", schedule=None):
        with pytest.raises(ConfigurationError) as refused:
            made(task_id="t", job_name=OUTPUT)
        late = made(task_id="u", job_name="{{ job }}")
    late.job_name = OUTPUT
    with pytest.raises(ConfigurationError) as then:
        read_arguments(made._form, late._given())
    for error in (refused, then):
        assert "job_name must be a text, not dict; take the member you need" in str(error.value)
        assert '.output["job_name"]' in str(error.value)
        assert "swordfish" not in str(error.value)


@pytest.mark.parametrize(
    ("rendered", "words"),
    [
        (str(OUTPUT), r"job_name: a template turns a dict into text: take the member .*\['job_name'\]"),
        (str(["batches/abc"]), "job_name: a template turns a list into text"),
    ],
)
def test_what_a_template_makes_of_an_output_is_refused_where_a_name_is_meant(rendered: str, words: str) -> None:
    with DAG("d", schedule=None), pytest.raises(ConfigurationError, match=words) as refused:
        GeminiGetBatchJobOperator(task_id="t", job_name=rendered)
    assert "swordfish" not in str(refused.value)


def test_blanks_that_a_template_leaves_around_a_name_are_dropped() -> None:
    with DAG("d", schedule=None):
        made = GeminiGetBatchJobOperator(task_id="t", job_name="\n  batches/abc\n")
    assert made._name() == "batches/abc"


@pytest.mark.parametrize("nothing", [None, "", " ", "None"])
def test_a_name_that_is_empty_is_refused(nothing: Any) -> None:
    with DAG("d", schedule=None), pytest.raises(ConfigurationError, match="job_name is empty"):
        GeminiGetBatchJobOperator(task_id="t", job_name=nothing)


def test_the_other_operators_name_their_arguments_too() -> None:
    with DAG("d", schedule=None):
        with pytest.raises(ConfigurationError, match=r"'t' \(test_arguments.py, line \d+\): max_results must be"):
            GeminiListBatchJobsOperator(task_id="t", max_results="many")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="input_path must be a path"):
            GeminiUploadFileOperator(task_id="u", input_path=OUTPUT)  # type: ignore[arg-type]
        GeminiUploadFileOperator(task_id="v", input_path=pathlib.Path("/data/in.jsonl"))


def test_a_decorated_function_is_named_by_its_task_and_line() -> None:
    with DAG("d", schedule=None):

        @gemini_batch_task(model="gemini-2.5-flash", timeout="soon")
        def prompts() -> list[str]:
            return ["x"]

        with pytest.raises(ConfigurationError) as refused:
            prompts()
    assert str(refused.value).startswith("@task.gemini_batch 'prompts' (test_arguments.py, line ")


def test_an_asynchronous_function_is_refused_when_the_dag_is_parsed() -> None:
    with DAG("d", schedule=None):

        @gemini_batch_task(model="gemini-2.5-flash")
        async def prompts() -> list[str]:
            return ["x"]

        with pytest.raises(ConfigurationError, match=r"'prompts' \(test_arguments.py, line \d+\): .* asynchronous"):
            prompts()


def test_an_argument_of_a_mapped_task_that_cannot_work_names_no_line_and_is_not_tried_again() -> None:
    with DAG("d", schedule=None):
        mapped = GeminiCreateBatchJobOperator.partial(task_id="t", model="m").expand(inlined_requests=["a", "b"])
    with pytest.raises(AirflowFailException, match=r"^GeminiCreateBatchJobOperator 't': inlined_requests: str cannot"):
        mapped.unmap({"inlined_requests": "a"})


def test_several_outputs_are_honoured_when_asked_for_and_never_inferred() -> None:
    with DAG("d", schedule=None):

        @gemini_batch_task(model="gemini-2.5-flash")
        def inferred() -> dict[str, Any]:
            return {}

        @gemini_batch_task(model="gemini-2.5-flash", multiple_outputs=True)
        def asked() -> list[str]:
            return ["x"]

        assert inferred().operator.multiple_outputs is False  # type: ignore[attr-defined]
        assert asked().operator.multiple_outputs is True  # type: ignore[attr-defined]


@pytest.mark.parametrize(("setting", "deferrable"), [(None, True), ("false", False), ("true", True)])
def test_airflows_default_for_deferring_is_honoured_where_somebody_has_set_it(
    setting: str | None,
    deferrable: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", raising=False)
    if setting is not None:
        monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", setting)
    assert operator().deferrable is deferrable
    assert operator(deferrable=not deferrable).deferrable is not deferrable


@pytest.mark.parametrize(("others", "deferrable"), [({}, False), ({"default_cpus": "1"}, True)])
def test_a_file_counts_unless_airflow_wrote_all_of_its_defaults_into_it(
    others: dict[str, str],
    deferrable: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow.sdk.configuration import conf

    monkeypatch.delenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", raising=False)
    had = conf.has_section("operators")
    conf.read_dict({"operators": {"default_deferrable": "false", **others}})
    try:
        assert default_deferrable() is deferrable
    finally:
        for name in ("default_deferrable", *others):
            conf.remove_option("operators", name)
        if not had:
            conf.remove_section("operators")


def test_the_value_is_frozen_and_shows_no_member() -> None:
    found = BatchArguments(model="gemini-2.5-flash", system_instruction="a secret plan")
    assert "secret" not in repr(found)
    with pytest.raises(FrozenInstanceError):
        found.model = "another"
    with pytest.raises(TypeError, match="unknown arguments: modle"):
        BatchArguments(modle="gemini-2.5-flash")
