"""Names that callers give: what is refused, and that a message never repeats what may be a prompt or an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_gemini_batch.api import names
from airflow_provider_gemini_batch.api.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKS: list[Callable[[Any], object]] = [
    names.gemini_model,
    names.vertex_model,
    names.gemini_job,
    names.vertex_job,
    names.file_name,
    names.own_file_name,
    lambda value: names.gcs_uri(value, "gcs_uri"),
    lambda value: names.bigquery_uri(value, "bigquery_uri"),
    lambda value: names.labels({"team": value}),
    lambda value: names.labels({value if isinstance(value, str) else "A": "x"}),
]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "given",
    [
        {"job_name": "batches/a", "responses": ["swordfish"]},
        ["swordfish"],
        "Tell me about swordfish.",
        "models/swordfish and its kin\nin the sea",
        b"swordfish",
        None,
        7,
    ],
    ids=["output", "list", "prompt", "lines", "bytes", "None", "number"],
)
def test_no_check_of_a_name_repeats_what_is_not_a_name(check: Callable[[Any], object], given: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check(given)
    assert "swordfish" not in str(refused.value)


def test_a_whole_output_is_answered_with_the_member_that_is_meant() -> None:
    with pytest.raises(ConfigurationError) as refused:
        names.gemini_job({"job_name": "batches/a"})  # type: ignore[arg-type]
    assert 'a value of type dict (of a task, take the member you need: task.output["job_name"])' in str(refused.value)


@pytest.mark.parametrize("given", ["abc", "batches/a:delete", "../files", "s3://b/my file.jsonl"])
def test_what_can_be_a_name_is_shown(given: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        names.gemini_job(given)
    assert given in str(refused.value)
