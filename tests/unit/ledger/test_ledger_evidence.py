"""Evidence is a type: what a release wrote is read by a later one, what is damaged decides nothing, and nobody else reads its JSON."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast, get_args

import psycopg2.extras
import pytest
from pydantic import BaseModel, ValidationError

from evergreen import ledger
from evergreen.errors import ErrorReason, TerminalError
from evergreen.incidents import silences
from evergreen.ledger import Decision, evidence
from evergreen.ledger.evidence import (
    TYPES,
    AskingWindow,
    AwaitingEvidence,
    BatchEvidence,
    Evidence,
    RetrainEvidence,
    RollbackEvidence,
    SettledEvidence,
    WatchEvidence,
)
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.trigger import episode
from evergreen.monitoring.trigger.wake_rule import should_wake
from evergreen.promotion.approval import outcome, until
from evergreen.promotion.ruling import blocking_of
from evergreen.promotion.superseded_watches import ended
from evergreen.registry.champions import champion_of
from evergreen.training.gate.past_holdouts import realised
from evergreen.training.record.outcome import TrainingOutcome
from evergreen.warehouse.connection import Connection

REPOSITORY = Path(__file__).resolve().parents[3]
AS_OF = datetime(2026, 5, 1, tzinfo=UTC)
EARLIER = json.loads((Path(__file__).parent / "earlier_rows.json").read_text(encoding="utf-8"))
"""Rows of before there were types: what commit 7ba715b wrote in its demo, and 22860dd, the last one without them, in its tests.

One for each kind of decision and set of fields, with their ids and times; of some the checks are shortened to three.
"""

CODE = sorted(
    path
    for folder in ("include", "dags", "plugins", "benchmarks")
    for path in (REPOSITORY / folder).rglob("*.py")
    if "evergreen/ledger" not in path.as_posix()
)


def decision(kind: DecisionKind, told: Any, **more: Any) -> Decision:
    return Decision(
        AS_OF, "model/m", kind, "r", "dag/run", f"{kind.value}:{json.dumps(told, default=str)}", told, **more
    )


def keys(part: type[BaseModel]) -> dict[str, Any]:
    """The keys of a type's JSON, each with the annotation of its field."""
    return {field.alias or name: field.annotation for name, field in part.model_fields.items()}


def parts(annotation: Any) -> Iterator[type[BaseModel]]:
    """The types that a field holds inside."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from parts(argument)


@pytest.mark.parametrize("kind", list(DecisionKind), ids=lambda kind: kind.value)
def test_each_kind_has_a_type_of_evidence(kind: DecisionKind) -> None:
    assert issubclass(TYPES[kind], Evidence)
    assert type(decision(kind, {}).evidence) is TYPES[kind]


def test_earlier_rows_are_of_every_kind() -> None:
    assert {row["kind"] for row in EARLIER} == {kind.value for kind in DecisionKind}


@pytest.mark.parametrize(
    "row", EARLIER, ids=lambda row: f"{row['kind']}-{len(row['evidence'])}-{row['commit']}"
)
def test_what_an_earlier_release_wrote_is_read(row: dict[str, Any], conn: Connection) -> None:
    """Each field has the value that the row has, if it says something, and the row stays as it is."""
    kind, told = DecisionKind(row["kind"]), row["evidence"]
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.decision (as_of, subject, kind, reason, evidence, run_id, dedupe_key)"
            " VALUES (%s, 'model/m', %s, 'r', %s, 'dag/run', 'key')",
            (AS_OF, kind.value, psycopg2.extras.Json(told)),
        )
    (found,) = ledger.find(conn, dedupe_key="key")
    read = TYPES[kind].of(found)
    assert read.to_json() == told
    again = read.model_dump(mode="json", by_alias=True)
    assert [name for name in told if told[name] and not _same(told[name], again.get(name))] == []


def _same(told: Any, again: Any) -> bool:
    """Whether JSON is what is left of it after reading, where fields that it did not have may have come."""
    if isinstance(told, dict) and isinstance(again, dict):
        return all(_same(value, again.get(name)) for name, value in told.items())
    if isinstance(told, list) and isinstance(again, list):
        return len(told) == len(again) and all(map(_same, told, again))
    return bool(told == again)


def test_what_this_release_writes_is_read_again(conn: Connection) -> None:
    told = RetrainEvidence(
        message="it drifted",
        since=AS_OF,
        drifted=("data_drift:temperature",),
        windows=(AskingWindow(start=AS_OF, end=AS_OF + timedelta(days=7), rows=3),),
        again=evidence.AskedAgain(at=AS_OF, rows=None),
    )
    written = ledger.append(conn, decision(DecisionKind.RETRAIN_REQUESTED, told))
    assert RetrainEvidence.of(written) == told
    assert written.evidence.to_json() == {
        "evidence_version": 1,
        "message": "it drifted",
        "since": "2026-05-01T00:00:00+00:00",
        "drifted": ["data_drift:temperature"],
        "windows": [{"start": "2026-05-01T00:00:00+00:00", "end": "2026-05-08T00:00:00+00:00", "rows": 3}],
        "again": {"from": "2026-05-01T00:00:00+00:00", "rows": None},
    }


def test_a_rare_field_is_written_only_where_it_says_something() -> None:
    assert "note" not in SettledEvidence(note="").to_json()
    assert SettledEvidence(note="no GPU").to_json()["note"] == "no GPU"
    assert SettledEvidence(previous_version=None).to_json() == {
        "evidence_version": 1,
        "previous_version": None,
    }


def test_a_field_of_a_later_release_stays_and_disturbs_nothing() -> None:
    told = {
        "evidence_version": 7,
        "message": "m",
        "windows": [{"start": "2026-05-01T00:00:00+00:00", "colour": "red"}],
        "weather": {"sun": 1},
    }
    found = decision(DecisionKind.RETRAIN_REQUESTED, told)
    assert RetrainEvidence.of(found).windows[0].start == AS_OF
    assert found.evidence.to_json() == told


DAMAGED = [
    pytest.param(DecisionKind.ROLLED_BACK, {"blocked": ["2"]}, "blocked", id="a list for an object"),
    pytest.param(DecisionKind.ROLLED_BACK, {"blocked": {"version": 2}}, "blocked", id="a number for a text"),
    pytest.param(DecisionKind.RETRAIN_REQUESTED, {"drifted": "missing:x"}, "drifted", id="a text for a list"),
    pytest.param(
        DecisionKind.RETRAIN_REQUESTED, {"windows": [{"end": None}]}, "windows", id="without its start"
    ),
    pytest.param(DecisionKind.PROMOTED, {"trained_until": "soon"}, "trained_until", id="no time"),
    pytest.param(
        DecisionKind.PROMOTED, {"trained_until": "2026-05-01T00:00:00"}, "trained_until", id="no zone"
    ),
    pytest.param(DecisionKind.PROMOTED, {"rows": {"all": "12"}}, "rows", id="a text for a number"),
    pytest.param(DecisionKind.PROMOTED, {"refitted": "no"}, "refitted", id="a text for yes or no"),
    pytest.param(DecisionKind.WATCHED, ["message"], "evidence", id="no object at all"),
    pytest.param(DecisionKind.WATCHED, None, "evidence", id="null"),
]


@pytest.mark.parametrize(("kind", "told", "field"), DAMAGED)
def test_a_damaged_row_decides_nothing_and_is_shown(kind: DecisionKind, told: Any, field: str) -> None:
    more = {**told, "message": "as it was"} if isinstance(told, dict) else told
    found = decision(kind, more, id=12)
    with pytest.raises(TerminalError, match=rf"decision 12 of the ledger.*{field}") as caught:
        TYPES[kind].of(found)
    assert caught.value.reason is ErrorReason.DAMAGED_LEDGER
    shown = TYPES[kind].shown(found)
    assert set(shown.damaged) == {field}
    assert shown.to_json() == (more if isinstance(more, dict) else {})
    assert getattr(shown, "message", "") == ("as it was" if isinstance(told, dict) else "")


def request(**more: Any) -> Decision:
    return decision(DecisionKind.RETRAIN_REQUESTED, {}, **{"id": 1, **more})


CLOSED = [
    pytest.param(
        DecisionKind.ROLLED_BACK, {"blocked": "3"}, lambda d: blocking_of([d], cast(TrainingOutcome, None)),
        id="a challenger is blocked",
    ),
    pytest.param(DecisionKind.PROMOTED, {"trained_until": 5}, lambda d: champion_of("m", d, [d]), id="who is champion"),
    pytest.param(
        DecisionKind.RETRAIN_REQUESTED, {"drifted": "missing:x"},
        lambda d: episode.earlier_requests([d], [], "1", {"missing:x"}, AS_OF), id="a drift was asked for",
    ),
    pytest.param(
        DecisionKind.RETRAIN_SUPPRESSED, {"windows": 3}, lambda d: episode.chain([d], {"missing:x"}, AS_OF, timedelta(7)),
        id="a drift comes and goes",
    ),
    pytest.param(
        DecisionKind.RUN_FAILED, {"dag_id": 5}, lambda d: should_wake([request()], [d], None, AS_OF), id="a training is woken"
    ),
    pytest.param(DecisionKind.WATCHED, {"watch": []}, lambda d: realised([d], AS_OF), id="what promotions came to"),
    pytest.param(DecisionKind.WATCH_ENDED, {"watch": "1"}, lambda d: ended([d]), id="a watch has ended"),
    pytest.param(DecisionKind.AWAITING_APPROVAL, {"approval_timeout_s": "1 h"}, until, id="a wait is over"),
    pytest.param(DecisionKind.AWAITING_APPROVAL, {"metrics": 1}, outcome, id="what was approved"),
    pytest.param(DecisionKind.SILENCED, {"until": "later"}, silences.until, id="a silence is over"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "told", "decides"), CLOSED)
def test_decisions_that_rest_on_a_damaged_row_are_not_taken(
    kind: DecisionKind, told: dict[str, Any], decides: Callable[[Decision], object]
) -> None:
    found = decision(kind, told, version="1", id=2, decided_at=AS_OF)
    with pytest.raises(TerminalError, match="cannot be read"):
        decides(found)


def test_a_promotion_of_a_damaged_row_is_in_force_for_nobody_but_the_reader() -> None:
    found = decision(DecisionKind.PROMOTED, {"effective_from": "tomorrow"})
    assert found.effective_shown == AS_OF
    with pytest.raises(TerminalError, match="effective_from"):
        _ = found.effective_from


def test_evidence_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="BatchEvidence, not WatchEvidence"):
        decision(DecisionKind.BATCH_PUBLISHED, WatchEvidence(message="m"))
    with pytest.raises(TypeError, match="promoted has no RollbackEvidence"):
        RollbackEvidence.of(decision(DecisionKind.PROMOTED, {}))


def test_a_field_that_a_type_does_not_have_is_not_written() -> None:
    with pytest.raises(ValidationError, match="colour"):
        BatchEvidence(colour="red")  # type: ignore[call-arg]


def test_joined_evidence_has_the_fields_of_both() -> None:
    one = RetrainEvidence(message="a", rule="m of n").joined(RetrainEvidence(message="b", request=None))
    assert one.to_json() == {"evidence_version": 1, "message": "b", "rule": "m of n", "request": None}


def test_a_challenger_that_waits_keeps_the_whole_outcome_of_its_training() -> None:
    assert set(TrainingOutcome.__dataclass_fields__) <= set(keys(AwaitingEvidence))


def paths(part: type[BaseModel], inside: str = "") -> Iterator[str]:
    """The keys of a type's JSON, those inside dotted."""
    for name, annotation in keys(part).items():
        yield f"{inside}{name}"
        for found in parts(annotation):
            yield from paths(found, f"{inside}{name}.")


KNOWN = {path for told in TYPES.values() for path in paths(told)}
IN_SQL = re.compile(r"evidence\s*->>?\s*'(\w+)'|evidence\s*\?\s*'(\w+)'")
WITH_SQL = [
    *CODE,
    *(
        path
        for folder in ("include", "docs")
        for end in ("sql", "md")
        for path in sorted((REPOSITORY / folder).rglob(f"*.{end}"))
    ),
]


def test_sql_reads_only_fields_that_some_evidence_has() -> None:
    read = {
        (path.relative_to(REPOSITORY).as_posix(), one or other)
        for path in WITH_SQL
        for one, other in IN_SQL.findall(path.read_text(encoding="utf-8"))
    }
    assert len(read) >= 15
    assert {(path, name) for path, name in read if name not in KNOWN} == set()


OF_CONTEXT = {"violations", "window_start", "window_end", "status", "gave_up"}
"""What only the context of a mail has, see `monitoring.alarms.raised`."""

INSIDE = {"f'metrics.{party}'", "rows.judged"}
"""Entries of mappings whose keys are data."""


def in_letters() -> Iterator[tuple[str, str]]:
    """The facts that letters ask a known incident for, by file."""
    for path in sorted((REPOSITORY / "include/evergreen/alerting").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("get", "text", "mapping", "items")
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "known"
            ):
                for argument in node.args:
                    yield (
                        path.name,
                        argument.value if isinstance(argument, ast.Constant) else ast.unparse(argument),
                    )


def test_letters_ask_only_for_facts_that_some_evidence_or_context_has() -> None:
    asked = set(in_letters())
    assert len(asked) > 40
    assert {(file, path) for file, path in asked if path not in KNOWN | OF_CONTEXT | INSIDE} == set()


def by_string(code: str) -> list[int]:
    """The lines at which code reads evidence by the name of a field: `….evidence["x"]`, `….evidence.get("x")`, `evidence["x"]`."""
    found = []
    for node in ast.walk(ast.parse(code)):
        read: ast.expr | None = node.value if isinstance(node, ast.Subscript) else None
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("get", "pop")
        ):
            read = node.func.value
        if (
            isinstance(read, ast.Call)
            and isinstance(read.func, ast.Attribute)
            and read.func.attr == "to_json"
        ):
            read = read.func.value
        name = (
            read.attr if isinstance(read, ast.Attribute) else read.id if isinstance(read, ast.Name) else None
        )
        if name == "evidence":
            found.append(node.lineno)
    return found


def test_nobody_but_the_ledger_reads_evidence_by_string() -> None:
    places = [
        (path.relative_to(REPOSITORY).as_posix(), by_string(path.read_text(encoding="utf-8")))
        for path in CODE
    ]
    assert len(places) > 300
    assert [(path, lines) for path, lines in places if lines] == []


@pytest.mark.parametrize(
    "code",
    [
        'd.evidence["x"]', 'd.evidence.get("x")', 'evidence["x"] = 1', 'told[0].evidence.to_json()["x"]',
        'd.evidence.to_json().get("x")',
    ],
)  # fmt: skip
def test_a_read_by_string_is_found(code: str) -> None:
    assert by_string(code) == [1]
