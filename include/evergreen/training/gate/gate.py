"""The gate: may a challenger become champion? A pure function of evaluations and evidence on the same holdout rows.

Every check is recorded with its value, limit and a sentence, passed or not; the first that failed is the reason. What
is missing, stale or not comparable fails: it is never taken for good. Against the champion an end of the improvement's interval
counts, and which one says the spec (docs/gate.md): by default the upper one, so that one stops that is surely worse.

A champion that is there and cannot be evaluated on these rows (its files are lost or damaged, a feature that it needs is gone,
it was trained for another label) must not stand in the way for ever. Then the baseline must be beaten whatever the spec
says, the champion's recorded holdout is told beside the challenger's, and what passes is `champion_cannot_be_evaluated`:
it waits for a person, see `settlement.settle`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evergreen.ledger.reasons import GateReason
from evergreen.spec import ModelSpec
from evergreen.training.gate.candidates import Evaluation, JudgedChampion, JudgedTraining
from evergreen.training.gate.checks import Checks
from evergreen.training.gate.verdict import GateVerdict

if TYPE_CHECKING:
    from evergreen.training.gate.evidence import Evidence


def judge_challenger(
    model: ModelSpec,
    challenger: Evaluation,
    baseline: Evaluation,
    in_office: JudgedChampion,
    evidence: Evidence,
    training: JudgedTraining,
) -> GateVerdict:
    """Judge a challenger.

    Args:
        model: its gate section, metric and label.
        challenger: on the holdout.
        baseline: on the same rows.
        in_office: the champion.
        evidence: from the same predictions, see `evidence.gather`.
        training: which asks.
    """
    champion, champion_as_of, as_of = in_office.evaluation, in_office.as_of, training.as_of
    judged = [("challenger", challenger), ("baseline", baseline)]
    ruled = champion is not None or champion_as_of is not None
    if ruled:
        judged.append(("champion", champion or _absent(challenger)))
    checks = Checks(model)
    for who, found in judged:
        checks.provenance(who, found, challenger, training)
    least = model.training.min_holdout_rows
    checks.check("holdout_rows", challenger.rows, least, challenger.rows >= least, GateReason.TOO_FEW_ROWS,
                f"{challenger.rows} rows are judged, at least {least} are needed")  # fmt: skip
    checks.predictions(evidence)
    checks.metric(challenger, baseline, judged[2][1] if ruled else None, evidence)
    unknown = champion is not None and champion.problem is not None
    if model.gate.beat_baseline or unknown:
        checks.baseline(challenger, baseline, None if unknown else champion)
    if champion is not None and unknown:
        checks.without_champion(challenger, champion, as_of, champion_as_of, in_office.recorded)
    elif ruled:
        checks.champion(judged[2][1], as_of, champion_as_of)
        checks.improvement(evidence, checks.wanted(training.answers_drift, training.realised))
        if model.task == "binary":
            checks.calibration(evidence)
    checks.slices(evidence)
    checks.cost(evidence)
    checks.stability(challenger, evidence)
    checks.fresh_rows(challenger, evidence)
    won = GateReason.CHAMPION_CANNOT_BE_EVALUATED if unknown else checks.won(evidence, ruled)
    return checks.verdict(won)


def _absent(like: Evaluation) -> Evaluation:
    return Evaluation(
        {}, like.rows, like.keys, like.fingerprint, like.run_id, like.as_of, "it was not evaluated"
    )
