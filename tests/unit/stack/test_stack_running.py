"""`make run`: what is refused before anything starts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from evergreen.stack import run_dag
from evergreen.stack.layout import StackError

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
KNOWN = {
    "reason": {"value": None, "schema": {"type": "string", "minLength": 1}, "description": "Why."},
    "to_version": {"value": None, "schema": {"type": ["null", "string"]}, "description": "Which."},
    "dry_run": {"value": False, "schema": {"type": "boolean"}, "description": "Try."},
    "policies": {"value": ["never"], "schema": {"type": "array"}, "description": "Which."},
    "as_of": {
        "value": None,
        "schema": {"type": ["null", "string"], "format": "date-time", "pattern": r"^(19|20|21)\d\d-"},
    },
    "subject": {"value": "model/a", "schema": {"type": "string", "enum": ["model/a", "model/b"]}},
}


class Airflow:
    """The part of Airflow that knows names; a run would be an error."""

    def __init__(self, *dags: str) -> None:
        self.known = set(dags)

    def dag_ids(self) -> set[str]:
        return self.known

    def wait_for_dags(self, dag_ids: set[str]) -> None:
        self.known |= dag_ids


def test_params_have_the_types_of_the_dag() -> None:
    texts = ["reason=a", "sensor", "moved", "dry_run=true", "policies=never,on_drift", "to_version="]
    assert run_dag.params("rollback__x", texts, KNOWN) == {
        "reason": "a sensor moved",
        "dry_run": True,
        "policies": ["never", "on_drift"],
        "to_version": None,
    }


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["reasn=x"], r"no Param 'reasn'; did you mean reason\?"),
        (
            ["reason=x", "zzzz=1"],
            "no Param 'zzzz'; there are: as_of, dry_run, policies, reason, subject, to_version",
        ),
        (["x"], "write name=value"),
        ([], "needs reason: Why. Add it.*Nothing was started"),
        (["reason= "], "needs reason"),
        (
            ["reason=x", "as_of=0001-01-01T00:00:00Z"],
            "years 1900 to 2199, such as as_of=.*Nothing was started",
        ),
        (["reason=x", "dry_run=maybe"], "write dry_run=true or dry_run=false"),
        (["reason=x", "subject=model/c"], "did you mean model/"),
    ],
    ids=[
        "misspelt",
        "unknown",
        "no name",
        "no reason",
        "blank reason",
        "no time of data",
        "no switch",
        "no choice",
    ],
)
def test_a_param_that_cannot_be_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(StackError, match=said):
        run_dag.params("rollback__x", texts, KNOWN)


@pytest.mark.parametrize(
    ("dag_id", "said"),
    [
        ("train__bike_demnd", "did you mean train__bike_demand"),
        ("trian__bike_demand", "did you mean train__bike_demand"),
        ("zzz", "there are: correct__bike_hourly, digest"),
        ("", "Name a DAG"),
    ],
    ids=["model", "kind", "nothing like it", "none"],
)
def test_an_unknown_dag_fails_at_once_with_the_near_names(dag_id: str, said: str) -> None:
    with pytest.raises(StackError, match=said):
        run_dag.require_dag(Airflow("mail"), dag_id)  # type: ignore[arg-type]


def test_a_dag_that_airflow_has_not_parsed_yet_is_waited_for() -> None:
    airflow = Airflow("mail")
    run_dag.require_dag(airflow, "train__bike_demand")  # type: ignore[arg-type]
    assert "train__bike_demand" in airflow.known
