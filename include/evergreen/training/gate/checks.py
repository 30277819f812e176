"""The checks of the gate: each method asks about one thing, and records value, limit and a sentence, passed or not.

What is missing, stale or not comparable fails: it is never taken for good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from evergreen.ledger.check_words import named
from evergreen.ledger.reasons import COMPARED, GateReason
from evergreen.metrics import resampled
from evergreen.spec import ModelSpec, metric_name
from evergreen.training.gate.candidates import Evaluation, JudgedTraining
from evergreen.training.gate.verdict import Check, GateVerdict

if TYPE_CHECKING:
    from evergreen.training.gate.evidence import Evidence
    from evergreen.training.gate.past_holdouts import Realised
    from evergreen.training.gate.slices import Slice

# The check that stands for `beats_baseline` where the champion loses to the baseline by more than the challenger.
BOTH_BEATEN = "baseline_beats_both"
# Metrics and evidence come from the same predictions, by two ways of summing.
ROUNDING = 1e-6


def prediction_limit(model: ModelSpec, side: int, learnt: tuple[float, float]) -> tuple[float, str]:
    """What predictions may not be below (side -1) or above (1), and where the limit comes from.

    A side that the spec sets counts, with its slack. For one that it does not set, the labels that the model learnt (the
    smallest and the largest) stand in: a model may go beyond them, but by no more than they span.
    """
    if model.task == "binary":
        return float(side > 0), "a probability"
    spec = (model.label.min, model.label.max)
    known = spec[side > 0]
    if known is None:
        edge, span = learnt[side > 0], _span(*learnt)
        which = "largest" if side > 0 else "smallest"
        return edge + side * span, (
            f"the {which} label of the training is {edge:.4g}, predictions may be beyond it by the labels' span, {span:.4g}; "
            f"label.{'max' if side > 0 else 'min'} sets another limit"
        )
    span = _span(*(there if said is None else said for said, there in zip(spec, learnt, strict=True)))
    return known + side * model.gate.range_slack * span, (
        f"label.{'max' if side > 0 else 'min'} is {known:.4g}, gate.range_slack is {_share(model.gate.range_slack)} of the "
        f"labels' range, {span:.4g}"
    )


class Checks:
    """The checks so far; each method asks about one thing."""

    def __init__(self, model: ModelSpec) -> None:
        self.model, self.gate, self.name = model, model.gate, model.gate_metric
        self.called = metric_name(self.name)
        self.checks: list[Check] = []

    def check(
        self, name: str, value: Any, limit: Any, passed: bool, reason: GateReason, sentence: str
    ) -> bool:
        """Record a rule; returns whether it holds.

        Raises:
            LookupError: the name has no words, so that no mail could say what the value is.
        """
        if named(name) is None:
            raise LookupError(
                f"the check {name} has no words; add them to CHECKS in evergreen/ledger/check_words.py"
            )
        self.checks.append(Check(name, _plain(value), _plain(limit), bool(passed), reason.value, sentence))
        return bool(passed)

    def won(self, evidence: Evidence, ruled: bool) -> GateReason:
        """What is said where every rule holds."""
        if not ruled:
            return GateReason.FIRST_CHAMPION
        low = evidence.over_champion.low if evidence.over_champion else None
        better = low is not None and low > self.gate.margin
        return GateReason.BETTER_THAN_CHAMPION if better else GateReason.NOT_WORSE_THAN_CHAMPION

    def verdict(self, won: GateReason) -> GateVerdict:
        """All rules together; the first that does not hold is the reason, `won` where all do."""
        failed = next((c for c in self.checks if not c.passed), None)
        if failed is not None:
            return GateVerdict(False, GateReason(failed.code), tuple(self.checks))
        return GateVerdict(True, won, tuple(self.checks))

    def provenance(self, who: str, found: Evaluation, like: Evaluation, training: JudgedTraining) -> None:
        """The evaluation is this training's, on this snapshot, on the same rows as the challenger's."""
        run_id, as_of, fingerprint = training.run_id, training.as_of, training.fingerprint
        self.check(f"{who}_run", found.run_id, run_id, found.run_id == run_id, GateReason.STALE_EVALUATION,
                   f"the {who} was evaluated by {found.run_id}, this training is {run_id}")  # fmt: skip
        self.check(f"{who}_as_of", found.as_of, as_of, found.as_of == as_of, GateReason.STALE_EVALUATION,
                   f"the {who} was evaluated as of {found.as_of.isoformat()}, this training is as of {as_of.isoformat()}")  # fmt: skip
        self.check(f"{who}_snapshot", found.fingerprint[:16], fingerprint[:16], found.fingerprint == fingerprint,
                   GateReason.SNAPSHOT_MISMATCH,
                   f"the {who} was evaluated on snapshot {found.fingerprint[:16]}, this training's is {fingerprint[:16]}")  # fmt: skip
        self.check(f"{who}_rows", found.rows, like.rows, found.rows == like.rows and found.keys == like.keys,
                   GateReason.DIFFERENT_ROWS,
                   f"the {who} was judged on {found.rows} rows ({found.keys[:8]}), the challenger on {like.rows} ({like.keys[:8]})")  # fmt: skip

    def predictions(self, evidence: Evidence) -> None:
        """The challenger has not learnt the judged rows, and predicts what a label can be."""
        self.check("holdout_not_learnt", evidence.learnt_until, evidence.holdout_start,
                   evidence.learnt_until < evidence.holdout_start, GateReason.LEAKED_HOLDOUT,
                   f"the challenger was fitted on rows up to {evidence.learnt_until.isoformat()}, the judged rows begin at "
                   f"{evidence.holdout_start.isoformat()}")  # fmt: skip
        if evidence.steps > 1:
            self.check("holdout_steps", evidence.steps, None, True, GateReason.LEAKED_HOLDOUT,
                       f"the judged rows were predicted in {evidence.steps} steps, each by a fit that had learnt what was known when "
                       "the step began, as the model that would serve has")  # fmt: skip
        self.check("predictions_finite", evidence.not_finite, 0, evidence.not_finite == 0 and evidence.predictions is not None,
                   GateReason.PREDICTIONS_NOT_FINITE,
                   f"{evidence.not_finite} of the challenger's predictions are not finite")  # fmt: skip
        if evidence.predictions is None:
            return
        for name, side, value in zip(("smallest", "largest"), (-1, 1), evidence.predictions, strict=True):
            limit, source = prediction_limit(self.model, side, evidence.learnt_labels)
            self.check(f"{name}_prediction", value, limit, side * value <= side * limit, GateReason.PREDICTIONS_OUT_OF_RANGE,
                       f"the {name} prediction is {value:.4g}, the limit is {limit:.4g}: {source}")  # fmt: skip

    def metric(
        self, challenger: Evaluation, baseline: Evaluation, champion: Evaluation | None, evidence: Evidence
    ) -> None:
        """The challenger has a metric, and the metrics are those of the predictions that the evidence is from."""
        value = _number(challenger.metrics.get(self.name))
        self.check(f"challenger_{self.name}", value, "finite", value is not None, GateReason.CHALLENGER_METRIC_MISSING,
                   f"the challenger's {self.called} is {_figure(value)}")  # fmt: skip
        over = evidence.over_champion.point if evidence.over_champion else None
        for who, other, told in (
            ("baseline", baseline, evidence.over_baseline),
            ("champion", champion, over),
        ):
            bar = _number(other.metrics.get(self.name)) if other is not None else None
            if value is None or bar is None or resampled.distance(self.name, bar) <= ROUNDING:
                continue
            says = 1.0 - resampled.distance(self.name, value) / resampled.distance(self.name, bar)
            same = told is not None and abs(says - told) <= ROUNDING * max(1.0, abs(says))
            self.check(f"{who}_metric_agrees", says, told, same, GateReason.METRIC_MISMATCH,
                       f"by the metrics the improvement over the {who} is {_share(says)}, by the predictions {_share(told)}")  # fmt: skip

    def baseline(self, challenger: Evaluation, baseline: Evaluation, champion: Evaluation | None) -> None:
        """The challenger beats the naive prediction, or what serves now loses to it by more.

        The baseline cannot serve. To keep a champion that it beats, because the challenger that is better loses to it as well,
        would cost the served error and win nothing.
        """
        value, bar = (_number(e.metrics.get(self.name)) for e in (challenger, baseline))
        ruling = _number(champion.metrics.get(self.name)) if champion is not None else None
        if not self.check(f"baseline_{self.name}", bar, "finite", bar is not None, GateReason.BASELINE_METRIC_MISSING,
                          f"the baseline's {self.called} is {_figure(bar)}"):  # fmt: skip
            return
        # What is not known is NaN, and neither better nor worse than anything.
        found, against, serving = (
            math.nan if v is None else resampled.distance(self.name, v) for v in (value, bar, ruling)
        )
        told, better = (
            f"{self.called} of the challenger is {_figure(value)}, of the baseline {_figure(bar)}",
            found < against,
        )
        if not better and found < serving and against <= serving:
            self.check(BOTH_BEATEN, value, ruling, True, GateReason.WORSE_THAN_BASELINE,
                       f"{told}, of the champion {_figure(ruling)}: the naive baseline beats both, and the challenger is the better one")  # fmt: skip
            return
        self.check("beats_baseline", value, bar, better, GateReason.WORSE_THAN_BASELINE, told)

    def champion(self, champion: Evaluation, as_of: datetime, champion_as_of: datetime | None) -> None:
        """There is a champion to compare with, and it is not of a later time than the challenger."""
        self.check("champion_available", champion.problem or "yes", "yes", champion.problem is None,
                   GateReason.CHAMPION_UNAVAILABLE, f"the champion: {champion.problem or 'could be evaluated'}")  # fmt: skip
        ruling = _number(champion.metrics.get(self.name))
        self.check(f"champion_{self.name}", ruling, "finite", ruling is not None, GateReason.CHAMPION_METRIC_MISSING,
                   f"the champion's {self.called} is {_figure(ruling)}")  # fmt: skip
        self.not_older(as_of, champion_as_of)

    def without_champion(
        self,
        challenger: Evaluation,
        champion: Evaluation,
        as_of: datetime,
        champion_as_of: datetime | None,
        recorded: Mapping[str, float],
    ) -> None:
        """What is told to the person who decides where the champion cannot be evaluated; it stops nothing.

        The recorded holdout is of other rows. Held against it, a challenger of a harder season, or one that must do without a
        feature that is gone, could never pass.
        """
        reason = GateReason.CHAMPION_CANNOT_BE_EVALUATED
        self.check("champion_cannot_be_evaluated", champion.problem, None, True, reason,
                   f"the champion cannot be evaluated on these rows, so a person decides: {champion.problem}")  # fmt: skip
        value, before = _number(challenger.metrics.get(self.name)), _number(recorded.get(self.name))
        told = f"{self.called} of the champion on the holdout of its own training was {_figure(before)}, of the challenger it is {_figure(value)}"
        if value is not None and before is not None and resampled.distance(self.name, before) > 0:
            worse = resampled.distance(self.name, value) / resampled.distance(self.name, before) - 1.0
            told += f" on these rows, {_share(abs(worse))} {'worse' if worse > 0 else 'better'}"
        self.check(f"champion_recorded_{self.name}", value, before, True, reason,
                   f"{told}; the rows are others, so this is told and does not decide")  # fmt: skip
        self.not_older(as_of, champion_as_of)

    def not_older(self, as_of: datetime, champion_as_of: datetime | None) -> None:
        """The challenger is of the champion's time or later."""
        known = champion_as_of.isoformat() if champion_as_of else "an unknown time"
        self.check("not_older", as_of, champion_as_of, champion_as_of is not None and as_of >= champion_as_of,
                   GateReason.OLDER_THAN_CHAMPION,
                   f"the challenger is as of {as_of.isoformat()}, the champion of {known}")  # fmt: skip

    def wanted(self, answers_drift: bool, realised: Realised | None) -> str:
        """What the spec asks of the challenger; a proof, where the newest promotions seem to have done harm and no drift is answered."""
        if answers_drift:
            return self.gate.on_drift
        if realised is None:
            return self.gate.otherwise
        harmful = realised.harmful and self.gate.otherwise == "unless_worse"
        told = (
            f"the newest {realised.promotions} promotions together made {self.called} {_share(abs(realised.point))} "
            f"{'better' if realised.point >= 0 else 'worse'} on rows that came after them ({_share(realised.low)} to "
            f"{_share(realised.high)})"
        )
        said = "; so this one must surely be better" if harmful else ""
        self.check(
            "realised_gain", realised.high, 0.0, True, GateReason.NOT_BETTER_THAN_CHAMPION, told + said
        )
        return "better" if harmful else self.gate.otherwise

    def improvement(self, evidence: Evidence, wanted: str) -> None:
        """The challenger is better, or not worse, beyond the doubt that the spec allows."""
        found = evidence.over_champion
        low = _number(found.low) if found is not None else None
        if found is None or low is None:
            self.check("comparable", None, "an interval", False, GateReason.NOT_COMPARABLE,
                       "challenger and champion cannot be compared on these rows: too few moments, or one class only; "
                       "make training.holdout longer")  # fmt: skip
            return
        sure = f"is {_share(found.point)}, with {self.gate.confidence:.0%} confidence at least {_share(low)}"
        if wanted == "unless_worse":
            high, most = _number(found.high), -self.gate.max_worse
            told = f"the improvement over the champion is {_share(found.point)}, with {self.gate.confidence:.0%} confidence at most {_share(high)}"
            self.check("not_surely_worse", high, 0.0, high is not None and high >= 0, GateReason.WORSE_THAN_CHAMPION,
                       f"{told}; below zero it is surely worse")  # fmt: skip
            point = _number(found.point)
            self.check("not_much_worse", point, most, point is not None and point >= most, GateReason.WORSE_THAN_CHAMPION,
                       f"{told}; {_share(most)} is allowed, however few the rows")  # fmt: skip
        elif wanted == "better":
            self.check("beats_champion", low, self.gate.margin, low > self.gate.margin, GateReason.NOT_BETTER_THAN_CHAMPION,
                       f"the improvement over the champion {sure}; it must be more than {_share(self.gate.margin)}")  # fmt: skip
        else:
            limit = -self.gate.tolerance
            self.check("not_worse_than_champion", low, limit, low >= limit, GateReason.PERHAPS_WORSE_THAN_CHAMPION,
                       f"the improvement over the champion {sure}; {_share(limit)} is allowed")  # fmt: skip

    def slices(self, evidence: Evidence) -> None:
        """No named slice is absent, too small or worse, and the worst that was found is not worse.

        Values of a named feature that are too small do not stop: with one new rare value nothing would be promoted again.
        """
        found, limit, least = evidence.slices, -self.gate.slice_max_worse, self.gate.slice_min_rows
        for name in self.gate.slices:
            parts = found.named.get(name, ()) if found else ()
            small, rows = found.left_out.get(name, (0, 0)) if found else (0, 0)
            told = f"the judged rows have {'' if parts else 'no '}rows of {name} that can be judged"
            if small:
                told += (
                    f"; left out: {small} of its values, each with fewer than {least} rows, together {rows}"
                )
            if not self.check(f"slice_{name}", len(parts), 1, bool(parts),
                              GateReason.SLICE_TOO_SMALL if small else GateReason.SLICE_ABSENT, told):  # fmt: skip
                continue
            for part in parts:
                if part.rows < least or part.point is None:
                    self.check(f"slice_{part.name}_rows", part.rows, least, False, GateReason.SLICE_TOO_SMALL,
                               f"{part.name} has {part.rows} rows; {least} are needed, for a binary model of both classes: make "
                               "training.holdout longer, or lower gate.slice_min_rows")  # fmt: skip
                else:
                    self._slice(part, limit)
        if found is None or not found.searched:
            return
        untold = f"{found.untold} of {found.searched} could not be told, with too few rows of one class"
        if found.worst is not None:
            more = f", the worst of {found.searched}{f'; {untold}' if found.untold else ''}"
            self._slice(found.worst, limit, more)
        else:
            # Nobody named them, and they say as little as those that are too small to be searched.
            self.check("slices_searched", f"0 of {found.searched}", None, True, GateReason.SLICE_ABSENT,
                       f"no slice is judged that the spec does not name: {untold}")  # fmt: skip

    def _slice(self, part: Slice, limit: float, more: str = "") -> None:
        value = part.point if part.high is None else part.high
        sure = f", surely below {_share(part.high)}" if part.high is not None else ""
        why = ""
        if part.told_by == "rows":
            why = "; it has too few moments, so each of its rows counts as one"
        elif part.worse and part.high is None:
            why = (
                "; no interval can be told (too few moments, or rows of one class), so this number alone decides: make "
                "training.holdout longer, or name larger slices"
            )
        self.check(f"slice_{part.name}", value, limit, not part.worse, GateReason.SLICE_WORSE,
                   f"the improvement in {part.name} ({part.rows} rows{more}) is {_share(part.point)}{sure}; {_share(limit)} is "
                   f"allowed{why}")  # fmt: skip

    def calibration(self, evidence: Evidence) -> None:
        """The probabilities are not further off than the champion's."""
        found, limit = evidence.calibration, self.gate.calibration_max_worse
        value = _number(found.worse_by) if found is not None else None
        told = f"{found.challenger:.3f}, the champion's {found.champion:.3f}" if found else "unknown"
        self.check("calibration", value, limit, value is not None and value <= limit, GateReason.CALIBRATION_WORSE,
                   f"the challenger's calibration error is {told}; it is larger by at least {_figure(value)}, {limit:.3g} is allowed")  # fmt: skip

    def cost(self, evidence: Evidence) -> None:
        """The challenger predicts fast enough and its file is small enough, where the spec says what is enough."""
        spent = evidence.cost
        for name, limit, value, unit, reason in (
            ("predict_ms", self.gate.max_predict_ms, spent and spent.predict_ms, "ms for 1,000 rows", GateReason.TOO_SLOW),
            ("size_mb", self.gate.max_size_mb, spent and spent.bytes / 1e6, "MB", GateReason.TOO_LARGE),
        ):  # fmt: skip
            if limit is not None:
                known = _number(value)
                self.check(name, known, limit, known is not None and known <= limit, reason,
                           f"the challenger takes {_figure(known)} {unit}, {limit:.4g} are allowed")  # fmt: skip

    def stability(self, challenger: Evaluation, evidence: Evidence) -> None:
        """Another seed gives about the same metric, where the spec asks."""
        limit = self.gate.stability
        if limit is None:
            return
        own = evidence.own_seed or challenger.metrics
        value, other = (_number((m or {}).get(self.name)) for m in (own, evidence.other_seed))
        moved = None
        if value is not None and other is not None:
            larger = max(resampled.distance(self.name, value), resampled.distance(self.name, other))
            moved = (
                abs(resampled.distance(self.name, value) - resampled.distance(self.name, other)) / larger
                if larger > 0
                else 0.0
            )
        self.check("stability", moved, limit, moved is not None and moved <= limit, GateReason.UNSTABLE,
                   f"{self.called} is {_figure(value)}, with another seed {_figure(other)}: {_share(moved)} apart, {_share(limit)} is "
                   "allowed")  # fmt: skip

    def fresh_rows(self, challenger: Evaluation, evidence: Evidence) -> None:
        """No comparison rejects that favoured a champion which had learnt judged rows; the check stands before it."""
        learnt, least = evidence.champion_learnt, self.model.training.min_holdout_rows
        if not learnt:
            return
        failed = [place for place, check in enumerate(self.checks) if not check.passed]
        lost = bool(failed) and GateReason(self.checks[failed[0]].code) in COMPARED
        both = " of both classes" if self.model.task == "binary" else ""
        self.check("fresh_rows", f"{learnt} of {challenger.rows}", 0, not lost, GateReason.NOT_ENOUGH_FRESH_ROWS,
                   f"the champion had learnt {learnt} of the {challenger.rows} judged rows, which favours it; only rows that are new "
                   f"to it are judged once the holdout has {least}{both} (training.min_holdout_rows): train again when more rows "
                   "have come")  # fmt: skip
        if lost:
            self.checks.insert(failed[0], self.checks.pop())


def _span(low: float, high: float) -> float:
    """How far labels range; as far as they are from zero where they are all the same but for rounding.

    A model of constant labels predicts them in float32, so a limit without any room would refuse it.
    """
    size = max(abs(low), abs(high))
    return high - low if high - low > ROUNDING * size else size or 1.0


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.2f} %"


def _plain(value: Any) -> float | str | None:
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, (int, float, str)) else str(value)
