"""The model card: what it says, and that what others wrote becomes no markup in it."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen.links import airflow_pages
from evergreen.registry.encoding import Encoding
from evergreen.training.card.columns import column_ranges
from evergreen.training.card.content import Card, Section, Table
from evergreen.training.card.render import page, text

NASTY = "<script>alert(1)</script> [x](javascript:alert(2)) | a"


@pytest.fixture
def written():
    return Card(
        title=NASTY,
        verdict=NASTY,
        passed=True,
        facts=[("Owner", NASTY)],
        links=[("This training", "https://airflow.example.org/dags/a?b=1&c=2")],
        sections=[Section("Data", (NASTY,), (NASTY,), [("Range", NASTY)], [Table(["a", "b"], [[NASTY, "2"]], (0,), NASTY)], ("importance",))],
        marks=[("Digest", "f" * 64)],
    )  # fmt: skip


def test_what_others_wrote_is_no_markup_on_the_page(written):
    found = page(written, {"importance": b"\x89PNG"})
    assert "<script" not in found
    assert found.count("&lt;script&gt;") >= 6
    assert 'src="data:image/png;base64,iVBORw=="' in found
    assert 'href="https://airflow.example.org/dags/a?b=1&amp;c=2"' in found


def test_what_others_wrote_is_no_markup_in_markdown(written):
    found = text(written, {"importance": b"\x89PNG"})
    assert "<script" not in found.replace("\\<script", "")
    assert "[x](javascript" not in found
    assert "![Importance](figures/importance.png)" in found
    lines = [line for line in found.splitlines() if line.startswith("|")]
    assert [line.replace("\\|", "").count("|") for line in lines] == [3, 3, 3]


def test_a_figure_that_was_not_drawn_leaves_no_hole(written):
    assert "<img" not in page(written, {})
    assert "![" not in text(written, {})


def test_ranges_are_those_of_the_rows(rides, tmp_path):
    table = pa.table({
        "hour": [0.0, 23.0, None, 4.0], "x": [-1.5, 2.5, 0.0, 1.0], "kind": ["dry", "wet", "dry", "dry"], "_label": [10.0, 55.0, 1200.0, 7.0],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=2)
    found = column_ranges(rides, Encoding(("hour", "x"), {"kind": ("dry", "wet")}), tmp_path / "rows.parquet")
    assert [(c.name, c.role, c.values, c.missing) for c in found] == [
        ("demand", "label", "7 to 1200", 0.0),
        ("hour", "number", "0 to 23", 0.25),
        ("x", "number", "-1.5 to 2.5", 0.0),
        ("kind", "category", "2: dry, wet", 0.0),
    ]


def test_links_to_airflow_are_there_only_where_somebody_said_its_address(monkeypatch):
    monkeypatch.delenv("EVERGREEN_AIRFLOW_URL", raising=False)
    assert airflow_pages("rides", "train__rides/run 1") == []
    monkeypatch.setenv("EVERGREEN_AIRFLOW_URL", "https://airflow.example.org/team")
    assert [url for _, url in airflow_pages("rides", "train__rides/run 1")] == [
        "https://airflow.example.org/team/dags/train__rides/runs/run%201",
        "https://airflow.example.org/team/dags/train__rides",
    ]


def test_a_card_without_links_has_no_empty_line_of_them(written):
    assert "<a " not in page(replace(written, links=[]), {})
