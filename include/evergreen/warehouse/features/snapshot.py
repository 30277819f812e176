"""The training snapshot: the mature rows as of a time, as one Parquet file with a fingerprint.

The same as-of time gives the same rows and the same fingerprint however often it is taken, because the
datasets keep the versions that later corrections replaced.

Rows whose label did not come by the time that it should have lie in a second file. Nothing is fitted on them; windows
are watched with such rows in them, so a champion's reference holds them, too.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from psycopg2 import sql

from evergreen.errors import ErrorReason, TerminalError
from evergreen.progress import Progress, counted, moment, took
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.features import arrow, feature_query, views
from evergreen.warehouse.storage import working_folder
from evergreen.warehouse.storage.full_disk import room

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """Where a snapshot lies and what it holds; small enough for XCom.

    `unlabelled`: how many mature rows have no label; `beside` is their file. Fingerprint, rows, start and end are of the rows
    with one.
    """

    path: str
    fingerprint: str
    rows: int
    start: str
    end: str
    unlabelled: int = 0

    @property
    def beside(self) -> Path:
        """The file of the mature rows without a label; there is none if there are no such rows."""
        return _beside(Path(self.path))

    def remove(self) -> None:
        """Delete the files."""
        for path in (Path(self.path), self.beside):
            path.unlink(missing_ok=True)


def take(
    specs: Specs,
    model: ModelSpec,
    as_of: datetime,
    folder: Path,
    *,
    timeout_s: int = 1500,
    most_rows: int | None = None,
) -> Snapshot:
    """Write the snapshot of a model as of a time and return its reference.

    Rows have event time in [as_of - the longest window, as_of), features and label arrived by as_of, and a
    label that was mature by then (event time + label.delay <= as_of). Those that differ in nothing but that they have no label go
    to a file beside it. The file appears whole or not at all. The memory it takes does not depend on the number of rows.

    Args:
        specs: all specs (the model's datasets are among them).
        model: whose rows are taken.
        as_of: the cut-off, aware.
        folder: the snapshots' folder; the file goes to `folder/MODEL/`.
        timeout_s: the server ends a statement that runs longer.
        most_rows: of more rows a sample, those whose key has the smallest hash; None: all of them.

    Raises:
        TerminalError: no row qualifies (NO_ROWS), or the feature query does not run (BAD_QUERY).
        TransientError: the warehouse does not answer, or the disk is full (NO_SPACE).
    """
    window = model.training.lengths[0]
    start = None if window == "all" else as_of - window
    query = feature_query.feature_query(
        model, start, as_of, mature_at=as_of, entity=True, ordered=most_rows is None
    )
    if most_rows is not None:
        query = sql.SQL(
            "SELECT * FROM (SELECT * FROM ({rows}) AS f ORDER BY _hash, _key LIMIT {most}) AS s ORDER BY _time, _key"
        ).format(rows=query, most=sql.Literal(most_rows))
    schema = arrow.feature_schema(model, entity=True)
    target = folder / model.name
    target.mkdir(parents=True, exist_ok=True)
    for left in target.glob(".*.part"):  # of killed snapshots of an earlier release
        if working_folder.old(left):
            left.unlink(missing_ok=True)
    fingerprint = Fingerprint(schema)
    rows, unlabelled, size, first, last = 0, 0, 0, None, None
    progress = Progress(log, f"{model.name}: taking the snapshot")
    with (
        room(f"taking the snapshot of {model.name}", target, lambda: 2 * size or None),
        working_folder.folder(target) as work,
    ):
        part, rest = work / "rows.parquet", work / "unlabelled.parquet"
        with (
            views.reading(specs, model, as_of, timeout_s=timeout_s) as reader,
            pq.ParquetWriter(part, schema, **_written(model)) as writer,
            pq.ParquetWriter(rest, schema, **_written(model)) as aside,
        ):
            for batch in reader.stream(query, schema):
                size += batch.nbytes
                known = batch
                if missing := batch.column("_label").null_count:
                    has = pc.is_valid(batch.column("_label"))
                    known = batch.filter(has)
                    aside.write_batch(batch.filter(pc.invert(has)))
                    unlabelled += missing
                if not known.num_rows:
                    continue
                writer.write_batch(known)
                fingerprint.update(known)
                rows += known.num_rows
                progress.tell(rows)
                first = first or known.column("_time")[0].as_py()
                last = known.column("_time")[-1].as_py()
        if not rows or first is None or last is None:
            since = "the beginning" if start is None else start.isoformat()
            raise TerminalError(
                f"{model.name}: no row with a mature label between {since} and {as_of.isoformat()} "
                f"(label delay {model.label.delay}); land data for that time, or choose another as-of",
                ErrorReason.NO_ROWS,
            )
        digest = fingerprint.hexdigest()
        path = target / f"{as_of:%Y%m%dT%H%M%SZ}-{digest[:16]}.parquet"
        # First, so that no snapshot is there without them.
        if unlabelled:
            rest.replace(_beside(path))
        else:
            _beside(path).unlink(missing_ok=True)
        part.replace(path)
    end = (last + timedelta(microseconds=1)).isoformat()
    without = f", {counted(unlabelled, 'row')} without a label beside them" if unlabelled else ""
    log.info(
        "%s: snapshot as of %s: %s from %s to %s (UTC)%s, fingerprint %s, %s",
        model.name, moment(as_of), counted(rows, "row"), moment(first), moment(last), without, digest[:16],
        took(rows, progress.seconds),
    )  # fmt: skip
    return Snapshot(str(path), digest, rows, first.isoformat(), end, unlabelled)


def _beside(path: Path) -> Path:
    return path.with_suffix(".unlabelled.parquet")


def _written(model: ModelSpec) -> dict[str, Any]:
    return {"compression": "lz4", "use_dictionary": list(model.features.categorical)}


def write_seen(
    specs: Specs,
    model: ModelSpec,
    as_of: datetime,
    start: datetime,
    path: Path,
    *,
    categories: Mapping[str, Sequence[str]] | None = None,
    timeout_s: int = 1500,
) -> None:
    """Write the rows of a snapshot since an event time once more, with other features: those that the champion was trained on.

    They are no part of the snapshot, so its rows and its fingerprint follow from the spec and the as-of time alone, whoever is
    champion when it is taken.

    Args:
        specs: all specs.
        model: the spec with those features, see `ModelSpec.seeing`.
        as_of: of the snapshot.
        start: first event time, included.
        path: the file.
        categories: those that the version knows, by feature.
        timeout_s: the server ends a statement that runs longer.

    Raises:
        TerminalError: the feature query does not give those features any more (REGISTRY_MISMATCH), or does not run (BAD_QUERY).
        TransientError: the warehouse does not answer.
    """
    schema = arrow.feature_schema(model, entity=True)
    query = feature_query.feature_query(model, start, as_of, mature_at=as_of, labelled=True, entity=True)
    with views.reading(specs, model, as_of, timeout_s=timeout_s) as reader:
        if lacks := feature_query.lacking(model, feature_query.types(reader), categories):
            told = "; ".join(f"{name}: {why}" for name, why in lacks.items())
            raise TerminalError(
                f"it needs the features {', '.join(lacks)} ({told}); put them back into models/{model.name}.sql to have it "
                "compared",
                ErrorReason.REGISTRY_MISMATCH,
            )
        with pq.ParquetWriter(path, schema, compression="lz4") as writer:
            for batch in reader.stream(query, schema):
                writer.write_batch(batch)


def fingerprint_of(model: ModelSpec, path: Path) -> str:
    """The fingerprint of the rows that a snapshot's file holds now."""
    found = Fingerprint(arrow.feature_schema(model, entity=True))
    for batch in pq.ParquetFile(path).iter_batches():
        found.update(batch)
    return found.hexdigest()


class Fingerprint:
    """A SHA-256 of rows in their order, whatever batches they come in and whatever file they go to."""

    def __init__(self, schema: pa.Schema) -> None:
        """Begin; rows have to come with this schema."""
        self._schema = schema
        # Of each column: which values are there, how long they are, and the values. One after the other in a single
        # hash would follow the batches.
        self._parts: list[tuple[Any, Any, Any]] = [
            (hashlib.sha256(), hashlib.sha256(), hashlib.sha256()) for _ in schema
        ]

    def update(self, batch: pa.RecordBatch) -> None:
        """Take in the next rows."""
        for column, (valid, lengths, values) in zip(batch.columns, self._parts, strict=True):
            valid.update(pc.is_valid(column).to_numpy(zero_copy_only=False))
            if pa.types.is_string(column.type):
                filled = pc.fill_null(column, "")
                lengths.update(pc.binary_length(filled).to_numpy())
                offsets = np.frombuffer(filled.buffers()[1], dtype=np.int32)[filled.offset :][
                    : len(filled) + 1
                ]
                values.update(memoryview(filled.buffers()[2] or b"")[offsets[0] : offsets[-1]])
            else:
                plain = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
                values.update(pc.fill_null(plain, 0).to_numpy())

    def hexdigest(self) -> str:
        """The fingerprint of the rows so far."""
        whole = hashlib.sha256(str(self._schema).encode())
        for parts in self._parts:
            for part in parts:
                whole.update(part.digest())
        return whole.hexdigest()
