"""`evergreen history MODEL`: what was decided about a model or dataset, newest first."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path

from evergreen import settings
from evergreen.command import moment
from evergreen.health import told
from evergreen.health.told import LedgerRow
from evergreen.ledger import dataset_subject, model_subject
from evergreen.ledger.reasons import DecisionKind
from evergreen.program import typed
from evergreen.spec import load_specs
from evergreen.terminal import as_json, names, place
from evergreen.terminal.page import Page
from evergreen.warehouse.connection import Connection

LIMIT = 30
LINES = 4
_STYLES = {"promoted": "good", "rolled_back": "bad", "run_failed": "bad", "batch_quarantined": "bad", "retrain_requested": "warn", "awaiting_approval": "warn"}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Print it; 0 also where nothing was decided yet."""
    kinds = [kind.value for kind in DecisionKind]
    parser = place.parser(
        "history",
        "List what was decided about a model or dataset, the newest first.",
        "history bike_demand --kind promoted --kind rejected --since 2026-01-01",
    )
    parser.add_argument("name", metavar="MODEL", help="its name; a dataset's, too")
    parser.add_argument(
        "--kind", action="append", default=[], choices=kinds, metavar="KIND", help=f"only of this kind, again for another: {', '.join(kinds)}"
    )  # fmt: skip
    parser.add_argument(
        "--reason", action="append", default=[], help="only with this reason, such as data_drift"
    )
    parser.add_argument(
        "--since", type=moment, help="only as of this time or later, such as 2026-01-01 (UTC)"
    )
    parser.add_argument("--limit", type=place.count, default=LIMIT, help=f"how many (default {LIMIT})")
    options = parser.parse_args(argv)
    return place.told(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    home: Path | None = options.home
    since: datetime | None = options.since
    place.find(home)
    with place.reading() as conn:
        subject = _subject(conn, options.name)
        rows = told.rows(
            conn, subject, kinds=options.kind, reasons=options.reason, since=since, limit=options.limit + 1
        )
    more, rows = len(rows) > options.limit, rows[: options.limit]
    if options.json:
        print(as_json.text({"subject": subject, "more": more, "decisions": rows}))
        return 0
    page = Page()
    filtered = options.kind or options.reason or since
    if not rows:
        page.line(f"Nothing {'like that ' if filtered else ''}was decided about {options.name} yet.")
        return 0
    page.table(
        ("AS OF (UTC)", "WHAT", "WHY"),
        [(f"{row.as_of:%Y-%m-%d %H:%M}", _what(row), row.sentence) for row in rows],
        lines=LINES, styles=[_STYLES.get(row.kind, "") for row in rows],
    )  # fmt: skip
    hints = []
    if more:
        hints.append(
            f"These are the newest {len(rows)}; --limit shows more, --kind, --reason and --since choose."
        )
    if subject == model_subject(options.name) and any(row.version for row in rows):
        story = typed(f"why {options.name} VERSION", f"why MODEL={options.name} VERSION=...")
        hints.append(f"{story} tells the whole story of a version.")
    if hints:
        page.gap()
    for hint in hints:
        page.line(hint)
    return 0


def _what(row: LedgerRow) -> str:
    return f"{row.what} v{row.version}" if row.version else row.what


def _subject(conn: Connection, name: str) -> str:
    """The ledger's subject of a model, else of a dataset of this name."""
    specs = load_specs(settings.specs_folder())
    models = {*specs.models, *names.in_ledger(conn, "model")}
    datasets = {*specs.datasets, *names.in_ledger(conn, "dataset")}
    if name in models:
        return model_subject(name)
    if name in datasets:
        return dataset_subject(name)
    raise names.UnknownName("model or dataset", name, models | datasets)
