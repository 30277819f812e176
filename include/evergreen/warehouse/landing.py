"""Files that landed: which there are, what they are known by, and their rows as text for COPY.

A file is known by the SHA-256 of its content, so a second name for the same content is the same file. A CSV
file is decoded on this side and its header taken off; a Parquet file is turned into CSV a batch of rows at a
time. Either way no more than a block is in memory.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from evergreen.errors import Reason, TerminalError, TransientError
from evergreen.spec import DatasetSpec
from evergreen.warehouse.failure import Failure, UnreadableError, sample_of

log = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20
BLOCK_ROWS = 16_384
HEADER_CHARACTERS = 1 << 18
SUFFIXES = (".csv", ".parquet")
UNFINISHED = (".part", ".tmp")


class Version(NamedTuple):
    """What tells a file from its earlier self without reading it."""

    device: int
    inode: int
    size: int
    mtime_ns: int


class Stamp(NamedTuple):
    """What is remembered of a file that was decided: name in the folder, bytes, time of its last change."""

    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class LandedFile:
    """A file that stood still while it was hashed."""

    path: Path
    name: str
    checksum: str
    version: Version

    @property
    def stamp(self) -> Stamp:
        """What to remember of it."""
        return Stamp(self.name, self.version.size, self.version.mtime_ns)


@dataclass(frozen=True)
class Feed:
    """The rows of a file on their way to COPY.

    `read` gives at most that many characters or bytes of CSV without a header, nothing at the end. `columns`
    are the file's, in its order. `failure` tells what went wrong inside `read`, which COPY hides.
    """

    columns: tuple[str, ...]
    delimiter: str
    header_lines: int
    read: Callable[[int], str | bytes]
    failure: Callable[[], BaseException | None]


def find(dataset: DatasetSpec, folder: Path, decided: Collection[Stamp] = frozenset()) -> list[LandedFile]:
    """The files of a dataset in a folder, sorted by name, one for each content.

    Hidden files and *.part and *.tmp are somebody's unfinished work; a file that changes while it is hashed
    is left for the next run; of two files with the same content the first by name counts.

    Args:
        dataset: whose files.
        folder: where they are.
        decided: files that are left out unread as long as name, size and time of the last change are these.

    Raises:
        TerminalError: a pattern that cannot be used.
        TransientError: a file that may not be read.
    """
    found: dict[str, LandedFile] = {}
    names = {stamp.name for stamp in decided}
    try:
        paths = sorted(folder.glob(dataset.source.pattern))
    except (NotImplementedError, ValueError) as error:
        raise TerminalError(
            f"datasets/{dataset.name}.yaml: source.pattern {dataset.source.pattern!r} cannot be used ({error}); "
            "write one relative to the folder, such as *.csv",
            Reason.BAD_SPEC,
        ) from error
    for path in paths:
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts) or path.suffix.lower() in UNFINISHED:
            continue
        if not path.is_file():
            continue
        if path.suffix.lower() not in SUFFIXES:
            log.warning("%s: %s is ignored; files end in %s", dataset.name, relative, " or ".join(SUFFIXES))
            continue
        name = str(relative)
        if name in names and _stamp(path, name) in decided:
            continue
        file = _hashed(path, name)
        if file is None:
            log.info("%s: %s is still changing; the next run takes it", dataset.name, relative)
        else:
            found.setdefault(file.checksum, file)
    return list(found.values())


def unchanged(file: LandedFile) -> bool:
    """Whether the file is still the one that was hashed."""
    try:
        return _version(file.path) == file.version
    except FileNotFoundError:
        return False


@contextmanager
def feed(dataset: DatasetSpec, file: LandedFile) -> Iterator[Feed]:
    """Open a file for COPY.

    Raises:
        UnreadableError: it is empty, damaged, in another encoding, or has no usable header.
    """
    if file.path.stat().st_size == 0:
        raise UnreadableError(
            Failure(
                "file_not_empty",
                None,
                "0 bytes",
                "a header and at least one row",
                remedy="deliver the file again, whole",
            )
        )
    opened = _parquet(file.path) if file.path.suffix.lower() == ".parquet" else _csv(dataset, file.path)
    with opened as result:
        twice = sorted({c for c in result.columns if result.columns.count(c) > 1})
        if twice:
            raise UnreadableError(
                Failure(
                    "expect_table_columns_to_match_set",
                    ", ".join(twice)[:200],
                    "named twice in the header",
                    "each column once",
                    sample=sample_of(twice),
                    remedy="rename or remove the second one",
                )
            )
        yield result


def _hashed(path: Path, name: str) -> LandedFile | None:
    digest = hashlib.sha256()
    try:
        before = _version(path)
        with path.open("rb") as content:
            while block := content.read(BLOCK_BYTES):
                digest.update(block)
        after = _version(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TransientError(
            f"{path} cannot be read ({error.strerror}); give the Airflow user the right to read it, then run again"
        ) from error
    return LandedFile(path, name, digest.hexdigest(), after) if before == after else None


def _version(path: Path) -> Version:
    stat = path.stat()
    return Version(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _stamp(path: Path, name: str) -> Stamp | None:
    try:
        version = _version(path)
    except FileNotFoundError:
        return None
    return Stamp(name, version.size, version.mtime_ns)


@contextmanager
def _csv(dataset: DatasetSpec, path: Path) -> Iterator[Feed]:
    encoding = dataset.source.encoding
    try:
        # A byte order mark is no part of the first column's name.
        codec = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    except LookupError as error:
        raise TerminalError(
            f"datasets/{dataset.name}.yaml: source.encoding {encoding!r} is unknown; write utf-8, latin-1 or cp1252",
            Reason.BAD_SPEC,
        ) from error
    problem: list[BaseException] = []
    with path.open("rb") as binary, io.TextIOWrapper(binary, encoding=codec, newline="") as text:

        def guarded(take: Callable[[], str]) -> str:
            try:
                return take()
            except UnicodeError as error:
                problem.append(UnreadableError(_encoding(encoding, error, binary.tell())))
                raise problem[0] from error

        lines = 0

        def line() -> Iterator[str]:
            nonlocal lines
            while found := guarded(lambda: text.readline(HEADER_CHARACTERS)):
                lines += 1
                yield found.lstrip("\ufeff") if lines == 1 else found
                if lines > 50:
                    raise csv.Error("a quote that is opened in the header is not closed")

        try:
            header = next(csv.reader(line(), delimiter=dataset.source.delimiter, strict=True), [])
        except csv.Error as error:
            raise UnreadableError(
                Failure(
                    "file_readable",
                    None,
                    f"header: {error}",
                    "one line of column names",
                    remedy="mend the header and deliver the file again",
                )
            ) from error
        yield Feed(
            tuple(header),
            dataset.source.delimiter,
            lines,
            lambda size: guarded(lambda: text.read(size)),
            lambda: problem[0] if problem else None,
        )


def _encoding(encoding: str, error: UnicodeError, read: int) -> Failure:
    where = ""
    if isinstance(error, UnicodeDecodeError):
        where = f"byte 0x{error.object[error.start]:02x} at position {max(read - len(error.object), 0) + error.start}"
    return Failure(
        "file_encoding", None, where or str(error), encoding,
        remedy=f"deliver the file as {encoding}, or set source.encoding to what it is (latin-1, cp1252, utf-16)",
    )  # fmt: skip


@contextmanager
def _parquet(path: Path) -> Iterator[Feed]:
    try:
        file = pq.ParquetFile(path, memory_map=False, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableError(_damaged(error)) from error
    with file:
        problem: list[BaseException] = []
        blocks = _blocks(file)
        rest = memoryview(b"")

        def read(size: int) -> bytes:
            nonlocal rest
            try:
                while not rest:
                    rest = memoryview(next(blocks))
            except StopIteration:
                return b""
            except (pa.ArrowException, OSError) as error:
                problem.append(UnreadableError(_damaged(error)))
                raise problem[0] from error
            part, rest = rest[:size], rest[size:]
            return bytes(part)

        yield Feed(tuple(file.schema_arrow.names), ",", 0, read, lambda: problem[0] if problem else None)


def _blocks(file: Any) -> Iterator[bytes]:
    for batch in file.iter_batches(batch_size=BLOCK_ROWS):
        plain = [c.cast(pa.string()) if pa.types.is_string_view(c.type) else c for c in batch.columns]
        sink = io.BytesIO()
        pacsv.write_csv(
            pa.record_batch(plain, names=batch.schema.names), sink, pacsv.WriteOptions(include_header=False)
        )
        yield sink.getvalue()


def _damaged(error: Exception) -> Failure:
    return Failure(
        "file_readable", None, " ".join(str(error).split())[:200], "a whole Parquet file of plain columns",
        remedy="deliver the file again, whole; lists, structs and binary columns are not taken",
    )  # fmt: skip
