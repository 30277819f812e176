"""The pages of a window that was judged some time ago, drawn from the sample that was kept.

The numbers are the judgement's, the sample is the one that was measured, and the reference is that of the version that it
was judged under: so the pages say what the monitor found then, whatever has happened to model, spec and data since.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from evergreen import registry
from evergreen.errors import ErrorReason, TerminalError
from evergreen.links import experiment_of, mlflow_report_url
from evergreen.monitoring.windows import judgement as store
from evergreen.monitoring.windows import kept_sample, report
from evergreen.monitoring.windows.live_windows import REFERENCE_PATH
from evergreen.reference.reference import Reference
from evergreen.spec import METRICS
from evergreen.warehouse.connection import Connection, connect, fetch

MOST_NAMED = 8


@dataclass(frozen=True)
class Drawn:
    """What was drawn: files on this machine, and their addresses in MLflow (None: it has no address for a browser)."""

    window: str
    files: tuple[Path, ...]
    links: tuple[str | None, ...]


def draw(model: str, when: datetime, folder: Path, version: str | None = None) -> Drawn:
    """Draw the pages of a judged window, into a folder and beside its sample in MLflow.

    Args:
        model: its name.
        when: any moment of the window, aware.
        folder: where files go; it is made if it is not there.
        version: the judgement under this version; None: under whichever judged it last.

    Raises:
        TerminalError: no such model or window was judged, it could not be judged, or its sample or reference is gone.
        TransientError: the warehouse or MLflow does not answer.
    """
    with connect() as conn:
        found = store.at(conn, model, when, version=version)
        if found is None:
            raise TerminalError(_unknown(conn, model, when, version), ErrorReason.BAD_SPEC)
    if found.held_back or not found.report or not found.mlflow_run:
        why = "; ".join(v.detail for v in found.violations if v.detail) or "no file was kept"
        raise TerminalError(
            f"{model}, {found.window}: this window is {found.status.value} and was not measured, so there is nothing to draw: "
            f"{why}",
            ErrorReason.NO_ROWS,
        )

    at = found.report.rpartition("/")[0]
    try:
        sample = kept_sample.read(registry.artifact_folder(found.mlflow_run, f"{at}/{kept_sample.FILE}"))
    except TerminalError as error:
        raise TerminalError(
            _lost(found.report, found.mlflow_run, error), ErrorReason.REGISTRY_MISMATCH
        ) from error
    reference = Reference.read(registry.artifact_folder(found.mlflow_run, REFERENCE_PATH))
    binary = set(METRICS["binary"]) & set(found.metrics)
    target = folder / model / at.rpartition("/")[2]
    target.mkdir(parents=True, exist_ok=True)
    report.write(found, "binary" if binary else "regression", sample.rows, reference, target, sample.slack)
    files = tuple(
        target / name for name in (report.DRIFT_FILE, report.PERFORMANCE_FILE) if (target / name).exists()
    )
    for file in files:
        registry.log_files(found.mlflow_run, file, at)
    experiment = experiment_of(found.mlflow_run)
    links = tuple(
        mlflow_report_url(found.mlflow_run, f"{at}/{file.name}", experiment) if experiment else None
        for file in files
    )
    return Drawn(f"{model} version {found.version}, {found.window}, {found.status.value}", files, links)


def _lost(report: str, run: str, error: Exception) -> str:
    if report.endswith(".html"):
        return (
            f"an earlier release judged this window: it kept no sample, but drew {report} in the MLflow run {run}; open "
            "it there"
        )
    return f"the window's sample cannot be had, so it cannot be drawn: {error}"


def _unknown(conn: Connection, model: str, when: datetime, version: str | None) -> str:
    """Why there is no such window, with what there is."""
    judged = fetch(
        conn,
        "SELECT DISTINCT window_start AS start FROM evergreen.window_judgement WHERE model = %s"
        " AND (%s IS NULL OR version = %s) ORDER BY 1",
        (model, version, version),
    )
    if not judged:
        names = fetch(conn, "SELECT DISTINCT model FROM evergreen.window_judgement ORDER BY 1")
        known = ", ".join(row["model"] for row in names) or "none yet"
        of = f" under version {version}" if version else ""
        return f"no window of a model {model!r} was judged{of}; models with judged windows: {known}"
    near = sorted(judged, key=lambda row: abs(row["start"] - when))[:MOST_NAMED]
    starts = ", ".join(
        f"{row['start'].astimezone(UTC):%Y-%m-%dT%H:%M}" for row in sorted(near, key=lambda r: r["start"])
    )
    return (
        f"no judged window of {model} holds {when:%Y-%m-%d %H:%M} UTC; the nearest of {len(judged)} begin at {starts}. A "
        "window that is not over, or in which nothing was due, is not judged"
    )
