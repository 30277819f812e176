"""The pages are seen by those who may read the DAGs, offer what one may do, and say what others wrote as it is."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from airflow.api_fastapi.app import get_auth_manager
from airflow.models.dag import DagModel
from airflow.plugins_manager import get_fastapi_plugins, get_plugin_info
from airflow.utils.session import create_session
from fastapi.testclient import TestClient
from pages_scene import OPERATOR, PAGES, VIEWER, WINDOW, Bearer, address
from sqlalchemy import update
from starlette.applications import Starlette
from starlette.routing import Mount

from evergreen.warehouse.connection import connect, fetch
from evergreen_airflow.pages import reports
from health_scene import MARKUP

OTHERS = [
    "dag/train__bike_demand",
    "run/ingest__bike_hourly/manual__1",
    "static/pages.css",
    "static/pages.js",
    f"{WINDOW}/report",
    f"{WINDOW}/report/drift.html",
    "model/bike_demand/learnt",
]


@pytest.fixture
def client(pages_app: Any) -> TestClient:
    return TestClient(pages_app, follow_redirects=False, raise_server_exceptions=False)


def test_nobody_sees_anything_without_a_login(client: TestClient) -> None:
    for path in [*PAGES, *OTHERS]:
        asked = client.get(address(path), headers={"Accept": "text/html"})
        assert asked.status_code == 303, path
        assert "/auth/login" in asked.headers["location"], "a person is led to the login"
        assert "next=" in asked.headers["location"]
        assert client.get(address(path)).status_code == 401, "a program is told"
        assert client.get(address(path), headers={"Authorization": "Bearer nonsense"}).status_code in (
            401,
            403,
        )
    assert client.post(address(f"{WINDOW}/report")).status_code == 401


def test_a_viewer_sees_every_page_and_is_offered_nothing_to_do(client: TestClient) -> None:
    for path in PAGES:
        asked = client.get(address(path), headers=Bearer(VIEWER).headers)
        assert asked.status_code == 200, (path, asked.text)
        assert '<form class="action' not in asked.text, path
    assert client.get("/evergreen/", headers=Bearer(VIEWER).headers).text.count("data-state=") == 3


def test_an_operator_is_offered_what_airflow_lets_them_do(client: TestClient) -> None:
    asked = {path: client.get(address(path), headers=Bearer(OPERATOR).headers).text for path in PAGES}
    assert 'data-run="../../api/v2/dags/rollback__bike_demand/dagRuns"' in asked["model/bike_demand"]
    assert '<input type="hidden" name="to_version" value="1">' in asked["model/bike_demand"]
    assert 'data-run="../../api/v2/dags/correct__bike_hourly/dagRuns"' in asked["dataset/bike_hourly"]
    answers = re.findall(r"<button[^>]*>(?:Approve|Reject)</button>", asked["model/bike_rush/approval"])
    assert len(answers) == 2
    assert not [button for button in answers if "primary" in button], "none of both is the one to press"
    assert (
        'data-answer="../../../api/v2/dags/promote__bike_rush/dagRuns/asset__5/taskInstances/ask/-1/hitlDetails"'
        in asked["model/bike_rush/approval"]
    )


def test_who_may_read_some_dags_sees_those_models_alone(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rule for each page, with an auth manager that knows single DAGs, as FAB's and Keycloak's do."""
    manager = get_auth_manager()
    monkeypatch.setattr(
        manager, "is_authorized_dag",
        lambda *, method, user, access_entity=None, details=None: method == "GET" and details is not None and "rush" in (details.id or ""),
    )  # fmt: skip
    seen = client.get("/evergreen/", headers=Bearer(OPERATOR).headers).text
    assert "bike_rush" in seen
    assert "bike_demand" not in seen
    assert "dataset/bike_hourly" not in seen
    of_rush = client.get("/evergreen/model/bike_rush", headers=Bearer(OPERATOR).headers)
    assert of_rush.status_code == 200
    assert "bike_hourly</a>" not in of_rush.text
    assert "1 that you may not see" in of_rush.text
    for path in (
        "model/bike_demand", WINDOW, "model/bike_demand/approval", "model/bike_demand/learnt", "dataset/bike_hourly", "incident/{incident}",
        "decision/{decision}", "decision/{decision}?part=true", f"{WINDOW}/report/drift.html",
    ):  # fmt: skip
        asked = client.get(address(path), headers=Bearer(OPERATOR).headers)
        assert asked.status_code == 403, path
        assert "temperature" not in asked.text
    assert client.post(address(f"{WINDOW}/report"), headers=Bearer(OPERATOR).headers).status_code == 403


def test_what_a_person_is_needed_for_leads_to_the_page_that_tells_more(client: TestClient) -> None:
    headers = Bearer(OPERATOR).headers
    with connect() as conn:
        numbers = {
            row["subject"]: row["id"]
            for row in fetch(conn, "SELECT subject, min(id) AS id FROM evergreen.mail GROUP BY 1")
        }
    expected = {
        "A task fails since": f"incident/{numbers['model/bike_rush']}",
        "Drift since": f"incident/{numbers['model/bike_demand']}",
        "V2 waits for approval since": "model/bike_rush/approval",
        "A retraining is asked for": "model/bike_demand#requests",
        "1 file quarantined": "dataset/bike_hourly#held",
    }
    shown = client.get("/evergreen/", headers=headers).text
    leads = re.findall(r'<span class="why"><a href="([^"]+)">([^<]+)</a></span>', shown)
    for said, page in expected.items():
        assert [href for href, text in leads if text.lower().startswith(said.lower())] == [f"./{page}"], said
        assert client.get(f"/evergreen/{page}", headers=headers).status_code == 200
    of_model = client.get("/evergreen/model/bike_rush", headers=headers).text
    assert '<li><a href="../model/bike_rush/approval">' in of_model, "also from the model's own page"


def test_a_window_says_which_columns_are_only_shown_and_why(client: TestClient) -> None:
    text = client.get(address(WINDOW), headers=Bearer(OPERATOR).headers).text
    rows = re.findall(r'<tr id="(\w+)".*?</tr>', text, re.DOTALL)
    assert rows == ["temperature", "humidity", "_label", "weather"]
    said = {name: text[text.index(f'<tr id="{name}"') :].partition("</tr>")[0] for name in rows}
    assert {name: re.findall(r'class="status[^"]*">([^<]+)<', row) for name, row in said.items()} == {
        "temperature": ["violation"], "humidity": [], "_label": ["only shown"], "weather": ["not judged"],
    }  # fmt: skip
    assert "labels are shown, their error is judged" in said["_label"]
    assert "shown only: monitoring.drift.ignore" in said["weather"]


def test_a_page_of_another_site_cannot_have_a_window_drawn(client: TestClient) -> None:
    headers = {**Bearer(OPERATOR).headers, "Sec-Fetch-Site": "cross-site"}
    assert client.post(address(f"{WINDOW}/report"), headers=headers).status_code == 403


@pytest.mark.parametrize(("site", "at_once"), [("none", True), ("same-origin", True), ("cross-site", False)])
def test_a_mail_leads_to_the_report_which_is_drawn_then(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, site: str, at_once: bool
) -> None:
    monkeypatch.setattr(reports, "can_be_drawn", lambda judged: True)
    headers = {**Bearer(OPERATOR).headers, "Sec-Fetch-Site": site}
    asked = client.get(address(f"{WINDOW}/report?file=drift.html"), headers=headers)
    assert asked.status_code == 200
    assert 'method="post" action="report?version=' in asked.text
    assert "&amp;file=drift.html" in asked.text
    assert ("data-at-once" in asked.text) is at_once
    assert (
        client.get(address("model/bike_demand/window/20200101T000000Z/report"), headers=headers).status_code
        == 404
    )


def test_a_report_that_is_drawn_is_opened(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        reports, "drawn", lambda judged: {"drift.html": "drift", "performance.html": "served error"}
    )
    for wish, file in (("performance.html", "performance.html"), ("../x", "drift.html"), ("", "drift.html")):
        asked = client.get(
            address(f"{WINDOW}/report"), headers=Bearer(OPERATOR).headers, params={"file": wish}
        )
        assert asked.status_code == 303
        assert asked.headers["location"].startswith(f"report/{file}?version=")
    asked = client.post(
        address(f"{WINDOW}/report"), headers=Bearer(OPERATOR).headers, params={"file": "drift.html"}
    )
    assert asked.headers["location"].endswith("&file=drift.html")
    assert asked.headers["location"].startswith("report?version=")


def test_what_people_and_files_wrote_is_no_markup(client: TestClient) -> None:
    for path in ("model/bike_demand", "dataset/bike_hourly", "decision/{decision}"):
        text = client.get(address(path), headers=Bearer(OPERATOR).headers).text
        assert MARKUP not in text, path
        assert "&lt;script&gt;alert(1)" in text, path


def test_pages_load_nothing_from_elsewhere_and_no_other_site_may_frame_them(client: TestClient) -> None:
    for path in PAGES:
        asked = client.get(address(path), headers=Bearer(OPERATOR).headers)
        policy = asked.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'self'" in policy
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', asked.text), "every address is relative"
        assert not re.findall(r'(?:src|href|data-run|action)="/', asked.text), "also behind a path prefix"
        assert " style=" not in asked.text, "which the policy would refuse"


def test_a_model_whose_dag_is_gone_is_not_shown(client: TestClient) -> None:
    headers = Bearer(VIEWER).headers
    assert "bike_rush" in client.get(address(""), headers=headers).text
    of_it = DagModel.dag_id == "monitor__bike_rush"
    with create_session() as session:
        session.execute(update(DagModel).where(of_it).values(is_stale=True))
    try:
        shown = client.get(address(""), headers=headers).text
    finally:
        with create_session() as session:
            session.execute(update(DagModel).where(of_it).values(is_stale=False))
    assert "model/bike_rush" not in shown
    assert "model/bike_demand" in shown


@pytest.mark.parametrize("prefix", ["", "/airflow"])
def test_every_relative_address_leads_somewhere(pages_app: Any, prefix: str) -> None:
    """From each page, as a browser resolves it; also where Airflow lies behind a prefix."""
    behind = Starlette(routes=[Mount(prefix, pages_app)])
    client = TestClient(behind, follow_redirects=False, raise_server_exceptions=False)
    headers = Bearer(OPERATOR).headers
    seen: dict[str, int] = {}
    for path in PAGES:
        here = f"http://testserver{prefix}{address(path)}"
        text = client.get(here, headers=headers).text
        for link in re.findall(r'(?:href|action|data-run|data-answer)="(?!data:)([^"#]+)', text):
            there = urlsplit(urljoin(here, link.replace("&amp;", "&")))
            assert there.path.startswith(f"{prefix}/"), (path, link)
            # What a champion learnt stands in MLflow, which the scene has not; Airflow's own pages need its files for browsers.
            if (
                not there.path.startswith(f"{prefix}/evergreen/")
                or there.path.endswith(("/learnt", "/report"))
                or there.path in seen
            ):
                continue
            seen[there.path] = client.get(f"{there.path}?{there.query}", headers=headers).status_code
    assert {path: status for path, status in seen.items() if status != 200} == {}
    assert len(seen) > 15


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("nothing", 404), ("model/nope", 404), ("model/..%2f..", 404), ("dataset/nope", 404), ("decision/999999", 404), ("decision/x", 404),
        ("incident/999999", 404), ("model/bike_demand/window/20200101T000000Z", 404), ("model/bike_demand/window/yesterday", 404),
        ("dag/somebody_elses", 404), ("static/../app.py", 404), ("static/app.py", 404), (f"{WINDOW}/report/drift.html", 404),
        (f"{WINDOW}/report/..%2fx", 404), ("dag/mail", 303), ("dag/correct__bike_hourly", 303),
    ],
)  # fmt: skip
def test_an_address_that_leads_nowhere_says_so(client: TestClient, path: str, status: int) -> None:
    asked = client.get(address(path), headers=Bearer(OPERATOR).headers)
    assert asked.status_code == status
    if asked.headers.get("content-type", "").startswith("text/html"):
        (style,) = re.findall(r'<link rel="stylesheet" href="([^"]+)"', asked.text)
        assert client.get(urljoin(f"http://testserver{address(path)}", style)).status_code in (200, 401)
        assert urljoin(f"http://testserver{address(path)}", style).endswith("/evergreen/static/pages.css")
    if status == 303:
        assert asked.headers["location"] in ("../", "../dataset/bike_hourly")


def test_a_warehouse_that_is_down_is_told_in_words(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "EVERGREEN_WAREHOUSE_URL", "postgresql://nobody:x@127.0.0.1:9/nothing?connect_timeout=2"
    )
    asked = client.get("/evergreen/", headers=Bearer(VIEWER).headers)
    assert asked.status_code == 503
    assert "the warehouse does not answer" in asked.text
    assert "nobody:x" not in asked.text


def test_the_plugin_leads_from_airflows_menu_each_dag_and_each_run_to_the_pages() -> None:
    views = {
        (v["destination"], v["href"])
        for p in get_plugin_info()
        if p["name"] == "evergreen"
        for v in p["external_views"]
    }
    assert {
        ("nav", "evergreen/"),
        ("dag", "evergreen/dag/{DAG_ID}"),
        ("dag_run", "evergreen/run/{DAG_ID}/{RUN_ID}"),
    } <= views
    assert [app["url_prefix"] for app in get_fastapi_plugins()[0] if app["name"] == "Evergreen"] == [
        "/evergreen"
    ]


def test_a_task_that_loads_the_plugin_does_not_load_fastapi() -> None:
    code = (
        "import sys, evergreen_airflow.plugin; before = set(sys.modules);"
        "print(sorted({'fastapi', 'jinja2.environment', 'evergreen_airflow.pages.app', 'evergreen.health.overview'} & before))"
    )
    bare = "import sys, airflow.plugins_manager, airflow.listeners; print(sorted({'fastapi', 'jinja2.environment'} & set(sys.modules)))"
    shown, without = (
        subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
        .stdout.strip()
        .splitlines()[-1]
        for said in (code, bare)
    )
    assert shown == without, "what Airflow itself has loaded by then may be there"


def test_what_is_asked_online_stands_beside_the_batches(client: TestClient) -> None:
    headers = Bearer(VIEWER).headers
    overview = client.get("/evergreen/", headers=headers).text
    cells = re.findall(r'<td data-label="Online".*?</td>', overview, re.DOTALL)
    said = [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in cells]
    assert said[0] == "not asked", "bike_rush, which nobody asks online"
    assert re.fullmatch(r"\d(\.\d)?/s p99 4\.\d ms 0\.\d% errors canary 20%", said[1])
    assert re.search(
        r'<dt>Prediction service</dt><dd class="bad">not heard of since [-0-9: ]+ UTC: look whether it runs',
        overview,
    )
    page = client.get("/evergreen/model/bike_demand", headers=headers).text
    section = page[page.index('<section id="online"') :].partition("</section>")[0]
    assert "v2 answers for <strong>20%</strong> of the keys" in section
    assert "The prediction service: not heard of since" in section
    compared = " ".join(
        re.sub(r"<[^>]+>", " ", section[section.index("Compared with") :].partition("</p>")[0]).split()
    )
    assert re.fullmatch(
        r"Compared with batch predictions of the same rows on 2026-02-16 00:00( UTC)? : [^:]+: 30 of 120 online predictions \(25%\) differ from those"
        r" that a batch makes: the requests have another temperature than the warehouse \. An incident is open since 2026-02-09 00:00( UTC)? \.",
        compared,
    ), compared
    linked = re.findall(r'href="\.\./((?:decision|incident)/\d+)"', section.partition("Compared with")[2])[:2]
    assert [part.partition("/")[0] for part in linked] == ["decision", "incident"]
    story = client.get(f"/evergreen/{linked[1]}", headers=headers).text
    assert "30 of 120 online predictions" in story
    assert re.findall(r'<th scope="row">([^<]+)</th><td class="when">([^<]+)</td>', section) == [
        ("all", "last hour"), ("all", "last day"), ("v2", "last hour"), ("v2", "last day"), ("v1", "last hour"), ("v1", "last day"),
    ]  # fmt: skip
    assert "Requests of each hour, and how long they took" in section
    assert "A look of the watch did not find it worse: look 1 of the watch" in section
    assert [
        re.sub(r"<[^>]+>", "", c)
        for c in re.findall(r'<td class="number">(\d+)</td><td class="number">(\d+)</td></tr>', section)[0]
    ] == ["30", "70"]
    other = client.get("/evergreen/model/bike_rush", headers=headers).text
    assert 'id="online"' not in other, "nobody asks it online"
