"""Each reason that is written into the ledger is a member of one of the lists of `ledger/reasons.py`."""

from __future__ import annotations

import ast
from pathlib import Path

import evergreen

LIBRARY = Path(evergreen.__file__).parent
# Where `reason` stands among the fields of a decision, for those that are written without the fields' names.
PLACE = 3


def spelt_out(source: str) -> list[int]:
    """The lines of a source in which the reason of a decision is a text."""
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) == "Decision"
    ]
    given = [
        *(k.value for call in calls for k in call.keywords if k.arg == "reason"),
        *(call.args[PLACE] for call in calls if len(call.args) > PLACE),
    ]
    return [
        part.lineno
        for value in given
        if not isinstance(value, (ast.JoinedStr, ast.Subscript))
        for part in ast.walk(value)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]


def test_no_decision_spells_its_reason_out() -> None:
    found = {str(file): spelt_out(file.read_text(encoding="utf-8")) for file in LIBRARY.rglob("*.py")}
    assert {file: lines for file, lines in found.items() if lines} == {}


def test_a_reason_that_is_spelt_out_is_found() -> None:
    assert spelt_out('ledger.Decision(as_of=t, reason="better" if good else WORSE)') == [1]
    assert spelt_out('Decision(t, "model/m", KIND,\n  "better")') == [2]
    assert spelt_out("Decision(reason=EndReason.WINDOWS_OK.value, run_id='r')") == []
