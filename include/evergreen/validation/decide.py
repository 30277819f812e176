"""One file: read, staged, judged, and decided in one transaction."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

import psycopg2

from evergreen.ledger import Decision
from evergreen.spec import DatasetSpec
from evergreen.validation import batch_rows, engine, suite
from evergreen.validation.batch_failures import REFUSED, lost, no_rows, refused
from evergreen.validation.settle import FileCase, settle
from evergreen.warehouse.batches import bulk, deleted, equal_rows, staging
from evergreen.warehouse.batches.staging import Staged, SuiteFinding
from evergreen.warehouse.connection import Connection
from evergreen.warehouse.files import landed_file, landing
from evergreen.warehouse.files.failure import UnreadableError
from evergreen.warehouse.files.landed_file import LandedFile

log = logging.getLogger(__name__)

STATEMENT_TIMEOUT_S = 3600


def decide(conn: Connection, case: FileCase) -> Decision | None:
    """Decide a file; the caller ends the transaction with which it is decided.

    Args:
        conn: a connection of `ingest.alone` without an open transaction.
        case: the file.

    Returns:
        None where it changed meanwhile: nothing is decided then.
    """
    dataset, file = case.dataset, case.file
    if file.problem is not None:
        return settle(conn, case, None, 0, [SuiteFinding(file.problem)])
    published = _published_at_once(conn, case)
    if published is not None or _changed(dataset, file):
        return published
    staged: Staged | None = None
    findings: list[SuiteFinding] = []
    try:
        staged = staging.load(conn, dataset.delivered, file)
        if not staged.rows:
            findings = [SuiteFinding(lost(0, staged.records) if staged.records else no_rows())]
    except UnreadableError as error:
        conn.rollback()
        findings = [SuiteFinding(error.failure)]
    except OSError as error:
        conn.rollback()
        failed = landed_file.unreadable(file, error)
        if case.asked is None and batch_rows.state_of(conn, dataset, failed) is not None:
            return None
        return decide(conn, replace(case, file=failed, again=case.again and case.asked is not None))
    if _changed(dataset, file):
        conn.rollback()
        return None
    return _judged(conn, case, staged, findings)


def _judged(
    conn: Connection, case: FileCase, staged: Staged | None, findings: list[SuiteFinding]
) -> Decision:
    """Judge the rows of a file, if there are any, and decide it; `findings` say why there are none."""
    dataset, rows = case.dataset, staged.rows if staged else 0
    try:
        if staged is not None and rows:
            findings, good = staging.type_rows(conn, dataset.delivered, staged)
            staged = deleted.set_apart(conn, dataset, equal_rows.settle(conn, dataset, staged))
            # Great Expectations has its own connection and sees committed tables only.
            conn.commit()
            if good:
                findings += [engine.confirm(conn, f) for f in _judge(dataset, staged, case.as_of)]
        return settle(conn, case, staged, rows, findings)
    except psycopg2.Error as error:
        if (error.pgcode or "")[:2] not in REFUSED:
            raise
        conn.rollback()
        staging.sweep(conn, dataset)
        return settle(conn, case, None, rows, [SuiteFinding(refused(dataset, error))])


def _published_at_once(conn: Connection, case: FileCase) -> Decision | None:
    """Publish a file that is beyond doubt; None, and nothing is left of it, where anything is wrong with it.

    What is wrong, and the rows as the file has them, only the long way tells.
    """
    dataset = case.dataset
    staged = bulk.load(conn, dataset.delivered, case.file, timeout_s=STATEMENT_TIMEOUT_S)
    if staged is None:
        return None
    try:
        staged = deleted.set_apart(conn, dataset, equal_rows.settle(conn, dataset, staged))
        conn.commit()
        if not _judge(dataset, staged, case.as_of):
            return settle(conn, case, staged, staged.rows, [])
    except psycopg2.Error as error:
        if (error.pgcode or "")[:2] not in REFUSED:
            raise
        conn.rollback()
    staging.drop(conn, staged.tables)
    conn.commit()
    return None


def _changed(dataset: DatasetSpec, file: LandedFile) -> bool:
    if landing.unchanged(file):
        return False
    log.info("%s: %s changed while it was read; the next run takes it", dataset.name, file.name)
    return True


def _judge(dataset: DatasetSpec, staged: Staged, as_of: datetime) -> list[SuiteFinding]:
    rules = suite.rules(dataset, as_of, staging.table(staged.typed))
    if not staged.living:
        return engine.run_suite(dataset, rules, staged.typed)
    of_every_row, others = suite.split(dataset, rules)
    found = engine.run_suite(dataset, of_every_row, staged.typed)
    return found + (engine.run_suite(dataset, others, staged.living) if staged.living_rows else [])
