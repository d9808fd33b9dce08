"""Who may see what, by Airflow's own rules for each Dag, which its auth manager knows."""

from __future__ import annotations

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep  # noqa: TC002  FastAPI reads annotations
from airflow.models.dag import DagModel
from fastapi import HTTPException, status

# The page shows task instances and their XComs, so users need access to both.
_SHOWN = (DagAccessEntity.TASK_INSTANCE, DagAccessEntity.XCOM)


def readable_dags(user: GetUserDep) -> frozenset[str]:
    """Return the ids of all Dags that a user may read; for routes that show many Dags.

    :raises HTTPException: 403, when the user may not see task instances or XComs at all. Airflow itself raises 401 for
        somebody who is not logged in.
    """
    _check(user)
    return frozenset(get_auth_manager().get_authorized_dag_ids(user=user, method="GET"))


def readable_dag(user: GetUserDep, dag_id: str = "") -> str:
    """Return the id of the Dag that a route shows, once it is clear that the user may read it.

    :raises HTTPException: 403, also for a Dag that does not exist.
    """
    _check(user, DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id)))
    return dag_id


def _check(user: GetUserDep, dag: DagDetails | None = None) -> None:
    """Refuse a user who may not read task instances and XComs: of one Dag, or of any at all."""
    allowed = get_auth_manager().is_authorized_dag
    if not all(allowed(method="GET", access_entity=each, details=dag, user=user) for each in _SHOWN):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "You may not see these batches")
