"""Ingest: files that landed become rows that can be trusted, or are held back with the reasons.

One file is one batch: staged, judged, and decided in one transaction, with its ledger row and, where it is
held back, the incident of which people are told. A process that dies before that transaction ends has
changed nothing; the next one sweeps its staging tables and starts the file again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import psycopg2

from evergreen import ledger
from evergreen.errors import ErrorReason, TerminalError
from evergreen.incidents import corrections, quarantines
from evergreen.ledger import Decision
from evergreen.ledger.evidence import BatchEvidence, FailedExpectation
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import DatasetSpec
from evergreen.spec.problem import printable
from evergreen.validation import batch_rows, engine, suite
from evergreen.validation.outcome import BatchOutcome, JudgeAgain, RowCounts, State
from evergreen.warehouse.batches import bulk, correction, deleted, equal_rows, examples, publish, staging
from evergreen.warehouse.batches import held as held_rows
from evergreen.warehouse.batches.correction import Corrected
from evergreen.warehouse.batches.staging import Staged, SuiteFinding
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.files import landing, landing_store
from evergreen.warehouse.files.failure import Failure, UnreadableError
from evergreen.warehouse.files.landing import LandedFile
from evergreen.warehouse.files.lines import lines_of
from evergreen.warehouse.storage.bucket import Place

log = logging.getLogger(__name__)

STATEMENT_TIMEOUT_S = 3600
KEPT_ROWS = 10_000
EVIDENCE_FAILURES = 50
MOST_TOLD = 5
OLDEST_SERVER = 160000  # pg_input_is_valid
# SQLSTATE classes in which PostgreSQL refuses what a row holds: data exception, constraint, program limit.
REFUSED = ("22", "23", "54")
STORABLE = "rows_storable"


@dataclass(frozen=True)
class BatchVerdict:
    """What is to be done with a batch, and why: the reason code of its ledger row.

    `whole` says in words why all of it is held back and not its bad rows alone; empty where it is not.
    """

    state: State
    reason: str
    whole: tuple[str, ...] = ()


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
            log.warning("%s: swept what a crashed run left in staging: %s", dataset.name, ", ".join(swept))
        files = stack.enter_context(
            closing(landing_store.find(dataset, source, decided, now or _clock(conn)))
        )
        for file in files:
            if file.waiting:
                log.warning("%s: %s is left for the next run: %s", dataset.name, file.name, file.waiting)
                waiting.append(_waits(dataset, file, file.waiting))
                continue
            known = _known(conn, dataset, file)
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
            if known and ledger.find(conn, dedupe_key=_dedupe_key(dataset, file, run_id)):
                continue
            conn.commit()
            decide(conn, dataset, file, as_of, run_id, again=known is not None)
            conn.commit()
        return _decided_by(conn, dataset, run_id) + waiting


def _make_first(conn: Connection, dataset: DatasetSpec, source: Path) -> None:
    """Make the folder of a dataset of which nothing ever landed, so that it can; later, or by another name, it is missed."""
    if dataset.source.folder or source.exists():
        return
    if not fetch(conn, "SELECT 1 FROM evergreen.batch WHERE dataset = %s LIMIT 1", (dataset.name,)):
        source.mkdir(parents=True, exist_ok=True)
        log.warning("%s: made its landing folder %s; land files there", dataset.name, source)


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


def _known(conn: Connection, dataset: DatasetSpec, file: LandedFile) -> str | None:
    rows = fetch(
        conn,
        "SELECT state FROM evergreen.batch WHERE dataset = %s AND checksum = %s AND replaced_by IS NULL",
        (dataset.name, file.checksum),
    )
    return rows[0]["state"] if rows else None


def _remember(conn: Connection, dataset: DatasetSpec, file: LandedFile) -> None:
    """Note that a file was touched and kept its content."""
    with conn.cursor() as cursor:
        cursor.execute(
            "UPDATE evergreen.batch SET file_size = %s, file_mtime_ns = %s, file_ctime_ns = %s, file_inode = %s"
            " WHERE dataset = %s AND checksum = %s AND file = %s AND replaced_by IS NULL",
            (*batch_rows.remembered(file)[1:], dataset.name, file.checksum, file.name),
        )


def _dedupe_key(dataset: DatasetSpec, file: LandedFile, again_by: str | None = None) -> str:
    key = f"batch:{dataset.name}:{file.checksum}"
    return f"{key}:again:{again_by}" if again_by else key


def decide(
    conn: Connection,
    dataset: DatasetSpec,
    file: LandedFile,
    as_of: datetime,
    run_id: str,
    *,
    again: bool,
    asked: JudgeAgain | None = None,
) -> Decision | None:
    """Decide a file; the caller ends the transaction with which it is decided.

    Args:
        conn: a connection of `alone` without an open transaction.
        dataset: the spec.
        file: the file.
        as_of: the run's.
        run_id: the run's.
        again: it was decided before.
        asked: by whom and why; a file that is then held back is an error, and nothing is decided.

    Returns:
        None where it changed meanwhile: nothing is decided then.
    """
    if file.problem is not None:
        return _settle(
            conn, dataset, file, None, 0, [SuiteFinding(file.problem)], as_of, run_id, again, asked
        )
    published = _published_at_once(conn, dataset, file, as_of, run_id, again, asked)
    if published is not None or _changed(dataset, file):
        return published
    staged: Staged | None = None
    try:
        staged = staging.load(conn, dataset.delivered, file)
        findings = (
            [] if staged.rows else [SuiteFinding(_lost(0, staged.records) if staged.records else _no_rows())]
        )
    except UnreadableError as error:
        conn.rollback()
        findings = [SuiteFinding(error.failure)]
    except OSError as error:
        conn.rollback()
        failed = landing.unreadable(file, error)
        if asked is None and _known(conn, dataset, failed) is not None:
            return None
        return decide(conn, dataset, failed, as_of, run_id, again=again and asked is not None, asked=asked)
    if _changed(dataset, file):
        conn.rollback()
        return None
    rows = staged.rows if staged else 0
    try:
        if staged is not None and rows:
            findings, good = staging.type_rows(conn, dataset.delivered, staged)
            staged = deleted.set_apart(conn, dataset, equal_rows.settle(conn, dataset, staged))
            # Great Expectations has its own connection and sees committed tables only.
            conn.commit()
            if good:
                findings += [engine.confirm(conn, f) for f in _judge(dataset, staged, as_of)]
        return _settle(conn, dataset, file, staged, rows, findings, as_of, run_id, again, asked)
    except psycopg2.Error as error:
        if (error.pgcode or "")[:2] not in REFUSED:
            raise
        conn.rollback()
        staging.sweep(conn, dataset)
        refused = [SuiteFinding(_refused(dataset, error))]
        return _settle(conn, dataset, file, None, rows, refused, as_of, run_id, again, asked)


def _published_at_once(
    conn: Connection,
    dataset: DatasetSpec,
    file: LandedFile,
    as_of: datetime,
    run_id: str,
    again: bool,
    asked: JudgeAgain | None,
) -> Decision | None:
    """Publish a file that is beyond doubt; None, and nothing is left of it, where anything is wrong with it.

    What is wrong, and the rows as the file has them, only the long way tells.
    """
    staged = bulk.load(conn, dataset.delivered, file, timeout_s=STATEMENT_TIMEOUT_S)
    if staged is None:
        return None
    try:
        staged = deleted.set_apart(conn, dataset, equal_rows.settle(conn, dataset, staged))
        conn.commit()
        if not _judge(dataset, staged, as_of):
            return _settle(conn, dataset, file, staged, staged.rows, [], as_of, run_id, again, asked)
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


def _no_rows() -> Failure:
    return Failure(
        "file_not_empty", None, "a header and no rows", "at least one row",
        remedy="ask the source for the rows; a file with rows is a new batch",
    )  # fmt: skip


def _lost(found: int, records: int) -> Failure:
    return Failure(
        "rows_counted", None, f"{found} rows to publish or hold", f"{records} records, as the file was counted",
        remedy="something between the file and the tables dropped or added rows (a trigger or rule on the schema "
        "staging?); find it, then run with force",
    )  # fmt: skip


def _refused(dataset: DatasetSpec, error: psycopg2.Error) -> Failure:
    # Detail and context of the message quote rows.
    text = " ".join((error.diag.message_primary or type(error).__name__).split())[:200]
    if "row is too big" in text:
        remedy = (
            "a row has to fit into a page of 8 kB, in which every number and every time takes 8 bytes: about 1,000 of them; "
            "put the columns into two datasets with the same key and join them in the feature query"
        )
    elif "index" in text:
        remedy = f"shorten the key ({', '.join(dataset.key)}): one over 2.7 kB cannot be indexed; then deliver the file again"
    else:
        remedy = "shorten or mend the value, then deliver the file again"
    return Failure(
        STORABLE, None, f"PostgreSQL refuses a row: {text} (SQLSTATE {error.pgcode})", "rows that the warehouse can hold",
        remedy=remedy,
    )  # fmt: skip


def judge_batch(dataset: DatasetSpec, rows: int, held: int, findings: list[SuiteFinding]) -> BatchVerdict:
    """Decide about a batch; pure.

    Args:
        dataset: the spec: `quarantine` and `max_bad_rows`.
        rows: how many rows the file has; 0 if it could not be read.
        held: how many of them fail by themselves.
        findings: everything that failed; one without a query of rows is about the batch as a whole.
    """
    if any(f.failure.expectation == STORABLE for f in findings):
        return BatchVerdict("quarantined", "unpublishable")
    if not rows:
        return BatchVerdict("quarantined", "unreadable")
    if not findings:
        return BatchVerdict("published", "passed")
    whole = _whole(dataset, rows, held, findings)
    if not whole:
        return BatchVerdict("published", "rows_held")
    by_row = dataset.quarantine == "rows" and all(f.by_row for f in findings)
    return BatchVerdict("quarantined", "too_many_bad_rows" if by_row else "failed_expectations", whole)


def _whole(dataset: DatasetSpec, rows: int, held: int, findings: list[SuiteFinding]) -> tuple[str, ...]:
    if dataset.quarantine == "batch":
        return ("the spec says `quarantine: batch`, so one failed expectation holds the whole file",)
    about = tuple(
        dict.fromkeys(
            f"{f.failure.column or 'file'}: {f.failure.expectation} cannot hold back single rows: "
            f"{f.failure.whole or 'it is about the file as a whole'}"
            for f in findings
            if not f.by_row
        )
    )
    if about:
        return about
    if held > dataset.max_bad_rows * rows or held >= rows:
        return (
            f"{held} of {rows} rows fail ({held / rows:.1%}), and max_bad_rows allows {dataset.max_bad_rows:.4g}",
        )
    return ()


def _settle(
    conn: Connection,
    dataset: DatasetSpec,
    file: LandedFile,
    staged: Staged | None,
    rows: int,
    findings: list[SuiteFinding],
    as_of: datetime,
    run_id: str,
    again: bool,
    asked: JudgeAgain | None,
) -> Decision:
    """The one transaction: rows, quarantine, batch, ledger, incident, and the end of the staging tables."""
    publish.prepare(conn, dataset)
    findings = _with_rows(conn, dataset, file, staged, findings)
    by_row = dataset.quarantine == "rows" and all(f.by_row for f in findings)
    held = publish.mark_held(conn, findings, limit=None if by_row else KEPT_ROWS)
    duplicates = staged.duplicates if staged else 0
    verdict = judge_batch(dataset, rows - duplicates, held, findings)
    if staged and verdict.state == "published":
        found = publish.to_publish(conn, staged) + held + duplicates
        if found != staged.records:
            findings = [*findings, SuiteFinding(_lost(found, staged.records))]
            verdict = BatchVerdict("quarantined", "unreadable")
    if asked and verdict.state != "published":
        raise _still_held(dataset, file, verdict, findings)
    place = batch_rows.make_way(conn, asked.batch) if asked else None
    batch = batch_rows.decided(conn, dataset, file, as_of, verdict.state, place)
    counts, fixed, gone = RowCounts(rows, held=rows), Corrected(), 0
    if staged and held:
        publish.quarantine(
            conn, dataset, staged, batch, limit=None if verdict.state == "published" else KEPT_ROWS
        )
    if staged and verdict.state == "published":
        gone = deleted.published(conn, dataset, staged)
        if asked:
            batch_rows.replaced(conn, asked.batch, batch)
            publish.release(conn, dataset, asked.batch)
            held_rows.forget(conn, asked.batch)
            fixed = correction.settle(conn, dataset, asked.batch, as_of, reading=(staged, batch))
            counts = RowCounts(
                rows, fixed.new, fixed.changed, fixed.unchanged + fixed.replaced, duplicates, held
            )
        else:
            done = publish.upsert(conn, dataset, staged, batch, as_of)
            counts = RowCounts(rows, done.new, done.changed, done.unchanged, duplicates, held)
    held = counts.held
    if held or verdict.state == "quarantined":
        held_rows.note(conn, dataset, staged, batch, whole=verdict.state == "quarantined")
    else:
        held_rows.forget(conn, batch)
    if staged:
        staging.drop(conn, staged.tables)
    numbers = counts.columns()
    failures = [f.failure.to_dict() for f in findings]
    with conn.cursor() as cursor:
        cursor.execute(
            "UPDATE evergreen.batch SET rows_read = %s, rows_new = %s, rows_changed = %s, rows_unchanged = %s,"
            " rows_duplicate = %s, rows_held = %s, failures = %s WHERE id = %s",
            (*numbers.values(), json.dumps(failures), batch),
        )
    absent, ignored = (staged.absent, staged.ignored) if staged else ((), ())
    evidence = BatchEvidence(
        file=file.name,
        path=file.where,
        checksum=file.checksum,
        batch=batch,
        rows_read=counts.read,
        rows_new=counts.new,
        rows_changed=counts.changed,
        rows_unchanged=counts.unchanged,
        rows_duplicate=counts.duplicate,
        rows_held=counts.held,
        quarantine=dataset.quarantine,
        failures=tuple(FailedExpectation(**failure) for failure in failures[:EVIDENCE_FAILURES]),
        failures_in_all=len(failures),
        held_whole=tuple(verdict.whole[:EVIDENCE_FAILURES]),
        columns_absent=tuple(absent),
        columns_ignored=tuple(printable(name) for name in ignored[:EVIDENCE_FAILURES]),
        max_bad_rows=dataset.max_bad_rows if verdict.reason == "too_many_bad_rows" else None,
        rows_deleted=gone,
    )
    published = verdict.state == "published"
    key = _dedupe_key(dataset, file, run_id if again else None)
    kind, reason = (
        DecisionKind.BATCH_PUBLISHED if published else DecisionKind.BATCH_QUARANTINED,
        verdict.reason,
    )
    if asked:
        key, kind, reason = (
            f"correction:{dataset.name}:{run_id}",
            DecisionKind.BATCH_CORRECTED,
            "judged_again",
        )
        message = corrections.judged_again(file.name, fixed, held)
        evidence = evidence.joined(corrections.evidence(fixed, asked.why, asked.by)).joined(
            BatchEvidence(verdict=verdict.reason, replaces=asked.batch, message=message)
        )
    decision = ledger.append(
        conn,
        Decision(
            as_of=as_of,
            subject=ledger.dataset_subject(dataset.name),
            kind=kind,
            reason=reason,
            run_id=run_id,
            dedupe_key=key,
            evidence=evidence,
            answers=_answers(conn, dataset, file) if again else (),
        ),
    )
    if not published or held:  # a good batch with a few bad rows is told too: they are missing from now on
        quarantines.held(
            conn, decision, {"dataset": dataset.name, "reason": verdict.reason, **evidence.to_json()}
        )
    elif not asked:
        quarantines.published(conn, decision, landing.folder_of(file))
    log.info("%s: %s %s (%s): %s", dataset.name, file.name, verdict.state, verdict.reason, numbers)
    return decision


def _still_held(
    dataset: DatasetSpec, file: LandedFile, verdict: BatchVerdict, findings: list[SuiteFinding]
) -> TerminalError:
    """The error of a file that a person wants to be judged again and that would be held back."""
    told = [
        f"{f.failure.column or 'file'}: {f.failure.expectation}: {f.failure.observed}, expected {f.failure.limit} "
        f"({f.failure.remedy})"
        for f in findings[:MOST_TOLD]
    ]
    more = len(findings) - len(told)
    return TerminalError(
        f"{file.name} would be held back ({verdict.reason}), so nothing was changed: {'; '.join(told)}"
        + (f"; and {more} more" if more > 0 else "")
        + f". Mend datasets/{dataset.name}.yaml and judge it again",
        ErrorReason.BAD_BATCH,
    )


def _with_rows(
    conn: Connection,
    dataset: DatasetSpec,
    file: LandedFile,
    staged: Staged | None,
    findings: list[SuiteFinding],
) -> list[SuiteFinding]:
    """The findings with a row for each different value that failed, by number, key and line."""
    if staged is None:
        return findings
    found = [examples.with_examples(conn, dataset, staged, finding) for finding in findings]
    begins = lines_of(dataset, file, {row.row for finding in found for row in finding.failure.rows})
    return [
        replace(f, failure=replace(
            f.failure, rows=tuple(replace(row, line=begins.get(row.row)) for row in f.failure.rows)
        ))
        for f in found
    ]  # fmt: skip


def _answers(conn: Connection, dataset: DatasetSpec, file: LandedFile) -> tuple[int, ...]:
    found = fetch(
        conn,
        "SELECT id FROM evergreen.decision WHERE subject = %s AND kind = %s AND evidence->>'checksum' = %s ORDER BY id",
        (ledger.dataset_subject(dataset.name), DecisionKind.BATCH_QUARANTINED.value, file.checksum),
    )
    return tuple(row["id"] for row in found)


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
