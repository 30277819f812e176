"""The worked example of docs/your-own-table.md is run as it stands there, up to the scheduler's part."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from evergreen.spec import load_specs
from evergreen.validation.ingest import ingest
from evergreen.warehouse.features import feature_query, snapshot

PAGE = Path(__file__).resolve().parents[2] / "docs" / "your-own-table.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_worked_example_works(warehouse_url: str, tmp_path: Path) -> None:
    subprocess.run(["bash", "-euc", blocks("bash")[0]], cwd=tmp_path, check=True)
    (dataset, model), (query,) = blocks("yaml"), blocks("sql")
    for name, text in (
        ("datasets/parcels.yaml", dataset),
        ("models/parcel_late.yaml", model),
        ("models/parcel_late.sql", query),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    specs = load_specs(tmp_path)
    assert specs.problems == ()
    as_of = datetime.now(UTC)
    (outcome,) = ingest(
        specs.datasets["parcels"], as_of, "ingest__parcels/r", folder=tmp_path / ".evergreen/landing/parcels"
    )
    assert (outcome.state, outcome.rows_new, outcome.rows_held) == ("published", 9000, 0)
    spec = specs.models["parcel_late"]
    assert feature_query.check(specs, spec) == []
    taken = snapshot.take(specs, spec, as_of, tmp_path)
    assert 8500 < taken.rows < 9000, "the newest two days have no label yet"
    assert datetime.fromisoformat(taken.end) <= as_of - timedelta(days=2)
