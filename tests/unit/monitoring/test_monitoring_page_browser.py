"""The pages of a window in a headless Chromium: opened from a disk, and shut off as Airflow shows them.

With EVERGREEN_SCREENSHOTS naming a folder the pictures stay there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from monitoring_scene import CUTOFF, ROWS, WEEK, as_table, model, usual_reference, week

import chromium
from chromium import Browser
from evergreen.monitoring.windows import measure, performance, report
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.judgement import Judgement, Status

pytestmark = pytest.mark.skipif(
    chromium.PROGRAM is None, reason="there is no Chromium on this machine (Debian: apt install chromium)"
)
FIGURES = """[...document.querySelectorAll('.js-plotly-plot')].map(plot => {
  const at = plot.querySelector('.main-svg').getBoundingClientRect();
  const drawn = [...plot.querySelectorAll('.scatterlayer path.js-line, .barlayer path')];
  const edge = [...plot.querySelectorAll('.xtick text, .ytick text, .legendtext, .gtitle, .xtitle, .ytitle')];
  const out = edge.map(e => e.getBoundingClientRect()).filter(r => r.width && (r.left < at.left - 1 || r.right > at.right + 1));
  return {size: at.width * at.height, drawn: drawn.filter(e => e.getBBox().width + e.getBBox().height > 1).length, out: out.length};
})"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both pages of a window in which columns and the error left their limits."""
    made = tmp_path_factory.mktemp("pages")
    spec = model(drift={"ignore": ["pressure"]})
    changed = week(0).assign(
        amount=lambda f: f["amount"] + 4, pressure=lambda f: f["pressure"] + 500, y=lambda f: f["y"] + 9
    )
    frame = measure.frame(as_table(changed))
    reference = usual_reference(spec, 1)
    found = Judgement("watched", "7", CUTOFF, CUTOFF + WEEK, 1, CUTOFF + WEEK, Status.OK, ROWS, ROWS, ROWS)
    metrics, worse = performance.judge_error(spec, frame, reference, WindowFacts(ROWS, ROWS, ROWS))
    columns = measure.columns(spec, frame, reference, labels=True)
    judged = Judgement(**{**vars(found), "metrics": metrics}).concluded(columns, worse)
    report.write(judged, spec.task, frame, reference, made)
    return made


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium.browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


class _ShutOff(SimpleHTTPRequestHandler):
    """Serves files as the pages in Airflow do: shut off from the site they come from."""

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", "sandbox allow-scripts")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(params=["from a disk", "shut off"])
def address(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    if request.param == "from a disk":
        yield f"file://{folder}"
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_ShutOff, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def opened(browser: Browser, address: str, name: str, figures: int) -> list[dict[str, float]]:
    """The figures of a page that is opened and drawn."""
    browser.open(f"{address}/{name}")
    browser.wait(
        f"!document.getElementById('drawing') && ({FIGURES}).filter(f => f.drawn).length >= {figures}"
    )
    return browser.run(FIGURES)


@pytest.mark.parametrize(("name", "figures"), [(report.DRIFT_FILE, 6), (report.PERFORMANCE_FILE, 1)])
def test_the_figures_are_drawn_and_nothing_is_loaded(browser, address, name, figures):
    browser.size(1280, 900)
    found = opened(browser, address, name, figures)
    assert len(found) == figures
    assert all(f["size"] > 200 * 200 and f["drawn"] for f in found)
    assert browser.errors == []
    loaded = browser.run(
        "performance.getEntriesByType('resource').map(e => e.name).filter(n => !/^(data|blob):/.test(n))"
    )
    assert [n for n in loaded if not n.endswith("/favicon.ico")] == []


@pytest.mark.parametrize("name", [report.DRIFT_FILE, report.PERFORMANCE_FILE])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_a_desk_and_a_phone_in_light_and_dark(browser, folder, tmp_path, name, dark, width):
    browser.size(width, 900, dark=dark)
    found = opened(browser, f"file://{folder}", name, 1)
    pictures = Path(os.environ.get("EVERGREEN_SCREENSHOTS") or tmp_path)
    browser.picture(pictures / f"evidently-{name}-{'dark' if dark else 'light'}-{width}.png")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert sum(f["out"] for f in found) == 0, "a label is cut off"
    cut = "[...document.querySelectorAll('.MuiTypography-root, .MuiTab-root, .told *')].filter(e => e.getBoundingClientRect().right > innerWidth && !e.closest('.scroll')).map(e => e.textContent.slice(0, 60))"
    assert browser.run(cut) == []
    lightness = "(e => getComputedStyle(document.querySelector(e)).{}.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 765)"
    ground = browser.run(f"{lightness.format('backgroundColor')}('body')")
    for element in ("h1", ".told .note, .told .of", ".told .bad strong", ".MuiTypography-root"):
        ink = browser.run(f"{lightness.format('color')}({element!r})")
        assert abs(ink - ground) > 0.4, element
    assert (ground < 0.5) is dark


def test_the_head_follows_the_choice_of_light_or_dark_on_the_page(browser, folder):
    browser.size(1280, 900, dark=False)
    opened(browser, f"file://{folder}", report.DRIFT_FILE, 1)
    ink = "getComputedStyle(document.querySelector('h1')).color"
    before = browser.run(ink)
    browser.run("document.documentElement.classList.replace('light', 'dark')")
    assert browser.run(ink) != before


def test_the_table_of_all_numbers_opens(browser, folder):
    browser.size(390, 900)
    opened(browser, f"file://{folder}", report.DRIFT_FILE, 1)
    assert browser.run("document.querySelectorAll('#numbers tbody tr').length") > 6
    assert browser.run("document.querySelector('#numbers').checkVisibility()") is False
    browser.click("details summary")
    assert browser.run("document.querySelector('#numbers').checkVisibility()") is True
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.run("document.querySelector('#numbers tr.bad th').textContent") == "amount"


def test_the_words_are_read_without_a_script(browser, folder):
    browser.size(1280, 900)
    browser._call("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(f"file://{folder}/{report.DRIFT_FILE}")
        root = browser._call("DOM.getDocument", {"depth": 0})["root"]["nodeId"]
        head = browser._call("DOM.querySelector", {"nodeId": root, "selector": "header"})["nodeId"]
        text = browser._call("DOM.getOuterHTML", {"nodeId": head})["outerHTML"]
    finally:
        browser._call("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "RMSE of the served predictions is beyond its limit" in text
