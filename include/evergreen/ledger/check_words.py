"""The checks of the gate by their names, in words: what the value of each is. The gate makes no check that has none."""

from __future__ import annotations

from evergreen.spec.metrics import METRICS, metric_name

CHECKS = {
    "holdout_rows": "rows in the holdout",
    "holdout_not_learnt": "newest row that the challenger has learnt",
    "holdout_steps": "steps in which the judged rows were predicted",
    "predictions_finite": "predictions that are no numbers",
    "smallest_prediction": "smallest prediction",
    "largest_prediction": "largest prediction",
    "beats_baseline": "better than the naive baseline",
    "baseline_beats_both": "better than the champion; the naive baseline beats both",
    "champion_available": "champion on the same rows",
    "champion_cannot_be_evaluated": "the champion cannot be evaluated on the same rows",
    "not_older": "as-of time, beside the champion's",
    "realised_gain": "what the newest promotions came to",
    "comparable": "comparison with the champion",
    "beats_champion": "better than the champion",
    "not_worse_than_champion": "not worse than the champion",
    "not_surely_worse": "not surely worse than the champion",
    "not_much_worse": "not much worse than the champion",
    "slices_searched": "parts of the rows that could be judged",
    "calibration": "how much less true than the champion's its probabilities are",
    "predict_ms": "milliseconds for 1,000 predictions",
    "size_mb": "size in MB",
    "stability": "how far another seed is apart",
    "fresh_rows": "judged rows that the champion had learnt",
}
# Of each of these there are checks with these ends; whose, is filled in.
PARTIES = ("challenger", "champion", "baseline")
OF_A_PARTY = {
    "run": "run that evaluated the {}",
    "as_of": "as-of time of the {}'s evaluation",
    "snapshot": "snapshot on which the {} was evaluated",
    "rows": "rows on which the {} was judged",
    "metric_agrees": "improvement over the {} by its metrics",
}
_METRICS = {name for names in METRICS.values() for name in names}


def named(check: str) -> str | None:
    """What the value of a check is; None for a name that this release does not know."""
    if check in CHECKS:
        return CHECKS[check]
    if check.startswith("slice_"):
        part = check.removeprefix("slice_")
        return f"rows in {part.removesuffix('_rows')}" if part.endswith("_rows") else f"slices of {part}"
    who, _, what = check.partition("_")
    if who not in PARTIES:
        return None
    recorded = what.removeprefix("recorded_")
    if recorded in _METRICS:
        where = "" if recorded == what else " on the holdout of its own training"
        return f"{metric_name(recorded)} of the {who}{where}"
    return OF_A_PARTY[what].format(who) if what in OF_A_PARTY else None
