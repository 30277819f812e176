"""A training in one line, for the list of runs: rows, rounds, the metric against what it was compared with, what became of it."""

from __future__ import annotations

from evergreen.ledger import Decision, words
from evergreen.ledger.reasons import DecisionKind
from evergreen.progress import counted
from evergreen.spec import metric_name
from evergreen.training.record.outcome import TrainingOutcome


def headline(found: TrainingOutcome, decision: Decision | None = None) -> str:
    """Such as `5,038 rows, 64 rounds, RMSE 55.8, baseline 99.2: promoted version 4`.

    Args:
        found: what the training came to.
        decision: on its challenger; None where none was taken yet, or never will be, as of a dry run.
    """
    values = {who: found.metrics.get(who, {}).get(found.metric) for who in ("champion", "baseline")}
    others = "".join(f", {who} {words.num(value)}" for who, value in values.items() if value is not None)
    mine = words.num(found.metrics.get("challenger", {}).get(found.metric))
    return (
        f"{counted(found.rows['all'], 'row')}, {counted(found.rounds, 'round')}, {metric_name(found.metric)} {mine}{others}: "
        f"{_became(found, decision)}"
    )


def _became(found: TrainingOutcome, decision: Decision | None) -> str:
    why = words.reason(decision.reason if decision else found.verdict.reason.value)
    if decision is None:
        of = "dry run, " if found.dry_run else ""
        return f"{of}{'passed' if found.passed else 'did not pass'} the gate ({why})"
    if decision.kind is DecisionKind.PROMOTED:
        return f"promoted version {decision.version}"
    if decision.kind is DecisionKind.AWAITING_APPROVAL:
        return f"version {decision.version} waits for a person"
    return f"rejected version {decision.version} ({why})"
