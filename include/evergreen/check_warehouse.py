"""What of the specs only the warehouse can tell: whether the feature queries run, and whether windows and limits fit the history."""

from __future__ import annotations

from datetime import UTC, datetime

from evergreen.errors import TerminalError
from evergreen.spec import ModelSpec, Problem, Specs, format_duration, metric_name, worse
from evergreen.warehouse.connection import Connection, connect, fetch

EARLIEST = datetime(1, 1, 2, tzinfo=UTC)


def look(specs: Specs, problems: list[Problem], notes: list[Problem]) -> None:
    """Add the problems and the notes that only the warehouse can tell; those that were found stay where it raises.

    Raises:
        TerminalError, TransientError: the warehouse cannot be used, or does not answer.
    """
    from evergreen.validation.patterns import pattern_problems
    from evergreen.warehouse.features import feature_query

    for dataset in specs.datasets.values():
        with connect() as conn:
            problems += pattern_problems(conn, dataset)
    for model in specs.models.values():
        found = feature_query.check(specs, model)
        problems += found
        if not found:
            history = check_history(specs, model)
            problems += history if history is not None else []
            notes += [] if history is not None else [_no_rows(model)]
            notes += [] if history else check_silent(specs, model)
        with connect() as conn:
            notes += check_alarms(conn, model)


def check_history(specs: Specs, model: ModelSpec) -> list[Problem] | None:
    """Compare training window, holdout and monitoring window with the history in the warehouse.

    Returns:
        The windows that are longer than the history, or the query that fails on its rows; None where nothing has
        landed yet.
    """
    from psycopg2 import sql

    from evergreen.warehouse.features import feature_query, views

    query = sql.SQL("SELECT min(_time) AS first, max(_time) AS last FROM ({}) AS _rows").format(
        feature_query.feature_query(model, None, None, ordered=False)
    )
    try:
        with views.reading(specs, model, feature_query.LATEST) as reader:
            found = reader.rows(query)[0]
    except TerminalError as error:
        return [Problem(f"models/{model.name}.sql", "", "", str(error).removeprefix("the feature query "))]
    file = f"models/{model.name}.yaml"
    if found["first"] is None:
        return None
    history = found["last"] - found["first"]
    problems = []
    for field, length in (
        ("training.holdout", model.training.holdout),
        ("monitoring.window", model.monitoring.window),
    ):
        if length >= history:
            problems.append(
                Problem(
                    file,
                    field,
                    format_duration(length),
                    f"is longer than the history of {history.days} days; shorten it",
                )
            )
    training = model.training
    needed = training.holdout + training.folds * training.fold_length
    if training.validates and training.holdout < history <= needed:
        problems.append(
            Problem(
                file,
                "training.folds",
                str(training.folds),
                f"holdout and folds together take {format_duration(needed)}, the history has {history.days} days; take "
                "fewer or shorter ones",
            )
        )
    window = training.window
    # Of several windows, one that is too long for now does as well as all the history.
    if training.windows is None and window != "all" and window > history:
        problems.append(
            Problem(
                file,
                "training.window",
                format_duration(window),
                f"is longer than the history of {history.days} days; write all, or shorten it",
            )
        )
    return problems


def check_silent(specs: Specs, model: ModelSpec) -> list[Problem]:
    """The settings with which a part of the watch could never say anything, by the rows and labels in the warehouse."""
    from evergreen.monitoring.windows import reads, unobservable
    from evergreen.reference.calendar import window_of
    from evergreen.warehouse.features import feature_query, views

    length, file = model.monitoring.window, f"models/{model.name}.yaml"
    with views.reading(specs, model, feature_query.LATEST) as reader:
        found = reads.counted(reader, specs, model, feature_query.LATEST, EARLIEST, EARLIEST)
    if found.newest is None:
        return []
    newest = window_of(found.newest, length).start
    due = [
        counts
        for start, counts in found.windows.items()
        if start < newest and start + length + model.label.delay <= newest
    ]
    return [Problem(file, one.field, one.value, one.text) for one in unobservable.silent(model, due)]


def _no_rows(model: ModelSpec) -> Problem:
    names = ", ".join(f"ingest__{name}" for name in model.datasets)
    return Problem(f"models/{model.name}.yaml", "datasets", "", f"no row has landed yet; run {names}")


def check_alarms(conn: Connection, model: ModelSpec) -> list[Problem]:
    """What is known of the watch on the champion's served error: that it can hardly alarm on so few rows, or at once."""
    from evergreen.ledger import champions, promotion
    from evergreen.ledger.evidence import SettledEvidence

    if not fetch(conn, "SELECT to_regclass('evergreen.decision') IS NOT NULL AS there")[0]["there"]:
        return []
    changes = champions(conn, model.name)
    made = promotion(changes[0].version, changes) if changes else None
    training = SettledEvidence.shown(made) if made else SettledEvidence()
    told = training.error_limit
    file = f"models/{model.name}.yaml"
    found = [Problem(file, "monitoring.performance", "", f"the champion's watch: {told}")] if told else []
    metric, limit = model.performance_metric, model.monitoring.performance.limit
    holdout = training.holdout.get(metric)
    if (
        limit is not None
        and holdout is not None
        and worse(metric, holdout, limit)
        and "monitoring.performance.limit" not in told
    ):
        text = (
            f"is better than the {metric_name(metric)} of the champion's holdout, {holdout:.4g}: it alarms from the first window on, unless "
            "served rows are easier"
        )
        found.append(Problem(file, "monitoring.performance.limit", f"{limit:g}", text))
    return found
