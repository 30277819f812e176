"""Each format of files is read by its own rules: one without a way in fails here, and is not taken for another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen.spec import DatasetSpec
from evergreen.warehouse.files import formats, landed_file, landing

ROWS = {"day": ["2024-01-01", "2024-01-02"], "amount": ["1", "2"]}
# The same two rows, as each format writes them.
SAMPLES: dict[str, Callable[[Path], Any]] = {
    "csv": lambda path: path.write_text("day,amount\n2024-01-01,1\n2024-01-02,2\n"),
    "tsv": lambda path: path.write_text("day\tamount\n2024-01-01\t1\n2024-01-02\t2\n"),
    "jsonl": lambda path: path.write_text(
        '{"day": "2024-01-01", "amount": 1}\n{"day": "2024-01-02", "amount": 2}\n'
    ),
    "parquet": lambda path: pq.write_table(pa.table({**ROWS, "amount": [1, 2]}), path),
}
ENDINGS = [
    (kind, ending)
    for kind in get_args(landed_file.Format)
    for ending in landed_file.FORMATS
    if landed_file.FORMATS[ending] == kind
]


@pytest.mark.parametrize(("kind", "ending"), ENDINGS, ids=[ending for _, ending in ENDINGS])
def test_each_format_is_read(tmp_path: Path, kind: str, ending: str) -> None:
    assert {kind for kind, _ in ENDINGS} == set(get_args(landed_file.Format)) == set(SAMPLES)
    columns = {"day": {"type": "date"}, "amount": {"type": "integer"}}
    dataset = DatasetSpec.model_validate(
        {"name": "sales", "key": ["day"], "event_time": "day", "columns": columns}
    )
    SAMPLES[kind](tmp_path / f"two{ending}")
    (file,) = landing.find(dataset, tmp_path)
    with formats.feed(dataset, file) as rows:
        batches = list(rows.batches())
    assert (rows.columns, rows.records) == (("day", "amount"), 2)
    assert pa.Table.from_batches(batches).to_pydict() == ROWS
