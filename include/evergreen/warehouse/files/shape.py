"""From the columns of a file to the columns of its dataset: which is which, and what each value says.

Both ways into a table take their rows from here, so they see the same values.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from evergreen.progress import Progress
from evergreen.spec import DatasetSpec
from evergreen.warehouse.files.canonical import Converter, Kind
from evergreen.warehouse.files.failure import Failure, UnreadableError, sample_of
from evergreen.warehouse.files.feed import TextRows

log = logging.getLogger(__name__)

_MIDNIGHT = r"^(\d{4}-\d\d-\d\d)[ T]00:00(?::00(?:\.0+)?)?(?:Z|\+00(?::?00)?)?$"
_EXPECTATION = "expect_table_columns_to_match_set"


@dataclass(frozen=True)
class Shape:
    """Where the columns of a dataset stand in a file.

    Args:
        places: of each column the positions of those it is made from, from 0; none for one that the file has not.
        absent: the columns that the file has not, and that are empty therefore.
        ignored: the file's columns that are left out.
    """

    places: dict[str, tuple[int, ...]]
    absent: tuple[str, ...]
    ignored: tuple[str, ...]


def rows(dataset: DatasetSpec, feed: TextRows, name: str = "") -> Iterator[pa.RecordBatch]:
    """The rows of a file as text, with the spec's columns in the spec's order and in canonical form; `name` is the file's, for the log.

    Raises:
        UnreadableError: columns are missing or unknown, or something is wrong with the file.
    """
    shape = match(dataset, feed)
    feed.absent, feed.ignored = shape.absent, shape.ignored
    used = sorted({place for places in shape.places.values() for place in places})
    index = {place: number for number, place in enumerate(used)}
    converters = {
        name: Converter(dataset, name, tuple(_kind(feed, place) for place in places))
        for name, places in shape.places.items()
        if places
    }
    series = _series(dataset, shape)
    progress, done = Progress(log, f"{dataset.name}: reading {name or 'a file'}"), 0
    for batch in feed.batches(used):
        columns = {
            name: converters[name].read(
                [batch.column(index[p]) for p in places],
                [batch.column(index[p]) for p in series[name]],
            )
            if places
            else pa.nulls(batch.num_rows, pa.string())
            for name, places in shape.places.items()
        }
        for name, column in dataset.columns.items():
            if column.type == "date":
                columns[name] = pc.replace_substring_regex(columns[name], _MIDNIGHT, r"\1")
        done += batch.num_rows
        progress.tell(done)
        yield pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _kind(feed: TextRows, place: int) -> Kind:
    return feed.kinds[place] if feed.kinds else "text"


def _series(dataset: DatasetSpec, shape: Shape) -> dict[str, tuple[int, ...]]:
    """For each column of the key: where the rest of the key stands, which says whose time it is."""
    return {
        name: tuple(p for other in dataset.key if other != name for p in shape.places.get(other, ()))
        if name in dataset.key
        else ()
        for name in shape.places
    }


def match(dataset: DatasetSpec, feed: TextRows) -> Shape:
    """Find the columns of a dataset in a file.

    A column that is not required and that the file has not is empty. What the spec does not name is refused, or left
    out where `source.extra_columns` says so.

    Raises:
        UnreadableError: columns are missing or unknown, or a name that is meant stands there twice.
    """
    header = feed.columns
    always = {*dataset.key, dataset.event_time, dataset.arrival.column}
    places: dict[str, tuple[int, ...]] = {}
    missing: list[str] = []
    absent: list[str] = []
    for number, (name, column) in enumerate(dataset.columns.items(), 1):
        meant = column.origin or ((name,) if feed.named else (number,))
        found = [_place(dataset, header, one) for one in meant]
        lost = [_called(name, one) for one, place in zip(meant, found, strict=True) if place is None]
        places[name] = tuple(p for p in found if p is not None) if not lost else ()
        if lost and (column.required or name in always or len(lost) < len(meant)):
            missing += lost
        elif lost:
            absent.append(name)
    used = {place for several in places.values() for place in several}
    left = [n for n in range(len(header)) if n not in used]
    extra = [header[n] if feed.named else f"column {n + 1}" for n in left]
    near = [(a, e) for a in absent for e in extra if _plain(a) == _plain(e)]
    if missing or near or (extra and dataset.source.extra_columns == "refuse"):
        raise UnreadableError(_mismatch(dataset, feed, [*missing, *(a for a, _ in near)], extra, left))
    return Shape(places, tuple(absent), tuple(extra))


def _called(name: str, meant: str | int) -> str:
    return meant if isinstance(meant, str) else f"{name} (column {meant})"


def _place(dataset: DatasetSpec, header: Sequence[str], meant: str | int) -> int | None:
    if isinstance(meant, int):
        return meant - 1 if meant <= len(header) else None
    if header.count(meant) > 1:
        where = [n for n, name in enumerate(header, 1) if name == meant]
        raise UnreadableError(
            Failure(
                _EXPECTATION, meant[:200], f"named twice in the header (columns {', '.join(map(str, where))})",
                "each column once", sample=sample_of([meant]),
                remedy=f"rename one, or choose by position in datasets/{dataset.name}.yaml, such as from: {where[0]}",
            )
        )  # fmt: skip
    return header.index(meant) if meant in header else None


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def _mismatch(
    dataset: DatasetSpec, feed: TextRows, missing: list[str], extra: list[str], left: list[int]
) -> Failure:
    found = "; ".join(
        f"{what} {', '.join(names)}"[:200]
        for what, names in (("missing", missing), ("unknown", [c for c in extra if c.strip()]))
        if names
    )
    spec = f"datasets/{dataset.name}.yaml"
    remedy = (
        f"deliver the columns that {spec} names, or change the spec (from, extra_columns) and run with force"
    )
    unnamed = [n + 1 for n in left if not feed.columns[n].strip()] if feed.named else []
    near = [(m, c[0]) for m in missing if (c := _near(m, extra))]
    if unnamed and dataset.source.extra_columns == "refuse":
        numbers = ", ".join(map(str, unnamed))
        found = f"column {numbers} of the header has no name; {found}"[:300]
        ends = len(unnamed) == 1 and not feed.columns[-1].strip()
        remedy = (
            "take the delimiter at the end of the header, and of each line, out, or set source.extra_columns: ignore"
            if ends
            else "give each column a name, or leave it out (pandas: index=False), or set source.extra_columns: ignore"
        )
    elif len(feed.columns) == 1 and len(dataset.columns) > 1 and feed.delimiter:
        remedy = f"is {feed.delimiter!r} the delimiter (source.delimiter)? Else {remedy}"
    elif near:
        name, there = near[0]
        remedy = f"did you mean {there!r} for {name}? Write from: {there!r}; spaces and capital letters count in a column's name; {remedy}"
    elif not feed.named:
        found = f"{len(feed.columns)} columns, {found}"[:300]
    return Failure(
        _EXPECTATION, ", ".join([*missing, *extra])[:200], found, ", ".join(dataset.columns)[:300],
        sample=sample_of([*missing, *extra]), remedy=remedy,
    )  # fmt: skip


def _near(name: str, extra: Sequence[str]) -> list[str]:
    same = [e for e in extra if _plain(e) == _plain(name) and _plain(e)]
    return same or difflib.get_close_matches(name[:100], [e for e in extra if e.strip()][:200], n=1)
