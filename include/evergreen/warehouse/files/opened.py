"""The bytes of a landed text file as UTF-8: no link is followed, compression and encoding are undone, in blocks.

A block is a megabyte at most before it is decoded, so memory does not grow with the file, however well it is packed.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from evergreen.errors import ErrorReason, TerminalError, in_one_line
from evergreen.spec import DatasetSpec
from evergreen.warehouse.files.failure import Failure, UnreadableError

BLOCK_BYTES = 1 << 20
COMPRESSED = (".gz", ".zst")

Read = Callable[[], bytes]

_BEGIN = 4
_PACK = "give it the ending of its packing ({}), or deliver it unpacked"
# What begins so is no text in any encoding.
_SIGNS = {
    b"\x1f\x8b\x08": ("packed by gzip", _PACK.format(".gz, once")),
    b"\x28\xb5\x2f\xfd": ("packed by zstd", _PACK.format(".zst, once")),
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "unpack it, or save the sheet as CSV"),
}


def binary(path: Path) -> io.BufferedReader:
    """Open a regular file for reading.

    Raises:
        OSError: it is gone, may not be read, or is a link or no file.
    """
    # Without O_NONBLOCK a pipe that took the file's place would be waited for.
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(f"{path.name!r} is no file any more")
    return os.fdopen(number, "rb")


@contextmanager
def text(dataset: DatasetSpec, path: Path, encoding: str | None = None) -> Iterator[Read]:
    """Open a file, decompressed as its ending says.

    Args:
        dataset: whose spec names the encoding.
        path: the file.
        encoding: instead of the spec's.

    Yields:
        A function that gives the next block of UTF-8, without a byte order mark; nothing at the end. It raises
        UnreadableError where the file is damaged, cut off or in another encoding, and OSError where reading fails.
    """
    encoding = encoding or dataset.source.encoding
    codec = _codec(dataset, encoding)
    decoder = codec.incrementaldecoder("strict")
    with binary(path) as file, _decompressed(file, path.suffix.lower()) as raw:
        position = 0
        begun = False

        def decoded(block: bytes) -> bytes:
            waiting = decoder.getstate()[0]
            if encoding == "utf-8" and not waiting and block.isascii():
                return block
            try:
                return decoder.decode(block, final=not block).encode()
            except UnicodeError as error:
                raise UnreadableError(_encoding(encoding, error, position - len(waiting))) from error

        def read() -> bytes:
            nonlocal position, begun
            while True:
                block = raw()
                if not position:
                    while 0 < len(block) < _BEGIN and (more := raw()):
                        block += more
                    _refuse_other(block, encoding, codec)
                found = decoded(block)
                position += len(block)
                if not begun and found:
                    found, begun = found.removeprefix(codecs.BOM_UTF8), True
                if found or not block:
                    return found

        yield read


def _refuse_other(begin: bytes, encoding: str, codec: codecs.CodecInfo) -> None:
    """Refuse a file whose first bytes say that it is something else; in some encodings every byte is a letter."""
    for sign, (what, remedy) in _SIGNS.items():
        if begin.startswith(sign):
            raise UnreadableError(
                Failure("file_readable", None, what, "text, as the ending says", remedy=remedy)
            )
    if begin.startswith(codecs.BOM_UTF8) and codec.name not in ("utf-8", "utf-8-sig"):
        raise UnreadableError(
            Failure(
                "file_encoding", None, "the byte order mark of utf-8 at the begin", encoding,
                remedy="set source.encoding to utf-8, or deliver the file without the mark",
            )
        )  # fmt: skip


def _codec(dataset: DatasetSpec, encoding: str) -> codecs.CodecInfo:
    try:
        codec = codecs.lookup(encoding)
        if not cast(Any, codec)._is_text_encoding or codec.incrementaldecoder is None:
            raise LookupError
    except LookupError as error:
        raise TerminalError(
            f"datasets/{dataset.name}.yaml: source.encoding {encoding!r} is unknown; write utf-8, latin-1 or cp1252",
            ErrorReason.BAD_SPEC,
        ) from error
    return codec


def _encoding(encoding: str, error: UnicodeError, begin: int) -> Failure:
    where = ""
    if isinstance(error, UnicodeDecodeError):
        where = f"byte 0x{error.object[error.start]:02x} at position {begin + error.start}"
    return Failure(
        "file_encoding", None, where or str(error)[:200], encoding,
        remedy=f"deliver the file as {encoding}, or set source.encoding to what it is (latin-1, cp1252, utf-16)",
    )  # fmt: skip


@contextmanager
def _decompressed(file: io.BufferedReader, suffix: str) -> Iterator[Read]:
    if suffix == ".gz":
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield lambda: _whole(lambda: unpacked.read(BLOCK_BYTES))
    elif suffix == ".zst":
        with pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as unpacked:
            yield lambda: _whole(lambda: unpacked.read(BLOCK_BYTES))
    else:
        yield lambda: file.read(BLOCK_BYTES)


def _whole(take: Read) -> bytes:
    try:
        return take()
    except EOFError as error:
        raise UnreadableError(_cut_off()) from error
    except (gzip.BadGzipFile, zlib.error, pa.ArrowException) as error:
        raise UnreadableError(_damaged(error)) from error
    except OSError as error:
        if error.errno is not None:
            raise
        # What Arrow says of compressed data has no number, other than the system's errors.
        if "truncated" in str(error).lower():
            raise UnreadableError(_cut_off()) from error
        raise UnreadableError(_damaged(error)) from error


def _damaged(error: Exception) -> Failure:
    return Failure(
        "file_readable", None, in_one_line(error, 200), "whole compressed data, as the ending says",
        remedy="pack the file again and deliver it; is it what its ending says?",
    )  # fmt: skip


def _cut_off() -> Failure:
    return Failure(
        "file_readable", None, "the compressed data ends early", "a whole file",
        remedy="deliver the file again, whole; write it under another name (NAME.part) and rename it when it is finished",
    )  # fmt: skip
