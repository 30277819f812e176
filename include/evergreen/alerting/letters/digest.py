"""The weekly digest: one letter to each set of recipients about their models and datasets, a function of (specs, as-of).

It says what single mails do not: that nothing happened, what was held back and not told, what goes on, what is silenced,
and which mails never went out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from evergreen.alert_kinds import AlertKind
from evergreen.alerting.content import amounts, answered_drifts, online
from evergreen.alerting.content.history import JudgedWindow
from evergreen.alerting.content.letter import KnownIncident, Letter, Picture, Table, facts, numbers
from evergreen.alerting.content.week import (
    LENGTH,
    DatasetWeek,
    Decided,
    ModelWeek,
    dataset_week,
    last_values,
    model_week,
)
from evergreen.alerting.pictures.judged_windows import ESTIMATED
from evergreen.alerting.pictures.trends import drawn, estimates, trends_png
from evergreen.incidents.silences import Silence, active
from evergreen.incidents.threads import Thread
from evergreen.incidents.unsent import Unsent, unsent
from evergreen.ledger import words
from evergreen.ledger.reasons import DecisionKind
from evergreen.links import airflow_dag_url
from evergreen.spec import LARGER_IS_BETTER, metric_name
from evergreen.warehouse.connection import Connection

MOST_ROWS = 40
BELOW = (
    "A champion that a forecast without a model beats does harm: look at its features and labels, change what is trained, or "
    "use the baseline until a challenger beats it."
)
STILL_ON_ITS_WAY = timedelta(hours=1)


def digest(conn: Connection, known: KnownIncident) -> Letter:
    """The letter of an outbox row of the kind `digest`: its context names as-of time, models and datasets."""
    as_of = datetime.fromisoformat(str(known.context.get("as_of") or known.created_at.isoformat()))
    specs = known.specs
    models = [
        model_week(conn, specs.models[name], as_of)
        for name in map(str, known.context.get("models") or ())
        if name in specs.models
    ]
    datasets = [dataset_week(conn, str(name), as_of) for name in known.context.get("datasets") or ()]
    subjects = {f"model/{m.name}" for m in models} | {f"dataset/{d.name}" for d in datasets}
    known.told |= {"as_of", "to", "models", "datasets"}
    waits_for = [w for m in models for w in answered_drifts.waiting(conn, f"model/{m.name}", as_of)]
    silences = [s for s in active(conn, as_of) if s.subject in subjects]
    late = known.created_at - STILL_ON_ITS_WAY
    waits = [m for m in unsent(conn) if m.subject in subjects and not m.silenced]
    mails = [m for m in waits if m.attempts or m.created < late]
    return _letter(as_of, models, datasets, silences, mails, waits_for)


def _letter(
    as_of: datetime,
    models: Sequence[ModelWeek],
    datasets: Sequence[DatasetWeek],
    silences: Sequence[Silence],
    mails: Sequence[Unsent],
    given_up: Sequence[answered_drifts.Waiting],
) -> Letter:
    going_on = [*(t for week in models for t in week.open), *(t for week in datasets for t in week.open)]
    promoted = _times(models, DecisionKind.PROMOTED)
    quarantined = sum(d.quarantined for d in datasets)
    news = [
        *_count(len(going_on), "open incident"),
        *_count(promoted, "new champion"),
        *_count(quarantined, "batch held back", "batches held back"),
        *_count(len(mails), "mail not sent", "mails not sent"),
        *_count(
            len(below := [m for m in models if m.below_baseline]),
            "champion worse than the naive baseline",
            "champions worse than the naive baseline",
        ),
    ]
    told = ", ".join(news) or "all quiet"
    png = trends_png(models)
    models = sorted(models, key=lambda m: (-len(m.open), -m.violations, m.name))
    return Letter(
        headline=f"The week to {as_of:%Y-%m-%d}: {told}",
        summary=f"week to {as_of:%Y-%m-%d}: {told}",
        lead=(_lead(going_on, mails, below),),
        tone="bad" if going_on or mails or below else "good",
        numbers=numbers(
            ("Open incidents", len(going_on)),
            (
                "Windows in violation",
                f"{sum(m.violations for m in models):,} of {sum(m.judged for m in models):,}",
            ),
            ("New champions", promoted),
            ("Batches held back", f"{quarantined:,} of {quarantined + sum(d.published for d in datasets):,}"),
            ("Mails not sent", len(mails)),
        ),
        facts=facts(
            ("From", words.when(as_of - LENGTH)),
            ("To", words.when(as_of)),
            ("Models", len(models)),
            ("Retrainings asked for", _times(models, DecisionKind.RETRAIN_REQUESTED)),
            ("Held back", _times(models, DecisionKind.RETRAIN_SUPPRESSED)),
            ("Rejected challengers", _times(models, DecisionKind.REJECTED)),
            *_online(models),
        ),
        tables=tuple(
            table
            for table in (
                _models(models),
                _open(going_on),
                _decided([(m.name, m.decided) for m in models] + [(d.name, d.decided) for d in datasets]),
                _datasets(datasets),
                _silences(silences),
                _mails(mails),
            )
            if table.rows
        ),
        picture=Picture(
            png,
            "Served error of each model over its newest windows, against its dashed limit: "
            + "; ".join(f"{m.name} {_error(m)}" for m in drawn(models))
            + (f"; rings: {ESTIMATED}" if any(map(estimates, models)) else ""),
        )
        if png
        else None,
        next_title="What to do",
        steps=_steps(given_up, mails, below, models),
        links=(("Airflow", airflow_dag_url("digest")),),
    )


def _lead(going_on: Sequence[Thread], mails: Sequence[Unsent], below: Sequence[ModelWeek]) -> str:
    said = [f"{m.name}: {m.below_baseline}." for m in below[:MOST_ROWS]]
    if going_on:
        said.append(f"{amounts.count(len(going_on), 'incident')} not ended: see below which, and since when.")
    if mails:
        said.append(
            f"{amounts.count(len(mails), 'mail')} could not be sent: the mail server refuses them or does not answer."
        )
    return " ".join(said) or "No incident is open, and every mail went out. Nothing needs to be done."


def _steps(
    given_up: Sequence[answered_drifts.Waiting],
    mails: Sequence[Unsent],
    below: Sequence[ModelWeek],
    models: Sequence[ModelWeek],
) -> tuple[str, ...]:
    steps = [BELOW] if below else []
    steps += [f"The watch on the error of {m.name}: {m.error_limit}." for m in models if m.error_limit][
        :MOST_ROWS
    ]
    if given_up:
        told = "; ".join(f"{w.model}: {w.later or 'a drift is still there'}" for w in given_up[:MOST_ROWS])
        steps.append(
            f"Where retraining did not help twice, a person must look; the mail about it says at what. {told}."
        )
    if mails:
        steps.append(
            "Check the Airflow connection evergreen_smtp (or smtp_default); the DAG mail tries again by itself."
        )
    return tuple(steps)


def _online(models: Sequence[ModelWeek]) -> tuple[tuple[str, str], ...]:
    """What was asked of all models together; nothing where none was asked online."""
    asked = [week.online for week in models if week.online is not None]
    if not asked:
        return ()
    requests, lost = sum(one.requests for one in asked), sum(one.lost for one in asked)
    errors = online.percent(sum(one.errors for one in asked) / requests) if requests else "0%"
    said = f"{amounts.count(requests, 'request')}, {errors} errors"
    return (("Online", said + (f", {amounts.count(lost, 'record')} lost from the log" if lost else "")),)


def _models(models: Sequence[ModelWeek]) -> Table:
    rows: list[tuple[str, ...]] = []
    any_online = any(week.online for week in models[:MOST_ROWS])
    for week in models[:MOST_ROWS]:
        judged = [
            f"{week.judged} judged",
            *([f"{week.violations} in violation{_by_what(week)}"] if week.violations else []),
            *([f"{week.not_judged} could not be judged"] if week.not_judged else []),
            *([f"{week.not_yet} without labels yet"] if week.not_yet else []),
        ]
        champion = f"v{week.champion} since {week.since:%Y-%m-%d}" if week.champion and week.since else "none"
        asked = (online.told(week.online) if week.online else "not asked",) if any_online else ()
        rows.append((week.name, champion, ", ".join(judged), _error(week), *asked))
    return Table(
        "Models",
        ("Model", "Champion", "Windows", "Served error", *(("Online",) if any_online else ())),
        tuple(rows),
        tuple(bool(week.open) for week in models[:MOST_ROWS]),
        note=_more(len(models)),
    )


def _by_what(week: ModelWeek) -> str:
    told = [
        *([f"{week.by_estimate} by an estimate only"] if week.by_estimate else []),
        *([f"{week.by_earlier} of an earlier version"] if week.by_earlier else []),
    ]
    return f" ({', '.join(told)})" if told else ""


def _error(week: ModelWeek) -> str:
    """What was measured last; an estimate stands beside it where it is newer, and is called one."""
    measured, estimated = last_values(week)
    told = [
        f"{words.num(window.value)}{said}"
        + (f", {side}" if (side := amounts.limit(week.metric, window.limit)) else "")
        + (" (by what was learnt it cannot alarm on so few rows)" if window.few_rows else "")
        + _beside_baseline(week.metric, window)
        for window, said in ((measured, ""), (estimated, f" ({ESTIMATED})"))
        if window
    ]
    return f"{metric_name(week.metric)} {'; since then '.join(told)}" if told else words.MISSING


def _beside_baseline(metric: str, window: JudgedWindow) -> str:
    """What the naive baseline got on the same rows, where the served error or its limit is no better than that."""
    if window.baseline is None or window.value is None:
        return ""
    side = -1 if metric in LARGER_IS_BETTER else 1
    bar = f"{words.num(window.baseline)}, which the naive baseline got on the same rows"
    if side * window.value > side * window.baseline:
        return f" (worse than {bar})"
    if window.limit is not None and side * window.limit > side * window.baseline:
        return f" (the limit is beyond {bar})"
    return ""


def _open(going_on: Sequence[Thread]) -> Table:
    rows = tuple(
        (
            t.subject.partition("/")[2],
            _named(t),
            words.when(t.since),
            str(t.mails),
        )
        for t in going_on[:MOST_ROWS]
    )
    return Table("Open incidents", ("Of", "What", "Since", "Mails"), rows, note=_more(len(going_on)))


def _named(thread: Thread) -> str:
    codes = sorted(words.reason(c) for c in thread.classes if c in words.REASONS)
    named = thread.kind.traits.words
    if thread.kind is AlertKind.RUN_FAILED:
        return f"{thread.incident.split(':')[1]} fails"
    return f"{named}: {', '.join(codes)}" if codes else named


def _decided(found: Sequence[tuple[str, Sequence[Decided]]]) -> Table:
    rows = [
        (
            name,
            words.kind(one.kind) + (f" v{one.version}" if one.version else ""),
            words.reason(one.reason),
            str(one.times),
        )
        for name, decided in found
        for one in decided
    ]
    return Table(
        "What was decided", ("Of", "What", "Why", "Times"), tuple(rows[:MOST_ROWS]), note=_more(len(rows))
    )


def _datasets(datasets: Sequence[DatasetWeek]) -> Table:
    rows = tuple(
        (
            d.name,
            f"{d.published} published, {d.quarantined} held back",
            f"{words.num(d.rows_new)} new, {words.num(d.rows_changed)} changed, {words.num(d.rows_held)} held back",
            words.when(d.newest) if d.newest else "none this week",
        )
        for d in datasets[:MOST_ROWS]
    )
    bad = tuple(bool(d.quarantined or d.open) for d in datasets[:MOST_ROWS])
    return Table(
        "Datasets", ("Dataset", "Batches", "Rows", "Newest batch"), rows, bad, note=_more(len(datasets))
    )


def _silences(silences: Sequence[Silence]) -> Table:
    rows = tuple(
        (
            s.subject.partition("/")[2],
            words.when(s.until),
            f"{s.why} ({s.by})" if s.by else s.why,
            str(s.held),
        )
        for s in silences[:MOST_ROWS]
    )
    return Table("Silenced", ("Of", "Until", "Why", "Alerts held"), rows, note=_more(len(silences)))


def _mails(mails: Sequence[Unsent]) -> Table:
    rows = tuple(
        (
            m.subject.partition("/")[2],
            kind.traits.words if (kind := AlertKind.of(m.kind)) else m.kind.replace("_", " "),
            words.when(m.created),
            str(m.attempts),
            m.error or "not tried yet",
        )
        for m in mails[:MOST_ROWS]
    )
    return Table(
        "Mails not sent", ("Of", "What", "Since", "Tries", "Last error"), rows, note=_more(len(mails))
    )


def _times(weeks: Sequence[ModelWeek], kind: DecisionKind) -> int:
    return sum(d.times for week in weeks for d in week.decided if d.kind == kind.value)


def _count(number: int, one: str, many: str | None = None) -> list[str]:
    return [f"{number} {one if number == 1 else many or f'{one}s'}"] if number else []


def _more(number: int) -> str:
    return f"{number - MOST_ROWS} more in the ledger." if number > MOST_ROWS else ""
