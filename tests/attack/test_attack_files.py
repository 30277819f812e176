"""Damaged files, landed and ingested: what the warehouse has in the end is what an oracle of its own says of each file.

Of each file: all its records are published, held or dropped as equal ones, or the whole file is held with a reason. And
the published table has the oracle's values, all of them and no others.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from attack_page import Attack
from file_oracle import AS_OF, TYPES, HeldError, Table, Verdict, Writing, judged, text_records, unpacked
from file_writer import a_file, writings
from psycopg2 import sql

from evergreen.spec import DatasetSpec
from evergreen.validation.ingest import ingest
from evergreen.validation.outcome import BatchOutcome
from evergreen.warehouse.connection import connect, fetch
from evergreen.warehouse.files import opened

GROUP = 20  # files of one spec, landed together


def reads(kind: str, texts: Iterable[str]) -> dict[str, Any]:
    """The texts that are of a type, with their values, by PostgreSQL; times in microseconds."""
    name = {"float": "float8", "integer": "int8", "timestamp": "timestamptz"}[kind]
    value = "(extract(epoch FROM v::timestamptz) * 1000000)::bigint" if kind == "timestamp" else f"v::{name}"
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'")
        cursor.execute(
            f"SELECT v, {value} FROM (SELECT v FROM unnest(%s::text[]) AS v WHERE pg_input_is_valid(v, %s) OFFSET 0) AS valid",
            (list(texts), name),
        )
        found = dict(cursor.fetchall())
    if kind == "timestamp":  # ISO 8601 alone
        return {t: v for t, v in found.items() if re.fullmatch(r"(?s).{4}-..-..[0-9:.+ TZUC-]*", t) and not set(t) - set("0123456789-:.+ TZUC")}  # fmt: skip
    return {t: v for t, v in found.items() if not isinstance(v, float) or math.isfinite(v)}


def verdict(content: bytes, records: list[dict[str, Any]] | None, writing: Writing) -> Verdict:
    """What is to become of a file."""
    with suppress(HeldError):
        if writing.kind == "parquet":
            return judged(records or [], writing, reads)
        plain = unpacked(content) if writing.ending.endswith(".gz") else content
        if writing.ending.endswith(".zst"):
            plain = unzstd(content)
        return judged(text_records(plain, writing), writing, reads)
    return Verdict(0, None)


def unzstd(content: bytes) -> bytes:
    """What is packed by zstd; there is one reader of it here, so what is cut off is told by its end alone."""
    try:
        with pa.CompressedInputStream(pa.BufferReader(content), "zstd") as stream:
            return bytes(stream.read())
    except (OSError, pa.ArrowException) as error:
        raise HeldError from error


def wrong_in(outcome: BatchOutcome, should: Verdict, counts: tuple[int, int, int]) -> Iterator[str]:
    """What an ingest says of a file and should not."""
    state = "quarantined" if should.published is None else "published"
    if outcome.state != state:
        yield f"{outcome.state} instead of {state} ({[f.observed for f in outcome.failures]})"
    elif should.published is None:
        if not outcome.failures:
            yield "held without a reason"
        if should.records and (outcome.rows_read, outcome.rows_held) != (should.records, should.records):
            yield f"{outcome.rows_held} of {outcome.rows_read} rows held instead of {should.records}"
    else:
        found = (
            outcome.rows_new,
            outcome.rows_changed,
            outcome.rows_unchanged,
            outcome.rows_duplicate,
            outcome.rows_held,
        )
        if found != (*counts, should.duplicates, should.held) or outcome.rows_read != should.records:
            yield f"{outcome.rows_read} rows as {found} instead of {should.records} as {(*counts, should.duplicates, should.held)}"


def warehouse(name: str, writing: Writing) -> tuple[list[tuple[Any, ...]], dict[str, list[tuple[Any, Any]]]]:
    """The published rows of a dataset, and the texts of the rows that were held, by file."""
    columns = sql.SQL(", ").join(
        sql.SQL("(extract(epoch FROM at) * 1000000)::bigint")
        if TYPES[c] == "timestamp"
        else sql.Identifier(c)
        for c in writing.columns
    )
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier("data", name)))
        rows = cursor.fetchall()
        held: dict[str, list[tuple[Any, Any]]] = {}
        if fetch(conn, "SELECT to_regclass(%s) AS t", (f"quarantine.{name}",))[0]["t"]:
            cursor.execute(
                sql.SQL(
                    "SELECT file, q.row->>'a', q.row->>'b' FROM {} AS q JOIN evergreen.batch AS b ON b.id = q.batch"
                    " ORDER BY q.batch, row_number"
                ).format(sql.Identifier("quarantine", name))
            )
            for file, a, b in cursor.fetchall():
                held.setdefault(file, []).append((a, b))
    return rows, held


def try_group(name: str, writing: Writing, folder: Path, files: dict[str, tuple[bytes, Any]]) -> tuple[list[str], Counter[str]]:  # fmt: skip
    """Land some files and ingest them; what came out otherwise than it should, and what became of the files."""
    folder.mkdir()
    for file, (content, _) in files.items():
        (folder / file).write_bytes(content)
    now = datetime.now(UTC) + timedelta(hours=1)
    outcomes = {o.file: o for o in ingest(DatasetSpec.model_validate(writing.spec(name)), AS_OF, f"ingest/{name}", folder=folder, now=now)}  # fmt: skip
    wrong, states, table, seen, should_be = [], Counter[str](), Table(writing), set[bytes](), {}
    for file, (content, records) in sorted(files.items()):
        if content in seen:
            states["known"] += 1
            continue
        seen.add(content)
        should = should_be[file] = verdict(content, records, writing)
        counts = table.publish(should.published or [])
        found = list(wrong_in(outcomes[file], should, counts)) if file in outcomes else ["no outcome"]
        states["held" if should.published is None else "in part" if should.held else "published"] += 1
        wrong += [f"{file} of {writing}: {line}\n    {content[:400]!r}" for line in found]
    rows, held = warehouse(name, writing)
    missing, more = Counter(table.rows.values()) - Counter(rows), Counter(rows) - Counter(table.rows.values())
    if missing or more:
        wrong.append(f"{name}, {writing}: published {list(more)[:3]} instead of {list(missing)[:3]}")
    for file, should in should_be.items():
        if should.held_texts and should.published and "a" in writing.columns:
            texts = [(a, b if "b" in writing.columns else None) for a, b in should.held_texts]
            if held.get(file) != texts:
                wrong.append(f"{file} of {writing}: in quarantine is {held.get(file)} instead of {texts}")
    return wrong, states


def test_damaged_files_are_published_as_an_independent_reader_reads_them_or_held(
    attack: Attack, tmp_path: Path, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(attack.seed)
    tries = attack.count(sample=60, whole=1200)
    wrong: list[str] = []
    states: Counter[str] = Counter()
    for number, writing in zip(count(), writings(chance), strict=False):
        if number * GROUP >= tries:
            break
        monkeypatch.setattr(opened, "BLOCK_BYTES", chance.choice([1, 7, 64, 1 << 20]))
        files = {f"{n:02}.{writing.ending}": a_file(chance, writing) for n in range(GROUP)}
        found, of = try_group(f"files_{number}", writing, tmp_path / str(number), files)
        wrong += found
        states += of
    outcome = f"{states['published']} published whole, {states['in part']} without their bad rows, {states['held']} held with a reason"
    attack.record("files", tries, wrong, f"{outcome}, {states['known']} the same as an earlier one")
