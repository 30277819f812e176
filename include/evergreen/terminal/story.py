"""The story of one version, as the ledger has it: who asked for it, what the gate compared, who decided, what came after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from evergreen.alerting.letters.approvals import PROVENANCE
from evergreen.alerting.letters.challenger_tables import COMPARISONS
from evergreen.ledger import Decision, champions, find, model_subject, words
from evergreen.ledger.check_words import PARTIES
from evergreen.ledger.evidence import (
    AwaitingEvidence,
    GateCheck,
    SettledEvidence,
    TrainedEvidence,
    WatchEvidence,
)
from evergreen.ledger.reasons import DecisionKind
from evergreen.links import airflow_run_url, mlflow_version_url
from evergreen.spec import LARGER_IS_BETTER, METRICS, metric_name
from evergreen.warehouse.connection import Connection

_ENDINGS = (DecisionKind.PROMOTED, DecisionKind.REJECTED)
_AFTER = (
    DecisionKind.WATCHED,
    DecisionKind.WATCH_ENDED,
    DecisionKind.CANARY,
    DecisionKind.ROLLED_BACK,
    DecisionKind.PROMOTED,
)


@dataclass(frozen=True)
class Step:
    """Something that was decided: its row, as of when, the reason as a code, in words, the run that did it."""

    decision: int
    as_of: datetime
    kind: str
    reason: str
    words: str
    run_id: str


@dataclass(frozen=True)
class Measured:
    """A metric on the judged rows of challenger, champion and baseline (None: not measured); `decides`: the gate goes by it."""

    metric: str
    words: str
    larger_is_better: bool
    decides: bool
    challenger: float | None
    champion: float | None
    baseline: float | None


@dataclass(frozen=True)
class Checked:
    """A rule of the gate: its name, whether it held, a sentence; `compares`: of the improvement over the champion."""

    check: str
    passed: bool
    words: str
    compares: bool


@dataclass(frozen=True)
class Story:
    """Everything about one version. What is None or empty is not recorded, or there is none.

    Attributes:
        model, version: which.
        state: `champion`, `was_champion`, `waiting`, `rejected`.
        since, until: in office, as of which times.
        trigger: reason code for which it was trained; `why_trained` in words.
        asked_because: what the person said who started the training.
        requests: that it answers, oldest first.
        training_run: `dag_id/run_id`.
        as_of: of the training: rows that had arrived by then.
        rows: numbers of rows by their part.
        trained_until: it saw labels of event times before it.
        refitted: on all rows, the holdout among them.
        chosen: what the validation chose, in a sentence.
        fingerprint: of its snapshot.
        compared_with: the champion of then.
        metrics: the deciding one first.
        checks: of the gate, in its order.
        gate: the gate's reason code.
        verdict: the row by which it waits, became champion or was rejected.
        answered_by, answered_at, comment: of a person who approved or refused.
        note: what else is told of it, in sentences.
        after: what came after it became champion, oldest first.
        superseded_by: the version that took its place before it was decided.
        airflow, mlflow: addresses.
    """

    model: str
    version: str
    state: str
    since: datetime | None
    until: datetime | None
    trigger: str | None
    why_trained: str
    asked_because: str
    requests: tuple[Step, ...]
    training_run: str | None
    as_of: datetime
    rows: dict[str, int]
    trained_until: datetime | None
    refitted: bool
    chosen: str
    fingerprint: str | None
    compared_with: str | None
    metrics: tuple[Measured, ...]
    checks: tuple[Checked, ...]
    gate: str | None
    verdict: Step
    answered_by: str | None
    answered_at: datetime | None
    comment: str | None
    note: tuple[str, ...]
    after: tuple[Step, ...]
    superseded_by: str | None
    airflow: str | None
    mlflow: str | None


def versions(conn: Connection, model: str) -> list[Decision]:
    """The newest row about each version that the gate has judged, the newest version first."""
    found: dict[str, Decision] = {}
    for d in find(conn, model_subject(model), (*_ENDINGS, DecisionKind.AWAITING_APPROVAL)):
        if d.version:
            found.setdefault(d.version, d)
    return list(found.values())


def story(conn: Connection, model: str, version: str) -> Story | None:
    """The story of a version; None where the ledger has none of it."""
    subject = model_subject(model)
    rows = [
        d for d in find(conn, subject, (*_ENDINGS, DecisionKind.AWAITING_APPROVAL)) if d.version == version
    ]
    if not rows:
        return None
    verdict = rows[0]
    waited = next((d for d in rows if d.kind is DecisionKind.AWAITING_APPROVAL), None)
    made = waited or rows[-1]
    known = TrainedEvidence.shown(made)
    settled = SettledEvidence.shown(verdict) if verdict.kind in _ENDINGS else None
    waiting = AwaitingEvidence.shown(waited) if waited else None
    checks = waiting.verdict.checks if waiting and waiting.verdict else settled.checks if settled else ()
    changes = champions(conn, model)
    since, until = _office(changes, version)
    run = waiting.run_id if waiting else settled.training_run if settled else None
    run = run or made.run_id
    requests = _requests(conn, verdict, known)
    compared = waiting.champion_version if waiting else settled.compared_with if settled else None
    return Story(
        model=model,
        version=version,
        state=_state(changes, version, verdict, since),
        since=since,
        until=until,
        trigger=known.trigger,
        why_trained=words.reason(known.trigger),
        asked_because=known.asked_because,
        requests=requests,
        training_run=run,
        as_of=made.as_of,
        rows=dict(known.rows),
        trained_until=known.trained_until,
        refitted=known.refitted,
        chosen=str((known.choice or {}).get("sentence") or ""),
        fingerprint=known.fingerprint,
        compared_with=compared or known.previous_version,
        metrics=_metrics(known),
        checks=tuple(map(_checked, checks)),
        gate=(waiting.verdict.reason if waiting and waiting.verdict else settled.gate if settled and settled.gate else verdict.reason),
        verdict=_step(verdict),
        answered_by=settled.answered_by if settled else None,
        answered_at=settled.answered_at if settled else None,
        comment=settled.comment if settled else None,
        note=tuple(filter(None, (known.note, known.error_limit, settled.champion_below_baseline if settled else ""))),
        after=_after(conn, subject, version, verdict) if verdict.kind is DecisionKind.PROMOTED else (),
        superseded_by=settled.superseded_by if settled else None,
        airflow=airflow_run_url(run),
        mlflow=mlflow_version_url(model, version),
    )  # fmt: skip


def _office(changes: Sequence[Decision], version: str) -> tuple[datetime | None, datetime | None]:
    """Since when and until when a version was champion, the last time; None, None: never."""
    until = None
    for change in changes:
        if change.version == version:
            return change.effective_shown, until
        until = change.effective_shown
    return None, None


def _state(changes: Sequence[Decision], version: str, verdict: Decision, since: datetime | None) -> str:
    if changes and changes[0].version == version:
        return "champion"
    if since is not None:
        return "was_champion"
    return "waiting" if verdict.kind is DecisionKind.AWAITING_APPROVAL else "rejected"


def _requests(conn: Connection, verdict: Decision, known: TrainedEvidence) -> tuple[Step, ...]:
    ids = {*known.requests, *verdict.answers}
    found = find(conn, ids=sorted(ids)) if ids else []
    return tuple(_step(d) for d in reversed(found) if d.kind is DecisionKind.RETRAIN_REQUESTED)


def _step(decision: Decision) -> Step:
    return Step(
        decision.id or 0, decision.as_of, decision.kind.value, decision.reason,
        words.sentence(decision.kind.value, decision.reason, decision.evidence), decision.run_id,
    )  # fmt: skip


def _metrics(known: TrainedEvidence) -> tuple[Measured, ...]:
    every = {name for party in known.metrics.values() for name in party}
    order = [name for names in METRICS.values() for name in names if name in every]
    names = sorted(dict.fromkeys(order), key=lambda name: name != known.metric)
    values = {party: known.metrics.get(party, {}) for party in PARTIES}
    return tuple(
        Measured(
            name, metric_name(name), name in LARGER_IS_BETTER, name == known.metric,
            values["challenger"].get(name), values["champion"].get(name), values["baseline"].get(name),
        )
        for name in names
    )  # fmt: skip


def _checked(check: GateCheck) -> Checked:
    told = check.sentence or (
        f"{words.reason(check.check)}: {words.num(check.value)}, limit {words.num(check.limit)}"
    )
    return Checked(check.check, check.passed, told, check.check in COMPARISONS)


def about_the_model(check: Checked) -> bool:
    """Whether a check says something of the model, or has failed; that the numbers are of this training is only counted."""
    return not check.passed or not (check.check.startswith(PARTIES) and check.check.endswith(PROVENANCE))


def _after(conn: Connection, subject: str, version: str, verdict: Decision) -> tuple[Step, ...]:
    """What came after a promotion, oldest first: looks of the watch, its share of the keys online, and each time that it left or came back."""
    steps: list[Step] = []
    in_office = True
    for d in reversed(find(conn, subject, _AFTER)):
        if (d.id or 0) <= (verdict.id or 0):
            continue
        if d.kind in (DecisionKind.PROMOTED, DecisionKind.ROLLED_BACK):
            if d.version == version:
                steps.append(_named(d, "a rollback made it champion again"))
            elif in_office and d.kind is DecisionKind.ROLLED_BACK:
                steps.append(_named(d, f"rolled back to v{d.version or '?'}"))
            elif in_office:
                steps.append(_named(d, f"v{d.version or '?'} took its place", short=True))
            in_office = d.version == version
        elif d.kind is DecisionKind.CANARY and d.version == version:
            steps.append(_step(d))
        elif isinstance(d.evidence, WatchEvidence) and d.version == version:
            look = d.evidence.watch
            steps.append(
                _named(d, f"look {look.look} of {look.looks}" if look and look.look and look.looks else "")
            )
    return tuple(steps)


def _named(decision: Decision, text: str, *, short: bool = False) -> Step:
    more = "" if short else words.message(decision.reason, decision.evidence)
    said = ": ".join(dict.fromkeys(filter(None, (text, words.reason(decision.reason), more))))
    return Step(decision.id or 0, decision.as_of, decision.kind.value, decision.reason, said, decision.run_id)
