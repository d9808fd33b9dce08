"""A Dag without us: proves that the Airflow of the tests works."""

from __future__ import annotations

from airflow.sdk import dag, task


@dag(schedule=None)
def plain() -> None:
    """Return a number."""

    @task
    def answer() -> int:
        return 42

    answer()


plain()
