"""Every cron that a spec can hold is the cron of a DAG: one that is documented and used nowhere is found here."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from evergreen.spec import DatasetSpec, ModelSpec
from evergreen.spec.cron import Cron

DATASET = {"name": "rides", "key": ["ts"], "event_time": "ts", "columns": {"ts": {"type": "timestamp"}, "x": {"type": "float"},
           "demand": {"type": "float", "required": False}}}  # fmt: skip
MODEL = {"name": "small", "task": "regression", "datasets": ["rides"], "key": ["ts"], "event_time": "ts",
         "label": {"column": "demand", "delay": "1h"}, "features": {"numeric": ["x"]}}  # fmt: skip
# The DAG of each cron.
DAGS = {
    ("dataset", "schedule"): "ingest__rides",
    ("model", "schedule"): "train__small",
    ("model", "scoring", "schedule"): "score__small",
    ("model", "monitoring", "schedule"): "monitor__small",
}


def crons(kind: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The paths of the fields of type Cron in a spec, however deep."""
    for name, field in kind.model_fields.items():
        if any(mark in Cron.__metadata__ for mark in field.metadata):  # type: ignore[attr-defined]
            yield (*path, name)
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from crons(inner, (*path, name))


FOUND = [*crons(DatasetSpec, ("dataset",)), *crons(ModelSpec, ("model",))]


def test_each_cron_has_a_dag() -> None:
    assert set(FOUND) == set(DAGS), "a cron that no DAG follows, or that is no more"


def with_crons(folder: Path, *, value: Any = None) -> dict[tuple[str, ...], str]:
    """Write the specs with a cron of its own, or the value, at each path; return the crons."""
    content: dict[str, Any] = {"dataset": dict(DATASET), "model": dict(MODEL)}
    given = {}
    for minute, path in enumerate(DAGS, start=11):
        part = content
        for name in path[:-1]:
            part = part.setdefault(name, {})
        part[path[-1]] = given[path] = f"{minute} 3 * * *" if value is None else None
    for kind in ("dataset", "model"):
        (folder / f"{kind}s").mkdir()
        (folder / f"{kind}s" / f"{content[kind]['name']}.yaml").write_text(yaml.safe_dump(content[kind]))
    (folder / "models" / "small.sql").write_text("SELECT ts, x, demand FROM rides")
    return given


def cron_of(dag: Any) -> str | None:
    timetable = getattr(dag.timetable, "timetable", dag.timetable)
    return getattr(timetable, "expression", None)


def test_each_dag_follows_the_cron_of_its_spec(make_dagbag: Any, tmp_path: Path) -> None:
    given = with_crons(tmp_path)
    bag = make_dagbag(tmp_path)
    assert {path: cron_of(bag.dags[DAGS[path]]) for path in given} == given


def test_a_dag_whose_cron_is_null_waits_for_events(make_dagbag: Any, tmp_path: Path) -> None:
    given = with_crons(tmp_path, value="null")
    bag = make_dagbag(tmp_path)
    assert {cron_of(bag.dags[DAGS[path]]) for path in given} == {None}


@pytest.mark.parametrize("path", DAGS, ids=".".join)
def test_the_shipped_specs_keep_their_crons(dagbag: Any, path: tuple[str, ...]) -> None:
    kind = DAGS[path].partition("__")[0]
    for dag_id, dag in dagbag.dags.items():
        if dag_id.partition("__")[0] == kind:
            assert cron_of(dag), f"{dag_id} has no cron"


def test_the_digest_follows_its_setting(
    make_dagbag: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_crons(tmp_path)
    monkeypatch.setenv("EVERGREEN_DIGEST", "7 8 * * 2")
    assert cron_of(make_dagbag(tmp_path).dags["digest"]) == "7 8 * * 2"


def test_a_new_dag_does_not_make_up_for_the_tick_before_it_was_unpaused() -> None:
    """By default Airflow does, up to a tenth of the period later: a second training beside the one asked for by hand."""
    from datetime import datetime, timedelta

    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.timetables.base import TimeRestriction

    from evergreen_airflow.schedules import schedule

    now = datetime.now(UTC)
    cron = f"{now - timedelta(minutes=30):%M %H} * * *"
    with DAG("nightly", schedule=schedule(cron), catchup=False) as dag:
        pass
    timetable = DagSerialization.from_dict(DagSerialization.to_dict(dag)).timetable
    first = timetable.next_dagrun_info(
        last_automated_data_interval=None, restriction=TimeRestriction(None, None, False)
    )
    assert first is not None
    assert first.run_after > now
