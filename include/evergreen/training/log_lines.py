"""What a training says in its log of how its challenger was judged: the comparison, each check of the gate, the verdict."""

from __future__ import annotations

import logging

from evergreen.ledger import words
from evergreen.ledger.reasons import GateReason
from evergreen.progress import counted
from evergreen.spec import ModelSpec, metric_name
from evergreen.training.gate.evaluate import EvaluatedChallenger

log = logging.getLogger(__name__)

# What is said once where it holds: four checks for each model.
_SAME = frozenset(
    reason.value
    for reason in (GateReason.STALE_EVALUATION, GateReason.SNAPSHOT_MISMATCH, GateReason.DIFFERENT_ROWS)
)


def judged(model: ModelSpec, found: EvaluatedChallenger, champion: str | None) -> None:
    """The comparison, each check in a line, and the verdict.

    Args:
        model: the spec.
        found: what the gate was asked about, and its answer.
        champion: version of the champion; None where there is none.
    """
    names = {"challenger": "challenger", "champion": f"champion (version {champion})", "baseline": "baseline"}
    values = ", ".join(
        f"{name} {words.num(found.metrics[who].get(model.gate_metric))}"
        for who, name in names.items()
        if who in found.metrics
    )
    log.info(
        "%s: %s on %s: %s",
        model.name, metric_name(model.gate_metric), counted(found.rows["judged"], "holdout row"), values,
    )  # fmt: skip
    over = found.evidence.over_champion
    if over is not None and over.point is not None:
        sure = (
            f", {over.low:.1%} to {over.high:.1%} (each bound with {model.gate.confidence:.0%} confidence)"
            if over.low is not None and over.high is not None
            else ", with bounds that cannot be told"
        )
        log.info("%s: improvement over the champion %s%s", model.name, f"{over.point:.1%}", sure)
    same = [c for c in found.verdict.checks if c.passed and c.code in _SAME]
    if same:
        log.info(
            "%s: gate: holds: all were evaluated by this training, on its snapshot and on the same rows (%s)",
            model.name, counted(len(same), "check"),
        )  # fmt: skip
    for check in found.verdict.checks:
        if check not in same:
            said = "holds" if check.passed else f"FAILS {check.check.replace('_', ' ')}"
            log.info("%s: gate: %s: %s", model.name, said, check.sentence)
    log.info(
        "%s: the challenger %s: %s",
        model.name,
        "passed the gate" if found.verdict.passed else "did not pass the gate",
        words.reason(found.verdict.reason.value),
    )
