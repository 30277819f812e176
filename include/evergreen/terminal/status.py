"""`evergreen status`: what needs a person first, then each model, each dataset, the mails, the services and where the login is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evergreen import settings
from evergreen.errors import EvergreenError
from evergreen.health.overview import overview
from evergreen.health.subjects import Attention, DatasetHealth, ModelHealth, Overview
from evergreen.ledger import words
from evergreen.program import typed
from evergreen.spec import Specs, load_specs
from evergreen.stack import alerts, landed
from evergreen.stack.layout import Layout
from evergreen.terminal import as_json, phrases, place
from evergreen.terminal import names as names_
from evergreen.terminal.page import Page
from evergreen.terminal.phrases import age, many
from evergreen.warehouse.connection import Connection

FEW = 12
"""So many models or datasets are shown in full; of more, those that need nobody have a line each."""


@dataclass(frozen=True)
class Found:
    """What the warehouse says.

    Attributes:
        overview: models, datasets and what they stand on; None: the warehouse cannot be read.
        said: why it cannot, in a sentence; else empty.
        alerts: silences, drifts that wait for a person, mails that wait, a line each.
        files: landed files that wait, a line each.
        specs: mistakes in the specs, a line each.
    """

    overview: Overview | None
    said: str
    alerts: tuple[str, ...]
    files: tuple[str, ...]
    specs: tuple[str, ...]


def main(argv: list[str] | None = None) -> int:
    """Print it; returns 0 only if all services are up and the warehouse answers."""
    parser = place.parser(
        "status",
        "Say what needs a person, how each model and dataset is, what is up, where it is and how to get in; exit code 0 only if all "
        "services are up.",
        "status bike_demand",
    )
    parser.add_argument("name", nargs="*", help="only these models and datasets, in full")
    options = parser.parse_args(argv)
    return place.told(lambda: _run(options.name, options.home, options.json))


def _run(names: list[str], home: Any, as_text: bool) -> int:
    layout = place.find(home)
    rows = _services(layout)
    found = look(names)
    up = found.overview is not None and all(row.is_good for row in rows)
    if as_text:
        print(as_json.text(_json(layout, rows, found, up)))
        return 0 if up else 1
    page = Page()
    if found.overview is None and not rows:
        page.line(found.said)
        for line in found.specs:
            page.line(line)
        return 1
    page.line(_summary(rows, found, names), style="bold")
    if found.overview is None:
        page.line(found.said, style="bad")
    else:
        _models(page, found.overview.models, bool(names))
        _datasets(page, found.overview.datasets, bool(names))
        _stack(page, found.overview)
    for title, lines in (
        ("Alerts", found.alerts),
        ("Landed files that wait", found.files),
        ("Specs", found.specs),
    ):
        if lines:
            page.head(title)
            for line in lines:
                page.indented(f"  {line}")
    if rows:
        page.head("Services")
        _table(page, rows)
    _addresses(page, layout, bool(rows))
    return 0 if up else 1


def look(names: list[str]) -> Found:
    """Read the warehouse, the specs and the landing folders; names: only these models and datasets.

    Raises:
        EvergreenError: there is no model or dataset of a name.
    """
    specs = load_specs(settings.specs_folder())
    told = tuple(alerts.specs(specs))
    try:
        with place.reading() as conn:
            models, datasets = _chosen(conn, specs, names)
            shown = {*(f"model/{name}" for name in models), *(f"dataset/{name}" for name in datasets)}
            return Found(
                overview(conn, specs, models=models, datasets=datasets),
                "",
                () if names else tuple(alerts.lines(conn, without_silences_of=shown)),
                () if names else tuple(landed.lines(conn, specs)),
                told,
            )
    except names_.UnknownName:
        raise
    except EvergreenError as error:
        return Found(None, f"{str(error)[:1].upper()}{str(error)[1:].rstrip('.')}.", (), (), told)


def _chosen(conn: Connection, specs: Specs, names: list[str]) -> tuple[list[str], list[str]]:
    """The models and datasets that are shown."""
    if not names:
        return names_.known(conn, specs, "model"), names_.known(conn, specs, "dataset")
    models = {*specs.models, *names_.in_ledger(conn, "model")}
    datasets = {*specs.datasets, *names_.in_ledger(conn, "dataset")}
    for name in names:
        if name not in models | datasets:
            raise names_.UnknownName("model or dataset", name, models | datasets)
    return [n for n in names if n in models], [n for n in names if n in datasets]


def _services(layout: Layout | None) -> list[Any]:
    """The rows of the embedded stack's services; none where there is no stack, or none was ever up."""
    if layout is None:
        return []
    # Needs what only the stack needs, which may not be installed where there is none.
    from evergreen.stack import control

    return control.status(layout.home)


def _summary(services: list[Any], found: Found, names: list[str]) -> str:
    parts = []
    if found.overview is not None:
        parts += [
            _count(rows, one)
            for rows, one in ((found.overview.models, "model"), (found.overview.datasets, "dataset"))
            if rows or not names
        ]
    if services:
        wrong = [f"{row.service} is {row.state}" for row in services if not row.is_good]
        if len(wrong) == len(services) and all(row.state == "stopped" for row in services):
            wrong = [f"the stack is stopped, {typed('up')} starts it"]
        parts.append(f"services: {', '.join(wrong)}" if wrong else f"all {len(services)} services are up")
    elif found.overview is not None:
        parts.append("the warehouse answers")
    told = "; ".join(parts)
    return f"{told[:1].upper()}{told[1:]}."


def _count(rows: tuple[ModelHealth, ...] | tuple[DatasetHealth, ...], one: str) -> str:
    if not rows:
        return f"no {one}s"
    levels = [row.attention for row in rows]
    said = [f"{levels.count(level)} {level.words}" for level in Attention if level in levels]
    return f"{many(len(rows), one)}: {', '.join(said)}"


def _models(page: Page, rows: tuple[ModelHealth, ...], full: bool) -> None:
    if rows:
        page.head("Models")
    brief = not full and len(rows) > FEW
    for row in rows:
        champion = f"v{row.champion}{_takeover(row)}" if row.champion else "no champion"
        if brief and row.attention >= Attention.NOT_YET:
            page.line(
                f"{row.name}: {row.attention.words}, {champion}, {phrases.error(row.error)}", 2, lines=1
            )
            continue
        _subject(page, row)
        page.pair("champion", _champion(row), 4)
        if row.window is not None:
            page.pair("error", phrases.error(row.error), 4)
            page.pair("drift", phrases.drift(row.worst), 4)
        page.pair("feed", _feed(row), 4)
        if row.online is not None:
            page.pair("online", phrases.online(row), 4)
        page.pair("training", phrases.training(row), 4)
        if row.requests:
            page.pair(
                "requests",
                f"{row.requests.count} open, the oldest since {words.when(row.requests.oldest)}",
                4,
            )


def _subject(page: Page, row: ModelHealth | DatasetHealth) -> None:
    style = phrases.STYLES.get(row.attention.name.lower(), "")
    page.line(f"{row.name}: {row.attention.words}", 2, hang=2, style=style or "bold")
    for why in row.why:
        page.line(why.text, 4, hang=2, style=style)
    if row.silence:
        page.line(f"silenced by {row.silence.by}; {many(row.silence.held, 'alert')} held back", 4, hang=2)


def _champion(row: ModelHealth) -> str:
    if row.champion is None:
        return "none"
    since = f" since {words.when(row.since)} ({age(row.since)})" if row.since else ""
    return f"v{row.champion}{since}{_takeover(row)}"


def _takeover(row: ModelHealth) -> str:
    return f", {row.takeover}" if row.takeover else ""


def _feed(row: ModelHealth) -> str:
    if row.newest_rows is None:
        return "no rows yet"
    return f"newest rows {age(row.newest_rows)} ago"


def _datasets(page: Page, rows: tuple[DatasetHealth, ...], full: bool) -> None:
    if rows:
        page.head("Datasets")
    brief = not full and len(rows) > FEW
    for row in rows:
        newest = f"newest rows {age(row.newest_rows)} ago" if row.newest_rows else "no rows yet"
        if brief and row.attention >= Attention.NOT_YET:
            page.line(f"{row.name}: {row.attention.words}, {newest}", 2, lines=1)
            continue
        _subject(page, row)
        page.pair("feed", newest, 4)
        if row.last_file is not None and row.last_decided is not None:
            page.pair("last file", f"{row.last_file}: {row.last_state}, {age(row.last_decided)} ago", 4)
        page.pair(
            "30 days",
            f"{many(row.batches, 'file')}, {many(row.published_rows, 'row')} published, {many(row.held_rows, 'row')} held back",
            4,
        )
        if row.held_batches:
            page.pair("next", typed(f"quarantine {row.name}", f"quarantine DATASET={row.name}"), 4)


def _stack(page: Page, found: Overview) -> None:
    stack = found.stack
    told = [why.text for why in stack.why if why.text not in stack.problems]
    if told or stack.service:
        page.head("The stack")
        style = phrases.STYLES.get(stack.attention.name.lower(), "")
        for line in told:
            page.line(line, 2, hang=2, style=style)
    if stack.service is not None:
        away = f": {stack.service.next}" if stack.service.next else ""
        page.line(f"prediction service: {stack.service.words}{away}", 2, hang=2, style="bad" if away else "")


def _table(page: Page, rows: list[Any]) -> None:
    cells = [
        (
            row.service, row.state, str(row.pid or "-"), str(row.port or "-"), words.when(row.since) if row.since else "-",
            str(row.restarts),
        )
        for row in rows
    ]  # fmt: skip
    styles = ["good" if row.is_good else "bad" for row in rows]
    page.table(
        ("SERVICE", "STATE", "PID", "PORT", "SINCE", "RESTARTS"),
        cells,
        indent=2,
        right=(2, 3, 5),
        styles=styles,
    )
    for row in rows:
        if row.message and not row.is_good:
            shown = typed(f"logs {row.service}", f"logs NAME={row.service}")
            page.line(f"{row.message} {shown} shows its log.", 2, hang=2)


def _where(layout: Layout | None, running: bool) -> dict[str, Any]:
    """Addresses, and where the login is; None where nothing is known."""
    own = layout is not None and running
    return {
        "airflow": settings.AIRFLOW_URL.read(),
        "mlflow": settings.MLFLOW_URL.read(),
        "predictions": settings.SERVING_URL.read(),
        "user": "admin" if own else None,
        "passwords": str(layout.secrets_file) if own and layout else None,
        "serving_key": str(layout.serving_key) if own and layout else None,
        "mails": str(layout.mail) if own and layout else None,
    }


def _addresses(page: Page, layout: Layout | None, running: bool) -> None:
    known = _where(layout, running)
    page.head("Addresses")
    page.pair("Airflow", known["airflow"], 2)
    page.pair("MLflow", known["mlflow"], 2)
    page.pair("Predictions", f"{known['predictions']}/models", 2)
    if known["user"]:
        page.pair("", f"the key of this machine is in {known['serving_key']}", 2)
        page.pair(
            "Mails",
            f"{typed('mail')} lists them, {typed('mail --web', 'mail WEB=1')} shows them in a browser",
            2,
        )
        page.pair("Login", f"{known['user']}; the passwords are in {known['passwords']}", 2)


def _json(layout: Layout | None, rows: list[Any], found: Found, up: bool) -> dict[str, Any]:
    seen = found.overview
    return {
        "up": up,
        "warehouse": {"answers": seen is not None, "said": found.said},
        "models": seen.models if seen else None,
        "datasets": seen.datasets if seen else None,
        "stack": seen.stack if seen else None,
        "alerts": found.alerts,
        "files": found.files,
        "specs": found.specs,
        "services": [{"service": r.service, "state": r.state, "good": r.is_good, "pid": r.pid, "port": r.port,
                      "since": r.since, "restarts": r.restarts, "message": r.message} for r in rows],
        "addresses": _where(layout, bool(rows)),
    }  # fmt: skip
