"""Tasks of one run that would write to one file, or do one part of a dataset, are refused before they pay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, task, task_group
from airflow.sdk.execution_time.lazy_sequence import LazyXComSequence
from dag_runs import Run, dags_test
from runtime.tasks import MODEL, create, jobs, needs_notes

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator

pytestmark = pytest.mark.slow


def expect_refusals(run: Run, task_id: str, words: str) -> None:
    """Run the first two tasks of a mapped one, which must fail with these words."""
    for index in (0, 1):
        result = run.attempt(task_id, map_index=index)
        assert result.state == "failed"
        assert words in result.message


def test_a_file_that_another_task_of_the_run_has_written_is_not_replaced(service: Emulator, tmp_path: Path) -> None:
    with DAG("clash", schedule=None) as dag:
        for name in ("first", "second"):
            create(name, inlined_requests=[name], output_path=str(tmp_path / "out.jsonl"))
    run = Run(dag)
    assert run.attempt("first").state == "success"
    second = run.attempt("second")
    assert second.state == "failed"
    assert "another task of this run" in second.message
    assert "first" in (tmp_path / "out.jsonl").read_text()
    assert len(jobs(service)) == 1


def test_a_task_whose_file_another_is_about_to_write_is_refused_before_it_pays(
    service: Emulator, tmp_path: Path
) -> None:
    path = f"{tmp_path}/{{{{ ds }}}}.jsonl"
    with DAG("clash_while_waiting", schedule=None) as dag:
        for name in ("first", "second", "apart"):
            create(name, inlined_requests=[name], output_path=path)
        GeminiCreateBatchJobOperator.partial(task_id="many", model=MODEL, poll_interval=0.1, output_path=path).expand(
            inlined_requests=[["Uno."]]
        )
    run = Run(dag)
    refused = []

    def meanwhile() -> None:
        refused.extend([run.attempt("second"), run.attempt("many", map_index=0)])

    first = run.attempt("first", meanwhile=meanwhile)
    assert first.state == "success", first.message
    assert [each.state for each in refused] == ["failed", "failed"]
    assert all("output_path is also that of the task 'first'" in each.message for each in refused)
    assert len(jobs(service)) == 1


def test_an_output_path_that_names_its_task_is_shared_with_no_other(service: Emulator, tmp_path: Path) -> None:
    with DAG("own_paths", schedule=None) as dag:
        for name in ("first", "second"):
            create(name, inlined_requests=[name], output_path=f"{tmp_path}/{{{{ ti.task_id }}}}.jsonl")
    run = Run(dag)
    second = []
    assert run.attempt("first", meanwhile=lambda: second.append(run.attempt("second"))).state == "success"
    assert [each.state for each in second] == ["success"]
    assert len(jobs(service)) == 2


@pytest.mark.parametrize(
    ("given", "value"),
    [
        pytest.param("part_key", "all", marks=needs_notes),
        ("output_path", "all.jsonl"),
        ("output_path", "{{ ds }}/{{ macros.ds_add(ds, 1) }}.jsonl"),
        ("output_path", "{% if params.x %}a{% else %}b{% endif %}.jsonl"),
        ("output_path", "{{ dag_run.run_id | length }}.jsonl"),
        ("output_path", "{{ partition_key }}.jsonl"),
    ],
)
def test_mapped_tasks_that_would_share_a_part_or_a_file_are_refused_before_they_pay(
    given: str, value: str, service: Emulator, tmp_path: Path
) -> None:
    same = {"output_path": f"{tmp_path}/{{{{ ti.map_index }}}}.jsonl"} | {given: f"{tmp_path}/{value}"}
    with DAG("same", schedule=None, params={"x": 1}) as dag:
        GeminiCreateBatchJobOperator.partial(task_id="m", model=MODEL, poll_interval=0.1, **same).expand(
            inlined_requests=[["Uno."], ["Due."]]
        )
    run = Run(dag)
    expect_refusals(run, "m", f"{given} is the same for all mapped tasks")
    assert jobs(service) == []


def test_a_path_with_the_map_index_in_it_is_known_by_the_dags_own_marks_of_templates(
    service: Emulator, tmp_path: Path
) -> None:
    marks = {"variable_start_string": "<<", "variable_end_string": ">>"}
    with DAG("marks", schedule=None, jinja_environment_kwargs=marks, params={"folder": str(tmp_path)}) as dag:
        mapped = GeminiCreateBatchJobOperator.partial(
            task_id="m", model=MODEL, poll_interval=0.1, output_path=f"{tmp_path}/<< ti.map_index >>.jsonl"
        )
        mapped.expand(inlined_requests=[["Uno."], ["Due."]])
        create("whole", inlined_requests=["Tre."], output_path="<< params.folder >>/whole.jsonl")
        GeminiCreateBatchJobOperator.partial(
            task_id="same", model=MODEL, output_path="<< params.folder >>/same.jsonl"
        ).expand(inlined_requests=[["Uno."], ["Due."]])
    run = Run(dag)
    assert [run.attempt("m", map_index=index).state for index in (0, 1)] == ["success", "success"]
    assert run.attempt("whole").state == "success"
    expect_refusals(run, "same", "output_path is the same for all mapped tasks")
    assert len(jobs(service)) == 3


def test_what_tasks_are_mapped_over_is_asked_for_in_one_request(
    service: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    real = LazyXComSequence.__getitem__

    def get(values: Any, key: Any) -> Any:
        asked.append(key)
        return real(values, key)

    monkeypatch.setattr(LazyXComSequence, "__getitem__", get)
    with DAG("lazy", schedule=None) as dag:

        @task
        def plan(name: str) -> dict[str, Any]:
            return {"inlined_requests": [name], "name": name}

        def with_path(made: dict[str, Any]) -> dict[str, Any]:
            return {"inlined_requests": made["inlined_requests"], "output_path": f"{tmp_path}/{made['name']}.jsonl"}

        plans = plan.expand(name=["a", "b", "c", "c"])
        GeminiCreateBatchJobOperator.partial(task_id="m", model=MODEL, poll_interval=0.1).expand_kwargs(
            plans.map(with_path)
        )
    run = dags_test(dag)
    assert [run.instance("m", index).state for index in range(4)] == ["failed"] * 4
    assert jobs(service) == []
    # Airflow asks for the one that a task is mapped over.
    assert len([key for key in asked if isinstance(key, slice)]) == 4
    assert len(asked) == 8


def test_decorated_tasks_that_would_share_a_file_are_refused_before_they_pay(service: Emulator, tmp_path: Path) -> None:
    with DAG("decorated", schedule=None) as dag:

        @task.gemini_batch(model=MODEL, poll_interval=0.1, output_path=f"{tmp_path}/{{{{ ds }}}}.jsonl")
        def shared(text: str) -> list[str]:
            return [text]

        @task.gemini_batch(model=MODEL, poll_interval=0.1)
        def apart(output_path: str) -> list[str]:
            return [output_path]

        shared.expand(text=["Uno.", "Due."])
        apart.expand(output_path=["the same argument", "the same argument"])
    run = Run(dag)
    expect_refusals(run, "shared", "output_path is the same for all mapped tasks")
    assert jobs(service) == []
    assert {run.attempt("apart", map_index=index).state for index in (0, 1)} == {"success"}


def test_a_file_may_be_given_to_all_mapped_tasks_if_there_is_only_one(service: Emulator, tmp_path: Path) -> None:
    with DAG("only", schedule=None) as dag:
        GeminiCreateBatchJobOperator.partial(
            task_id="m", model=MODEL, poll_interval=0.1, output_path=f"{tmp_path}/all.jsonl"
        ).expand(inlined_requests=[["Uno."]])
    assert Run(dag).attempt("m", map_index=0).state == "success"
    assert len(jobs(service)) == 1


def test_the_first_task_of_a_mapped_group_goes_on_with_a_file_that_the_others_are_refused(
    service: Emulator, tmp_path: Path
) -> None:
    @task_group
    def group(rows: Any) -> None:
        create("m", inlined_requests=rows, output_path=f"{tmp_path}/all.jsonl")

    with DAG("mapped_group", schedule=None) as dag:
        group.expand(rows=[["Uno."], ["Due."]])
    run = Run(dag)
    assert run.attempt("group.m", map_index=0).state == "success"
    second = run.attempt("group.m", map_index=1)
    assert second.state == "failed"
    assert "output_path is the same for all mapped tasks" in second.message
    assert len(jobs(service)) == 1


def test_mapped_tasks_that_would_share_what_another_task_returns_as_their_file_are_refused(
    service: Emulator, tmp_path: Path
) -> None:
    @task
    def path() -> str:
        return f"{tmp_path}/all.jsonl"

    with DAG("same_output", schedule=None) as dag:
        GeminiCreateBatchJobOperator.partial(task_id="m", model=MODEL, poll_interval=0.1, output_path=path()).expand(
            inlined_requests=[["Uno."], ["Due."]]
        )
    run = Run(dag)
    assert run.attempt("path").state == "success"
    expect_refusals(run, "m", "output_path is the same for all mapped tasks")
    assert jobs(service) == []


def _combinations(paths: Any, rows: Any) -> None:
    GeminiCreateBatchJobOperator.partial(task_id="m", model=MODEL, poll_interval=0.1).expand(
        output_path=paths, inlined_requests=rows
    )


def _one_list(paths: Any, rows: Any) -> None:
    GeminiCreateBatchJobOperator.partial(task_id="m", model=MODEL, poll_interval=0.1, inlined_requests=rows[0]).expand(
        output_path=[*paths, *paths]
    )


def _dicts(paths: Any, rows: Any) -> None:
    GeminiCreateBatchJobOperator.partial(task_id="m", model=MODEL, poll_interval=0.1).expand_kwargs(
        [{"output_path": path, "inlined_requests": rows[0]} for path in [*paths, *paths]]
    )


@pytest.mark.parametrize("map_tasks", [_combinations, _one_list, _dicts])
def test_mapped_tasks_of_which_several_get_one_output_path_are_refused_before_they_pay(
    map_tasks: Callable[[Any, Any], None], service: Emulator, tmp_path: Path
) -> None:
    with DAG("several", schedule=None) as dag:
        map_tasks([f"{tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl"], [["Uno."], ["Due."]])
    run = Run(dag)
    expect_refusals(run, "m", "output_path is the same for several mapped tasks")
    assert jobs(service) == []


def test_mapped_tasks_get_one_output_path_by_what_other_tasks_return(service: Emulator, tmp_path: Path) -> None:
    @task
    def paths() -> list[str]:
        return [f"{tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl"]

    @task
    def rows() -> list[list[str]]:
        return [["Uno."], ["Due."]]

    @task
    def dicts() -> list[dict[str, Any]]:
        return [{"inlined_requests": ["Uno."], "output_path": f"{tmp_path}/{name}.jsonl"} for name in "cdc"]

    with DAG("several_returned", schedule=None) as dag:
        _combinations(paths(), rows())
        GeminiCreateBatchJobOperator.partial(task_id="n", model=MODEL, poll_interval=0.1).expand_kwargs(dicts())
    run = dags_test(dag)
    assert {run.instance(name, index).state for name in "mn" for index in (0, 1, 2)} == {"failed"}
    assert jobs(service) == []


def test_mapped_tasks_that_get_their_own_output_paths_or_a_folder_go_on(service: Emulator, tmp_path: Path) -> None:
    @task
    def folder() -> str:
        return f"{tmp_path}/returned/"

    with DAG("apart", schedule=None, params={"folder": f"{tmp_path}/given/"}) as dag:
        settings: dict[str, Any] = {"model": MODEL, "poll_interval": 0.1}
        GeminiCreateBatchJobOperator.partial(task_id="paths", **settings).expand(
            output_path=[f"{tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl"], inlined_requests=[["Uno."]]
        )
        for name, path in (("returned", folder()), ("given", "{{ params.folder }}")):
            GeminiCreateBatchJobOperator.partial(task_id=name, output_path=path, **settings).expand(
                inlined_requests=[["Uno."], ["Due."]]
            )
        GeminiCreateBatchJobOperator.partial(task_id="mapped", **settings).expand(
            output_path=["{{ params.folder }}"], inlined_requests=[["Uno."], ["Due."]]
        )
    run = Run(dag)
    assert run.attempt("folder").state == "success"
    mapped = ("paths", "returned", "given", "mapped")
    assert {run.attempt(name, map_index=index).state for name in mapped for index in (0, 1)} == {"success"}
    assert len(jobs(service)) == 8


@pytest.mark.parametrize(
    "value",
    ["{{ ti.map_index }}", "{{ task.display_name }}", "{{ macros.uuid.uuid4() }}", "{{ task_instance.map_index }}"],
)
def test_mapped_tasks_whose_template_may_differ_are_not_refused(value: str, service: Emulator, tmp_path: Path) -> None:
    with DAG("differ", schedule=None) as dag:
        GeminiCreateBatchJobOperator.partial(
            task_id="m", model=MODEL, poll_interval=0.1, output_path=f"{tmp_path}/{value}.jsonl"
        ).expand_kwargs([{"inlined_requests": [key], "display_name": key} for key in ("one", "two")])
    run = Run(dag)
    assert [run.attempt("m", map_index=index).state for index in (0, 1)] == ["success", "success"]
    assert len(jobs(service)) == 2
