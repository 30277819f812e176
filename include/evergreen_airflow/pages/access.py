"""Who may see and do what on the pages: Airflow's own answers about the DAGs of a model or dataset, nothing kept here.

A model is shown to those who may read its DAG `monitor__NAME`, a dataset to those who may read `ingest__NAME`. What starts a run is
offered to those who may start one of the DAG; Airflow's API, which does it, asks again.
"""

from __future__ import annotations

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.dag import DagModel
from fastapi import HTTPException, Request

from evergreen_airflow.pages import airflow_side

SHOWN_BY = {"model": "monitor", "dataset": "ingest"}
"""The kind of DAG that decides who may see a subject."""


def require(request: Request, user: BaseUser, subject: str) -> None:
    """Let those pass who may see a subject (`model/NAME`, `dataset/NAME`); what concerns the fleet every person with a login may see.

    Raises:
        HTTPException: 403 to others.
    """
    kind, _, name = subject.partition("/")
    if kind == "fleet":
        return
    if kind not in SHOWN_BY:
        raise HTTPException(404, "There is no such page.")
    requires_access_dag("GET", param_dag_id=f"{SHOWN_BY[kind]}__{name}")(request, user)


def visible(user: BaseUser) -> dict[str, list[str]]:
    """The names of the models and datasets that a person may see, by kind: those whose DAG is there still and may be read."""
    there = airflow_side.dags(*SHOWN_BY.values())
    readable = get_auth_manager().get_authorized_dag_ids(user=user, method="GET") & there.keys()
    return {
        kind: sorted(dag_id.partition("__")[2] for dag_id in readable if dag_id.startswith(f"{dag}__"))
        for kind, dag in SHOWN_BY.items()
    }


def may_start(user: BaseUser, dag_id: str) -> bool:
    """Whether a person may start a run of a DAG."""
    return _may(user, dag_id, "POST", DagAccessEntity.RUN)


def may_answer(user: BaseUser, dag_id: str) -> bool:
    """Whether a person may answer the question of a DAG's run."""
    return _may(user, dag_id, "PUT", DagAccessEntity.HITL_DETAIL)


def _may(user: BaseUser, dag_id: str, method: str, entity: DagAccessEntity) -> bool:
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    return bool(
        get_auth_manager().is_authorized_dag(method=method, access_entity=entity, details=details, user=user)  # type: ignore[arg-type]
    )
