"""The tables of a mail about a challenger: its metrics beside the others', and the checks of the gate."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from evergreen.alerting.content import amounts
from evergreen.alerting.content.history import number
from evergreen.alerting.content.letter import KnownIncident, Table
from evergreen.ledger import check_words, words
from evergreen.ledger.check_words import PARTIES
from evergreen.spec import LARGER_IS_BETTER, METRICS, metric_name

COMPARISONS = ("beats_champion", "not_worse_than_champion", "not_surely_worse", "not_much_worse")
# What is compared with the limit is not what was measured, but an end of its interval.
BOUNDS = {
    "beats_champion": "better than the champion, at the least",
    "not_worse_than_champion": "not worse than the champion, at the least",
    "not_surely_worse": "not surely worse than the champion, at the most",
    "not_much_worse": "not much worse than the champion, as measured",
    "calibration": "probabilities as true as the champion's: their error, at the least",
}
# Those whose value is an end of the interval.
ENDS = ("beats_champion", "not_worse_than_champion", "not_surely_worse")
BEATEN = ("beats_baseline", "baseline_beats_both")
AT_LEAST = ("holdout_rows", "smallest_prediction")
AT_MOST = ("largest_prediction", "predict_ms", "size_mb", "stability", "predictions_finite", "fresh_rows")
TIMES = ("_as_of", "not_older", "holdout_not_learnt")
# Limits that a check has for its code alone.
PLAIN = {"finite": "a number", "yes": "yes"}


def gate_metric(known: KnownIncident) -> str | None:
    """The metric that decided: as recorded, else the spec's."""
    found = known.get("metric")
    return found if isinstance(found, str) else known.model.gate_metric if known.model else None


def metrics_of(known: KnownIncident, party: str) -> dict[str, Any]:
    """The metrics of challenger, champion or baseline, as far as they are recorded."""
    found = known.mapping(f"metrics.{party}")
    return {name: value for name, value in found.items() if number(found, name) is not None}


def metric_values(known: KnownIncident, metric: str | None) -> dict[str, float | None]:
    """The deciding metric of challenger, champion and baseline on the same rows."""
    return {party: number(metrics_of(known, party), metric or "") for party in PARTIES}


def beside(known: KnownIncident, metric: str | None, champion: object, *, short: bool = False) -> str:
    """How the challenger did: `RMSE 55.8, 12 % better than version 3`; empty where its metric is not recorded.

    Args:
        known: the incident.
        metric: the deciding one.
        champion: the version that it is held against, or None for the naive baseline.
        short: without the metric's name.
    """
    values = metric_values(known, metric)
    own = values["challenger"]
    if metric is None or own is None:
        return ""
    other = values["champion"] if champion else values["baseline"]
    against = amounts.compared(metric, own, other, f"version {champion}" if champion else "the baseline")
    said = words.num(own) if short else f"{metric_name(metric)} {words.num(own)}"
    return f"{said}, {against}" if against else said


def metric_numbers(
    known: KnownIncident, metric: str | None, champion: object
) -> tuple[tuple[str, str | None], ...]:
    """The deciding metric of all parties, for the top of a letter."""
    if metric is None:
        return ()
    values, name = metric_values(known, metric), metric_name(metric)
    other = values["champion"]
    base = values["baseline"]
    told = improvement(known)
    return (
        (f"{name} of version {known.version or '?'}", beside(known, metric, champion, short=True) or None),
        (f"{name} of version {champion or '?'}", None if other is None else words.num(other)),
        (f"{name} of the naive baseline", None if base is None else words.num(base)),
        (
            "Better at the most" if told and told[2] == "not_surely_worse" else "Better at the least",
            None if told is None or told[1] is None else amounts.change(told[1]),
        ),
    )


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
    rows = tuple((metric_name(name), *(words.num(parties[p].get(name)) for p in shown)) for name in names)
    sides = [
        f"{side} is better of {' and '.join(filter(None, (', '.join(those[:-1]), those[-1])))}"
        for side, those in (
            ("less", [metric_name(n) for n in names if n not in LARGER_IS_BETTER]),
            ("more", [metric_name(n) for n in names if n in LARGER_IS_BETTER]),
        )
        if those
    ]
    note = f"{metric_name(metric)} decides. " if metric else ""
    told = "; ".join(sides)
    note += f"{told[0].upper()}{told[1:]}."
    return (Table("On the same holdout rows", ("Metric", *(p.capitalize() for p in shown)), rows, note=note),)


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
        (_label(c), _value(c), _limit(c),
         "passed" if c.get("passed") is True else "failed")
        for c in chosen
    )  # fmt: skip
    if not rows:
        return ()
    title = "Checks of the gate that failed" if only_failed else "The gate"
    # Sentences that the numbers of the table do not tell: why more was asked, and why less.
    asked = [c for c in checks if c.get("check") in ("realised_gain", "baseline_beats_both")]
    said = dict.fromkeys(reworded(str(c["sentence"])) for c in (*asked, *(c for c in chosen if _compares(c))))
    note = "; ".join(f"{one[0].upper()}{one[1:]}" for one in said)
    bad = tuple(r[3] == "failed" for r in rows)
    return (Table(title, ("Check", "Value", "Limit", "Result"), rows, bad, f"{note}." if note else ""),)


def _label(check: Mapping[str, Any]) -> str:
    """What a check's value is: the end of an interval is called one, and a metric by its name."""
    code, sentence = str(check.get("check")), str(check.get("sentence"))
    if _in_slice(check):
        measured = "at the most" if "surely below" in sentence else "as measured"
        return f"not worse in {code.removeprefix('slice_')}, {measured}"
    if code in BOUNDS and (_compares(check) or code not in COMPARISONS):
        return BOUNDS[code]
    # The code itself of a check of another release alone: the gate makes none that has no words.
    return check_words.named(code) or code


def _value(check: Mapping[str, Any]) -> str:
    """What a check found; an improvement over the champion is a share of the distance from perfect."""
    found = number(dict(check), "value")
    if _compares(check) and found is not None:
        return amounts.change(found)
    if check.get("check") == "calibration" and found is not None:
        return f"{words.num(abs(found))} {'larger' if found > 0 else 'smaller'}"
    return _plain(check, "value")


def _limit(check: Mapping[str, Any]) -> str:
    """What a check asks for, in its own direction."""
    code, found = str(check.get("check")), number(dict(check), "limit")
    if found is None:
        return _plain(check, "limit")
    if _compares(check):
        return amounts.allowed(found, beaten=code == "beats_champion")
    if code == "calibration":
        return f"at most {words.num(abs(found))} {'larger' if found >= 0 else 'smaller'}"
    # The naive baseline is no limit to be reached, but one to be passed.
    return f"better than {words.num(found)}" if code in BEATEN else _sided(check)


def _sided(check: Mapping[str, Any]) -> str:
    code = str(check.get("check"))
    if code in AT_LEAST or code.startswith("slice_"):
        return f"at least {words.num(check.get('limit'))}"
    return f"at most {words.num(check.get('limit'))}" if code in AT_MOST else words.num(check.get("limit"))


def _plain(check: Mapping[str, Any], name: str) -> str:
    value = check.get(name)
    if value is None:
        return "–"
    if str(check.get("check")).endswith(TIMES):
        return words.when(value)
    return PLAIN.get(str(value), words.num(value))


def _compares(check: Mapping[str, Any]) -> bool:
    """Whether a check is of the improvement over the champion; an early release compared the metrics themselves."""
    whole = str(check.get("check")) in COMPARISONS and "improvement" in str(check.get("sentence"))
    return whole or _in_slice(check)


def _in_slice(check: Mapping[str, Any]) -> bool:
    """Whether a check is of the improvement on a part of the rows."""
    return str(check.get("check")).startswith("slice_") and str(check.get("sentence")).startswith(
        "the improvement in "
    )


def reworded(sentence: str) -> str:
    """What the gate says about an improvement, without signs: `-5.34 %` is `5.3 % worse`; any other text as it is.

    The ledger keeps it as it was written.
    """
    if "the improvement " not in sentence:
        return sentence
    told = sentence.replace("the improvement over the champion is ", "beside the champion it is ")
    told = re.sub(r"the improvement (in [^;]*?\)) is ", r"\1 it is ", told)
    told = re.sub(r"surely below (-[\d.]+ %)", r"surely at the least \1", told)
    told = told.replace("surely below ", "surely less than ").replace("confidence at ", "confidence at the ")
    told = told.replace("more than 0.00 %", "better").replace(
        "; below zero it is", "; where even that is worse, it is"
    )
    return re.sub(r"(-?\d+\.\d+) %", lambda found: amounts.change(float(found[1]) / 100), told)


def improvement(known: KnownIncident) -> tuple[float, float | None, str] | None:
    """How much better the challenger is than the champion on the same rows, as a share of the distance from perfect.

    Returns:
        The improvement, the end of its interval that the gate went by, and the code of that check; None where they were not compared.
    """
    metric = gate_metric(known)
    if metric is None:
        return None
    values = [number(metrics_of(known, party), metric) for party in ("challenger", "champion")]
    found = amounts.improvement(metric, values[0], values[1])
    if found is None:
        return None
    checks = [c for c in known.items("checks", "verdict.checks") if isinstance(c, Mapping)]
    for check in checks:
        end = number(dict(check), "value")
        if str(check.get("check")) in ENDS and _compares(check) and end is not None:
            return found, end, str(check["check"])
    return found, None, ""
