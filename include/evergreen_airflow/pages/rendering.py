"""How a page is laid out: templates that escape what others wrote, times as elements, addresses that are relative."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import quote

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from markupsafe import Markup

from evergreen.health.charts import columns, error_history, sparkline
from evergreen.ledger import words
from evergreen.links import window_name
from evergreen.spec import metric_name
from evergreen.templates import templates

HEADERS = {
    # Nothing of a page comes from elsewhere, and no other site may show it in a frame; Airflow's own does.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'self'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}


@cache
def _environment() -> jinja2.Environment:
    made = templates("evergreen_airflow.pages")
    made.filters |= {
        "time": time_element, "day": day_element, "ago": ago,
        "past": past, "num": words.num, "metric": metric_name, "gigabytes": gigabytes, "word": words.reason,
        "kind": words.kind, "measure": measure, "column": words.column_name, "stamp": window_name, "part": lambda text: quote(str(text), safe=""), "sentence": sentence,
        "times": of_limit, "cell": cell,
    }  # fmt: skip
    made.globals |= {
        "sparkline": _drawn(sparkline.sparkline), "error_history": _drawn(error_history.error_history), "legend": error_history.LEGEND,
        "against_limit": _drawn(columns.against_limit), "distribution": _drawn(columns.distribution), "share_bar": _drawn(columns.share_bar),
        "heat": heat,
    }  # fmt: skip
    return made


def page(request: Request, template: str, *, status: int = 200, **content: Any) -> HTMLResponse:
    """A page, of which every address is relative to where it stands.

    Args:
        request: whose route says how deep the page stands: `up` leads to the overview, `airflow` to Airflow's root.
        template: its file.
        status: of the answer.
        content: what the template shows.
    """
    up = up_of(request)
    said = (
        _environment()
        .get_template(template)
        .render(
            up=up,
            airflow=f"{up}../",
            now=datetime.now(UTC),
            decision_address=lambda number: f"{up}decision/{number}",
            **content,
        )
    )
    return HTMLResponse(said, status, headers=HEADERS)


def up_of(request: Request) -> str:
    """What leads from the page of a request to the overview, such as `../`."""
    route, root = request.scope.get("route"), request.scope.get("root_path", "")
    # As the browser sees it, to which an escaped slash is none; where no page matched, the route is Airflow's, which holds all pages.
    asked = request.scope.get("raw_path", b"").decode("latin-1") or request.scope["path"]
    path = route.path if isinstance(route, APIRoute) else asked.removeprefix(root)
    return "../" * path.strip("/").count("/") or "./"


def _drawn(draw: Any) -> Any:
    return lambda *args, **more: Markup(draw(*args, **more))


def time_element(value: datetime | None, missing: str = "") -> Markup:
    """A time in UTC, to the minute; the page's script shows the reader's zone on wish."""
    if value is None:
        return Markup.escape(missing)
    shown = value.astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(shown.isoformat(), f"{shown:%Y-%m-%d %H:%M}")


def day_element(value: datetime) -> Markup:
    """A day, with its time for those who ask."""
    shown = value.astimezone(UTC)
    return Markup('<time datetime="{}" data-day title="{} UTC">{}</time>').format(
        shown.isoformat(), f"{shown:%Y-%m-%d %H:%M}", f"{shown:%Y-%m-%d}"
    )


def ago(value: datetime | None, now: datetime) -> str:
    """How long a time is past, or to come, in one unit: `3 d`, `in 5 h`."""
    if value is None:
        return ""
    left = value - now
    seconds = abs(left.total_seconds())
    unit, name = next((u, n) for u, n in ((86400, "d"), (3600, "h"), (60, "min"), (0, "")) if seconds >= u)
    said = f"{seconds // unit:.0f} {name}" if unit else "now"
    return f"in {said}" if unit and left > timedelta(0) else said


def past(value: datetime | None, now: datetime) -> str:
    """How long a time is past, in a phrase: `3 d ago`, `just now`."""
    said = ago(value, now)
    return "just now" if said == "now" else f"{said} ago" if said else ""


def gigabytes(value: float) -> str:
    """Bytes as GB, or as MB where they are few."""
    return f"{value / 1e9:,.1f} GB" if value >= 1e9 else f"{value / 1e6:,.0f} MB"


def moment(text: str) -> datetime | None:
    """What `links.window_name` wrote; None where it is none."""
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def measure(kind: str, statistic: str) -> str:
    """What a judged number of a column measures."""
    return words.statistic_name(kind, statistic)


def sentence(text: str) -> str:
    """A text that begins with a capital letter, unless it begins with a version such as v4."""
    return text if text[1:2].isdigit() else text[:1].upper() + text[1:]


def of_limit(value: float | None) -> str:
    """A share of a limit as people say it: `3.3 ×`."""
    return "–" if value is None else f"{max(value, 0.0):.1f} ×" if value < 100 else "> 100 ×"


def cell(ratio: float | None) -> str:
    """A share of a limit in the room of a cell."""
    return "?" if ratio is None else "> 99" if ratio > 99 else f"{max(0.0, ratio):.1f}"


def heat(ratio: float | None, violated: bool) -> int:
    """The step of a cell of the heat map, 0 to 5: from 4 on it is a violation."""
    if violated:
        return 5 if ratio is None or ratio >= 2 else 4
    if ratio is None or ratio < 0.25:
        return 0
    return 1 if ratio < 0.5 else 2 if ratio < 0.75 else 3
