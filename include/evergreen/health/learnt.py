"""What a champion learnt, from its files in MLflow: importance, the candidates that were tried, its reference against the newest window.

Needs MLflow and seconds, where the rest of `health` needs the warehouse and milliseconds; so it is asked for by itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from evergreen import ledger, registry
from evergreen.alerting.content.letter import Table
from evergreen.errors import ErrorReason, EvergreenError, TerminalError
from evergreen.ledger import words
from evergreen.monitoring.windows import judgement as store
from evergreen.monitoring.windows import kept_sample
from evergreen.monitoring.windows.judgement import Judgement
from evergreen.monitoring.windows.live_windows import REFERENCE_PATH
from evergreen.reference.reference import Reference
from evergreen.registry.champions import champion_of
from evergreen.training.search.leaderboard import TABLE_FILE, readable
from evergreen.warehouse.connection import Connection, fetch

BINS = 24
MOST_CATEGORIES = 12


@dataclass(frozen=True)
class Compared:
    """A column of the reference beside the same one of a window.

    Attributes:
        column, label: its name, and as people read it.
        bins: of numbers the lower end of each bin as text, of categories their names; shares are of the rows that have a value.
        reference, now: share of rows by bin, 0 to 1; `now` is empty where no window was measured.
        words: mean or most frequent value, and missing values, of both in a sentence.
        gain: the share of the champion's gain that the feature has; None where it has none.
    """

    column: str
    label: str
    bins: tuple[str, ...]
    reference: tuple[float, ...]
    now: tuple[float, ...]
    words: str
    gain: float | None


@dataclass(frozen=True)
class Learnt:
    """What a champion learnt.

    Attributes:
        version: of the champion.
        rows: how many rows it learnt from, from when to when, in words.
        window: the window that is compared, in words; empty: none was measured.
        columns: the most important feature first.
        leaderboard: the candidates that were tried; None where nothing was searched.
    """

    version: str
    rows: str
    window: str
    columns: tuple[Compared, ...]
    leaderboard: Table | None


def learnt(conn: Connection, model: str) -> Learnt:
    """What the champion of a model learnt.

    Raises:
        TerminalError: there is no champion, or MLflow has lost its files.
        TransientError: MLflow does not answer.
    """
    changes = ledger.champions(conn, model)
    if not changes:
        raise TerminalError(f"{model} has no champion yet", ErrorReason.NO_ROWS)
    champion = champion_of(model, changes[0], changes)
    reference = Reference.read(registry.artifact_folder(champion.run_id, REFERENCE_PATH))
    judged = _newest(conn, model, champion.version)
    sample = _sample(judged) if judged else None
    columns = [
        _compared(name, profile.gain, reference.sample, sample)
        for name, profile in reference.columns.items()
        if name in reference.sample.column_names
    ]
    return Learnt(
        version=champion.version,
        rows=f"{reference.rows:,} rows, {words.when(reference.start)} to {words.when(reference.end)}",
        window=str(judged.window) if judged and sample is not None else "",
        columns=tuple(sorted(columns, key=lambda c: (-(c.gain or 0.0), c.column.startswith("_"), c.column))),
        leaderboard=_leaderboard(champion.run_id),
    )


def _newest(conn: Connection, model: str, version: str) -> Judgement | None:
    """The champion's newest window that was measured."""
    rows = fetch(
        conn,
        "SELECT window_start FROM evergreen.window_judgement WHERE model = %s AND version = %s AND report IS NOT NULL"
        " ORDER BY window_start DESC, revision DESC LIMIT 1",
        (model, version),
    )
    return store.at(conn, model, rows[0]["window_start"], version=version) if rows else None


def _sample(judged: Judgement) -> pa.Table | None:
    """The rows of a window that were kept; None where they were not."""
    if not judged.report or not judged.mlflow_run:
        return None
    at = judged.report.rpartition("/")[0]
    try:
        kept = kept_sample.read(registry.artifact_folder(judged.mlflow_run, f"{at}/{kept_sample.FILE}"))
    except EvergreenError:
        return None
    return pa.Table.from_pandas(kept.rows, preserve_index=False)


def _leaderboard(run: str) -> Table | None:
    try:
        told: dict[str, Any] = json.loads(
            registry.artifact_folder(run, TABLE_FILE).read_text(encoding="utf-8")
        )
    except (EvergreenError, OSError, ValueError):
        return None  # nothing was searched
    heads = [
        h
        for h in told["columns"]
        if h != "chosen" and any(r[told["columns"].index(h)] not in (None, "") for r in told["data"])
    ]
    place = [told["columns"].index(h) for h in heads]
    chosen = told["columns"].index("chosen")
    params = told["columns"].index("parameters")
    rows = tuple(
        tuple("" if row[i] is None else readable(row[i]) if i == params else words.num(row[i]) for i in place)
        for row in told["data"]
    )
    return Table(
        "Leaderboard",
        tuple(h.capitalize() for h in heads),
        rows,
        tuple(bool(row[chosen]) for row in told["data"]),
    )


def _compared(name: str, gain: float | None, reference: pa.Table, sample: pa.Table | None) -> Compared:
    before = reference[name].to_pandas()
    now = sample[name].to_pandas() if sample is not None and name in sample.column_names else None
    numeric = before.dtype.kind in "fiub"
    if numeric:
        bins, shares = _numbers(before, now)
        middle = [
            f"mean {s.mean():.4g}" if s.notna().any() else "no value" for s in (before, now) if s is not None
        ]
    else:
        bins, shares = _categories(before, now)
        middle = [
            f"mostly {s.mode().iloc[0]}" if s.notna().any() else "no value"
            for s in (before, now)
            if s is not None
        ]
    missing = [f"{s.isna().mean():.1%} missing" for s in (before, now) if s is not None]
    told = [f"{m}, {x}" for m, x in zip(middle, missing, strict=True)]
    said = f"reference: {told[0]}" + (f"; now: {told[1]}" if len(told) > 1 else "")
    return Compared(name, words.column_name(name), bins, shares[0], shares[1], said, gain)


def _numbers(before: Any, now: Any) -> tuple[tuple[str, ...], list[tuple[float, ...]]]:
    """Bins of equal width over the range of both, without the farthest thousandth on either side."""
    parts = [s.dropna().to_numpy(dtype=float) for s in (before, now) if s is not None]
    parts = [p[np.isfinite(p)] for p in parts]
    known = np.concatenate([p for p in parts if len(p)]) if any(len(p) for p in parts) else np.array([0.0])
    low, high = np.quantile(known, [0.001, 0.999])
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    shares = [
        tuple(float(n) / max(1, len(p)) for n in np.histogram(np.clip(p, edges[0], edges[-1]), edges)[0])
        for p in parts
    ]
    return tuple(f"{edge:.4g}" for edge in edges[:-1]), [*shares, *([()] if len(shares) < 2 else [])]


def _categories(before: Any, now: Any) -> tuple[tuple[str, ...], list[tuple[float, ...]]]:
    counts = [s.astype("string").value_counts(normalize=True) for s in (before, now) if s is not None]
    names = list(dict.fromkeys(name for c in counts for name in c.index))[:MOST_CATEGORIES]
    shares = [tuple(float(c.get(name, 0.0)) for name in names) for c in counts]
    return tuple(map(str, names)), [*shares, *([()] if len(shares) < 2 else [])]
