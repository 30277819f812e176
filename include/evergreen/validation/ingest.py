"""Ingest: files that landed become rows that can be trusted, or are held back with the reasons.

One file is one batch: staged, judged, and decided in one transaction, with its ledger row and, where it is
held back, the incident of which people are told. A process that dies before that transaction ends has
changed nothing; the next one sweeps its staging tables and starts the file again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path

from evergreen import ledger
from evergreen.errors import ErrorReason, TerminalError
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import DatasetSpec
from evergreen.validation import batch_rows, log_lines
from evergreen.validation.decide import STATEMENT_TIMEOUT_S, decide
from evergreen.validation.outcome import BatchOutcome
from evergreen.validation.settle import FileCase, dedupe_key
from evergreen.warehouse.batches import staging
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.files import landing_store
from evergreen.warehouse.files.failure import Failure
from evergreen.warehouse.files.landed_file import LandedFile
from evergreen.warehouse.storage.bucket import Place

log = logging.getLogger(__name__)

OLDEST_SERVER = 160000  # pg_input_is_valid


def ingest(
    dataset: DatasetSpec,
    as_of: datetime,
    run_id: str,
    *,
    folder: Place | None = None,
    force: bool = False,
    now: datetime | None = None,
) -> list[BatchOutcome]:
    """Decide every file of a dataset that was not decided before.

    Files are taken in the order of their names, each in a transaction of its own. A file whose rows PostgreSQL
    refuses is held back as `unpublishable`, and the next one is taken. Calling it again with the same run_id,
    after a crash or not, gives the same outcomes again and changes nothing. A file that was decided and has not
    changed since is not read again. What is wrong with one file, be it its name, its rights or a disk that fails in
    the middle of it, is a batch of its own, held back as `unreadable`. A file that may be unfinished is left.

    Args:
        dataset: the spec.
        as_of: when the rows count as learnt where the spec names no other time; aware.
        run_id: "dag_id/run_id".
        folder: where the files are; default: the spec's folder under EVERGREEN_LANDING.
        force: judge quarantined files again, for instance after the spec was mended. Published ones stay, and so do those
            that a person withdrew or dismissed: see `evergreen.validation.undo`. One that is held back again is told again.
        now: the time on the clock, against which a file's last change is held (`source.quiet`), aware; default: the
            warehouse's own clock.

    Returns:
        The outcome of every file that this run decided, sorted by file; after them those that are `waiting`.

    Raises:
        TerminalError: the spec and the published table contradict each other, or the folder does not exist.
        TransientError: the warehouse went away, or another ingest of the dataset is still running.
    """
    if as_of.tzinfo is None:
        raise ValueError(f"as_of {as_of} has no time zone")
    source = folder or landing_store.place_of(dataset)
    waiting: list[BatchOutcome] = []
    with alone(dataset) as conn, ExitStack() as stack:
        swept = staging.sweep(conn, dataset)
        decided = batch_rows.stamps(conn, dataset, force=force)
        if folder is None and isinstance(source, Path):
            _make_first(conn, dataset, source)
        conn.commit()
        if swept:
            log.info("%s: swept what a crashed run left in staging: %s", dataset.name, ", ".join(swept))
        files = stack.enter_context(
            closing(landing_store.find(dataset, source, decided, now or _clock(conn)))
        )
        for file in files:
            if file.waiting:
                log.info("%s: %s is left for the next run: %s", dataset.name, file.name, file.waiting)
                waiting.append(_waits(dataset, file, file.waiting))
                continue
            known = batch_rows.state_of(conn, dataset, file)
            if known and known != "quarantined" and force:
                log.warning(
                    "%s: Force judges quarantined files again; %s is %s and stays so. correct__%s judges it again",
                    dataset.name, file.name, known, dataset.name,
                )  # fmt: skip
            if known and (known != "quarantined" or not force):
                log.info("%s: %s was decided before (%s)", dataset.name, file.name, known)
                _remember(conn, dataset, file)
                conn.commit()
                continue
            if known and ledger.find(conn, dedupe_key=dedupe_key(dataset, file, run_id)):
                continue
            conn.commit()
            began = time.monotonic()
            decision = decide(conn, FileCase(dataset, file, as_of, run_id, again=known is not None))
            conn.commit()
            if decision is not None:
                log_lines.file(dataset, decision, time.monotonic() - began)
        outcomes = _decided_by(conn, dataset, run_id) + waiting
    log.info("%s: %s", dataset.name, log_lines.run(outcomes, str(source)))
    return outcomes


def _make_first(conn: Connection, dataset: DatasetSpec, source: Path) -> None:
    """Make the folder of a dataset of which nothing ever landed, so that it can; later, or by another name, it is missed."""
    if dataset.source.folder or source.exists():
        return
    if not fetch(conn, "SELECT 1 FROM evergreen.batch WHERE dataset = %s LIMIT 1", (dataset.name,)):
        source.mkdir(parents=True, exist_ok=True)
        log.info("%s: made its landing folder %s; land files there", dataset.name, source)


def _clock(conn: Connection) -> datetime:
    now: datetime = fetch(conn, "SELECT clock_timestamp() AS now")[0]["now"]
    conn.commit()
    return now


def _waits(dataset: DatasetSpec, file: LandedFile, why: str) -> BatchOutcome:
    failure = Failure(
        "file_complete", None, why, f"source.complete: {dataset.source.complete}",
        remedy="the next run takes it when it is finished",
    )  # fmt: skip
    return BatchOutcome(dataset.name, file.name, file.checksum, "waiting", 0, 0, 0, 0, (failure,), None)


@contextmanager
def alone(dataset: DatasetSpec) -> Iterator[Connection]:
    """A connection that holds the dataset's ingest lock until it ends, across its transactions."""
    with connect(timeout_s=STATEMENT_TIMEOUT_S) as conn:
        if conn.server_version < OLDEST_SERVER:
            raise TerminalError(
                f"the warehouse is PostgreSQL {conn.server_version // 10000}; ingest needs 16 or newer",
                ErrorReason.BAD_SPEC,
            )
        with conn.cursor() as cursor:
            # The server then ends the work of a client that was killed, and frees its locks, within seconds.
            cursor.execute("SET client_connection_check_interval = '2s'")
            cursor.execute(
                "SELECT pg_advisory_lock(hashtext('evergreen.ingest'), hashtext(%s))", (dataset.name,)
            )
        conn.commit()
        yield conn


def _remember(conn: Connection, dataset: DatasetSpec, file: LandedFile) -> None:
    """Note that a file was touched and kept its content."""
    with conn.cursor() as cursor:
        cursor.execute(
            "UPDATE evergreen.batch SET file_size = %s, file_mtime_ns = %s, file_ctime_ns = %s, file_inode = %s"
            " WHERE dataset = %s AND checksum = %s AND file = %s AND replaced_by IS NULL",
            (*batch_rows.remembered(file)[1:], dataset.name, file.checksum, file.name),
        )


def _decided_by(conn: Connection, dataset: DatasetSpec, run_id: str) -> list[BatchOutcome]:
    rows = fetch(
        conn,
        "SELECT DISTINCT ON (b.id) b.dataset, b.file, b.checksum, b.state, b.rows_read, b.rows_new, b.rows_changed,"
        " b.rows_unchanged, b.rows_duplicate, b.rows_held, b.failures, d.id AS decision_id FROM evergreen.decision AS d JOIN evergreen.batch AS b"
        " ON b.id = (d.evidence->>'batch')::bigint"
        " WHERE d.subject = %s AND d.run_id = %s AND d.kind = ANY(%s) ORDER BY b.id, d.id DESC",
        (
            ledger.dataset_subject(dataset.name),
            run_id,
            [DecisionKind.BATCH_PUBLISHED.value, DecisionKind.BATCH_QUARANTINED.value],
        ),
    )
    return sorted((BatchOutcome.from_dict(row) for row in rows), key=lambda o: (o.file, o.checksum))
