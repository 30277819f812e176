"""Decisions and judgements as JSON and back; the ledger keeps them as JSON too, so both ways give the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from evergreen.ledger import Decision, evidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.windows.judgement import (
    ColumnResult,
    Judgement,
    MetricResult,
    Status,
    Violation,
    What,
    finite,
)

_DECIDED = ("as_of", "decided_at")
_JUDGED = ("window_start", "window_end", "as_of")


def decision_to(decision: Decision) -> dict[str, Any]:
    """A decision as JSON knows it."""
    return _plain({**vars(decision), "evidence": decision.evidence.to_json()})


def decision_from(content: dict[str, Any]) -> Decision:
    """What `decision_to` gave."""
    times = {n: datetime.fromisoformat(content[n]) for n in _DECIDED if content[n]}
    kind = DecisionKind(content["kind"])
    known = evidence.read(kind, content["evidence"])
    return Decision(
        **{**content, **times, "kind": kind, "answers": tuple(content["answers"]), "evidence": known}
    )


def judgement_to(judgement: Judgement) -> dict[str, Any]:
    """A judgement as JSON knows it."""
    return _plain(asdict(judgement))


def judgement_from(content: dict[str, Any]) -> Judgement:
    """What `judgement_to` gave."""
    times = {n: datetime.fromisoformat(content[n]) for n in _JUDGED}
    parts = {
        "status": Status(content["status"]),
        "violations": tuple(Violation(**{**v, "kind": What(v["kind"])}) for v in content["violations"]),
        "metrics": {n: MetricResult(**m) for n, m in content["metrics"].items()},
        "columns": tuple(ColumnResult(**{**c, "kind": What(c["kind"])}) for c in content["columns"]),
    }
    return Judgement(**{**content, **times, **parts})


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Numbers that JSON does not know become null, times ISO text; then exactly what reading it back gives."""

    def clean(item: Any) -> Any:
        if isinstance(item, float):
            return finite(item)
        if isinstance(item, dict):
            return {str(k): clean(v) for k, v in item.items()}
        if isinstance(item, (list, tuple)):
            return [clean(v) for v in item]
        if isinstance(item, datetime):
            return item.isoformat()
        return item

    plain: dict[str, Any] = json.loads(json.dumps(clean(value), default=str))
    return plain
