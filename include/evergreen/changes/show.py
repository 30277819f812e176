"""A comparison as text for a terminal, as Markdown for a pull request, as JSON for another program."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from evergreen.changes.compare import Change, Compared
from evergreen.spec import Problem

# A comment on GitHub holds 65,536 characters.
MOST = 60_000
MOST_LINES = 120  # of one diff in Markdown
SHORT = 10


def head(found: Compared) -> str:
    """What was compared, in a line."""
    count = len(found.changes)
    said = "no spec differs" if not count else f"{count} spec{'s differ' if count > 1 else ' differs'}"
    return f"compared with {found.name} ({found.commit[:SHORT]}): {said}"


def text(found: Compared) -> str:
    """For a terminal."""
    lines = [head(found)]
    for change in found.changes:
        files = f" ({', '.join(change.files)})" if change.files else ""
        lines += ["", f"{_title(change)}{files}"]
        lines += [f"  {field.name}: {field.change}" for field in change.fields]
        for diff in change.diffs:
            lines += [f"  {diff.file}:", *(f"    {line}" for line in diff.lines)]
        lines += [f"  * {sentence}" for sentence in _sentences(change)]
    return "\n".join(lines)


def markdown(found: Compared, problems: Sequence[Problem], notes: Sequence[Problem], unseen: str = "") -> str:
    """For a comment or a job's summary, never longer than `MOST` characters.

    Values of the specs stand in code, so none of them is a link, a mention or a tag.
    """
    lines = [
        "### What this changes in the specs",
        "",
        f"Compared with {_code(found.name)} ({found.commit[:SHORT]}).",
    ]
    if problems:
        listed = [str(p) for p in problems]
        lines += ["", f"**{len(problems)} problem(s) in the specs:**", "", *_fenced("text", listed[:40])]
    if not found.changes:
        lines += ["", "No spec differs."]
    else:
        known = any(c.champion for c in found.changes)
        head = ["spec", "", "what is trained", *(["champion"] if known else [])]
        lines += ["", _row(head), _row(["---"] * len(head))]
        for c in found.changes:
            cells = [f"{c.kind} {_code(c.name)}", _what(c), _trained(c)]
            lines.append(_row([*cells, *([_cell(c.champion)] if known else [])]))
    if notes:
        lines += ["", "Notes:", "", *_fenced("text", [str(n) for n in notes][:40])]
    if unseen:
        lines += ["", f"The feature queries and windows were not checked: {_code(unseen)}"]
    whole = "\n".join(lines) + "\n"
    for number, change in enumerate(found.changes):
        part = "\n".join(_details(change)) + "\n"
        if len(whole) + len(part) > MOST - 200:
            left = len(found.changes) - number
            return f"{whole}\n{left} more are left out here; `evergreen check --changed` shows all of them.\n"
        whole += part
    return whole


def as_json(found: Compared, problems: Sequence[Problem], notes: Sequence[Problem], unseen: str = "") -> str:
    """For another program."""
    content = {
        **asdict(found),
        "problems": [asdict(p) for p in problems],
        "notes": [asdict(n) for n in notes],
        "not_checked": unseen,
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def _details(change: Change) -> Iterator[str]:
    yield from (
        "",
        "<details open>",
        f"<summary>{change.kind} <code>{_tag(change.name)}</code></summary>",
        "",
    )
    if change.fields:
        yield from ("| field | change |", "| --- | --- |")
        yield from (f"| {_code(f.name)} | {_code(f.change)} |" for f in change.fields)
        yield ""
    for diff in change.diffs:
        yield from (_code(diff.file), "", *_fenced("diff", diff.lines), "")
    yield from (f"- {_plain(sentence)}" for sentence in _sentences(change))
    yield from ("", "</details>")


def _sentences(change: Change) -> Iterator[str]:
    yield from change.means
    if change.champion:
        yield change.champion
    if change.rehearsal:
        yield f"rehearsal: {change.rehearsal}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _title(change: Change) -> str:
    return f"{change.kind} {change.name}: {change.what}{f' from {change.was}' if change.was else ''}"


def _what(change: Change) -> str:
    return f"renamed from {_code(change.was)}" if change.was else change.what


def _trained(change: Change) -> str:
    if change.kind == "dataset":
        return "–"
    if change.what == "removed":
        return "nothing any more"
    return {None: "cannot be told", True: "**changes**", False: "stays"}[change.trains]


def _fenced(language: str, lines: Sequence[str]) -> list[str]:
    cut = len(lines) - MOST_LINES
    shown = [*lines[:MOST_LINES], *([f"… {cut} more lines"] if cut > 0 else [])]
    longest = max((len(run) for line in shown for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *shown, fence]


def _code(value: str) -> str:
    """A value in code, whatever backticks, and bars of a table, it holds."""
    fence = "`" * (max((len(run) for run in re.findall("`+", value)), default=0) + 1)
    gap = " " if "`" in value else ""
    return f"{fence}{gap}{value}{gap}{fence}".replace("|", "\\|")


def _tag(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _plain(sentence: str) -> str:
    """A sentence that may quote a spec: nothing of it is formatting, a tag or a mention."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", _tag(sentence)).replace("@", "@\u200b")


def _cell(sentence: str) -> str:
    return _plain(sentence.partition(",")[0].partition(";")[0]) or "–"
