"""The benchmarks' data: rows of 17 features and a label over a hundred days, the same for every run of a size.

A dataset spec and a model spec belong to it, so that everything measured goes through the files a user writes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

DATASET = "bench"
MODEL = "bench_value"
DAYS = 100
WINDOW = timedelta(days=10)
START = datetime(2024, 11, 27, tzinfo=UTC)
"""First event time; windows of ten days, counted from Monday 1970-01-05, begin here."""
NEWEST = START + timedelta(days=90)
"""Where the newest tenth of the rows begins: trained as of here, scored and watched afterwards."""
END = START + timedelta(days=DAYS)
NUMERIC = tuple(f"n{i:02d}" for i in range(14))
CATEGORICAL = {"region": 24, "channel": 8, "plan": 3}
"""The categorical features and how many values each has."""
ROUNDS = 100
PARAMS = {"max_depth": 6, "learning_rate": 0.1}
BLOCK = 500_000


def table(
    rows: int, *, seed: int = 7, start: datetime = START, days: float = DAYS, first_id: int = 0
) -> pa.Table:
    """Rows in the order of their time: `id`, `ts`, 14 numeric and 3 categorical features, and the label `y`.

    Two numeric features have 3 % missing values; the label follows from eight features and noise.
    """
    rng = np.random.default_rng(seed)
    micros = np.sort(rng.integers(0, int(days * 86_400e6), rows)) + int(start.timestamp() * 1e6)
    numbers: dict[str, np.ndarray] = {name: rng.normal(size=rows) for name in NUMERIC[:9]}
    numbers |= {name: rng.gamma(2.0, 1.0, rows) for name in NUMERIC[9:12]}
    numbers |= {name: rng.integers(0, 50, rows).astype(float) for name in NUMERIC[12:]}
    codes = {name: rng.integers(0, n, rows) for name, n in CATEGORICAL.items()}
    y = (
        3 * numbers["n00"]
        + np.sin(2 * numbers["n01"]) * numbers["n02"]
        + numbers["n09"] ** 1.5
        + 0.1 * numbers["n12"]
        + np.where(codes["plan"] == 1, 2.0, 0.0) * numbers["n03"]
        + 0.05 * codes["region"]
        + rng.normal(size=rows)
    )
    columns: dict[str, pa.Array] = {
        "id": pa.array(np.arange(first_id, first_id + rows)),
        "ts": pa.array(micros, pa.timestamp("us", "UTC")),
    }
    for index, (name, number) in enumerate(numbers.items()):
        missing = rng.random(rows) < 0.03 if index in (4, 10) else None
        columns[name] = pa.array(np.round(number, 5), mask=missing)
    for name, found in codes.items():
        columns[name] = pa.DictionaryArray.from_arrays(pa.array(found, pa.int32()), values(name)).cast(
            pa.string()
        )
    columns["y"] = pa.array(np.round(y, 5))
    return pa.table(columns)


def values(name: str) -> list[str]:
    """The values of a categorical feature."""
    return [f"{name}_{i:02d}" for i in range(CATEGORICAL[name])]


def write_csv(
    path: Path, rows: int, *, seed: int = 7, start: datetime = START, days: float = DAYS, first_id: int = 0
) -> None:
    """Write rows to a CSV file, a block at a time: ten million need no more memory than one."""
    blocks = max(1, -(-rows // BLOCK))
    first = first_id
    with path.open("wb") as file:
        for number in range(blocks):
            count = rows * (number + 1) // blocks - rows * number // blocks
            part = table(
                count,
                seed=seed + number,
                start=start + timedelta(days=days) * number / blocks,
                days=days / blocks,
                first_id=first,
            )
            first += count
            pacsv.write_csv(part, file, pacsv.WriteOptions(include_header=number == 0))


def split_csv(whole: Path, at: datetime, older: Path, newer: Path) -> int:
    """Write the rows of a file of `write_csv` from before a time, and those since, to files; returns how many since."""
    limit = f"{at:%Y-%m-%d %H:%M:%S}".encode()
    since = 0
    with whole.open("rb") as source, older.open("wb") as before, newer.open("wb") as after:
        header = source.readline()
        before.write(header)
        after.write(header)
        for line in source:
            if since or line.split(b",", 2)[1].strip(b'"') >= limit:
                after.write(line)
                since += 1
            else:
                before.write(line)
    return since


def write_specs(
    folder: Path,
    models: tuple[str, ...] = (MODEL,),
    dataset: str = DATASET,
    window: str = "all",
    *,
    defaults: bool = False,
    margin: float = 0.0,
) -> None:
    """Write a dataset's spec, and a spec for each model that reads it, into a specs folder.

    Args:
        folder: for `datasets/` and `models/`.
        models: names of the models.
        dataset: the dataset's name.
        window: `training.window` of the models.
        defaults: search the number of rounds and fit again on all rows, as Evergreen does unless told otherwise; else
            one fit of a fixed number of rounds, as the plain script does.
        margin: by which share a challenger must be better than the champion.
    """
    for sub in ("datasets", "models"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    fits = "refit: true" if defaults else "early_stopping_rounds: null\n              refit: false"
    numeric = "\n".join(
        f"          {n}: {{type: float, required: false, min: -100, max: 1000}}" for n in NUMERIC
    )
    categorical = "\n".join(
        f"          {n}: {{type: category, values: [{', '.join(values(n))}]}}" for n in CATEGORICAL
    )
    (folder / "datasets" / f"{dataset}.yaml").write_text(
        dedent(f"""\
        name: {dataset}
        description: Rows for the benchmarks.
        key: [id]
        event_time: ts
        arrival: {{delay: 1m}}
        columns:
          id: {{type: integer}}
          ts: {{type: timestamp}}
{numeric}
{categorical}
          y: {{type: float, required: false}}
        expectations:
          - {{type: expect_table_row_count_to_be_between, kwargs: {{min_value: 1}}}}
        """)
    )
    for name in models:
        (folder / "models" / f"{name}.yaml").write_text(
            dedent(f"""\
            name: {name}
            task: regression
            datasets: [{dataset}]
            key: [id]
            event_time: ts
            label: {{column: y, delay: 1h}}
            features:
              numeric: [{", ".join(NUMERIC)}]
              categorical: [{", ".join(CATEGORICAL)}]
            schedule: null
            training:
              window: {window}
              holdout: 10d
              max_rounds: {ROUNDS}
              {fits}
              baseline: last_value
              params: {{max_depth: {PARAMS["max_depth"]}, learning_rate: {PARAMS["learning_rate"]}}}
            gate: {{margin: {margin}}}
            scoring: {{schedule: null}}
            monitoring: {{schedule: null, window: 10d}}
            """)
        )
        (folder / "models" / f"{name}.sql").write_text(f"SELECT * FROM {dataset}\n")
