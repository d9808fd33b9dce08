"""The name of this Airflow in the tags of its jobs."""

from __future__ import annotations

NAMELESS = (
    "If another Airflow uses the same API key or project, set [gemini_batch] deployment_id in each of them: without "
    "it, and without [api] base_url, tasks of the same Dag, task and run id would take each other's jobs for their own."
)
_ADDRESSES = (("api", "base_url"), ("core", "execution_api_server_url"))


def deployment() -> str:
    """Return what distinguishes this Airflow from others that share a key: the configured id, its addresses, or "".

    A secret of Airflow's would also differ, but not every worker needs to have it, and it is changed from time to time.
    Either would make a task miss its own job and buy it twice.
    """
    from airflow.sdk.configuration import conf

    named: str = conf.get("gemini_batch", "deployment_id", fallback="").strip()
    if named:
        return named
    addresses = [conf.get(*option, fallback="").strip() for option in _ADDRESSES]
    return "|".join(addresses) if any(addresses) else ""
