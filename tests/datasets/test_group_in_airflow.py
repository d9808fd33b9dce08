"""The task group as Airflow runs it: planned, mapped, deferred and committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from airflow.sdk import DAG, Asset
from dag_runs import dags_test
from pyarrow import dataset as arrow_dataset
from pyarrow import parquet

from airflow_provider_gemini_batch.datasets import GeminiBatchDataset

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_gemini_batch.emulator import Emulator


# Two runs of three tasks in Airflow, after its database is made, take over two minutes on a busy machine.
@pytest.mark.timeout(240)
def test_the_group_runs_from_plan_to_commit_and_a_second_run_buys_nothing(service: Emulator, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        rows = [{"id": f"{name}{number}", "text": f"Text {number}."} for number in range(4)]
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / f"{name}.parquet")
    with DAG("dataset", schedule=None) as dag:
        GeminiBatchDataset(
            group_id="g",
            model="gemini-2.5-flash",
            input_path=f"{tmp_path}/in/",
            output_path=f"{tmp_path}/out/",
            prompt_template="{text}",
            key_field="id",
            carry="id",
            poll_interval=0.1,
            lookup_timeout=0.0,
            outlets=[Asset("made")],
        )
    run = dags_test(dag)
    totals: Any = run.xcom("g.commit")
    assert totals["counts"] == {"total": 8, "succeeded": 8, "failed": 0}
    assert (tmp_path / "out" / "_SUCCESS").exists()
    found = arrow_dataset.dataset(tmp_path / "out").to_table(columns=["id", "key", "text"])
    assert found.num_rows == 8
    assert len(service.control.books()["jobs"]) == 2
    assert dags_test(dag).xcom("g.commit")["counts"] == totals["counts"]
    assert len(service.control.books()["jobs"]) == 2


@pytest.mark.parametrize("on_empty", ["skip", "succeed"])
def test_a_group_without_files_skips_or_commits_a_dataset_without_rows(
    on_empty: str, service: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    with DAG(f"empty_{on_empty}", schedule=None, params={"on_empty": on_empty}) as dag:
        GeminiBatchDataset(
            group_id="g",
            model="gemini-2.5-flash",
            input_path=f"{tmp_path}/in/",
            output_path=f"{tmp_path}/out/",
            on_empty="{{ params.on_empty }}",
        )
    run = dags_test(dag)
    states = {ti.task_id: str(ti.state) for ti in run.dag_run.get_task_instances(session=run.session)}
    ended = "skipped" if on_empty == "skip" else "success"
    assert states == {"g.plan": ended, "g.part": "skipped", "g.commit": ended}
    assert (tmp_path / "out" / "_SUCCESS").exists() == (on_empty == "succeed")
    assert service.control.books()["jobs"] == []


@pytest.mark.parametrize("native", [False, True])
def test_the_name_of_a_file_is_not_a_template(native: bool, service: Emulator, tmp_path: Path) -> None:  # noqa: FBT001
    names = ("{{ ds }}.csv", "{% x %}.csv", "a b{# '\"é }}\\.csv", "rows/[1].csv")
    for name in names:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("id,text,file\n1,One.,.files/note.txt\n")
    (tmp_path / "in" / ".files").mkdir()
    (tmp_path / "in" / ".files" / "note.txt").write_text("A note.")
    with DAG(f"names_{native}", schedule=None, render_template_as_native_obj=native) as dag:
        GeminiBatchDataset(
            group_id="group",
            model="gemini-2.5-flash",
            input_path=f"{tmp_path}/in/",
            output_path=f"{tmp_path}/out/",
            media_field="file",
            prompt_template="{text}",
            poll_interval=0.1,
            lookup_timeout=0.0,
        )
    run = dags_test(dag)
    assert run.xcom("group.commit")["counts"] == {"total": 4, "succeeded": 4, "failed": 0}
    assert len(service.control.books()["jobs"]) == len(names)
