"""The one transaction with which a file is decided: its rows, its batch, its ledger row, and what people are told."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from evergreen import ledger
from evergreen.errors import ErrorReason, TerminalError
from evergreen.incidents import corrections, quarantines
from evergreen.ledger import Decision
from evergreen.ledger.evidence import BatchEvidence, FailedExpectation
from evergreen.ledger.reasons import BatchReason, CorrectionReason, DecisionKind
from evergreen.spec import DatasetSpec
from evergreen.spec.problem import printable
from evergreen.validation import batch_rows
from evergreen.validation.batch_failures import lost
from evergreen.validation.outcome import JudgeAgain, RowCounts
from evergreen.validation.verdict import BatchVerdict, judge_batch
from evergreen.warehouse.batches import correction, deleted, examples, publish, staging
from evergreen.warehouse.batches import held as held_rows
from evergreen.warehouse.batches.correction import Corrected
from evergreen.warehouse.batches.staging import Staged, SuiteFinding
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.files import landing
from evergreen.warehouse.files.landed_file import LandedFile
from evergreen.warehouse.files.lines import lines_of

KEPT_ROWS = 10_000
EVIDENCE_FAILURES = 50
MOST_TOLD = 5


@dataclass(frozen=True)
class FileCase:
    """A file that is to be decided.

    Attributes:
        dataset: the spec.
        file: the file.
        as_of: the run's.
        run_id: the run's, "dag_id/run_id".
        again: it was decided before.
        asked: by whom and why, where a person wants it judged again; a file that is then held back is an error, and
            nothing is decided.
    """

    dataset: DatasetSpec
    file: LandedFile
    as_of: datetime
    run_id: str
    again: bool = False
    asked: JudgeAgain | None = None


@dataclass(frozen=True)
class _Applied:
    """What the tables have of a batch: counts of its rows, what a correction changed, how many rows it deleted."""

    counts: RowCounts
    corrected: Corrected
    deleted: int


def dedupe_key(dataset: DatasetSpec, file: LandedFile, again_by: str | None = None) -> str:
    """Names the decision on a file; `again_by` is the run that judges it again."""
    key = f"batch:{dataset.name}:{file.checksum}"
    return f"{key}:again:{again_by}" if again_by else key


def settle(
    conn: Connection, case: FileCase, staged: Staged | None, rows: int, findings: list[SuiteFinding]
) -> Decision:
    """Decide a file; the caller ends the transaction.

    Args:
        conn: a connection of `ingest.alone`.
        case: the file.
        staged: its rows; None where they could not be read.
        rows: how many it has; 0 likewise.
        findings: everything that failed.

    Raises:
        TerminalError: a person asked for it, and it would be held back.
    """
    dataset, file = case.dataset, case.file
    publish.prepare(conn, dataset)
    findings = _with_rows(conn, case, staged, findings)
    by_row = dataset.quarantine == "rows" and all(f.by_row for f in findings)
    held = publish.mark_held(conn, findings, limit=None if by_row else KEPT_ROWS)
    duplicates = staged.duplicates if staged else 0
    verdict = judge_batch(dataset, rows - duplicates, held, findings)
    if staged and verdict.state == "published":
        found = publish.to_publish(conn, staged) + held + duplicates
        if found != staged.records:
            findings = [*findings, SuiteFinding(lost(found, staged.records))]
            verdict = BatchVerdict("quarantined", BatchReason.UNREADABLE)
    if case.asked and verdict.state != "published":
        raise _still_held(case, verdict, findings)
    place = batch_rows.make_way(conn, case.asked.batch) if case.asked else None
    batch = batch_rows.decided(conn, dataset, file, case.as_of, verdict.state, place)
    applied = _apply(conn, case, staged, batch, verdict, RowCounts(rows, duplicate=duplicates, held=held))
    failures = [f.failure.to_dict() for f in findings]
    with conn.cursor() as cursor:
        cursor.execute(
            "UPDATE evergreen.batch SET rows_read = %s, rows_new = %s, rows_changed = %s, rows_unchanged = %s,"
            " rows_duplicate = %s, rows_held = %s, failures = %s WHERE id = %s",
            (*applied.counts.columns().values(), json.dumps(failures), batch),
        )
    evidence = _evidence(case, staged, batch, verdict, applied, failures)
    owed = _decision(conn, case, verdict, applied, evidence)
    decision = ledger.append(conn, owed)
    if verdict.state != "published" or applied.counts.held:
        # A good batch with a few bad rows is told too: they are missing from now on.
        quarantines.held(
            conn,
            decision,
            {"dataset": dataset.name, "reason": verdict.reason.value, **owed.evidence.to_json()},
        )
    elif not case.asked:
        quarantines.published(conn, decision, landing.folder_of(file))
    return decision


def _apply(
    conn: Connection,
    case: FileCase,
    staged: Staged | None,
    batch: int,
    verdict: BatchVerdict,
    found: RowCounts,
) -> _Applied:
    """Publish the rows, or hold them back; `found` has how many there are, are double, and fail by themselves."""
    published = verdict.state == "published"
    if staged and found.held:
        publish.quarantine(conn, case.dataset, staged, batch, limit=None if published else KEPT_ROWS)
    if staged and published:
        applied = _published(conn, case, staged, batch, found)
    else:
        applied = _Applied(RowCounts(found.read, held=found.read), Corrected(), 0)
    if applied.counts.held or verdict.state == "quarantined":
        held_rows.note(conn, case.dataset, staged, batch, whole=verdict.state == "quarantined")
    else:
        held_rows.forget(conn, batch)
    if staged:
        staging.drop(conn, staged.tables)
    return applied


def _published(conn: Connection, case: FileCase, staged: Staged, batch: int, found: RowCounts) -> _Applied:
    gone = deleted.published(conn, case.dataset, staged)
    if not case.asked:
        done = publish.upsert(conn, case.dataset, staged, batch, case.as_of)
        counts = replace(found, new=done.new, changed=done.changed, unchanged=done.unchanged)
        return _Applied(counts, Corrected(), gone)
    batch_rows.replaced(conn, case.asked.batch, batch)
    publish.release(conn, case.dataset, case.asked.batch)
    held_rows.forget(conn, case.asked.batch)
    fixed = correction.settle(conn, case.dataset, case.asked.batch, case.as_of, reading=(staged, batch))
    unchanged = fixed.unchanged + fixed.replaced
    return _Applied(replace(found, new=fixed.new, changed=fixed.changed, unchanged=unchanged), fixed, gone)


def _evidence(
    case: FileCase,
    staged: Staged | None,
    batch: int,
    verdict: BatchVerdict,
    applied: _Applied,
    failures: list[dict[str, Any]],
) -> BatchEvidence:
    dataset, file, counts = case.dataset, case.file, applied.counts
    absent, ignored = (staged.absent, staged.ignored) if staged else ((), ())
    return BatchEvidence(
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
        max_bad_rows=dataset.max_bad_rows if verdict.reason is BatchReason.TOO_MANY_BAD_ROWS else None,
        rows_deleted=applied.deleted,
    )


def _decision(
    conn: Connection, case: FileCase, verdict: BatchVerdict, applied: _Applied, evidence: BatchEvidence
) -> Decision:
    """The row of the ledger, to be appended."""
    dataset, file, asked = case.dataset, case.file, case.asked
    key = dedupe_key(dataset, file, case.run_id if case.again else None)
    published = verdict.state == "published"
    kind = DecisionKind.BATCH_PUBLISHED if published else DecisionKind.BATCH_QUARANTINED
    reason = verdict.reason.value
    if asked:
        key = f"correction:{dataset.name}:{case.run_id}"
        kind, reason = DecisionKind.BATCH_CORRECTED, CorrectionReason.JUDGED_AGAIN.value
        message = corrections.judged_again(file.name, applied.corrected, applied.counts.held)
        evidence = evidence.joined(corrections.evidence(applied.corrected, asked.why, asked.by)).joined(
            BatchEvidence(verdict=verdict.reason.value, replaces=asked.batch, message=message)
        )
    return Decision(
        as_of=case.as_of,
        subject=ledger.dataset_subject(dataset.name),
        kind=kind,
        reason=reason,
        run_id=case.run_id,
        dedupe_key=key,
        evidence=evidence,
        answers=_answers(conn, case) if case.again else (),
    )


def _still_held(case: FileCase, verdict: BatchVerdict, findings: list[SuiteFinding]) -> TerminalError:
    """The error of a file that a person wants to be judged again and that would be held back."""
    told = [
        f"{f.failure.column or 'file'}: {f.failure.expectation}: {f.failure.observed}, expected {f.failure.limit} "
        f"({f.failure.remedy})"
        for f in findings[:MOST_TOLD]
    ]
    more = len(findings) - len(told)
    return TerminalError(
        f"{case.file.name} would be held back ({verdict.reason.value}), so nothing was changed: {'; '.join(told)}"
        + (f"; and {more} more" if more > 0 else "")
        + f". Mend datasets/{case.dataset.name}.yaml and judge it again",
        ErrorReason.BAD_BATCH,
    )


def _with_rows(
    conn: Connection, case: FileCase, staged: Staged | None, findings: list[SuiteFinding]
) -> list[SuiteFinding]:
    """The findings with a row for each different value that failed, by number, key and line."""
    if staged is None:
        return findings
    found = [examples.with_examples(conn, case.dataset, staged, finding) for finding in findings]
    begins = lines_of(case.dataset, case.file, {row.row for finding in found for row in finding.failure.rows})
    return [
        replace(f, failure=replace(
            f.failure, rows=tuple(replace(row, line=begins.get(row.row)) for row in f.failure.rows)
        ))
        for f in found
    ]  # fmt: skip


def _answers(conn: Connection, case: FileCase) -> tuple[int, ...]:
    found = fetch(
        conn,
        "SELECT id FROM evergreen.decision WHERE subject = %s AND kind = %s AND evidence->>'checksum' = %s ORDER BY id",
        (ledger.dataset_subject(case.dataset.name), DecisionKind.BATCH_QUARANTINED.value, case.file.checksum),
    )
    return tuple(row["id"] for row in found)
