"""One model: its past as a picture and as rows, its champions, what was asked for and what held it back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from evergreen.alerting.content import history
from evergreen.alerting.content.history import JudgedWindow
from evergreen.health.overview import overview
from evergreen.health.subjects import ModelHealth, Service
from evergreen.health.told import LedgerRow, in_short
from evergreen.incidents import threads
from evergreen.ledger import Decision, champions, find, model_subject, promotion, words
from evergreen.ledger.evidence import SettledEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.ledger.succession import succession
from evergreen.monitoring.windows.judgement import not_judged, of_limit
from evergreen.spec import Specs, metric_name
from evergreen.warehouse.connection import Connection, fetch

HEAT_WINDOWS = 26
MOST_REQUESTS = 30
MOST_INCIDENTS = 20
MARKED = (
    DecisionKind.PROMOTED, DecisionKind.ROLLED_BACK, DecisionKind.RETRAIN_REQUESTED, DecisionKind.REJECTED, DecisionKind.AWAITING_APPROVAL,
    DecisionKind.CANARY,
)  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """A decision on the time line: when it came into force, its kind as a code, in words and a sentence, the version, its id."""

    time: datetime
    kind: str
    words: str
    version: str | None
    decision: int


@dataclass(frozen=True)
class HeatCell:
    """A column in a window: its worst value as a share of the limit (None: could not be computed), whether it is a violation, and what."""

    ratio: float | None
    violated: bool
    words: str


@dataclass(frozen=True)
class HeatMap:
    """Drift of the newest windows, oldest first: columns by how far they ever were beyond their limits, at the end those that are only
    shown, and a cell for each that was measured."""

    windows: tuple[tuple[datetime, datetime, str], ...]
    columns: tuple[str, ...]
    cells: dict[tuple[str, int], HeatCell]


@dataclass(frozen=True)
class ChampionRow:
    """A time in office.

    Attributes:
        version: of the champion.
        since, until: as-of times; None: the champion of now.
        why: how it came into office, in words.
        holdout: the gate's metric on the holdout of its training, in words.
        decision: id of the row.
        returnable: a rollback can return to it.
        previous: it is the one to which a rollback returns where none is named.
    """

    version: str
    since: datetime
    until: datetime | None
    why: str
    holdout: str
    decision: int
    returnable: bool
    previous: bool


@dataclass(frozen=True)
class RequestRow:
    """A retraining that was asked for, or held back: the row, and what became of it in words (empty: nothing yet)."""

    row: LedgerRow
    held_back: bool
    ending: str


@dataclass(frozen=True)
class IncidentRow:
    """An incident in short: id of its first mail, what it is, when it began and ended (None: it goes on), how many mails it has."""

    id: int
    words: str
    since: datetime
    ended: datetime | None
    mails: int


@dataclass(frozen=True)
class ModelDetails:
    """All that the page of a model shows beside its row of the overview.

    Attributes:
        health: its row.
        metric: the watched one, as a code; `metric_words` as people write it.
        windows: every judged window, oldest first.
        marks: decisions on the time line, oldest first.
        alarms: incidents that began, as time line marks: when and what.
        heat: drift of the newest windows.
        champions: times in office, newest first.
        requests: newest first.
        incidents: newest first.
        service: the prediction service, as of the stack.
    """

    health: ModelHealth
    metric: str
    metric_words: str
    windows: tuple[JudgedWindow, ...]
    marks: tuple[Mark, ...]
    alarms: tuple[tuple[datetime, str], ...]
    heat: HeatMap
    champions: tuple[ChampionRow, ...]
    requests: tuple[RequestRow, ...]
    incidents: tuple[IncidentRow, ...]
    service: Service | None = None


def details(conn: Connection, specs: Specs, name: str) -> ModelDetails:
    """Everything about one model; of a name that nobody knows everything is empty."""
    shown = overview(conn, specs, models=[name], datasets=(), mlflow=False)
    health = shown.models[0]
    spec = specs.models.get(name)
    metric = spec.performance_metric if spec else health.error.metric if health.error else ""
    found = incidents(conn, model_subject(name))
    return ModelDetails(
        health=health,
        metric=metric,
        metric_words=metric_name(metric),
        windows=tuple(history.windows(conn, name, metric)),
        marks=tuple(
            Mark(
                d.effective_shown,
                d.kind.value,
                words.sentence(d.kind.value, d.reason, d.evidence),
                d.version,
                d.id or 0,
            )
            for d in sorted(
                find(conn, model_subject(name), MARKED), key=lambda d: (d.effective_shown, d.id or 0)
            )
        ),
        alarms=tuple((row.since, row.words) for row in reversed(found)),
        heat=heat_map(conn, name),
        champions=tuple(_champions(conn, name)),
        requests=tuple(_requests(conn, name)),
        incidents=tuple(found[:MOST_INCIDENTS]),
        service=shown.stack.service,
    )


def heat_map(conn: Connection, model: str, most: int = HEAT_WINDOWS) -> HeatMap:
    """Drift of the newest windows of a model, each by its newest judgement, whichever version was champion."""
    judged = fetch(
        conn,
        "SELECT * FROM (SELECT DISTINCT ON (window_start) id, window_start, window_end, status FROM evergreen.window_judgement"
        " WHERE model = %s ORDER BY window_start DESC, as_of DESC, revision DESC, id DESC LIMIT %s) AS newest ORDER BY window_start",
        (model, most),
    )
    place = {row["id"]: index for index, row in enumerate(judged)}
    cells: dict[tuple[str, int], HeatCell] = {}
    worst: dict[str, tuple[bool, bool, float]] = {}
    for row in fetch(
        conn,
        "SELECT judgement_id, column_name, kind, statistic, value, threshold, violated, detail FROM evergreen.window_column"
        " WHERE judgement_id = ANY(%s)",
        (list(place),),
    ):
        key = row["column_name"], place[row["judgement_id"]]
        value, limit = row["value"], row["threshold"]
        far = of_limit(value, limit)
        ratio = None if value is None else far
        said = f"{words.statistic_name(row['kind'], row['statistic'])} {words.num(value) if value is not None else 'could not be computed'}, limit {words.num(limit)}"
        before = cells.get(key)
        if before is None or (row["violated"], ratio or 0.0) > (before.violated, before.ratio or 0.0):
            cells[key] = HeatCell(
                ratio, row["violated"], said + (f" ({row['detail']})" if row["detail"] else "")
            )
        rank = bool(not_judged(row["detail"])), not row["violated"], -(ratio or 0.0)
        worst[row["column_name"]] = min(worst.get(row["column_name"], rank), rank)
    columns = sorted(worst, key=lambda name: (worst[name], name))
    return HeatMap(
        tuple((row["window_start"], row["window_end"], row["status"]) for row in judged),
        tuple(columns),
        cells,
    )


def incidents(conn: Connection, subject: str) -> list[IncidentRow]:
    """The incidents of a subject, newest first, those that ended among them."""
    return [
        IncidentRow(t.number, t.kind.traits.words, t.since, t.ended, t.mails)
        for t in threads.every(conn, subject)
    ]


def _champions(conn: Connection, name: str) -> list[ChampionRow]:
    changes = champions(conn, name)
    if not changes:
        return []
    line = succession(changes)
    now, before = changes[0].version, line[-2] if len(line) > 1 else None
    rows, until, seen = [], None, set[str]()
    for change in changes:
        version = change.version or "?"
        made = promotion(change.version, changes)
        rows.append(
            ChampionRow(
                version=version,
                since=change.effective_shown,
                until=until,
                why=words.sentence(change.kind.value, change.reason, change.evidence),
                holdout=_holdout(made),
                decision=change.id or 0,
                returnable=version not in (now, "?") and version not in seen,
                previous=version == before and version not in seen,
            )
        )
        until = change.effective_shown
        seen.add(version)
    return rows


def _holdout(made: Decision | None) -> str:
    if made is None:
        return ""
    evidence = SettledEvidence.shown(made)
    metric = evidence.metric
    if metric is None or metric not in evidence.holdout:
        return ""
    return f"{metric_name(metric)} {words.num(evidence.holdout[metric])}"


def _requests(conn: Connection, name: str) -> list[RequestRow]:
    kinds = (DecisionKind.RETRAIN_REQUESTED, DecisionKind.RETRAIN_SUPPRESSED)
    asked = find(conn, model_subject(name), kinds, limit=MOST_REQUESTS)
    if not asked:
        return []
    answers: dict[int, int] = {}
    for row in fetch(
        conn, "SELECT id, answers FROM evergreen.decision WHERE subject = %s AND answers && %s::bigint[] ORDER BY id DESC",
        (model_subject(name), [d.id for d in asked]),
    ):  # fmt: skip
        for request in row["answers"]:
            answers[request] = row["id"]
    found = {d.id: d for d in find(conn, ids=list(set(answers.values())))} if answers else {}
    return [
        RequestRow(
            in_short(d),
            d.kind is DecisionKind.RETRAIN_SUPPRESSED,
            _ending(d, found.get(answers.get(d.id or 0, 0))),
        )
        for d in asked
    ]


def _ending(asked: Decision, answer: Decision | None) -> str:
    if asked.kind is DecisionKind.RETRAIN_SUPPRESSED:
        return "held back"
    if answer is None:
        return "open"
    version = f" v{answer.version}" if answer.version else ""
    return f"{words.kind(answer.kind.value)}{version}: {words.reason(answer.reason)}"
