"""Injected changes of the data that the drift check must find, each in its own column.

    python -m benchmarks.decisions_found [CASES]

The streams and champions are those of `decisions_drift`, unchanged until a change is put into the windows after the champion:
every case is another column or category in turn, in windows that follow each other. Found means that the check of one of
two windows says so of the column itself. What changes in the labels alone is `decisions_error`'s.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd

from benchmarks.decisions_drift import (
    CATEGORICAL,
    CHAMPIONS,
    DETECTED_AT,
    NUMERIC,
    WINDOWS,
    Stream,
    alarms,
    champion,
    real,
)
from benchmarks.table import Row, markdown
from evergreen.monitoring.windows.judgement import What

CASES = 200

Change = Callable[[pd.DataFrame], pd.DataFrame]


def changes(seed: int) -> Iterator[tuple[str, str, What, Change]]:
    """One injected change of each sort, each in one column: what, where, what must be found, and the change."""
    rng = np.random.default_rng(seed)
    number, category = NUMERIC[seed % len(NUMERIC)], CATEGORICAL[seed % len(CATEGORICAL)]
    features = (*NUMERIC, *CATEGORICAL)
    emptied = features[seed % len(features)]
    spread = float(np.std(real()[number].to_numpy()))
    shares = real().to_pandas()[category].value_counts(normalize=True)
    grown = rng.choice([v for v, share in shares.items() if share <= 0.9])
    moved = 0.1 / (1 - shares[grown])

    def put(column: str, share: float, value: object) -> Change:
        def change(frame: pd.DataFrame) -> pd.DataFrame:
            other = np.flatnonzero(frame[column].to_numpy() != value)
            hit = rng.random(len(other)) < share
            values = frame[column].to_numpy().copy()
            values[other[hit]] = value
            return frame.assign(**{column: values})

        return change

    yield "mean +0.5 σ", number, What.DATA_DRIFT, lambda f: f.assign(**{number: f[number] + 0.5 * spread})
    yield "a category's share +10 points", category, What.DATA_DRIFT, put(category, moved, grown)
    missing = np.nan if emptied in NUMERIC else None
    yield "nulls +5 points", emptied, What.MISSING, put(emptied, 0.05, missing)
    yield "unit × 1.8 + 32", number, What.DATA_DRIFT, lambda f: f.assign(**{number: f[number] * 1.8 + 32})


def found(seeds: Sequence[int]) -> list[tuple[str, str, bool]]:
    """Inject the changes of each seed into the windows after one champion; says which were found in their own column."""
    stream = Stream("unchanged", DETECTED_AT, 10_000 + seeds[0])
    reference = champion(stream)
    told = []
    for place, seed in enumerate(seeds):
        windows = [stream.window(place * WINDOWS + n) for n in range(WINDOWS)]
        for what, column, kind, change in changes(seed):
            told.append((what, column, any((column, kind) in alarms(reference, change(w)) for w in windows)))
    return told


def measure(cases: int = CASES) -> list[Row]:
    """The rows of the table."""
    real()  # once, before the workers come
    parts = [
        [int(seed) for seed in part] for part in np.array_split(np.arange(cases), CHAMPIONS) if len(part)
    ]
    with ProcessPoolExecutor(min(2, len(os.sched_getaffinity(0)))) as pool:
        told_all = [one for told in pool.map(found, parts) for one in told]
    made = []
    for what in dict.fromkeys(w for w, _, _ in told_all):
        hits = [hit for w, _, hit in told_all if w == what]
        missed = sorted({c for w, c, hit in told_all if w == what and not hit})
        share = float(np.mean(hits))
        note = f"missed in {', '.join(missed)}" if missed else ""
        made.append(Row(f"found within {WINDOWS} windows of {DETECTED_AT:,} rows: {what}, in its column",
                        f"{share:.1%} of {len(hits)}", "", None, "≥ 95 %", share >= 0.95, note))  # fmt: skip
    return made


if __name__ == "__main__":
    began = time.monotonic()
    result = measure(*(int(a) for a in sys.argv[1:2]))
    print(markdown(result))
    print(f"\n{time.monotonic() - began:.0f} s")
    sys.exit(0 if all(row.met for row in result) else 1)
