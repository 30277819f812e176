"""Everything at once: every model, every dataset and the stack, in a number of queries that does not grow with them."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from typing import Any

from evergreen import ledger, settings
from evergreen.alert_kinds import Severity
from evergreen.alerting.content import history
from evergreen.errors import EvergreenError
from evergreen.health import attention, fleet, online
from evergreen.health.subjects import (
    Attention,
    DatasetHealth,
    Disk,
    LastTraining,
    ModelHealth,
    NewestWindow,
    Online,
    OpenIncident,
    OpenRequests,
    Overview,
    ServedError,
    SilencedUntil,
    StackHealth,
    WaitingChallenger,
    WorstColumn,
)
from evergreen.incidents import held_batches, silences, threads
from evergreen.incidents.recipients import EMAIL, ways
from evergreen.incidents.unsent import unsent
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, fetch

TREND_WINDOWS = 20
MLFLOW_PATIENCE_S = 0.5
# What MLflow keeps its store in without a server; where nothing is named it is a folder, or `databricks`.
WITHOUT_SERVER = ("", "file", "sqlite", "postgresql", "mysql", "mssql", "databricks")
_BATCHES = (
    "SELECT w.dataset, newest.file, newest.state, newest.decided_at, month.* FROM unnest(%(datasets)s::text[]) AS w (dataset)"
    " LEFT JOIN LATERAL (SELECT file, state, decided_at FROM evergreen.batch WHERE dataset = w.dataset"
    " ORDER BY decided_at DESC, id DESC LIMIT 1) AS newest ON true"
    " LEFT JOIN LATERAL (SELECT count(*)::int AS batches, coalesce(sum(rows_new + rows_changed), 0)::bigint AS published_rows,"
    " coalesce(sum(rows_held), 0)::bigint AS held_rows FROM evergreen.batch WHERE dataset = w.dataset"
    " AND decided_at > clock_timestamp() - interval '30 days') AS month ON true"
)
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def overview(
    conn: Connection,
    specs: Specs,
    *,
    models: Iterable[str] | None = None,
    datasets: Iterable[str] | None = None,
    mlflow: bool = True,
) -> Overview:
    """The health of models, datasets and the stack.

    Args:
        conn: the warehouse.
        specs: who answers, what is read; a model that has no good spec is shown from the ledger alone.
        models, datasets: names of those that are shown; default: those of the specs.
        mlflow: ask MLflow whether it answers.
    """
    names = sorted(specs.models if models is None else set(models))
    sets = sorted(specs.datasets if datasets is None else set(datasets))
    incidents = _incidents(conn)
    quiet = {s.subject: SilencedUntil(s.until, s.why, s.by, s.held) for s in silences.active(conn)}
    rows = {row["dataset"]: row["decided_at"] for row in fleet.newest_rows(conn, _read(specs, names, sets))}
    asked = online.of_now(conn, names)
    return Overview(
        models=attention.by_need(_models(conn, specs, names, incidents, quiet, rows, asked)),
        datasets=attention.datasets_by_need(_datasets(conn, specs, sets, incidents, quiet, rows)),
        stack=_stack(conn, specs, names, incidents, mlflow, asked),
    )


def mlflow_answers() -> bool | None:
    """Whether the MLflow server answers within half a second; None where there is none to ask: a folder, a database, Databricks."""
    try:
        server = settings.MLFLOW.read()
    except EvergreenError:
        return False  # an address that cannot be read is none that answers
    if not server.startswith(("http://", "https://")):
        scheme = server.partition("://")[0].partition("+")[0] if "://" in server else ""
        return None if scheme in WITHOUT_SERVER else False
    try:
        with _direct.open(f"{server.rstrip('/')}/health", timeout=MLFLOW_PATIENCE_S):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500  # it asks for a login, or is behind a proxy that knows no such page
    except (OSError, ValueError, HTTPException):
        return False


def _read(specs: Specs, names: Sequence[str], sets: Sequence[str]) -> list[str]:
    read = (name for model in names if model in specs.models for name in specs.models[model].datasets)
    return sorted({*sets, *read})


def _incidents(conn: Connection) -> dict[str, list[tuple[threads.Thread, OpenIncident]]]:
    """The open incidents by subject, the most important first."""
    found: dict[str, list[tuple[threads.Thread, OpenIncident]]] = defaultdict(list)
    for thread in threads.open_ones(conn):
        traits = thread.kind.traits
        one = OpenIncident(
            thread.incident, thread.kind.value, traits.words, thread.since,
            traits.severity is Severity.CRITICAL, "gave_up" in thread.classes, thread.number,
        )  # fmt: skip
        found[thread.subject].append((thread, one))
    for those in found.values():
        those.sort(key=lambda pair: (not pair[1].gave_up, not pair[1].critical, pair[1].since))
    return found


def _models(
    conn: Connection,
    specs: Specs,
    names: Sequence[str],
    incidents: Mapping[str, list[tuple[threads.Thread, OpenIncident]]],
    quiet: Mapping[str, SilencedUntil],
    rows: Mapping[str, datetime],
    asked: Mapping[str, Online],
) -> list[ModelHealth]:
    if not names:
        return []  # who reads a dataset by the login of its steps may not see judgements
    known = {row["model"]: row for row in fleet.champions_and_trainings(conn, names)}
    champions = {name: row["version"] for name, row in known.items() if row["version"] is not None}
    windows = {row["model"]: row for row in fleet.newest_windows(conn, champions, specs.models)}
    worst = _worst(conn, windows)
    trends = _trends(conn, specs, windows)
    requests = _requests(fleet.open_requests(conn, names))
    waiting = {
        one.model: WaitingChallenger(str(one.version), one.decided_at, one.id)
        for one in fleet.waiting_challengers(conn, names)
    }
    told = _Told(specs)
    found = []
    for name in names:
        spec, row, window = specs.models.get(name), known[name], windows.get(name)
        open_ones = tuple(one for _, one in incidents.get(f"model/{name}", ()))
        error, newest = _error(window), _window(window)
        silence = quiet.get(f"model/{name}")
        needs = attention.of_model(name, row["version"], error, newest, requests.get(name), waiting.get(name), open_ones)  # fmt: skip
        level, why = attention.judged([*needs, *attention.of_online(name, asked.get(name))], silence)
        found.append(
            ModelHealth(
                name=name,
                attention=level,
                why=why,
                owner=spec.owner if spec else "",
                told=told.of(f"model/{name}"),
                schedule=spec.schedule if spec else None,
                datasets=spec.datasets if spec else (),
                champion=row["version"],
                since=_effective(row),
                share=fleet.shared(row["share"]),
                error=error,
                trend=tuple(trends.get(name, ())),
                worst=worst.get(name),
                window=newest,
                newest_rows=max((rows[d] for d in spec.datasets if d in rows), default=None) if spec else None,
                training=LastTraining(
                    row["verdict"], row["reason"], row["decided"], row["decided_version"], row["decided_id"]
                ) if row["verdict"] else None,
                requests=requests.get(name),
                waiting=waiting.get(name),
                incidents=open_ones,
                silence=silence,
                online=asked.get(name),
            )
        )  # fmt: skip
    return found


def _effective(row: Mapping[str, Any]) -> datetime | None:
    """From when on a champion is in force; a text of a damaged row is as if it were absent."""
    try:
        found = datetime.fromisoformat(row["effective_from"] or "")
    except ValueError:
        return row["changed"]  # type: ignore[no-any-return]
    return found if found.tzinfo else row["changed"]


def _worst(conn: Connection, windows: Mapping[str, Mapping[str, Any]]) -> dict[str, WorstColumn]:
    judged = {
        row["id"]: name for name, row in windows.items() if row["status"] not in attention.COULD_NOT_TELL
    }
    counts = {row["judgement_id"]: row for row in fleet.judged_columns(conn, list(judged))}
    return {
        judged[row["judgement_id"]]: WorstColumn(
            row["column_name"], row["kind"], row["statistic"], row["value"], row["threshold"], row["violated"],
            counts[row["judgement_id"]]["drifting"], counts[row["judgement_id"]]["columns"],
        )
        for row in fleet.worst_columns(conn, list(judged))
    }  # fmt: skip


def _trends(
    conn: Connection, specs: Specs, windows: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[history.JudgedWindow]]:
    metrics = {
        name: specs.models[name].performance_metric if name in specs.models else row["metric"] or ""
        for name, row in windows.items()
    }
    since = {
        name: row["window_start"] - TREND_WINDOWS * (row["window_end"] - row["window_start"])
        for name, row in windows.items()
    }
    return history.trends(conn, metrics, since) if metrics else {}


def _requests(requests: Iterable[ledger.Unanswered]) -> dict[str, OpenRequests]:
    found: dict[str, OpenRequests] = {}
    for request in sorted(requests, key=lambda request: request.decided_at):
        before = found.get(request.model) or OpenRequests(0, request.decided_at, ())
        reasons = dict.fromkeys((*before.reasons, request.reason))
        found[request.model] = OpenRequests(before.count + 1, before.oldest, tuple(reasons))
    return found


def _error(window: Mapping[str, Any] | None) -> ServedError | None:
    if window is None or window["metric"] is None:
        return None
    found = window["found"]
    return ServedError(
        window["metric"], history.number(found, "value"), history.passable_limit(window["metric"], found), history.number(found, "reference"),
        bool(found.get("violated")) or found.get("state") == "unreadable", window["error_start"], window["error_end"],
    )  # fmt: skip


def _window(window: Mapping[str, Any] | None) -> NewestWindow | None:
    if window is None:
        return None
    details = [str(v["detail"]) for v in window["violations"] if isinstance(v, dict) and v.get("detail")]
    held_back = "; ".join(dict.fromkeys(details)) if window["status"] in attention.COULD_NOT_TELL else ""
    patience = 2 * (window["window_end"] - window["window_start"]) + timedelta(days=1)
    silent = datetime.now(UTC) - window["judged_at"] > patience
    return NewestWindow(
        window["window_start"],
        window["window_end"],
        window["status"],
        window["row_count"],
        held_back,
        window["judged_at"] if silent else None,
    )


class _Told:
    """Who gets the alerts of a subject; alike entries are read once, as reading an address takes a while."""

    def __init__(self, specs: Specs) -> None:
        self._specs = specs
        self._known: dict[str, tuple[str, ...]] = {}

    def of(self, subject: str) -> tuple[str, ...]:
        """The addresses and channels that get every kind of alert."""
        kind, _, name = subject.partition("/")
        spec = (self._specs.models if kind == "model" else self._specs.datasets).get(name)
        entries = repr(spec.alerts) if spec else ""
        if entries not in self._known:
            try:
                found = ways(self._specs, subject, None)
            except EvergreenError:
                found = {}
            self._known[entries] = (*found.get(EMAIL, ()), *(way for way in found if way != EMAIL))
        return self._known[entries]


def _datasets(
    conn: Connection,
    specs: Specs,
    names: Sequence[str],
    incidents: Mapping[str, list[tuple[threads.Thread, OpenIncident]]],
    quiet: Mapping[str, SilencedUntil],
    rows: Mapping[str, datetime],
) -> list[DatasetHealth]:
    spells = [
        thread
        for name in names
        for thread, one in incidents.get(f"dataset/{name}", ())
        if one.kind == "batch_quarantined"
    ]
    held: dict[str, int] = defaultdict(int)
    left = held_batches.of_spells(conn, spells) if spells else {}
    for spell in spells:
        held[spell.subject] += len(left[spell.incident])
    batches = {row["dataset"]: row for row in fetch(conn, _BATCHES, {"datasets": list(names)})}
    told = _Told(specs)
    found = []
    for name in names:
        subject, row = f"dataset/{name}", batches[name]
        open_ones = tuple(one for _, one in incidents.get(subject, ()))
        silence = quiet.get(subject)
        level, why = attention.judged(
            attention.of_dataset(name, held[subject], open_ones, row["decided_at"]), silence
        )
        found.append(
            DatasetHealth(
                name=name,
                attention=level,
                why=why,
                owner=specs.datasets[name].owner if name in specs.datasets else "",
                told=told.of(subject),
                newest_rows=rows.get(name),
                last_file=row["file"],
                last_state=row["state"],
                last_decided=row["decided_at"],
                batches=row["batches"],
                published_rows=row["published_rows"],
                held_rows=row["held_rows"],
                held_batches=held[subject],
                models=tuple(sorted(m.name for m in specs.models.values() if name in m.datasets)),
                incidents=open_ones,
                silence=silence,
            )
        )
    return found


def _stack(
    conn: Connection,
    specs: Specs,
    names: Sequence[str],
    incidents: Mapping[str, list[tuple[threads.Thread, OpenIncident]]],
    mlflow: bool,
    asked: Mapping[str, Online],
) -> StackHealth:
    mails = fleet.mails(conn)
    tried = max((m for m in unsent(conn) if m.attempts and not m.silenced), key=lambda m: m.attempts, default=None) if mails["waiting"] else None  # fmt: skip
    found = StackHealth(
        attention=Attention.FINE,
        why=(),
        mails_waiting=mails["waiting"],
        oldest_mail=mails["oldest"],
        mails_silenced=mails["silenced"],
        mail_error=(tried.error or "") if tried else None,
        disks=tuple(_disks()),
        warehouse_bytes=fleet.warehouse_bytes(conn),
        mlflow=mlflow_answers() if mlflow else None,
        incidents=tuple(one for subject, those in incidents.items() if subject.startswith("fleet/") for _, one in those),
        problems=tuple(map(str, specs.problems)),
        service=online.service(conn, names, max((one.last for one in asked.values()), default=None)),
    )  # fmt: skip
    level, why = attention.judged(attention.of_stack(found), None)
    return replace(found, attention=level, why=why)


def _disks() -> Iterable[Disk]:
    """The disks on which Evergreen writes, each once."""
    seen: set[int] = set()
    for variable in (settings.HOME, settings.LANDING, settings.SNAPSHOTS):
        if "://" in variable.read():
            continue
        path = variable.path()
        try:
            device, usage = path.stat().st_dev, shutil.disk_usage(path)
        except OSError:
            continue
        if device not in seen:
            seen.add(device)
            yield Disk(str(path), usage.free, usage.total)
