"""`evergreen quarantine DATASET [BATCH]`: what is held back, each row with its line, column, value and rule, and what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError
from evergreen.health.dataset import Batch, Failed, HeldRow, held_rows, still_held
from evergreen.program import typed
from evergreen.spec import load_specs
from evergreen.terminal import as_json, names, place
from evergreen.terminal.page import Page
from evergreen.terminal.phrases import age, many

LIMIT = 20
MOST_FAILURES = 10
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Held:
    """A batch with those of its held rows that are shown; `more`: others are kept beside them."""

    batch: Batch
    rows: tuple[HeldRow, ...]
    more: bool


def main(argv: list[str] | None = None) -> int:
    """Print it; 0 whether or not something is held back."""
    parser = place.parser(
        "quarantine",
        "Show what of a dataset is held back: the files, and each row with its line, column, value and rule.",
        "quarantine bike_hourly --limit 50",
    )
    parser.add_argument("dataset", help="its name")
    parser.add_argument(
        "batch", type=int, nargs="?", help="only this one, by its number (default: all that nobody has mended or dismissed)"
    )  # fmt: skip
    parser.add_argument("--limit", type=place.count, default=LIMIT, help=f"most rows (default {LIMIT})")
    options = parser.parse_args(argv)
    return place.told(lambda: _run(options.dataset, options.batch, options.limit, options.home, options.json))


def _run(dataset: str, batch: int | None, limit: int, home: Path | None, as_text: bool) -> int:
    place.find(home)
    with place.reading() as conn:
        names.require(conn, load_specs(settings.specs_folder()), "dataset", dataset)
        batches = still_held(conn, dataset, batch=batch)
        if batch is not None and not batches:
            raise TerminalError(f"{dataset} has no batch {batch}", ErrorReason.NO_ROWS)
        found, left = [], limit
        for each in batches:
            rows = held_rows(conn, dataset, batches=[each.id], limit=left + 1)
            if rows is None:
                raise TerminalError(
                    f"this login may not read the rows of {dataset} that are held back; the role of ingest may",
                    ErrorReason.NO_ACCESS,
                )
            found.append(Held(each, tuple(rows[:left]), len(rows) > left))
            left -= len(found[-1].rows)
    if as_text:
        print(as_json.text({
            "dataset": dataset, "batches": len(found), "rows_held": sum(one.batch.held for one in found),
            "rows_shown": limit - left, "held": found,
        }))  # fmt: skip
        return 0
    page = Page()
    if not found:
        page.line(f"Nothing of {dataset} is held back.")
        return 0
    held = sum(one.batch.held for one in found)
    page.line(f"{dataset}: {many(held, 'row')} of {many(len(found), 'file')} held back.", style="bold")
    for one in found:
        _batch(page, one)
    if any(one.more for one in found):
        page.gap()
        page.line(
            f"Here are {limit}; more are kept: {typed(f'quarantine {dataset} --limit {10 * limit}', f'quarantine DATASET={dataset} LIMIT={10 * limit}')}."
        )
    page.head("What to do")
    for step in _steps(dataset, found):
        page.line(step, 2, hang=2)
    return 0


def _batch(page: Page, found: Held) -> None:
    one = found.batch
    what = {"published": "its other rows are published", "quarantined": "nothing of it is published"}
    page.head(f"{one.file}  (batch {one.id})")
    page.line(
        f"{one.held:,} of {many(one.read, 'row')} held back {age(one.decided_at)} ago; {what.get(one.state, f'it is {one.state} now')}.", 2
    )  # fmt: skip
    for failure in one.failures[:MOST_FAILURES]:
        page.line(f"- {_failed(failure)}", 2, hang=2)
    if len(one.failures) > MOST_FAILURES:
        page.line(f"- and {len(one.failures) - MOST_FAILURES} more", 2)
    if not found.rows:
        return
    page.gap()
    page.line("The rows that break a rule:" if one.state == "quarantined" else "The rows:", 2)
    page.table(
        ("LINE", "COLUMN", "VALUE", "RULE"),
        [
            (_place(row), broken.column, broken.value or "(empty)", _rule(broken.rule, broken.expected))
            for row in found.rows for broken in row.broken
        ],
        indent=2, right=(0,), lines=3,
    )  # fmt: skip


def _place(row: HeldRow) -> str:
    return str(row.line) if row.line is not None else f"row {row.row}"


def _rule(rule: str, expected: str) -> str:
    return f"must {rule}{f': {expected}' if expected else ''}"


def _failed(failure: Failed) -> str:
    where = f"{failure.column}: " if failure.column else "the whole file: "
    found = failure.found or (many(failure.rows, "row") if failure.rows else "nothing")
    remedy = f". {failure.remedy[:1].upper()}{failure.remedy[1:]}" if failure.remedy else ""
    return f"{where}{_rule(failure.rule, failure.expected)}; found {found}{remedy}"


def _steps(dataset: str, found: Sequence[Held]) -> list[str]:
    batch = found[0].batch
    # A name that a shell reads otherwise is not put into a command.
    file = batch.file if _PLAIN.fullmatch(batch.file) else str(batch.id)

    def correct(action: str) -> str:
        params = f"action={action} file={file} reason=..."
        return typed(f"run correct__{dataset} {params}", f'run DAG=correct__{dataset} PARAMS="{params}"')

    return [
        f"The file is wrong: mend it and land it again under any name; ingest__{dataset} takes it.",
        f"The data is right and the rule wrong: change datasets/{dataset}.yaml, then {correct('judge_again')}.",
        f"It is of no use: {correct('dismiss')}.",
    ]
