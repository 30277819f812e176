"""`evergreen why MODEL [VERSION]`: why a version is champion, or is not: who asked, what was compared, who decided, what came after."""

from __future__ import annotations

from pathlib import Path

from evergreen import ledger, settings
from evergreen.errors import ErrorReason, TerminalError
from evergreen.ledger import words
from evergreen.program import typed
from evergreen.spec import load_specs
from evergreen.terminal import as_json, names, place
from evergreen.terminal.page import Page
from evergreen.terminal.phrases import many
from evergreen.terminal.story import Checked, Story, about_the_model, story, versions
from evergreen.warehouse.connection import Connection

MOST_OTHERS = 8
SPACE = 14
_PARTS = {
    "all": "in all", "training": "learnt from", "purged": "left out in between", "holdout": "in the holdout", "judged": "judged",
    "champion_learnt": "of them known to the champion",
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Print the story; 1 where there is none."""
    parser = place.parser(
        "why",
        "Tell why a version became champion, or did not: who asked for the training, on which data, what the gate compared, who "
        "approved, what the watch said after it.",
        "why bike_demand 3",
    )
    parser.add_argument("model", help="its name")
    parser.add_argument(
        "version", nargs="?", help="such as 3 or v3 (default: the champion, else the newest one)"
    )
    options = parser.parse_args(argv)
    return place.told(lambda: _run(options.model, options.version, options.home, options.json))


def _run(model: str, version: str | None, home: Path | None, as_text: bool) -> int:
    place.find(home)
    with place.reading() as conn:
        names.require(conn, load_specs(settings.specs_folder()), "model", model)
        others = versions(conn, model)
        wanted = _wanted(conn, model, version, [d.version or "" for d in others])
        found = story(conn, model, wanted)
    assert found is not None, "the version is one of those that the ledger has"
    if as_text:
        print(as_json.text(found))
        return 0
    page = Page()
    _story(page, found)
    rest = [d for d in others if d.version != wanted]
    if rest:
        page.head("Other versions")
        for d in rest[:MOST_OTHERS]:
            page.line(
                f"v{d.version}: {words.kind(d.kind.value)}, {words.reason(d.reason)}", 2, hang=4, lines=2
            )
        if len(rest) > MOST_OTHERS:
            page.line(
                f"and {len(rest) - MOST_OTHERS} more, see {typed(f'history {model}', f'history MODEL={model}')}",
                2,
            )
        other = rest[0].version
        page.line(
            f"{typed(f'why {model} {other}', f'why MODEL={model} VERSION={other}')} tells of another one.", 2
        )
    return 0


def _wanted(conn: Connection, model: str, version: str | None, known: list[str]) -> str:
    if not known:
        raise TerminalError(
            f"No challenger of {model} was judged yet, so there is nothing to tell; "
            f"{typed(f'run train__{model} reason=...', f'run DAG=train__{model} PARAMS=reason=...')} trains one",
            ErrorReason.NO_CHAMPION,
        )
    if version is None:
        champion = next((d.version for d in ledger.champions(conn, model) if d.version in known), None)
        return champion or known[0]
    for name in (version, version.removeprefix("v")):
        if name in known:
            return name
    raise names.UnknownName(f"version of {model}", version, known)


def _story(page: Page, told: Story) -> None:
    page.line(_headline(told), style="bold")
    page.head("Why it was trained")
    _asked(page, told)
    page.head("On which data")
    _data(page, told)
    page.head("What the gate compared")
    _compared(page, told)
    if told.checks:
        page.head("What the gate checked")
        _checks(page, told)
    page.head("What was decided")
    _decided(page, told)
    if told.state in ("champion", "was_champion"):
        page.head("What came after")
        _after(page, told)
    page.head("More")
    for label, address in (("Airflow", told.airflow), ("MLflow", told.mlflow)):
        if address:
            page.pair(label, address, 2, space=SPACE)


def _headline(told: Story) -> str:
    name = f"{told.model} v{told.version}"
    if told.state == "champion":
        return f"{name} is champion since {words.when(told.since)}."
    if told.state == "was_champion" and told.since:
        until = f" to {words.when(told.until)}" if told.until else ""
        return f"{name} was champion from {words.when(told.since)}{until}."
    if told.state == "waiting":
        return f"{name} passed the gate and waits for approval."
    return f"{name} was rejected: {words.reason(told.verdict.reason)}."


def _asked(page: Page, told: Story) -> None:
    page.line(f"{told.why_trained[:1].upper()}{told.why_trained[1:]}.", 2)
    if told.asked_because:
        page.pair("because", told.asked_because, 2, space=SPACE)
    for request in told.requests:
        page.pair(
            "request", f"{request.decision} of {words.when(request.as_of)}: {request.words}", 2, space=SPACE
        )
    if told.training_run:
        page.pair("run", told.training_run, 2, space=SPACE)


def _data(page: Page, told: Story) -> None:
    page.pair("as of", words.when(told.as_of), 2, space=SPACE)
    if rows := [f"{told.rows[part]:,} {said}" for part, said in _PARTS.items() if told.rows.get(part)]:
        page.pair("rows", ", ".join(rows), 2, space=SPACE)
    if told.trained_until:
        again = ", fitted again on all rows, the holdout among them" if told.refitted else ""
        page.pair("learnt until", f"{words.when(told.trained_until)}{again}", 2, space=SPACE)
    if told.chosen:
        page.pair("chosen", told.chosen, 2, space=SPACE)
    if told.fingerprint:
        page.pair("snapshot", told.fingerprint[:16], 2, space=SPACE)


def _compared(page: Page, told: Story) -> None:
    if not told.metrics:
        page.line("No metric is recorded.", 2)
        return
    champion = f"CHAMPION v{told.compared_with}" if told.compared_with else "CHAMPION"
    page.table(
        ("METRIC", "CHALLENGER", champion, "BASELINE", "BETTER IS"),
        [
            (
                f"{m.words}{' (decides)' if m.decides else ''}", *(_number(v) for v in (m.challenger, m.champion, m.baseline)),
                "larger" if m.larger_is_better else "smaller",
            )
            for m in told.metrics
        ],
        indent=2, right=(1, 2, 3), styles=["bold" if m.decides else "" for m in told.metrics],
    )  # fmt: skip
    for check in told.checks:
        if check.compares:
            _check(page, check)


def _number(value: float | None) -> str:
    return "-" if value is None else words.num(value)


def _checks(page: Page, told: Story) -> None:
    shown = [check for check in told.checks if about_the_model(check)]
    for check in shown:
        if not check.compares:
            _check(page, check)
    if rest := len(told.checks) - len(shown):
        page.line(f"{many(rest, 'more check')} of where the numbers come from: all passed.", 2)


def _check(page: Page, check: Checked) -> None:
    passed = "passed" if check.passed else "failed"
    page.pair(passed, check.words, 2, space=8, style="" if check.passed else "bad")


def _decided(page: Page, told: Story) -> None:
    verdict = told.verdict
    page.line(f"{words.when(verdict.as_of)}: {words.kind(verdict.kind)}, {verdict.words.rstrip('.')}.", 2)
    if told.gate and told.gate != verdict.reason:
        page.pair("the gate", words.reason(told.gate), 2, space=SPACE)
    if told.answered_by:
        when = f" on {words.when(told.answered_at)}" if told.answered_at else ""
        page.pair("answered by", f"{told.answered_by}{when}", 2, space=SPACE)
    elif verdict.kind == "promoted":
        page.pair("approved by", "the gate alone; the spec asks no person", 2, space=SPACE)
    if told.comment:
        page.pair("comment", told.comment, 2, space=SPACE)
    if told.superseded_by:
        page.pair("replaced by", f"v{told.superseded_by}", 2, space=SPACE)
    for note in told.note:
        page.pair("note", note, 2, space=SPACE)
    if told.state == "waiting":
        dag = f"promote__{told.model}"
        page.line(f"Approve or refuse it on the page of {dag} in Airflow.", 2)


def _after(page: Page, told: Story) -> None:
    if not told.after:
        page.line(
            "Nothing yet: the watch has not looked." if told.compared_with else "Nothing yet; there was no champion before it to compare it with.", 2
        )  # fmt: skip
    for step in told.after:
        bad = step.kind == "rolled_back" and not step.words.endswith("again")
        page.pair(words.when(step.as_of), step.words, 2, space=22, style="bad" if bad else "")
