"""Pictures and sound from request to file, priced as the service bills them: in Airflow's own task runner."""

from __future__ import annotations

import csv
import json
import wave
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from dag_runs import Run

from airflow_provider_gemini_batch.api.client import BatchClient
from airflow_provider_gemini_batch.emulator.media import png
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator

pytestmark = pytest.mark.slow
IMAGES = "gemini-3.1-flash-image"


def attempt(**arguments: Any) -> tuple[Run, Any]:
    with DAG("media", schedule=None) as dag:
        GeminiCreateBatchJobOperator(task_id="t", **{"model": IMAGES, "poll_interval": 0.1, **arguments})
    run = Run(dag)
    return run, run.attempt("t")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def pictures_at_the_service(service: Emulator, job: str) -> dict[str, bytes]:
    import base64

    with BatchClient.for_gemini("hidden-key", base_url=service.url) as client:
        return {
            str(result.key): base64.b64decode(part["inlineData"]["data"])
            for result in client.get_responses(job)
            for part in (result.response or {})["candidates"][0]["content"]["parts"]
            if "inlineData" in part
        }


def test_twenty_pictures_become_files_with_exact_bytes(service: Emulator, tmp_path: Path) -> None:
    output = tmp_path / "pictures.jsonl"
    rows = [{"key": f"art {number}/x", "text": f"Draw {number}."} for number in range(20)]
    run, done = attempt(inlined_requests=rows, output_path=str(output))
    assert done.state == "success"
    found = rows_of(output)
    paths = [Path(row["media_files"][0]["path"]) for row in found]
    assert [row["key"] for row in found] == [row["key"] for row in rows]
    assert {path.parent for path in paths} == {tmp_path / "_pictures.media"}
    sent = pictures_at_the_service(service, run.xcom("t")["job_name"])
    assert sorted(path.read_bytes() for path in paths) == sorted(sent.values())
    assert len(set(sent.values())) == 20
    manifest = json.loads((tmp_path / "_pictures.jsonl.manifest.json").read_text())
    assert (manifest["media"]["files"], manifest["media"]["path"]) == (20, str(tmp_path / "_pictures.media"))
    bill = service.control.bill()
    assert run.xcom("t")["cost"]["usd"] == pytest.approx(bill["usd"], rel=0.01)
    assert run.xcom("t")["usage"]["output_image_tokens"] == 20 * 1120


def test_speech_goes_to_a_folder_of_the_authors_own(service: Emulator, tmp_path: Path) -> None:
    assert service
    folder = tmp_path / "speech"
    run, done = attempt(model="gemini-2.5-flash-preview-tts", inlined_requests=["Say hello."], media_path=str(folder))
    assert done.state == "success"
    (file,) = run.xcom("t")["responses"][0]["media_files"]
    assert Path(file["path"]).parent == folder
    with wave.open(file["path"]) as sound:
        assert (sound.getframerate(), sound.getsampwidth()) == (24_000, 2)


@pytest.mark.parametrize(
    "asks",
    [
        {"model": IMAGES},
        {"model": "gemini-3.8-flash", "generation_config": {"responseModalities": ["TEXT", "IMAGE"]}},
        {"model": "gemini-3.8-flash", "generation_config": {"response_modalities": ["AUDIO"]}},
        {
            "model": "gemini-3.8-flash",
            "inlined_requests": [
                {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"responseModalities": ["IMAGE"]}}
            ],
        },
    ],
)
def test_media_without_a_place_is_refused_before_a_job_is_made(service: Emulator, asks: dict[str, Any]) -> None:
    _, refused = attempt(**{"inlined_requests": ["Draw."], **asks})
    assert refused.state == "failed"
    assert "media_path" in str(refused.error)
    assert service.control.books()["jobs"] == []


def test_unasked_media_is_reported_by_its_row(service: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    service.control.faults(answer_kinds=["text", "image"])
    run, done = attempt(
        model="gemini-2.5-flash", inlined_requests=[{"key": "a", "text": "1"}, {"key": "b", "text": "2"}]
    )
    assert done.state == "success"
    rows = {row["key"]: row for row in run.xcom("t")["responses"]}
    (lost,) = [key for key, row in rows.items() if "media_files" in row]
    assert "media_path" in rows[lost]["warning"]
    assert run.xcom("t")["counts"]["warnings"] == 1
    assert f"Rows with a 'warning' (1): {lost}" in caplog.text


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3.8-flash"])
def test_rows_with_pictures_are_priced_by_modality_and_never_estimated_below_their_bill(
    service: Emulator, tmp_path: Path, model: str
) -> None:
    table = tmp_path / "shop.csv"
    with table.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "picture"])
        for number in range(6):
            path = tmp_path / f"{number}.png"
            path.write_bytes(png(f"p{number}", 4_000_000 if number % 2 else 0))
            writer.writerow([number, str(path)])
    arguments = {
        "model": model,
        "input_path": str(table),
        "prompt_template": "What is sold as {id}?",
        "media_field": "picture",
        "key_field": "id",
        "generation_config": {"maxOutputTokens": 200},
    }
    dry, planned = attempt(**arguments, dry_run=True)
    assert planned.state == "success"
    estimate = dry.xcom("t")["estimated_cost"]
    run, done = attempt(**arguments, output_path=str(tmp_path / "out.jsonl"))
    assert done.state == "success"
    bill = service.control.bill()["usd"]
    assert run.xcom("t")["cost"]["usd"] == pytest.approx(bill, rel=0.01)
    assert run.xcom("t")["usage"]["input_image_tokens"] > 0
    assert estimate["usd"] >= bill
    assert estimate["open_bound"] is False
    _, refused = attempt(**arguments, max_cost_usd=bill / 2)
    assert refused.state == "failed"
    assert len(service.control.books()["jobs"]) == 1


def test_a_batch_is_priced_at_the_time_when_it_ended(service: Emulator) -> None:
    # The price of this model doubles on the first day of 2027. The batch ends on the other side of it than today.
    today = datetime.now(tz=timezone.utc)
    ended = today.replace(year=2027 if today.year < 2027 else 2026, month=6, day=1)
    service.control.advance((ended - today).total_seconds())
    run, done = attempt(model="gemini-3.8-flash", inlined_requests=["One.", "Two."])
    assert done.state == "success"
    assert run.xcom("t")["cost"]["usd"] == pytest.approx(service.control.bill()["usd"])
