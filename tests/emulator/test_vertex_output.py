"""Folders that Vertex jobs write: the names of their objects, and what lies in them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_gemini_batch.emulator.vertex_output import read_layout
from emulator.calls import vertex_row

if TYPE_CHECKING:
    from emulator.calls import Vertex


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        (None, ["predictions.jsonl"]),
        (
            {"layout": "shards", "count": 3},
            [f"predictions.jsonl-{n:05d}-of-00003" for n in range(3)],
        ),
        ({"layout": "shards", "count": 3, "missing": [1]}, [f"predictions.jsonl-{n:05d}-of-00003" for n in (0, 2)]),
        ("numbered", ["errors_0001.jsonl", "predictions_0001.jsonl", "predictions_0002.jsonl"]),
        ("results", ["prediction.results-00000-of-00002", "prediction.results-00001-of-00002"]),
        ({"layout": "export", "count": 1}, ["000000000000.jsonl"]),
        ("incremental", ["incremental_predictions.jsonl"]),
        ({"incremental": True}, ["incremental_predictions.jsonl", "predictions.jsonl"]),
        ("unknown", ["answers-00000.txt"]),
        ({"layout": "unknown", "name": "x.avro"}, ["x.avro"]),
        ({"litter": True}, ["job.json", "predictions-empty.jsonl", "predictions.jsonl", "predictions.metadata"]),
    ],
)
def test_objects_have_the_names_of_the_layout(stored: Vertex, layout: Any, names: list[str]) -> None:
    stored.put("in.jsonl", *[vertex_row(f"Row {n}.", key=f"k{n}") for n in range(7)])
    stored.emulator.control.faults(output_layout=layout, row_error_every=7)
    objects = stored.objects(stored.run(uri="gs://in/in.jsonl"))
    assert sorted(objects) == names
    final = [text for name, text in objects.items() if not name.startswith("incremental") or len(names) == 1]
    keys = [json.loads(line).get("key") for text in final for line in text.splitlines()]
    if not isinstance(layout, dict) or not layout.get("missing"):
        assert sorted(key for key in keys if key) == [f"k{n}" for n in range(7)]


def test_failed_rows_of_numbered_files_are_instances_with_an_error(stored: Vertex) -> None:
    stored.put("in.jsonl", *[vertex_row(f"Row {n}.", key=f"k{n}") for n in range(4)])
    stored.emulator.control.faults(output_layout="numbered", row_error_every=2, row_error_code=8)
    job = stored.run(uri="gs://in/in.jsonl")
    errors = stored.predictions(job, "errors_0001.jsonl")
    assert {error["key"] for error in errors} == {"k1", "k3"}
    assert all(error["error"] == {"code": 8, "message": "Internal error encountered."} for error in errors)
    assert all("request" in error and "response" not in error for error in errors)


def test_a_job_may_keep_silent_about_its_folder(stored: Vertex) -> None:
    stored.put("in.jsonl", vertex_row(key="a"))
    stored.emulator.control.faults(no_output_info=True)
    job = stored.run(uri="gs://in/in.jsonl")
    assert job["state"] == "JOB_STATE_SUCCEEDED"
    assert "outputInfo" not in job
    assert stored.emulator.control.books()["jobs"][0]["output"]["gcsOutputDirectory"].startswith("gs://out/run/")


def test_an_unknown_layout_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="output_layout must be one of predictions, shards"):
        read_layout("sideways")
