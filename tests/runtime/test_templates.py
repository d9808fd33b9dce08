"""What Airflow's rendering does to the arguments of an operator, and what it stores of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator

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
