"""common.ai's ``LLMBatchOperator`` and ``@task.llm_batch`` on Gemini, through our adapter and against the emulator."""

from __future__ import annotations

import asyncio
import json
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from airflow.providers.common.ai import example_dags
from airflow.providers.common.ai.batch import dispatch
from airflow.providers.common.ai.batch.output_schema import build_output_spec
from airflow.providers.common.ai.exceptions import LLMBatchModelMismatchError
from airflow.providers.common.ai.operators.llm_batch import LLMBatchOperator
from airflow.providers.common.ai.triggers.llm_batch import LLMBatchTrigger
from airflow.sdk import DAG, task
from dag_runs import Run
from pydantic import BaseModel

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.common_ai import GeminiBatchAdapter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_gemini_batch.emulator import Emulator

REVIEWS = ["Loved it.", "Broke after one use.", "Does what it says."]
TEXT = build_output_spec(str)


class Sentiment(BaseModel):
    label: Literal["positive", "negative", "neutral"]
    reason: str


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GeminiBatchAdapter, "lookup_seconds", 0.0)
    monkeypatch.setattr(GeminiBatchAdapter, "lookup_pause", 0.05)
    monkeypatch.setattr(GeminiBatchAdapter, "gone_after", 0.05)


@pytest.fixture
def adapter(service: Emulator) -> Iterator[GeminiBatchAdapter]:
    made = GeminiBatchAdapter(api_key="hidden-key", base_url=service.url)
    yield made
    made.close()


def jobs(service: Emulator) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.control.books()["jobs"]
    return found


def rows_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    path = manifest["result_uri"].removeprefix("file://")
    with open(path, encoding="utf-8") as lines:  # noqa: PTH123  (an address that the manifest gives)
        return [json.loads(line) for line in lines]


def operator(folder: Path, **arguments: Any) -> LLMBatchOperator:
    given = {"requests": REVIEWS, "model_id": "google:gemini-2.5-flash", "llm_conn_id": "pydanticai_default"}
    return LLMBatchOperator(task_id="ask", result_path=f"file://{folder}", poll_interval=30, **{**given, **arguments})


@pytest.mark.parametrize("name", ["google", "google-gla", "gemini"])
def test_common_ai_finds_the_adapter_by_each_prefix(name: str) -> None:
    assert dispatch.get_adapter_class("pydanticai", f"{name}:gemini-2.5-flash") is GeminiBatchAdapter


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("output_type", [str, Sentiment, list[str]])
def test_a_batch_runs_with_no_change_in_the_dag(
    service: Emulator, tmp_path: Path, output_type: Any, *, deferrable: bool
) -> None:
    with DAG("common_ai", schedule=None) as dag:
        operator(tmp_path, output_type=output_type, deferrable=deferrable)
    run = Run(dag)
    result = run.attempt("ask")
    assert result.state == "success", result.error
    assert bool(result.deferrals) == deferrable
    rows = rows_of(run.xcom("ask"))
    assert sorted(row["index"] for row in rows) == [0, 1, 2]
    assert {row["status"] for row in rows} == {"success"}
    assert all(row["usage"]["input_tokens"] > 0 for row in rows)
    if output_type is Sentiment:
        assert all(Sentiment.model_validate(row["output"]) for row in rows)
    assert len(jobs(service)) == 1


def test_the_decorator_runs(service: Emulator, tmp_path: Path) -> None:
    with DAG("common_ai_task", schedule=None) as dag:

        @task.llm_batch(
            llm_conn_id="pydanticai_default",
            model_id="gemini:gemini-2.5-flash",
            result_path=f"file://{tmp_path}",
            system_prompt="Classify.",
            poll_interval=30,
        )
        def ask() -> list[str]:
            return REVIEWS

        ask()
    run = Run(dag)
    assert run.attempt("ask").state == "success"
    assert len(jobs(service)) == 1


def test_a_row_that_failed_is_an_error_and_the_others_are_kept(service: Emulator, tmp_path: Path) -> None:
    service.control.faults(row_error_every=3, row_error_code=8)
    with DAG("common_ai_errors", schedule=None) as dag:
        operator(tmp_path)
    run = Run(dag)
    run.attempt("ask")
    rows = rows_of(run.xcom("ask"))
    (failed,) = [row for row in rows if row["status"] != "success"]
    assert failed["error"]["provider_code"] == "8"
    assert len(rows) == 3


def test_a_retry_after_a_lost_answer_finds_the_job(service: Emulator, tmp_path: Path) -> None:
    service.control.faults(reset={"operation": "create", "when": "after", "times": 1})
    with DAG("common_ai_orphan", schedule=None) as dag:
        operator(tmp_path, retries=1)
    run = Run(dag)
    run.attempt("ask")
    assert len(jobs(service)) == 1
    assert run.attempt("ask").state == "success"
    assert len(jobs(service)) == 1


def test_an_orphan_that_is_not_listed_yet_is_waited_for(
    service: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.control.speed(1.0)
    service.control.faults(reset={"operation": "create", "when": "after", "times": 1}, list_lag=2)
    monkeypatch.setattr(GeminiBatchAdapter, "lookup_seconds", 60.0)
    with DAG("common_ai_late_orphan", schedule=None) as dag:
        operator(tmp_path, retries=1)
    run = Run(dag)
    run.attempt("ask")
    assert run.attempt("ask").state == "success"
    assert len(jobs(service)) == 1


def test_a_job_that_the_service_denies_once_is_not_paid_for_again(service: Emulator, tmp_path: Path) -> None:
    service.control.speed(1.0)
    with DAG("common_ai_denied", schedule=None) as dag:
        operator(tmp_path, retries=1, deferrable=True)
    run = Run(dag)
    run.attempt("ask", dies_waiting=True)
    service.control.advance(60)
    service.control.faults(http={"operation": "get", "status": 404, "times": 1})
    assert run.attempt("ask").state == "success"
    assert len(jobs(service)) == 1


def test_a_deferred_task_that_is_killed_cancels_its_job(service: Emulator, tmp_path: Path) -> None:
    service.control.faults(hold_running=True)
    with DAG("common_ai_killed", schedule=None) as dag:
        operator(tmp_path, deferrable=True)
    run = Run(dag)
    assert run.attempt("ask", dies_waiting=True).state == "deferred"
    (job,) = jobs(service)
    trigger = LLMBatchTrigger(
        llm_conn_id="pydanticai_default",
        adapter="google",
        batch_id=job["name"],
        poll_interval=30,
        end_time=0.0,
        cancel_on_kill=True,
        cancel_on_timeout=True,
    )
    asyncio.run(trigger.on_kill())
    service.control.advance(600)
    assert "CANCELLED" in jobs(service)[0]["state"]


def test_a_task_that_is_killed_while_it_waits_in_the_worker_cancels_its_job(service: Emulator, tmp_path: Path) -> None:
    service.control.faults(hold_running=True)
    with DAG("common_ai_killed_in_worker", schedule=None) as dag:
        task_ = operator(tmp_path, deferrable=False)
    made = GeminiBatchAdapter(api_key="hidden-key", base_url=service.url)
    task_.batch_id = made.submit(
        [{"prompt": "Hello?"}],
        model="gemini-2.5-flash",
        idempotency_key="a" * 16,
        input_fingerprint="f" * 64,
        output_spec=TEXT,
    ).batch_id
    task_.on_kill()
    service.control.advance(600)
    assert dag.task_ids == ["ask"]
    assert made.get_batch(task_.batch_id).status == "cancelled"
    made.close()


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"job_ending": {"state": "FAILED", "code": 3, "message": "Bad input."}}, "the recorded state was cleared"),
        ({"job_ending": {"state": "CANCELLED"}, "partial_rows": 0.0}, "was cancelled before 3 of 3 requests"),
        ({"job_ending": {"state": "CANCELLED"}, "partial_rows": 0.5}, "was cancelled before"),
    ],
)
def test_a_job_that_ended_badly_fails_the_task_and_a_retry_submits_again(
    service: Emulator, tmp_path: Path, faults: dict[str, Any], message: str
) -> None:
    service.control.faults(**faults)
    with DAG("common_ai_bad_end", schedule=None) as dag:
        operator(tmp_path, retries=1, deferrable=True)
    run = Run(dag)
    assert message in run.attempt("ask").message
    service.control.clear_faults()
    assert run.attempt("ask").state == "success"
    assert len(jobs(service)) == 2


@pytest.mark.parametrize("partial_rows", [0.0, 0.67])
def test_an_expired_job_leaves_the_rows_that_it_finished(
    service: Emulator, tmp_path: Path, partial_rows: float
) -> None:
    service.control.faults(expire=True, partial_rows=partial_rows)
    with DAG("common_ai_expired", schedule=None) as dag:
        operator(tmp_path, deferrable=True)
    run = Run(dag)
    result = run.attempt("ask")
    assert result.state == "success", result.error
    rows = rows_of(run.xcom("ask"))
    assert len(rows) == 3
    assert sum(row["status"] == "success" for row in rows) == round(3 * partial_rows)


@pytest.mark.parametrize("deferrable", [True, False])
def test_common_ais_own_example_runs_with_another_model_and_folder(
    service: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, deferrable: bool
) -> None:
    source = (Path(next(iter(example_dags.__path__))) / "example_llm_batch.py").read_text(encoding="utf-8")
    for ours, theirs in (
        ("google:gemini-2.5-flash", "openai:gpt-5-mini"),
        ("gemini:gemini-2.5-flash", "anthropic:claude-sonnet-5"),
        (f"file://{tmp_path}", "s3://my-bucket"),
        (f"deferrable={deferrable}", "deferrable=True"),
    ):
        assert theirs in source
        source = source.replace(theirs, ours)
    module = types.ModuleType("their_example")  # Pydantic looks the names of annotations up in it.
    monkeypatch.setitem(sys.modules, module.__name__, module)
    source = source.partition("# [START howto_operator_llm_batch_provider_params]")[0]
    exec(compile(source, "example_llm_batch.py", "exec", dont_inherit=True), vars(module))  # noqa: S102
    for dag_id, task_id in (
        ("example_llm_batch_operator", "classify_reviews"),
        ("example_llm_batch_decorator", "build_review_prompts"),
    ):
        run = Run(getattr(module, dag_id)())
        result = run.attempt(task_id)
        assert result.state == "success", result.error
        assert bool(result.deferrals) == deferrable
        assert run.attempt("summarize_manifest").state == "success"
        assert sum(run.xcom("summarize_manifest").values()) == 4
    assert len(jobs(service)) == 2


def test_an_orphan_is_known_by_task_and_input_together(service: Emulator, adapter: GeminiBatchAdapter) -> None:
    requests: Any = [{"prompt": "Hello?"}]
    made = adapter.submit(
        requests, model="gemini-2.5-flash", idempotency_key="a" * 16, input_fingerprint="f" * 64, output_spec=TEXT
    )
    assert adapter.find_orphaned_batch("a" * 16, "f" * 64, "") == made.batch_id
    assert adapter.find_orphaned_batch("a" * 16, "0" * 64, "") is None
    assert adapter.find_orphaned_batch("b" * 16, "f" * 64, "") is None
    assert adapter.find_orphaned_batch("a" * 16, "f" * 64, "2999-01-01T00:00:00+00:00") is None
    assert len(jobs(service)) == 1


def test_a_job_that_is_gone_is_told_as_common_ai_expects(adapter: GeminiBatchAdapter) -> None:
    with pytest.raises(Exception, match="batches/nobody") as gone:
        adapter.get_batch("batches/nobody")
    assert LLMBatchOperator._is_not_found_error(gone.value)


def test_a_cancel_that_comes_too_late_is_not_an_error(service: Emulator, adapter: GeminiBatchAdapter) -> None:
    requests: Any = [{"prompt": "Hello?"}]
    made = adapter.submit(
        requests, model="gemini-2.5-flash", idempotency_key="a" * 16, input_fingerprint="f" * 64, output_spec=TEXT
    )
    service.control.advance(600)
    adapter.cancel_batch(made.batch_id)
    adapter.cancel_batch("batches/nobody")
    assert adapter.get_batch(made.batch_id).status == "completed"


def test_a_running_job_is_cancelled(service: Emulator, adapter: GeminiBatchAdapter) -> None:
    service.control.faults(hold_running=True)
    requests: Any = [{"prompt": "Hello?"}]
    made = adapter.submit(
        requests, model="gemini-2.5-flash", idempotency_key="a" * 16, input_fingerprint="f" * 64, output_spec=TEXT
    )
    adapter.cancel_batch(made.batch_id)
    service.control.advance(600)
    assert adapter.get_batch(made.batch_id).status == "cancelled"


def test_many_rows_travel_as_an_upload(service: Emulator, adapter: GeminiBatchAdapter) -> None:
    requests: Any = [{"prompt": f"{number} " + "word " * 400} for number in range(600)]
    made = adapter.submit(
        requests, model="gemini-2.5-flash", idempotency_key="a" * 16, input_fingerprint="f" * 64, output_spec=TEXT
    )
    assert made.provider_input_ref is not None
    service.control.advance(600)
    assert sorted(item.index for item in adapter.iter_results(made.batch_id)) == list(range(600))


@pytest.mark.parametrize("params", [{"logprobs": 5}, {"candidate_count": 2}], ids=["logprobs", "candidates"])
def test_rows_whose_responses_may_be_large_travel_as_an_upload(
    adapter: GeminiBatchAdapter, params: dict[str, Any]
) -> None:
    requests: Any = [{"prompt": "Hello?", "params": params}]
    made = adapter.submit(
        requests, model="gemini-2.5-flash", idempotency_key="a" * 16, input_fingerprint="f" * 64, output_spec=TEXT
    )
    assert made.provider_input_ref is not None


def test_a_request_for_another_model_is_refused_before_anything_is_sent(
    service: Emulator, adapter: GeminiBatchAdapter
) -> None:
    requests: Any = [{"prompt": "Hello?", "model": "google-gla:gemini-2.5-pro"}]
    with pytest.raises(LLMBatchModelMismatchError):
        adapter.validate_requests(requests, model="gemini-2.5-flash", output_spec=TEXT, idempotency_key="a" * 16)
    assert jobs(service) == []


@pytest.mark.parametrize(
    ("prompt", "model", "params", "said"),
    [
        ("\ud800", "gemini-2.5-flash", {}, "requests\\[0\\]: .*half of a surrogate pair"),
        ("Hello?", "gemini-2.5-flash", {"temperature": float("nan")}, "requests\\[0\\]: .*not finite"),
        ("Hello?", "gemini-2.5-flash", {"stop_sequences": {"a"}}, "requests\\[0\\]: .*JSON does not have"),
        ("Hello?", "gemini-2.5-flash", {"temprature": 1}, "'temprature' is not a member of generationConfig"),
        ("Hello?", "gemini-2.5-flash", [("temperature", 1)], "'params' must be an object"),
        ("Hello?", "gemini 2.5", {}, "Invalid model name"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_common_ai_notes_that_it_sends(
    prompt: str, model: str, params: Any, said: str, adapter: GeminiBatchAdapter
) -> None:
    requests: Any = [{"prompt": prompt}]
    with pytest.raises(ConfigurationError, match=said):
        adapter.validate_requests(
            requests, model=model, output_spec=TEXT, idempotency_key="a" * 16, request_params=params
        )


def test_a_surrogate_pair_is_the_character_that_it_stands_for(adapter: GeminiBatchAdapter) -> None:
    (line,) = adapter._lines([{"prompt": "\ud83d\ude00"}], "a" * 16, {})
    assert "\N{GRINNING FACE}" in line.decode()


def test_what_a_request_says_wins_over_the_batch(adapter: GeminiBatchAdapter) -> None:
    line = next(
        adapter._lines(
            [{"prompt": "Hello?", "max_tokens": 7, "params": {"temperature": 0.1}, "system_prompt": "Short."}],
            "a" * 16,
            {},
            system_prompt="Long.",
            max_tokens=99,
            request_params={"temperature": 0.9, "topP": 0.5},
        )
    )
    request = json.loads(line)["request"]
    assert request["generationConfig"] == {"temperature": 0.1, "topP": 0.5, "maxOutputTokens": 7}
    assert request["systemInstruction"]["parts"][0]["text"] == "Short."


def test_parameters_in_either_spelling_are_one_and_the_schema_is_the_operators(adapter: GeminiBatchAdapter) -> None:
    spec = build_output_spec(Sentiment)
    line = next(
        adapter._lines(
            [{"prompt": "Hello?", "params": {"top_p": 0.1, "response_schema": {}, "max_output_tokens": 3}}],
            "a" * 16,
            adapter.build_output_directive(spec),
            max_tokens=99,
            request_params={"topP": 0.9, "responseMimeType": "text/plain"},
        )
    )
    config = json.loads(line)["request"]["generationConfig"]
    assert set(config) == {"topP", "responseSchema", "responseMimeType", "maxOutputTokens"}
    assert (config["topP"], config["maxOutputTokens"]) == (0.1, 99)
    assert config["responseMimeType"] == "application/json"
    assert config["responseSchema"]["properties"]


def test_thinking_counts_as_output(service: Emulator, adapter: GeminiBatchAdapter) -> None:
    service.control.faults(thoughts=7)
    requests: Any = [{"prompt": "Hello?"}]
    made = adapter.submit(
        requests, model="gemini-2.5-flash", idempotency_key="a" * 16, input_fingerprint="f" * 64, output_spec=TEXT
    )
    service.control.advance(600)
    (item,) = adapter.iter_results(made.batch_id)
    (job,) = service.control.bill()["jobs"]
    assert item.usage is not None
    assert item.usage["output_tokens"] == job["tokens"]["output_text"] + 7
