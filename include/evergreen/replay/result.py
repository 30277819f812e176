"""What a replay came to: the served error of every window by the labels of the end, and what each policy cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from psycopg2 import sql

from evergreen.errors import TerminalError
from evergreen.ledger import Decision
from evergreen.ledger.evidence import FailedRunEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.metrics.metric_values import compute
from evergreen.monitoring.windows.judgement import Judgement, Status
from evergreen.reference.calendar import Window, window_of
from evergreen.replay import records
from evergreen.replay.checkpoint import PolicyFolder
from evergreen.replay.request import ReplayRequest
from evergreen.spec import ModelSpec
from evergreen.warehouse.features import arrow, feature_query, views


@dataclass(frozen=True)
class Point:
    """A window under a policy.

    Attributes:
        rows: with a served prediction and a label.
        error: the watched metric; None where it is not defined (no labels, one class).
        status: how the window was judged at last, by the champion of then; empty where it was not.
        trained: version of a challenger that was trained at the window's end; None without a training.
        came_of_it: promoted, rejected or failed; empty without a training.
        why: the reason code of that; empty without a training.
    """

    start: datetime
    end: datetime
    rows: int
    error: float | None
    status: str
    trained: str | None
    came_of_it: str
    why: str = ""


@dataclass(frozen=True)
class PolicyOutcome:
    """A policy over the whole replay.

    Attributes:
        error: the watched metric over all rows.
        window_error: mean of the windows' errors.
        rows: served rows with a label.
        retrains: trainings after the first champion's; each was promoted, rejected or failed.
        alarms: windows in violation at their last judgement.
        requests, suppressed: of the trigger policy (only policies on drift ask it).
        rolled_back: by the watch after a promotion.
        fit_seconds: of the fits after the first champion's, those of validation and tuning too.
        why_failed: why trainings failed, each reason with how often and what the newest one said; empty where none did.
    """

    policy: str
    error: float | None
    window_error: float | None
    rows: int
    retrains: int
    promoted: int
    rejected: int
    failed: int
    rolled_back: int
    alarms: int
    requests: int
    suppressed: int
    fit_seconds: float
    why_failed: str
    points: tuple[Point, ...]

    def totals(self) -> dict[str, Any]:
        """Everything but the windows."""
        return {name: value for name, value in asdict(self).items() if name != "points"}


def gather(asked: ReplayRequest) -> list[PolicyOutcome]:
    """Read what every policy has done, and measure it.

    Raises:
        TransientError: the warehouse does not answer.
    """
    labels = _labels(asked)
    return [_outcome(asked, p.label, asked.policy_folder(p, m), m, labels) for p, m in asked.policies]


def _labels(asked: ReplayRequest) -> pd.DataFrame:
    """The labels of all windows as known at the end, by key; of each window those of the rows that the watch would measure."""
    parts, model = [], asked.model
    schema = arrow.feature_schema(model)
    with views.reading(asked.specs, model, asked.end) as reader:
        for window in asked.windows:
            query = sql.SQL(
                "SELECT _key, _label FROM ({rows}) AS f ORDER BY _hash, _key LIMIT {limit}"
            ).format(
                rows=feature_query.feature_query(
                    model, window.start, window.end, labelled=True, ordered=False
                ),
                limit=sql.Literal(model.monitoring.sample_rows),
            )
            names = ["_key", "_label"]
            found = reader.table(query, _only(schema, names)).to_pandas()
            parts.append(found.dropna().assign(start=window.start))
    return pd.concat(parts).set_index("_key")


def _only(schema: Any, names: list[str]) -> Any:
    import pyarrow as pa

    return pa.schema([schema.field(name) for name in names])


def _outcome(
    asked: ReplayRequest, label: str, folder: PolicyFolder, model: ModelSpec, labels: pd.DataFrame
) -> PolicyOutcome:
    decisions: list[Decision] = []
    judged: dict[datetime, Judgement] = {}
    trained: dict[datetime, str] = {}
    seconds, parts = 0.0, []
    for content, rows in folder.read():
        decisions += [records.decision_from(d) for d in content["decisions"]]
        judged |= {j.window_start: j for j in map(records.judgement_from, content["judgements"])}
        if len(rows):
            parts.append(rows.loc[~rows["shadow"].astype(bool), ["_key", "prediction"]])
        if content["number"]:
            seconds += content["fit_seconds"]
            if content["trained"]:
                trained[datetime.fromisoformat(content["as_of"])] = content["trained"]
    nothing = pd.DataFrame({"_key": pd.Series(dtype=object), "prediction": pd.Series(dtype=float)})
    served = (pd.concat(parts) if parts else nothing).set_index("_key")["prediction"]
    joined = labels.join(served, how="inner")
    by_window = {start: rows for start, rows in joined.groupby("start")}
    how = {d.version: d for d in decisions if d.kind in (DecisionKind.PROMOTED, DecisionKind.REJECTED)}
    failed = {d.run_id.rpartition("/")[2]: d for d in decisions if d.kind is DecisionKind.RUN_FAILED}
    points = []
    for window in asked.windows:
        rows = by_window.get(pd.Timestamp(window.start))
        at = next((t for t in trained if window.start < t <= window.end), None)
        version = trained[at] if at else None
        came = how[version].kind.value if version in how else "failed" if version else ""
        because = (how | failed).get(version) if version else None
        points.append(
            Point(
                window.start, window.end, 0 if rows is None else len(rows), _error(asked.model, rows),
                _status(judged, window, model), version, came, because.reason if because else "",
            )
        )  # fmt: skip
    kinds = Counter(d.kind for d in decisions)
    errors = [p.error for p in points if p.error is not None]
    return PolicyOutcome(
        policy=label,
        error=_error(asked.model, joined),
        window_error=float(np.mean(errors)) if errors else None,
        rows=len(joined),
        retrains=len(trained),
        promoted=kinds[DecisionKind.PROMOTED] - 1,
        rejected=kinds[DecisionKind.REJECTED],
        failed=kinds[DecisionKind.RUN_FAILED],
        rolled_back=kinds[DecisionKind.ROLLED_BACK],
        alarms=sum(j.status is Status.VIOLATION for j in judged.values()),
        requests=kinds[DecisionKind.RETRAIN_REQUESTED],
        suppressed=kinds[DecisionKind.RETRAIN_SUPPRESSED],
        fit_seconds=seconds,
        why_failed=_why([*failed.values()]),
        points=tuple(points),
    )


def _why(failed: list[Decision]) -> str:
    """Each reason with how often, and what the newest failure said."""
    newest = {d.reason: FailedRunEvidence.of(d).message for d in failed}
    counts = Counter(d.reason for d in failed)
    return "; ".join(f"{counts[code]} x {code.replace('_', ' ')}: {told}" for code, told in newest.items())


def _error(model: ModelSpec, rows: pd.DataFrame | None) -> float | None:
    if rows is None or rows.empty:
        return None
    try:
        found = compute(model.task, rows["_label"].to_numpy(), rows["prediction"].to_numpy(), model.cut)
    except TerminalError:
        return None
    return found.get(model.performance_metric)


def _status(judged: dict[datetime, Judgement], window: Window, model: ModelSpec) -> str:
    """The judgement of a window; a policy with windows of another length has that of the one in which it ends."""
    found = judged.get(window.start)
    if found is None and judged:
        length = model.monitoring.window
        found = judged.get(window_of(window.end, length).start - length)
    return found.status.value if found else ""
