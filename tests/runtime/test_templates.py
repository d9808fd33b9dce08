"""What Airflow's rendering does to the arguments of an operator, and what it stores of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, Asset, ObjectStoragePath
from airflow.serialization.serialized_objects import DagSerialization
from upath import UPath

from airflow_provider_gemini_batch.api.requests.request import BatchRequest
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from airflow_provider_gemini_batch.runtime.arguments import BatchArguments, read_arguments
from airflow_provider_gemini_batch.runtime.rendering import Uncalled

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT: Any = {"ds": "2026-01-01", "run_id": "r"}
called: list[str] = []


def prompts() -> Iterator[str]:
    called.append("prompts")
    yield "a secret prompt"


def operator(**arguments: Any) -> GeminiCreateBatchJobOperator:
    with DAG("d", schedule=None):
        return GeminiCreateBatchJobOperator(task_id="t", model="gemini-2.5-flash", **arguments)


def test_rendering_does_not_call_a_function_that_gives_rows() -> None:
    task = operator(inlined_requests=prompts)
    task.render_template_fields(CONTEXT)
    assert task._given()["inlined_requests"] is prompts
    assert not called


def test_the_serialised_dag_holds_the_name_of_the_function_and_no_prompt() -> None:
    first, again = (str(DagSerialization.to_dict(operator(inlined_requests=prompts).dag)) for _ in range(2))
    assert first == again
    assert "secret" not in first
    assert "test_templates.prompts" in first
    assert not called


@pytest.mark.parametrize("path", ["gs://bucket/in.jsonl", "/data/in.jsonl", "s3://bucket/prompts.txt"])
def test_a_path_is_a_value_and_no_template_file(path: str) -> None:
    task = operator(input_path=path, output_path="/data/{{ ds }}/out.jsonl", staging_path="gs://bucket/stage")
    task.render_template_fields(CONTEXT)
    assert (task.input_path, task.output_path) == (path, "/data/2026-01-01/out.jsonl")


def test_prompts_in_a_list_are_rendered_at_any_depth() -> None:
    task = operator(inlined_requests=["{{ ds }}", {"contents": [{"parts": [{"text": "{{ run_id }}"}]}]}])
    task.render_template_fields(CONTEXT)
    assert task.inlined_requests == ["2026-01-01", {"contents": [{"parts": [{"text": "r"}]}]}]


def test_a_typed_request_is_rendered_as_a_dict_would_be() -> None:
    given = BatchRequest(text="{{ run_id }}", key="{{ ds }}", extra={"labels": {"day": "{{ ds }}"}})
    task = operator(inlined_requests=[given])
    task.render_template_fields(CONTEXT)
    assert task.inlined_requests == [{"text": "r", "key": "2026-01-01", "labels": {"day": "2026-01-01"}}]
    assert given.text == "{{ run_id }}", "the next task of this process renders it anew"


def test_a_template_in_a_path_object_is_rendered() -> None:
    task = operator(input_path=[Path("/data/{{ ds }}.csv")], output_path=Path("/data") / "{{ ds }}" / "out.jsonl")
    task.render_template_fields(CONTEXT)
    assert (task.input_path, task.output_path) == (["/data/2026-01-01.csv"], "/data/2026-01-01/out.jsonl")


def test_a_template_in_a_path_of_any_library_is_rendered() -> None:
    asset = Asset(name="out", uri="file:///out/{{ ds }}/out.jsonl")
    input_path = [UPath("s3://in/{{ ds }}.csv"), ObjectStoragePath("s3://in/{{ ds }}.csv", conn_id="c")]
    task = operator(input_path=input_path, output_path=asset)
    task.render_template_fields(CONTEXT)
    read = read_arguments(BatchArguments, task._given())
    assert read.input_path == ["s3://in/2026-01-01.csv", "s3://c@in/2026-01-01.csv"]
    assert read.output_path == "file:///out/2026-01-01/out.jsonl"


def test_a_list_may_hold_a_template_for_a_whole_path() -> None:
    task = operator(input_path=["{{ ds }}", "/b.csv"])
    task.render_template_fields({"ds": "/a.csv"})
    assert task.input_path == ["/a.csv", "/b.csv"]


class OfTable(GeminiCreateBatchJobOperator):
    """An author's own operator, whose rows are made by a method."""

    template_fields = (*GeminiCreateBatchJobOperator.template_fields, "table")

    def __init__(self, *, table: str, **arguments: Any) -> None:
        super().__init__(inlined_requests=self.prompts, model="gemini-2.5-flash", **arguments)
        self.table = table

    def prompts(self) -> list[str]:
        return [f"Describe {self.table}."]


def test_a_method_that_gives_the_rows_sees_the_rendered_attributes() -> None:
    with DAG("d", schedule=None):
        written = OfTable(task_id="t", table="t_{{ ds }}")
    task = written.prepare_for_execution()  # a copy, as a worker makes it
    task.render_template_fields(CONTEXT)
    assert task._given()["inlined_requests"]() == ["Describe t_2026-01-01."]
    task.inlined_requests = Uncalled(partial(written.prompts))
    assert task._given()["inlined_requests"]() == ["Describe t_2026-01-01."]
    assert written.table == "t_{{ ds }}"


def test_a_method_of_something_else_stays_as_it_is() -> None:
    with DAG("d", schedule=None):
        other = OfTable(task_id="other", table="x")
        task = OfTable(task_id="t", table="y")
    assert operator(inlined_requests=other.prompts)._given()["inlined_requests"]() == ["Describe x."]
    assert task._given()["inlined_requests"]() == ["Describe y."]


@pytest.mark.parametrize("native", [False, True])
def test_a_text_without_templates_is_sent_as_it_stands(*, native: bool) -> None:
    prompts = ['"To be or not to be"', "[1, 2]", "{'a': 1}", "007", "one\r\ntwo\n", ""]
    with DAG("d", schedule=None, render_template_as_native_obj=native):
        task = GeminiCreateBatchJobOperator(task_id="t", model="m", inlined_requests=[*prompts, "{{ run_id }}"])
    task.render_template_fields(CONTEXT)
    assert task.inlined_requests == [*prompts, "r"]


def test_delimiters_of_the_dags_own_are_honoured() -> None:
    with DAG("d", schedule=None, jinja_environment_kwargs={"variable_start_string": "[[", "variable_end_string": "]]"}):
        task = GeminiCreateBatchJobOperator(task_id="t", model="m", inlined_requests=["[[ run_id ]]", "{{ run_id }}"])
    task.render_template_fields(CONTEXT)
    assert task.inlined_requests == ["r", "{{ run_id }}"]
