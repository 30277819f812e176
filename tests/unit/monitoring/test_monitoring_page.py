"""The page of a window: its words, its order, its size, and that it needs nothing from elsewhere."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from monitoring_scene import CUTOFF, METRICS, ROWS, WEEK, as_table, model, rows, usual_reference, week

from evergreen.monitoring.page import widgets
from evergreen.monitoring.page.pack import PACKED, unpacked
from evergreen.monitoring.windows import measure, page_head, performance, report
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.judgement import Judgement, Status, What
from evergreen.reference.reference import build

TOO_FEW = WindowFacts(ROWS, 3, ROWS, due=False)


def judged(spec, frame: pd.DataFrame, reference, facts: WindowFacts | None = None) -> Judgement:
    count = len(frame)
    found = Judgement(spec.name, "7", CUTOFF, CUTOFF + WEEK, 1, CUTOFF + WEEK, Status.OK, count, count, count)
    metrics, worse = performance.judge_error(
        spec, frame, reference, facts or WindowFacts(count, count, count)
    )
    return replace(found, metrics=metrics).concluded(
        measure.columns(spec, frame, reference, labels=True), worse
    )


def drawn(spec, change, folder, facts: WindowFacts | None = None) -> tuple[Judgement, str]:
    """The judgement of a changed week, and its drift page."""
    reference = usual_reference(spec, 1)
    frame = measure.frame(as_table(change(week(0))))
    found = judged(spec, frame, reference, facts)
    report.write(found, spec.task, frame, reference, folder)
    return found, (folder / report.DRIFT_FILE).read_text()


def dashboard(page: str) -> dict[str, Any]:
    """What Evidently's script is given to draw."""
    text = unpacked(page)
    return json.JSONDecoder().raw_decode(text, text.index('{"name": "Report"'))[0]


def headings(page: str) -> list[tuple[str, str]]:
    """Title and text of each section, in the order of the page."""
    found = [w for w in dashboard(page)["widgets"][0]["widgets"] if w["type"] == "counter"]
    return [(c["value"], c["label"]) for w in found for c in w["params"]["counters"]]


def table(page: str) -> list[list[str]]:
    """The cells of the table of all numbers."""
    rows_of = re.findall(r"<tr(?: class=\"bad\")?><th scope=\"row\">(.*?)</tr>", unpacked(page))
    return [re.split(r"</t[hd]>(?:<td[^>]*>)?", row)[:-1] for row in rows_of]


def moved(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(
        pressure=frame["pressure"] + 500, amount=frame["amount"] + 3, level=frame["level"] + 3
    )


def test_figures_come_by_value_and_limit_and_what_is_not_judged_comes_last(tmp_path):
    spec = model(drift={"ignore": ["pressure"]})
    found, page = drawn(spec, moved, tmp_path)
    share = {c.column: c.value / c.limit for c in found.columns if c.kind in report.DRIFTS}
    assert share["pressure"] == max(share.values()), "the ignored one is the farthest beyond"
    order = [title for title, _ in headings(page)]
    own = {"predictions": "_prediction", "labels": "_label"}
    shares = [share[own.get(title, title)] for title in order]
    assert order[-2:] == ["pressure", "labels"]
    assert shares[:-2] == sorted(shares[:-2], reverse=True)
    assert {"amount", "level", "kind", "predictions"} == set(order[:-2])
    told = dict(headings(page))
    assert told["amount"].endswith(": in violation")
    assert told["kind"].endswith(": within its limit")
    assert told["pressure"].endswith(": not judged (shown only: monitoring.drift.ignore)")
    assert "last, because not judged: pressure, labels." in page
    rows_of = table(page)
    assert [r[0] for r in rows_of][-3:] == ["pressure", "labels", "pressure"], "the table has the same order"


def test_every_judged_number_is_on_the_page_with_its_limit(tmp_path):
    found, page = drawn(model(), lambda f: moved(f).assign(kind=None), tmp_path)
    assert any(c.value is None for c in found.columns), "one could not be computed"
    expected = {(c.column, c.kind, c.violated) for c in found.columns}
    assert len(table(page)) == len(expected)
    row = next(r for r in table(page) if r[0] == "amount" and r[1].startswith("Wasserstein"))
    drift = next(c for c in found.columns if (c.column, c.kind) == ("amount", What.DATA_DRIFT))
    assert row[2:7] == [
        f"{drift.value:.4g}", f"{drift.limit:.4g}", f"{drift.value / drift.limit:,.2f} ×", "in violation", "below",
    ]  # fmt: skip
    lost = next(r for r in table(page) if r[1] == "could not be judged")
    assert lost[0] == "kind"
    assert lost[5:7] == ["in violation, could not be computed", "none"]
    assert sum("in violation" in r[5] for r in table(page)) == sum(c.violated for c in found.columns)


@pytest.mark.parametrize(
    ("change", "facts", "said", "beyond"),
    [
        pytest.param(lambda f: f, None, "None of 5 judged columns is in violation; RMSE of the served predictions is within its limit", False, id="quiet"),
        pytest.param(lambda f: f.assign(level=9.0), None, "1 of 5 judged columns is in violation; RMSE of the served predictions is within its limit", True, id="one column"),
        pytest.param(moved, None, "3 of 5 judged columns are in violation; RMSE of the served predictions is within its limit", True, id="more columns"),
        pytest.param(lambda f: f.assign(y=f["y"] + 9), None, "None of 5 judged columns is in violation; RMSE of the served predictions is beyond its limit", True, id="the error"),
        pytest.param(lambda f: f, TOO_FEW, "None of 5 judged columns is in violation; RMSE of the served predictions is not yet known", False, id="too few labels"),
    ],
)  # fmt: skip
def test_the_verdict_stands_on_top_in_words(change, facts, said, beyond, tmp_path):
    found, page = drawn(model(), change, tmp_path, facts)
    shown = re.sub(r"<[^>]+>", " ", page[page.index("<body>") : page.index('id="drawing"')])
    text = " ".join(shown.split())
    assert text.startswith(
        f"watched version 7 {said} {found.status.value} Window 2024-05-20 00:00 to 2024-05-27 00:00 UTC, judged as of"
    )
    assert ("In violation:" in text) is beyond
    assert (found.status is Status.VIOLATION) is beyond
    head = page_head.head(found, usual_reference(model(), 1))
    assert len(head.numbers) == page_head.MOST_NUMBERS
    assert any(number.beyond for number in head.numbers) is beyond
    for number in head.numbers:
        assert f"{number.value} {number.limit}" in text
        assert re.search(r"^(limit|at most) \d", number.limit)
    if facts is None:
        assert head.numbers[0].name == "RMSE of the served predictions"
        assert (tmp_path / report.PERFORMANCE_FILE).read_text().count(said) == 1


def test_what_others_named_becomes_no_markup(tmp_path):
    spec, reference = model(), usual_reference(model(), 1)
    frame = measure.frame(as_table(week(0)))
    found = judged(spec, frame, reference)
    odd = replace(
        found.columns[0], column="<img src=x>", kind=What.UNREADABLE, value=None, violated=True, detail="<b>&"
    )
    report.write(replace(found, columns=(odd, *found.columns)), spec.task, frame, reference, tmp_path)
    page = (tmp_path / report.DRIFT_FILE).read_text()
    assert "&lt;img src=x&gt;" in page
    assert "<img" not in page
    assert "&lt;b&gt;&amp;" in unpacked(page)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Judgement, Any, Path]:
    """Judgement, reference and pages of a window of 50 columns; half of them have thousands of long categories, and many moved."""
    numeric, categories = tuple(f"n{i:02d}" for i in range(25)), tuple(f"c{i:02d}" for i in range(25))

    def filled(seed: int, start, count: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        frame = rows(seed, start, count)
        numbers = {n: rng.normal(i * 1e4, 1 + i, count) for i, n in enumerate(numeric)}
        texts = {c: [f"{v:x}" * 8 for v in rng.integers(10**6, 10**6 + 4000, count)] for c in categories}
        return pd.concat([frame, pd.DataFrame({**numbers, **texts})], axis=1)

    spec = model()
    features = spec.features.model_copy(update={"numeric": numeric, "categorical": categories})
    spec = spec.model_copy(update={"features": features})
    reference = build(spec, as_table(filled(1, CUTOFF - 10 * WEEK, 10 * ROWS)), METRICS)
    later = filled(2, CUTOFF, 4 * ROWS)
    later = later.assign(**{c: later[c] + "x" for c in categories}, **{n: later[n] + 4 for n in numeric[:10]})
    frame = measure.frame(as_table(later))
    found, folder = judged(spec, frame, reference), tmp_path_factory.mktemp("wide")
    report.write(found, spec.task, frame, reference, folder)
    return found, reference, folder


def test_a_wide_page_has_at_most_one_and_a_half_megabytes_and_every_number(wide):
    found, reference, folder = wide
    for name in (report.DRIFT_FILE, report.PERFORMANCE_FILE):
        assert (folder / name).stat().st_size <= 1.5e6, name
    page = (folder / report.DRIFT_FILE).read_text()
    cells = table(page)
    assert len(cells) == len(found.columns) > 100
    assert {r[0] for r in cells if r[6] == "below"} == {t.partition(":")[0] for t, _ in headings(page)}
    assert len({r[0] for r in cells if r[6] == "below"}) == report.MOST_DRAWN
    bars = [
        trace
        for widget in dashboard(page)["widgets"][0]["widgets"]
        for tab in widget["tabs"] or ()
        for trace in tab["widget"]["params"]["data"]
        if trace["type"] == "bar" and isinstance(trace["x"][0], str)
    ]
    assert bars, "categories are among the figures"
    assert max(len(t["x"]) for t in bars) <= widgets.MOST_BARS
    assert {sum(t["y"]) for t in bars if t["visible"]} == {found.rows, reference.sample.num_rows}, (
        "no row is lost"
    )
    assert all(t["x"][-1].endswith(" others") for t in bars)


def test_nothing_is_loaded_from_elsewhere(wide):
    _, _, folder = wide
    for name in (report.DRIFT_FILE, report.PERFORMANCE_FILE):
        page = PACKED.sub("", (folder / name).read_text())
        assert not re.search(r"\b(?:src|href|action)\s*=|url\(|@import|https?://|<link|<iframe", page)


def test_the_figure_of_a_constant_has_its_own_numbers(tmp_path):
    """It is measured in another unit, which Evidently would draw."""
    _, page = drawn(model(), lambda f: f.assign(level=9.0), tmp_path)
    section = next(
        i for i, w in enumerate(dashboard(page)["widgets"][0]["widgets"])
        if w["type"] == "counter" and w["params"]["counters"][0]["value"] == "level"
    )  # fmt: skip
    over, spread = dashboard(page)["widgets"][0]["widgets"][section + 1]["tabs"]
    now = next(t for t in over["widget"]["params"]["data"] if t.get("name") == "current (mean)")
    assert now["y"] == pytest.approx([9.0] * len(now["y"]))
    assert spread["title"] == "Distribution"
    seen = {
        round(x)
        for t in spread["widget"]["params"]["data"]
        for x, y in zip(t["x"], t["y"], strict=False)
        if y
    }
    assert seen == {4, 9}
