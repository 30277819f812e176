"""What a person can take back of what ingest decided: always from now on, so that the past stays what was known.

A file is judged again under today's spec, a batch is withdrawn, the keys of a file are deleted, a batch that was held back
is dismissed. Each is one transaction with its row of the ledger, which names the person and the reason; it waits for an
ingest of the dataset that is running, and the other way round. Asked for a second time it changes nothing.
"""

from __future__ import annotations

import difflib
import glob
import logging
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePath
from typing import Any, Literal, get_args

from evergreen import ledger, settings
from evergreen.errors import ErrorReason, EvergreenError, TerminalError, TransientError
from evergreen.incidents import corrections
from evergreen.ledger import Decision
from evergreen.ledger.evidence import BatchEvidence
from evergreen.ledger.reasons import CorrectionReason, DecisionKind
from evergreen.spec import DatasetSpec
from evergreen.validation import batch_rows
from evergreen.validation.decide import decide
from evergreen.validation.ingest import alone
from evergreen.validation.outcome import JudgeAgain
from evergreen.validation.settle import FileCase
from evergreen.warehouse.batches import correction, publish, staging
from evergreen.warehouse.batches import held as held_rows
from evergreen.warehouse.batches.correction import Corrected
from evergreen.warehouse.batches.staging import Staged
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.files import landing_store
from evergreen.warehouse.files.failure import Failure, UnreadableError
from evergreen.warehouse.files.landed_file import LandedFile
from evergreen.warehouse.storage.bucket import Place, place

log = logging.getLogger(__name__)

Action = Literal["judge_again", "withdraw", "delete_keys", "dismiss"]
ACTIONS: tuple[Action, ...] = get_args(Action)
MOST_NAMED = 20


@dataclass(frozen=True)
class Undone:
    """What came of a correction: in words, and its row of the ledger (None: there was nothing to do, and nothing is written)."""

    message: str
    decision: Decision | None = None


@dataclass(frozen=True)
class _Order:
    """What was asked for; `source` is where the dataset's files land, `keys_in` below what files of keys are."""

    dataset: DatasetSpec
    file: str
    as_of: datetime
    run_id: str
    why: str
    by: str
    source: Place
    keys_in: Place

    @property
    def key(self) -> str:
        """The dedupe key of its decision."""
        return f"correction:{self.dataset.name}:{self.run_id}"


def correct(  # noqa: PLR0913  # the fields of the DAG's form, by name
    dataset: DatasetSpec,
    action: Action,
    file: str,
    as_of: datetime,
    run_id: str,
    *,
    why: str,
    by: str,
    folder: Place | None = None,
    dry_run: bool = False,
) -> Undone:
    """Correct what was decided about a file.

    - `judge_again`: a batch, whatever became of it, is judged under today's spec, from its file, which must be there as it
      was. Its rows become those of the new reading; what later batches said of the same keys stays.
    - `withdraw`: what a batch brought is taken back. A key that an earlier batch had, too, has that batch's values again,
      another one is gone. Of a file of keys: its keys are back.
    - `delete_keys`: the keys in a file are gone. A key that lands again later is a new version of its row.
    - `dismiss`: what is held back of a batch stays so, and nobody is reminded of it.

    Args:
        dataset: the spec.
        action: which.
        file: the batch, by the name of its file or by its id in evergreen.batch; for `delete_keys` a file in one of the
            dataset's forms that has its key columns, as a path below EVERGREEN_LANDING.
        as_of: from when on it is known, aware; not before what ingest has decided already.
        run_id: "dag_id/run_id"; the same one corrects once.
        why: the person's reason.
        by: who it is.
        folder: where the files are, those with keys, too; default: see `ingest` and above.
        dry_run: say what would change, and change nothing.

    Raises:
        TerminalError: no reason; no such batch, or several; a file that is gone, or has other content, or would be held
            back; keys that cannot be read. Nothing is changed then.
        TransientError: the warehouse went away, or an ingest of the dataset is still running.
    """
    why = " ".join(why.split())
    if as_of.tzinfo is None:
        raise ValueError(f"as_of {as_of} has no time zone")
    if action not in ACTIONS:
        raise TerminalError(
            f"{action!r} is no correction; there are: {', '.join(ACTIONS)}", ErrorReason.BAD_SPEC
        )
    if not why:
        raise TerminalError("a correction needs a reason; fill the field Reason", ErrorReason.BAD_SPEC)
    source, keys_in = folder or landing_store.place_of(dataset), folder or place(settings.LANDING)
    order = _Order(dataset, file.strip(), as_of, run_id, why, by or "not recorded", source, keys_in)
    with alone(dataset) as conn:
        if done := ledger.find(conn, dedupe_key=order.key):
            return Undone(BatchEvidence.of(done[0]).message, done[0])
        _require_newest(conn, order)
        _sweep(conn, dataset)
        try:
            undone = _DO[action](conn, order)
        except EvergreenError:
            conn.rollback()
            _sweep(conn, dataset)
            raise
        if dry_run:
            conn.rollback()
            _sweep(conn, dataset)
            undone = Undone(f"dry run, nothing is changed: {undone.message}")
        conn.commit()
    log.info("%s: %s", dataset.name, undone.message)
    return undone


def _sweep(conn: Connection, dataset: DatasetSpec) -> None:
    staging.sweep(conn, dataset)
    conn.commit()


def _require_newest(conn: Connection, order: _Order) -> None:
    newest = fetch(
        conn,
        "SELECT greatest((SELECT max(as_of) FROM evergreen.batch WHERE dataset = %s), (SELECT max(as_of) FROM"
        " evergreen.decision WHERE subject = %s AND kind = ANY(%s))) AS as_of",
        (
            order.dataset.name,
            ledger.dataset_subject(order.dataset.name),
            [kind.value for kind in corrections.WHAT],
        ),
    )[0]["as_of"]
    if newest is not None and newest > order.as_of:
        raise TerminalError(
            f"{order.dataset.name}: a correction is known from its as-of time on, and {order.as_of.isoformat()} is before "
            f"{newest.isoformat()}, as of which a file was decided; choose a later as-of time",
            ErrorReason.BAD_SPEC,
        )


def _judge_again(conn: Connection, order: _Order) -> Undone:
    dataset = order.dataset
    batch = _batch(conn, order, ("published", "quarantined", "withdrawn", "dismissed"))
    with landing_store.named(dataset, order.source, batch["file"]) as file:
        if file is None:
            raise TerminalError(
                f"{batch['file']} is not in {order.source} as a file of {dataset.name}, so it cannot be judged again; put it back "
                f"as it was (SHA-256 {batch['checksum'][:12]}…), or withdraw the batch and land another file",
                ErrorReason.BAD_BATCH,
            )
        if file.checksum != batch["checksum"]:
            raise TerminalError(
                f"{batch['file']} has another content than batch {batch['id']} (SHA-256 {file.checksum[:12]}… and "
                f"{batch['checksum'][:12]}…), so it is another batch; put the file back as it was, or withdraw the batch",
                ErrorReason.BAD_BATCH,
            )
        asked = JudgeAgain(batch["id"], order.why, order.by)
        decision = decide(conn, FileCase(dataset, file, order.as_of, order.run_id, again=True, asked=asked))
        if decision is None:
            raise TransientError(
                f"{batch['file']} changed while it was read; nothing was changed, try it again",
                ErrorReason.BUSY,
            )
    corrections.owe_mail(conn, decision, order.source)
    return Undone(BatchEvidence.of(decision).message, decision)


def _withdraw(conn: Connection, order: _Order) -> Undone:
    publish.prepare(conn, order.dataset)
    batch = _batch(conn, order, ("published", "keys_deleted"), done=("withdrawn",))
    if batch["state"] == "withdrawn":
        return Undone(f"{batch['file']} (batch {batch['id']}) is withdrawn already; nothing to do")
    batch_rows.set_state(conn, batch["id"], "withdrawn")
    publish.release(conn, order.dataset, batch["id"])
    held_rows.forget(conn, batch["id"])
    done = correction.settle(
        conn, order.dataset, batch["id"], order.as_of, of_keys=batch["state"] == "keys_deleted"
    )
    others = tuple(_with_equal_rows(conn, order.dataset, batch["id"]))
    if others:
        log.warning(
            "%s: rows that these later files brought and that were equal to those of %s went with it; judge them again: %s",
            order.dataset.name, batch["file"], ", ".join(others),
        )  # fmt: skip
    return _write(
        conn,
        order,
        DecisionKind.BATCH_WITHDRAWN,
        batch,
        corrections.withdrawn(batch["file"], done),
        done,
        BatchEvidence(later_with_equal_rows=others),
    )


def _delete_keys(conn: Connection, order: _Order) -> Undone:
    publish.prepare(conn, order.dataset)
    file, keys = _keys(conn, order)
    # The keys may come again, and the same file once more.
    unique = replace(file, checksum=f"{file.checksum}/{order.run_id}")
    batch = batch_rows.keys_deleted(conn, order.dataset, unique, order.as_of, keys.rows)
    there = correction.mark_deleted(conn, order.dataset, keys, batch, order.as_of)
    done = correction.settle(conn, order.dataset, batch, order.as_of, of_keys=True)
    staging.drop(conn, keys.tables)
    if not there:
        conn.rollback()
        return Undone(
            f"none of the {keys.rows} keys of {file.name} is in {order.dataset.name}; nothing to do"
        )
    row = {"id": batch, "file": file.name, "checksum": file.checksum}
    message = corrections.keys_deleted(file.name, keys.rows, done)
    return _write(
        conn, order, DecisionKind.KEYS_DELETED, row, message, done, BatchEvidence(rows_read=keys.rows)
    )


def _dismiss(conn: Connection, order: _Order) -> Undone:
    batch = _batch(conn, order, ("quarantined", "published"), done=("dismissed",), held=True)
    told = "SELECT 1 FROM evergreen.decision WHERE subject = %s AND kind = %s AND (evidence->>'batch')::bigint = %s"
    subject = ledger.dataset_subject(order.dataset.name)
    if batch["state"] == "dismissed" or fetch(
        conn, told, (subject, DecisionKind.BATCH_DISMISSED.value, batch["id"])
    ):
        return Undone(f"{batch['file']} (batch {batch['id']}) is dismissed already; nothing to do")
    if batch["state"] == "quarantined":
        batch_rows.set_state(conn, batch["id"], "dismissed")
    held_rows.forget(conn, batch["id"])
    what = f"its {batch['rows_held']} rows stay" if batch["rows_held"] else "it stays"
    message = f"{batch['file']} was dismissed: {what} held back"
    return _write(conn, order, DecisionKind.BATCH_DISMISSED, batch, message, Corrected(), BatchEvidence())


_DO = {"judge_again": _judge_again, "withdraw": _withdraw, "delete_keys": _delete_keys, "dismiss": _dismiss}
_REASONS = {
    DecisionKind.BATCH_WITHDRAWN: CorrectionReason.WITHDRAWN,
    DecisionKind.KEYS_DELETED: CorrectionReason.KEYS_DELETED,
    DecisionKind.BATCH_DISMISSED: CorrectionReason.DISMISSED,
}


def _write(
    conn: Connection,
    order: _Order,
    kind: DecisionKind,
    batch: dict[str, Any],
    message: str,
    done: Corrected,
    more: BatchEvidence,
) -> Undone:
    """The row of the ledger, and what people are told."""
    named = BatchEvidence(message=message, file=batch["file"], batch=batch["id"], checksum=batch["checksum"])
    evidence = named.joined(corrections.evidence(done, order.why, order.by)).joined(more)
    decision = ledger.append(
        conn,
        Decision(
            as_of=order.as_of, subject=ledger.dataset_subject(order.dataset.name), kind=kind, reason=_REASONS[kind].value,
            run_id=order.run_id, dedupe_key=order.key, evidence=evidence,
        ),
    )  # fmt: skip
    corrections.owe_mail(conn, decision, order.source)
    return Undone(message, decision)


def _batch(
    conn: Connection,
    order: _Order,
    states: tuple[str, ...],
    *,
    done: tuple[str, ...] = (),
    held: bool = False,
) -> dict[str, Any]:
    """The batch that a person names; of several with one name the one that the correction can be about.

    Args:
        conn: the warehouse.
        order: names it.
        states: in which it can be corrected.
        done: in which it is as it is asked for.
        held: something of it must be held back.

    Raises:
        TerminalError: there is none, or the name fits several.
    """
    rows = fetch(
        conn,
        "SELECT id, file, checksum, state, rows_held, as_of, replaced_by FROM evergreen.batch WHERE dataset = %s ORDER BY id",
        (order.dataset.name,),
    )
    named = [r for r in rows if order.file in (r["file"], str(r["id"]))]
    fits = [
        r
        for r in named
        if r["state"] in states
        and not r["replaced_by"]
        and (r["rows_held"] or r["state"] == "quarantined" or not held)
    ]
    # A file that was withdrawn or dismissed is meant only where no other one of its name is.
    fits = [r for r in fits if r["state"] not in ("withdrawn", "dismissed")] or fits
    fits = fits or [r for r in named if r["state"] in done and not r["replaced_by"]][-1:]
    if len(fits) == 1:
        return fits[0]
    if fits:
        told = "; ".join(
            f"{r['id']}: {r['state']} as of {r['as_of'].isoformat()}" for r in fits[-MOST_NAMED:]
        )
        raise TerminalError(
            f"{order.file} names {len(fits)} batches of {order.dataset.name}; give the number of one ({told})",
            ErrorReason.BAD_BATCH,
        )
    if named:
        last = named[-1]
        how = (
            f"was judged again as batch {last['replaced_by']}"
            if last["replaced_by"]
            else f"is {last['state']}"
        )
        more = " and nothing of it is held back" if held and not last["rows_held"] else ""
        raise TerminalError(
            f"{last['file']} (batch {last['id']}) {how}{more}; this correction is for batches that are {' or '.join(states)}",
            ErrorReason.BAD_BATCH,
        )
    near = difflib.get_close_matches(order.file, {r["file"] for r in rows}, n=3, cutoff=0.5)
    raise TerminalError(
        f"{order.dataset.name} has no batch {order.file!r}"
        + (f"; did you mean {' or '.join(near)}?" if near else "")
        + f". Its {len(rows)} batches are in the table evergreen.batch, by id and file",
        ErrorReason.BAD_BATCH,
    )


def _with_equal_rows(conn: Connection, dataset: DatasetSpec, batch: int) -> list[str]:
    """The files of later batches that brought rows as they were: which rows these are is not kept."""
    rows = fetch(
        conn,
        "SELECT o.file FROM evergreen.batch AS b JOIN evergreen.batch AS o ON o.dataset = b.dataset"
        " AND coalesce(o.place, o.id) > coalesce(b.place, b.id) WHERE b.id = %s AND b.dataset = %s AND o.state = 'published'"
        " AND coalesce(o.rows_unchanged, 1) > 0 ORDER BY coalesce(o.place, o.id) LIMIT %s",
        (batch, dataset.name, MOST_NAMED),
    )
    return [row["file"] for row in rows]


def _keys(conn: Connection, order: _Order) -> tuple[LandedFile, Staged]:
    """The keys of a file, in a typed table of the transaction.

    Raises:
        TerminalError: there is no such file, or not every row of it has a key.
    """
    dataset, path = order.dataset, PurePath(order.file)
    if path.is_absolute() or ".." in path.parts:
        raise TerminalError(
            f"{order.file}: write the path of the file of keys below {order.keys_in}", ErrorReason.BAD_BATCH
        )
    source = dataset.source.model_copy(update={"pattern": glob.escape(order.file), "extra_columns": "ignore"})
    columns = {name: dataset.columns[name] for name in dataset.key}
    keyed = dataset.model_copy(update={"source": source, "columns": columns, "duplicates": "hold"})
    with landing_store.named(keyed, order.keys_in, order.file) as file:
        if file is None:
            raise TerminalError(f"there is no file {order.file} below {order.keys_in}", ErrorReason.BAD_BATCH)
        failures = [file.problem] if file.problem else []
        staged: Staged | None = None
        if not failures:
            try:
                staged = staging.load(conn, keyed, file)
                failures = [f.failure for f in staging.type_rows(conn, keyed, staged)[0]]
                if not staged.rows:
                    failures = [Failure("file_not_empty", None, "no row", "at least one key")]
            except UnreadableError as error:
                conn.rollback()
                failures = [error.failure]
    if failures or staged is None:
        told = "; ".join(f"{f.column or 'file'}: {f.observed}, expected {f.limit}" for f in failures)
        raise TerminalError(
            f"{order.file}: no key was deleted, not all can be read: {told}", ErrorReason.BAD_BATCH
        )
    return file, staged
