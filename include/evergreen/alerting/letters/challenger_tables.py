"""The tables of a mail about a challenger: its metrics beside the others', and the checks of the gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evergreen.alerting.content.history import number
from evergreen.alerting.content.letter import KnownIncident, Table
from evergreen.ledger import check_words, words
from evergreen.ledger.check_words import PARTIES
from evergreen.spec import LARGER_IS_BETTER, METRICS, metric_name

COMPARISONS = ("beats_champion", "not_worse_than_champion", "not_surely_worse", "not_much_worse")
# What is compared with the limit is not what was measured, but an end of its interval.
BOUNDS = {
    "beats_champion": "better than the champion: at least by",
    "not_worse_than_champion": "not worse than the champion: better at least by",
    "not_surely_worse": "not surely worse than the champion: better at most by",
    "not_much_worse": "not much worse than the champion: better, as measured, by",
    "calibration": "probabilities as true as the champion's: their error is larger at least by",
}


def gate_metric(known: KnownIncident) -> str | None:
    """The metric that decided: as recorded, else the spec's."""
    found = known.get("metric")
    return found if isinstance(found, str) else known.model.gate_metric if known.model else None


def metrics_of(known: KnownIncident, party: str) -> dict[str, Any]:
    """The metrics of challenger, champion or baseline, as far as they are recorded."""
    found = known.mapping(f"metrics.{party}")
    return {name: value for name, value in found.items() if number(found, name) is not None}


def metric_table(known: KnownIncident, metric: str | None) -> tuple[Table, ...]:
    """All metrics of all parties on the same holdout rows, the deciding one first."""
    parties = {party: metrics_of(known, party) for party in PARTIES}
    known.told.add("metrics")
    names = [
        n for n in (METRICS[known.model.task] if known.model else ()) if any(n in m for m in parties.values())
    ]
    known_names = {n for all_names in METRICS.values() for n in all_names}
    names += [n for m in parties.values() for n in m if n in known_names and n not in names]
    names = sorted(dict.fromkeys(names), key=lambda n: n != metric)
    if not names:
        return ()
    shown = [party for party in PARTIES if parties[party] or party == "challenger"]
    rows = tuple(
        (metric_name(name), *(words.num(parties[p].get(name)) for p in shown),
         "larger" if name in LARGER_IS_BETTER else "smaller")
        for name in names
    )  # fmt: skip
    return (
        Table(
            "On the same holdout rows", ("Metric", *(p.capitalize() for p in shown), "Better is"), rows,
            note=f"{metric_name(metric)} decides." if metric else "",
        ),
    )  # fmt: skip


def check_table(known: KnownIncident, *, only_failed: bool) -> tuple[Table, ...]:
    """The gate's checks with value and limit: the failed ones, or those with numbers."""
    checks = [c for c in known.items("checks", "verdict.checks") if isinstance(c, Mapping)]
    if only_failed:
        chosen = [c for c in checks if c.get("passed") is not True]
    else:
        chosen = [
            c
            for c in checks
            if str(c.get("check")).startswith("beats_")
            or c.get("check") in (*COMPARISONS, "holdout_rows", "baseline_beats_both")
        ]
    rows = tuple(
        (_label(c), _of_check(c, "value"), _of_check(c, "limit"),
         "passed" if c.get("passed") is True else "failed")
        for c in chosen
    )  # fmt: skip
    if not rows:
        return ()
    title = "Checks of the gate that failed" if only_failed else "The gate"
    # Sentences that the numbers of the table do not tell: why more was asked, and why less.
    asked = [c for c in checks if c.get("check") in ("realised_gain", "baseline_beats_both")]
    said = dict.fromkeys(str(c["sentence"]) for c in (*asked, *(c for c in chosen if _compares(c))))
    note = "; ".join(f"{one[0].upper()}{one[1:]}" for one in said)
    bad = tuple(r[3] == "failed" for r in rows)
    return (Table(title, ("Check", "Value", "Limit", "Result"), rows, bad, f"{note}." if note else ""),)


def _label(check: Mapping[str, Any]) -> str:
    """What a check's value is: the end of an interval is called one, and a metric by its name."""
    code, sentence = str(check.get("check")), str(check.get("sentence"))
    if _in_slice(check):
        measured = "better at most by" if "surely below" in sentence else "better, as measured, by"
        return f"not worse in {code.removeprefix('slice_')}: {measured}"
    if code in BOUNDS and (_compares(check) or code not in COMPARISONS):
        return BOUNDS[code]
    # The code itself of a check of another release alone: the gate makes none that has no words.
    return check_words.named(code) or code


def _of_check(check: Mapping[str, Any], name: str) -> str:
    """A check's number; an improvement over the champion is a share of the distance from perfect."""
    if _compares(check) and (found := number(dict(check), name)) is not None:
        return f"{found:.1%}"
    return words.num(check.get(name))


def _compares(check: Mapping[str, Any]) -> bool:
    """Whether a check is of the improvement over the champion; an early release compared the metrics themselves."""
    whole = str(check.get("check")) in COMPARISONS and "improvement" in str(check.get("sentence"))
    return whole or _in_slice(check)


def _in_slice(check: Mapping[str, Any]) -> bool:
    """Whether a check is of the improvement on a part of the rows."""
    return str(check.get("check")).startswith("slice_") and str(check.get("sentence")).startswith(
        "the improvement in "
    )
