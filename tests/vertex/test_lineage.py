"""What a batch read and wrote is told to Airflow's hook lineage and to OpenLineage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.openlineage.extractors.base import DefaultExtractor
from airflow.sdk import Asset
from airflow.sdk import lineage as hook_lineage
from task_context import task_context
from vertex.test_existing_sources import lines

from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
from airflow_provider_gemini_batch.runtime.arguments import BatchArguments
from airflow_provider_gemini_batch.runtime.lineage import lineage_of, openlineage_facets

if TYPE_CHECKING:
    from vertex.bench import Bench


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> hook_lineage.HookLineageCollector:
    """A collector as Airflow makes one when anybody reads from it."""
    collector = hook_lineage.HookLineageCollector()  # type: ignore[no-untyped-call]
    monkeypatch.setattr(hook_lineage, "get_hook_lineage_collector", lambda: collector)
    return collector


def uris(found: list[Any]) -> list[str]:
    return [each.asset.uri for each in found]


def test_objects_and_tables_go_to_the_hook_lineage_collector(
    bench: Bench, collected: hook_lineage.HookLineageCollector
) -> None:
    source = f"gs://data/{bench.folder.name}/in.jsonl"
    bench.put(source, lines("a"))
    output = f"gs://data/{bench.folder.name}/out.jsonl"
    bench.go(gcs_uri=source, output_path=output)
    bench.go(bigquery_uri="bq://p.texts.inbox", destination="bq://p.texts.answers")
    told = collected.collected_assets
    assert uris(told.inputs) == [source, Asset(uri="bq://p.texts.inbox").uri]
    assert uris(told.outputs) == [output, Asset(uri="bq://p.texts.answers").uri]


def test_open_lineage_gets_data_sets_job_model_and_tokens(bench: Bench) -> None:
    folder = f"gs://data/{bench.folder.name}"
    bench.put(f"{folder}/in.jsonl", lines("a", "b"))
    run = bench.run(gcs_uri=f"{folder}/in.jsonl", destination=f"{folder}/answers", output_path=f"{folder}/out.jsonl")
    assert run.attempt("batch").state == "success"
    summary = run.xcom("batch")

    class Instance:
        """A task instance of another process than the task's."""

        def xcom_pull(self, task_ids: str) -> dict[str, Any]:
            assert task_ids == "batch"
            return dict(summary)

    task: Any = run.dag.task_dict["batch"]
    # The way that OpenLineage's own listener goes.
    facets = DefaultExtractor(task).extract_on_complete(Instance())
    assert facets is not None
    assert [(each.namespace, each.name) for each in facets.inputs] == [("gs://data", f"{bench.folder.name}/in.jsonl")]
    names = [(each.namespace, each.name) for each in facets.outputs]
    assert names[-1] == ("gs://data", f"{bench.folder.name}/out.jsonl")
    batch: Any = facets.run_facets["geminiBatch"]
    assert (batch.jobNames, batch.model, batch.state) == (summary["job_names"], "gemini-2.5-flash", "SUCCEEDED")
    assert batch.usage == summary["usage"]
    assert batch.usage["input_tokens"] > 0
    query: Any = facets.run_facets["externalQuery"]
    assert (query.externalQueryId, query.source) == (summary["job_name"], "vertex")


@pytest.mark.parametrize(
    ("uri", "namespace", "name"),
    [
        ("gs://data/a#b?.jsonl", "gs://data", "a#b?.jsonl"),
        ("gs://my_conn@data/in/", "gs://data", "in"),
        ("gs://data", "gs://data", "/"),
        ("/data/day#1?/[a].csv", "file", "/data/day#1?/[a].csv"),
        ("wasbs://box@account.blob.core.windows.net/x", "wasbs://box@account.blob.core.windows.net", "x"),
        ("s3://key:secret@bucket/x", "s3://bucket", "x"),
    ],
)
def test_a_data_set_has_its_whole_name_and_no_credential(uri: str, namespace: str, name: str) -> None:
    facets = openlineage_facets(lineage_of(BatchArguments(model="m", inlined_requests=["x"]), {"output": uri}), {})
    assert [(each.namespace, each.name) for each in facets.outputs] == [(namespace, name)]


def test_a_task_that_delivered_nothing_reports_nothing(bench: Bench) -> None:
    run = bench.run(inlined_requests=["One."], dry_run=True)
    assert run.attempt("batch").state == "success"

    class Instance:
        def xcom_pull(self, task_ids: str) -> None:
            """Nothing was pushed."""

    task: Any = run.dag.task_dict["batch"]
    facets = DefaultExtractor(task).extract_on_complete(Instance())
    assert facets is None or not facets.inputs


def test_open_lineage_in_the_tasks_own_process_also_names_where_the_service_wrote(bench: Bench) -> None:
    folder = f"gs://data/{bench.folder.name}"
    bench.put(f"{folder}/in.jsonl", lines("a", "b"))
    task = GeminiCreateBatchJobOperator(
        task_id="t",
        model="gemini-2.5-flash",
        gemini_conn_id="vertex",
        gcs_uri=f"{folder}/in.jsonl",
        destination=f"{folder}/answers",
        output_path=f"{folder}/out.jsonl",
        deferrable=False,
        poll_interval=0.1,
    )
    task.execute(task_context())
    # The task's own process asks nobody.
    facets = DefaultExtractor(task).extract_on_complete(None)
    assert facets is not None
    service_wrote, landed = [each.name for each in facets.outputs]
    assert service_wrote.startswith(f"{bench.folder.name}/answers/")
    assert landed == f"{bench.folder.name}/out.jsonl"
