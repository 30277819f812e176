"""What only Airflow knows: when a DAG runs next, whether it is paused, whether Airflow's own services work."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from airflow.api.common.airflow_health import get_airflow_health
from airflow.models.dag import DagModel
from airflow.utils.session import create_session
from sqlalchemy import or_, select

SERVICES = {"scheduler": "the scheduler", "dag_processor": "the DAG processor", "triggerer": "the triggerer"}


@dataclass(frozen=True)
class DagState:
    """A DAG: whether it is paused, and when its next scheduled run begins (None: none is planned)."""

    paused: bool
    next_run: datetime | None


def dags(*kinds: str, name: str | None = None) -> dict[str, DagState]:
    """The DAGs of some kinds that are there, by DAG id.

    Args:
        kinds: such as `train`.
        name: only those of this model or dataset.
    """
    wanted = (
        DagModel.dag_id.in_([f"{kind}__{name}" for kind in kinds])
        if name is not None
        else or_(*(DagModel.dag_id.startswith(f"{kind}__", autoescape=True) for kind in kinds))
    )
    with create_session() as session:
        rows = session.execute(
            select(DagModel.dag_id, DagModel.is_paused, DagModel.next_dagrun_create_after).where(
                wanted, ~DagModel.is_stale
            )
        )
        return {row.dag_id: DagState(row.is_paused, row.next_dagrun_create_after) for row in rows}


def silent_services() -> list[str]:
    """Airflow's services that give no sign of life, as people name them."""
    health = get_airflow_health()
    return [name for key, name in SERVICES.items() if (health.get(key) or {}).get("status") == "unhealthy"]
