"""What is known to be weak about a version, each by a rule on the evidence of its training."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from evergreen.ledger.words import num
from evergreen.metrics import resampled
from evergreen.spec import metric_name
from evergreen.training.card.made import Made

NEAR_BASELINE = 0.10
FEW_ROWS = 500
MANY_UNLABELLED = 0.02
MUCH_WORSE = 1.5
CALIBRATION = 0.05
# The learnt rows' error as a share of the newest ones', below which the model is said to remember.
REMEMBERS = 0.5
YEAR = timedelta(days=365)
MOST_SLICES = 3


def weaknesses(made: Made) -> list[str]:
    """Sentences, the gravest first; empty where no rule finds anything."""
    return [
        *_baseline(made),
        *_champion(made),
        *_slices(made),
        *_rows(made),
        *_memory(made),
        *_columns(made),
        *filter(None, (made.outcome.error_limit, made.outcome.note)),
    ]


def _baseline(made: Made) -> Iterator[str]:
    over, name = made.judged.evidence.over_baseline, made.model.baseline.replace("_", " ")
    if over is not None and over <= 0:
        yield f"The naive baseline ({name}) is better on the judged rows, by {-over:.1%}."
    elif over is not None and over < NEAR_BASELINE:
        yield f"It is only {over:.1%} better than the naive baseline ({name})."


def _champion(made: Made) -> Iterator[str]:
    over = made.judged.evidence.over_champion
    if over is not None and over.low is not None and over.high is not None and over.low < 0 < over.high:
        yield (
            f"The judged rows do not say whether it is better than version {made.outcome.champion_version}: the improvement lies "
            f"between {over.low:+.1%} and {over.high:+.1%}."
        )
    if learnt := made.outcome.rows.get("champion_learnt", 0):
        yield f"The champion had learnt {learnt:,} of the judged rows, which favours it."
    errors = made.judged.evidence.calibration
    if errors is not None and errors.challenger > CALIBRATION:
        yield f"Its probabilities are off by {errors.challenger:.1%} on average (calibration error)."


def _slices(made: Made) -> Iterator[str]:
    found = made.judged.evidence.slices
    every = [s for named in found.named.values() for s in named] if found else []
    if found and found.worst is not None:
        every.append(found.worst)
    for one in {s.name: s for s in every if s.worse}.values():
        yield (
            f"On {one.name} it is worse than version {made.outcome.champion_version} by {-(one.point or 0.0):.1%} ({one.rows:,} rows)."
        )
    metric, whole = made.outcome.metric, made.outcome.metrics["challenger"].get(made.outcome.metric)
    if whole is None:
        return
    usual = resampled.distance(metric, whole)
    far = [
        (resampled.distance(metric, s.values["challenger"]) / usual, s)
        for s in made.figures.slices
        if usual > 0 and resampled.distance(metric, s.values["challenger"]) > MUCH_WORSE * usual
    ]
    for times, part in sorted(far, key=lambda pair: -pair[0])[:MOST_SLICES]:
        yield (
            f"On {part.feature} {part.value} its {metric_name(metric)} is {num(part.values['challenger'])}, on all rows {num(whole)} "
            f"({part.rows:,} rows, {times:.1f} times as far from perfect)."
        )


def _rows(made: Made) -> Iterator[str]:
    judged = made.outcome.rows.get("judged", 0)
    if judged < FEW_ROWS:
        yield f"It is judged on few rows: {judged:,}."
    mature = made.snapshot.rows + made.snapshot.unlabelled
    if made.snapshot.unlabelled > MANY_UNLABELLED * mature:
        yield (
            f"{made.snapshot.unlabelled / mature:.1%} of the mature rows have no label: nothing is learnt or measured of them."
        )
    begin, end = (datetime.fromisoformat(t) for t in (made.snapshot.start, made.snapshot.end))
    if end - begin < YEAR:
        yield f"It has learnt from {(end - begin).days} days, so it has not seen every season."


def _memory(made: Made) -> Iterator[str]:
    fitted = made.judged.fitted
    curve, at, metric = fitted.curve, fitted.rounds - 1, str(fitted.stopping_metric)
    if at < len(curve.learnt) and at < len(curve.newest) and metric in ("rmse", "mae", "logloss"):
        learnt, newest = curve.learnt[at], curve.newest[at]
        if learnt < REMEMBERS * newest:
            yield (
                f"It knows the rows that it learnt much better than new ones: {metric_name(metric)} {num(learnt)} against {num(newest)}."
            )


def _columns(made: Made) -> Iterator[str]:
    notes = made.judged.notes
    if notes["constant_features"]:
        yield f"Features of one value, from which nothing is learnt: {', '.join(notes['constant_features'])}."
    unseen = {name: count for name, count in notes["holdout_unseen"].items() if count}
    for name, count in sorted(unseen.items()):
        yield f"{count:,} holdout rows have a {name} that it had not seen."
