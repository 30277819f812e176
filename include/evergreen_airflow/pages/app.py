"""The app with every page. Each asks for Airflow's login, and for the right to see the DAG of what it shows.

The app writes nothing but the pages of a window that a person has drawn (`reports`): what starts a run or answers a question is sent
by the browser to Airflow's own API, which asks for the right again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import resources
from typing import Annotated, Any
from urllib.parse import quote

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.core_api.security import GetUserDep, get_user
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from evergreen import settings
from evergreen.errors import ErrorReason, EvergreenError, TransientError
from evergreen.health import approval, dataset, incident, model, online, told, window
from evergreen.health.overview import overview
from evergreen.health.specs import SpecsFolder
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, connect
from evergreen_airflow import connections
from evergreen_airflow.pages import access, airflow_side, reports
from evergreen_airflow.pages.rendering import HEADERS, moment, page, up_of

log = logging.getLogger(__name__)

PATIENCE_S = 20
STATIC = {"pages.css": "text/css", "pages.js": "text/javascript", "theme.js": "text/javascript"}
# A name of a model or dataset, and nothing else that an address may hold.
NAME = r"^[a-z][a-z0-9_]{0,62}$"

app = FastAPI(
    title="Evergreen", dependencies=[Depends(get_user)], docs_url=None, redoc_url=None, openapi_url=None
)
_specs = SpecsFolder(settings.specs_folder())


def _known() -> Specs:
    """The specs of now; none where their folder is not on this machine, as with DAG bundles."""
    try:
        return _specs.read()
    except OSError:
        return Specs()


@contextmanager
def _warehouse(subject: str = "") -> Iterator[Connection]:
    """A connection that reads one snapshot and can write nothing; with the login of the steps of a dataset for one of `dataset/NAME`."""
    with connect(connections.warehouse_of(subject), timeout_s=PATIENCE_S) as conn:
        conn.set_session(isolation_level="REPEATABLE READ", readonly=True)
        yield conn


def _of_model(name: str, request: Request, user: GetUserDep) -> None:
    access.require(request, user, f"model/{name}")


def _of_dataset(name: str, request: Request, user: GetUserDep) -> None:
    access.require(request, user, f"dataset/{name}")


@app.get("/", response_class=HTMLResponse)
def show_overview(request: Request, user: GetUserDep) -> HTMLResponse:
    """Every model and dataset that the person may see, and the stack."""
    seen = access.visible(user)
    with _warehouse() as conn:
        found = overview(conn, _known(), models=seen["model"], datasets=seen["dataset"])
    return page(
        request,
        "overview.html",
        overview=found,
        seen=seen,
        dags=airflow_side.dags("train", "monitor", "ingest"),
        silent=airflow_side.silent_services(),
    )


@app.get("/model/{name}", dependencies=[Depends(_of_model)], response_class=HTMLResponse)
def show_model(
    request: Request, user: GetUserDep, name: str, kind: Annotated[list[str], Query()] = [], before: int | None = None,  # noqa: B006
) -> HTMLResponse:  # fmt: skip
    """A model: its past, champions, ledger, requests and incidents."""
    with _warehouse() as conn:
        found = model.details(conn, _known(), name)
        rows = told.rows(conn, f"model/{name}", kinds=kind, before=before)
        kinds = told.kinds_of(conn, f"model/{name}")
        asked = online.details(conn, name)
    if not kinds and name not in _known().models:
        raise HTTPException(404, f"There is no model {name}.")
    return page(
        request, "model.html", model=found, online=asked, seen=access.visible(user), rows=rows, kinds=kinds, chosen=kind, more=len(rows) == told.PAGE,
        dags=airflow_side.dags("train", "monitor", "rollback", "promote", name=name),
        may_roll_back=access.may_start(user, f"rollback__{name}"), may_train=access.may_start(user, f"train__{name}"),
    )  # fmt: skip


@app.get("/model/{name}/learnt", dependencies=[Depends(_of_model)], response_class=HTMLResponse)
def show_learnt(request: Request, name: str) -> HTMLResponse:
    """What the champion learnt, from MLflow: importance, leaderboard, reference against now."""
    from evergreen.health import learnt  # MLflow and pandas, which no other page needs

    with _warehouse() as conn:
        found = learnt.learnt(conn, name)
    return page(request, "learnt.html", name=name, learnt=found)


@app.get("/model/{name}/window/{start}", dependencies=[Depends(_of_model)], response_class=HTMLResponse)
def show_window(
    request: Request, user: GetUserDep, name: str, start: str, version: str | None = None
) -> HTMLResponse:
    """A judged window."""
    with _warehouse() as conn:
        found = window.details(conn, name, _moment(start), version)
    if found is None:
        raise HTTPException(404, f"No window of {name} that holds this time was judged.")
    return page(
        request,
        "window.html",
        name=name,
        window=found,
        drawn=reports.drawn(found.judged),
        can_draw=reports.can_be_drawn(found.judged),
    )


@app.post("/model/{name}/window/{start}/report", dependencies=[Depends(_of_model)])
def draw_report(
    request: Request, name: str, start: str, version: str | None = None, file: str | None = None
) -> Response:
    """Draw Evidently's pages of a window, unless they are there; leads to the window, or to one of them where it is named."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise HTTPException(403, "This can be asked for on the page of the window only.")
    with _warehouse() as conn:
        found = window.details(conn, name, _moment(start), version)
    if found is None:
        raise HTTPException(404, f"No window of {name} that holds this time was judged.")
    reports.draw(found.judged)
    version = quote(found.judged.version)
    if file is not None:
        return RedirectResponse(f"report?version={version}&file={quote(file)}", 303)
    return RedirectResponse(f"../{start}?version={version}", 303)


@app.get("/model/{name}/window/{start}/report", dependencies=[Depends(_of_model)])
def open_report(
    request: Request, name: str, start: str, version: str | None = None, file: str = ""
) -> Response:
    """One of Evidently's pages where a mail leads to it; where none is drawn yet, a page that asks for it at once."""
    with _warehouse() as conn:
        found = window.details(conn, name, _moment(start), version)
    if found is None:
        raise HTTPException(404, f"No window of {name} that holds this time was judged.")
    there = reports.drawn(found.judged)
    if there:
        chosen = file if file in there else next(iter(there))
        return RedirectResponse(f"report/{chosen}?version={quote(found.judged.version)}", 303)
    return page(
        request,
        "report.html",
        name=name,
        window=found,
        file=file if file in reports.FILES else "",
        can_draw=reports.can_be_drawn(found.judged),
        # Who comes from a mail program has asked for it; a page of another site may have led here without being asked.
        at_once=request.headers.get("sec-fetch-site", "none") in ("none", "same-origin"),
    )


@app.get("/model/{name}/window/{start}/report/{file}", dependencies=[Depends(_of_model)])
def show_report(name: str, start: str, file: str, version: str | None = None) -> Response:
    """One of Evidently's pages. It brings scripts of its own, so it is shut off from Airflow and its login."""
    with _warehouse() as conn:
        found = window.details(conn, name, _moment(start), version)
    content = reports.content(found.judged, file) if found else None
    if content is None:
        raise HTTPException(404, "This page is not drawn.")
    return Response(
        content,
        media_type="text/html",
        headers={**HEADERS, "Content-Security-Policy": "sandbox allow-scripts"},
    )


@app.get("/model/{name}/approval", dependencies=[Depends(_of_model)], response_class=HTMLResponse)
def show_approval(request: Request, user: GetUserDep, name: str) -> HTMLResponse:
    """The challenger that waits for a person, with its evaluation."""
    with _warehouse() as conn:
        found = approval.question(conn, _known(), name)
    return page(
        request, "approval.html", name=name, question=found, may_answer=access.may_answer(user, f"promote__{name}"),
        dags=airflow_side.dags("promote", name=name),
    )  # fmt: skip


@app.get("/dataset/{name}", dependencies=[Depends(_of_dataset)], response_class=HTMLResponse)
def show_dataset(
    request: Request,
    user: GetUserDep,
    name: str,
    batch: int | None = None,
    after: str | None = None,
    before: int | None = None,
) -> HTMLResponse:
    """A dataset: its batches, what failed, and the rows that are held back."""
    last = after.partition(".") if after else ("", "", "")
    from_row = (int(last[0]), int(last[2])) if last[0].isdigit() and last[2].isdigit() else None
    with _warehouse(f"dataset/{name}") as conn:
        found = dataset.details(conn, _known(), name, before=before)
        held = dataset.held_rows(
            conn, name, batches=found.waiting if batch is None else [batch], after=from_row
        )
    if not found.batches and name not in _known().datasets:
        raise HTTPException(404, f"There is no dataset {name}.")
    return page(
        request, "dataset.html", dataset=found, seen=access.visible(user), held=held, batch=batch, more=held is not None and len(held) == dataset.PAGE,
        more_batches=len(found.batches) == dataset.MOST_BATCHES, dags=airflow_side.dags("ingest", "correct", name=name),
        may_correct=access.may_start(user, f"correct__{name}"),
    )  # fmt: skip


@app.get("/incident/{number}", response_class=HTMLResponse)
def show_incident(request: Request, user: GetUserDep, number: int) -> HTMLResponse:
    """An incident's whole story; the address is permanent."""
    with _warehouse() as conn:
        subject = incident.subject_of(conn, number)
        if subject is not None:
            access.require(request, user, subject)
        found = incident.incident(conn, number) if subject is not None else None
    if found is None:
        raise HTTPException(404, "There is no such incident.")
    return page(request, "incident.html", incident=found)


@app.get("/decision/{number}", response_class=HTMLResponse)
def show_decision(request: Request, user: GetUserDep, number: int, part: bool = False) -> HTMLResponse:
    """A decision with its evidence; `part`: what a row of the ledger opens."""
    with _warehouse() as conn:
        found = told.told(conn, number)
    if found is None:
        raise HTTPException(404, "There is no such decision.")
    access.require(request, user, found.row.subject)
    return page(request, "evidence.html" if part else "decision.html", told=found)


@app.get("/dag/{dag_id}")
@app.get("/run/{dag_id}/{run_id}")
def of_dag(request: Request, dag_id: str, run_id: str | None = None) -> Response:
    """From a DAG or run of Airflow to the page of its model or dataset."""
    kind, _, name = dag_id.partition("__")
    group = "dataset" if kind in ("ingest", "correct") else "model"
    up = up_of(request)
    if not name:
        if kind in ("mail", "digest", "silence"):
            return RedirectResponse(up, 303)
        raise HTTPException(404, f"{dag_id} is no DAG of a model or dataset of Evergreen.")
    return RedirectResponse(f"{up}{group}/{name}", 303)


@app.get("/static/{file}")
def static(file: str) -> Response:
    """Style and scripts."""
    if file not in STATIC:
        raise HTTPException(404, "There is no such file.")
    content = resources.files("evergreen_airflow.pages").joinpath("static", file).read_bytes()
    return Response(
        content,
        media_type=STATIC[file],
        headers={"Cache-Control": "private, max-age=300", "X-Content-Type-Options": "nosniff"},
    )


def _moment(text: str) -> datetime:
    found = moment(text)
    if found is None:
        raise HTTPException(404, "This is no time of a window.")
    return found


@app.exception_handler(404)
def _not_found(request: Request, error: HTTPException) -> Response:
    """An address that leads nowhere, or a name that nobody knows."""
    said = error.detail if error.detail != "Not Found" else "The address is none of a page."
    return page(request, "problem.html", status=404, title="Not found", said=said)


@app.exception_handler(HTTPException)
def _told(request: Request, error: HTTPException) -> Response:
    """What went wrong as a page; who has not logged in is led to the login and back."""
    if error.status_code == 401:
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(get_auth_manager().get_url_login(next_url=str(request.url)), 303)
        return Response("Log in to Airflow first.", 401, media_type="text/plain")
    said: Any = error.detail
    if error.status_code == 403 and error.detail == "Forbidden":
        said = "You may not see this: Airflow does not let you read the DAG of this model or dataset. Ask who gives rights in Airflow."
    return page(
        request,
        "problem.html",
        status=error.status_code,
        title="Not shown" if error.status_code == 403 else "Not found",
        said=str(said),
    )


@app.exception_handler(RequestValidationError)
def _not_understood(request: Request, error: RequestValidationError) -> Response:
    return page(request, "problem.html", status=404, title="Not found", said="The address is none of a page.")


@app.exception_handler(EvergreenError)
def _not_to_be_had(request: Request, error: EvergreenError) -> Response:
    """The warehouse or MLflow does not answer, or what was asked for is not there."""
    log.warning("%s: %s", request.url.path, error)
    gone = isinstance(error, TransientError) or error.reason in (ErrorReason.UNREACHABLE, ErrorReason.BUSY)
    return page(
        request,
        "problem.html",
        status=503 if gone else 404,
        title="Cannot be shown now" if gone else "Cannot be shown",
        said=str(error),
    )
