"""The pages in a headless Chromium: they load without an error of the console, filter, open evidence, roll back, and fit a phone.

With EVERGREEN_SCREENSHOTS naming a folder the pictures stay there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from pages_scene import OPERATOR, PAGES, VIEWER, address, running, token
from sqlalchemy import select

import axe
import chromium
from chromium import Browser

pytestmark = pytest.mark.skipif(
    chromium.PROGRAM is None, reason="there is no Chromium on this machine (Debian: apt install chromium)"
)
NOT_THERE = "not/there"
SIZES = ((1280, 900), (390, 844))


@pytest.fixture
def site(pages_app: Any) -> Iterator[str]:
    with running(pages_app) as url:
        yield url


@pytest.fixture(scope="session")
def _browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium.browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def page(_browser: Browser, site: str) -> Browser:
    """A browser in which an operator has logged in."""
    _browser.cookie(site, "_token", token(OPERATOR))
    _browser.size(*SIZES[0])
    return _browser


def test_each_page_loads_in_light_and_dark_wide_and_narrow(page: Browser, site: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("EVERGREEN_SCREENSHOTS") or tmp_path)
    for path in [p for p in PAGES if "?" not in p]:
        name = path.format(incident="", decision="").strip("/").replace("/", "-") or "overview"
        for dark in (False, True):
            for width, height in SIZES:
                page.size(width, height, dark=dark)
                page.open(site + address(path))
                page.picture(folder / f"{name}-{'dark' if dark else 'light'}-{width}.png")
                assert page.errors == [], path
                assert page.run("document.documentElement.dataset.theme") == ("dark" if dark else "light")
                assert page.run("document.documentElement.scrollWidth") <= width, (
                    f"{path} is wider than {width} pixels"
                )
                assert page.run("document.querySelectorAll('main h1').length") == 1
                assert (folder / f"{name}-{'dark' if dark else 'light'}-{width}.png").stat().st_size > 5000


def test_axe_finds_nothing_serious_on_any_page(page: Browser, site: str) -> None:
    found = {}
    for path in [*(p for p in PAGES if "?" not in p), NOT_THERE]:
        for dark in (False, True):
            for width, height in SIZES:
                page.size(width, height, dark=dark)
                page.open(site + address(path))
                if grave := axe.grave(page):
                    found[path, "dark" if dark else "light", width] = grave
    assert found == {}


def test_airflows_own_choice_of_light_or_dark_is_followed(page: Browser, site: str) -> None:
    page.size(*SIZES[0], dark=True)
    page.open(f"{site}/evergreen/")
    page.run("localStorage.setItem('theme', 'light')")
    page.open(f"{site}/evergreen/")
    assert page.run("document.documentElement.dataset.theme") == "light"
    page.run("localStorage.removeItem('theme')")


def test_models_are_filtered_searched_and_sorted(page: Browser, site: str) -> None:
    page.open(f"{site}/evergreen/")
    shown = "[...document.querySelectorAll('#models tbody tr:not([hidden]) th > a')].map(a => a.textContent)"
    assert page.run(shown) == ["bike_rush", "bike_demand"], "who needs a person first"
    page.type("#search", "humid")
    assert page.run(shown) == ["bike_demand"], "by the name of a column, too"
    assert page.run("document.getElementById('count').textContent") == "1 of 3"
    page.run(
        "document.getElementById('search').value = ''; document.getElementById('search').dispatchEvent(new Event('input'))"
    )
    page.click("input[name=state][value='0']")
    assert page.run(shown) == ["bike_rush"]
    page.click("input[name=state][value='']")
    page.click("#models th:nth-child(2) button")
    assert page.run(shown) == ["bike_demand", "bike_rush"]
    assert (
        page.run("document.querySelector('#models th:nth-child(2)').getAttribute('aria-sort')") == "ascending"
    )
    assert page.errors == []


def test_a_row_of_the_ledger_opens_its_evidence_and_closes_it(page: Browser, site: str) -> None:
    page.open(f"{site}/evergreen/model/bike_demand")
    page.click("#ledger tr[data-kind=promoted] a.evidence")
    page.wait("document.querySelector('#ledger .opened') !== null")
    text = page.run("document.querySelector('#ledger .opened').textContent")
    assert "What the gate checked" in text
    assert "{" not in text, "no JSON"
    leads = page.run("document.querySelector('#ledger .opened a').href")
    assert leads.startswith(f"{site}/evergreen/decision/"), "its addresses are right where it is opened"
    page.click("#ledger tr[data-kind=promoted] a.evidence")
    page.wait("document.querySelector('#ledger .opened') === null")
    assert page.errors == []


def test_times_are_utc_until_the_reader_wishes_their_own(page: Browser, site: str) -> None:
    page._call("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Kolkata"})
    page.open(f"{site}/evergreen/model/bike_demand")
    first = "document.querySelector('#champions time').textContent"
    before = page.run(first)
    assert before.endswith("UTC")
    page.click("#zone")
    assert page.run(first).endswith("GMT+5:30")
    page.open(f"{site}/evergreen/dataset/bike_hourly")
    assert page.run("document.getElementById('zone').getAttribute('aria-pressed')") == "true", (
        "it is remembered"
    )
    page.click("#zone")
    page._call("Emulation.setTimezoneOverride", {"timezoneId": ""})
    page.open(f"{site}/evergreen/model/bike_demand")
    assert page.run(first) == before


def test_an_operator_rolls_back_and_airflow_has_the_run(page: Browser, site: str) -> None:
    page.open(f"{site}/evergreen/model/bike_demand")
    page.click("#champions details.ask summary")
    page.type("#champions details.ask input[name=reason]", "the new one counts bikes twice")
    page.click("#champions details.ask button[type=submit]")
    page.wait("document.querySelector('#champions .answer a') !== null")
    assert page.errors == []
    with create_session() as session:
        run = session.scalars(select(DagRun).where(DagRun.dag_id == "rollback__bike_demand")).one()
        assert run.conf == {"to_version": "1", "reason": "the new one counts bikes twice"}
        assert page.run("document.querySelector('#champions .answer a').href").endswith(
            run.run_id.replace(":", "%3A").replace("+", "%2B")
        )
        session.delete(run)


def test_one_who_may_not_is_refused_by_airflow_also_with_a_form_of_their_own(
    page: Browser, site: str
) -> None:
    """What the page leaves out is not what protects: Airflow's API asks."""
    page.cookie(site, "_token", token(VIEWER))
    page.open(f"{site}/evergreen/model/bike_demand")
    assert page.run("document.querySelector('form.action')") is None
    status = page.run(
        "fetch('../../api/v2/dags/rollback__bike_demand/dagRuns', {method: 'POST', headers: {'Content-Type': 'application/json'},"
        " body: JSON.stringify({logical_date: null, conf: {reason: 'x'}})}).then(answer => answer.status)"
    )
    assert status == 403


def test_everything_is_reached_by_the_keyboard(page: Browser, site: str) -> None:
    page.open(f"{site}/evergreen/")
    reached = []
    for _ in range(40):
        page.press("Tab")
        reached.append(
            page.run(
                "document.activeElement.textContent.trim() || document.activeElement.id || document.activeElement.name"
            )
        )
    assert reached[0] == "Skip to the content"
    assert {"Models", "Times in UTC", "search", "bike_rush", "bike_demand", "bike_hourly"} <= set(reached)
