"""A prefix in a bucket of S3 or GCS: what is below it, in and out in blocks, and each failure with its next step.

Arrow's file systems speak to it, so credentials are found as the AWS and Google libraries find them. Two things of theirs shape
this module. An upload that is given up becomes an object of what had come so far; so who reads what a task wrote knows its
digest, or is told of it by another object that is written last. And a file is read by range, each by itself; so what tells an
object from another one under its name is looked at before and after.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError, TransientError, in_one_line

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SCHEMES = ("s3", "gs")
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
EMULATOR = "STORAGE_EMULATOR_HOST"
CONNECT_S, ANSWER_S, TRIES, GIVE_UP_S = 10, 60, 3, 20

_NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|bucket does not exist", re.IGNORECASE)
_NO_KEY = re.compile(
    r"NO_SUCH_KEY|RESOURCE_NOT_FOUND|HTTP status (404|416)|INVALID_RANGE|NOT_FOUND:|No such file or directory '"
)
_DENIED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN|INVALID_CLIENT_TOKEN_ID|INVALID_OBJECT_STATE"
    r"|HTTP status (401|403)|PERMISSION_DENIED|UNAUTHENTICATED"
)
# Of an object that is missing a listing says nothing.
_GCS_NO_BUCKET = "Status(NOT_FOUND"
T = TypeVar("T")


class NoAccessError(TerminalError):
    """The bucket, or one object of it, may not be read or written with the credentials that there are."""


class GoneError(TransientError):
    """There is no such object, or it became another one while it was read."""


@dataclass(frozen=True)
class Object:
    """An object as a listing shows it.

    Args:
        key: below the prefix, without a slash in front.
        size: bytes.
        mtime_ns: when it was written, by the store's clock; nanoseconds. S3 keeps whole seconds.
    """

    key: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Store:
    """A prefix in a bucket.

    Args:
        url: s3://bucket/prefix or gs://bucket/prefix, without a slash at the end.
    """

    url: str

    @classmethod
    def at(cls, url: str) -> Store:
        """The prefix of a URL; nothing is asked yet.

        Raises:
            TerminalError: it is none that can be used.
        """
        parts = urlsplit(url)
        if (
            parts.scheme not in SCHEMES
            or not parts.netloc
            or "@" in parts.netloc
            or ":" in parts.netloc
            or parts.query
        ):
            shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
            raise TerminalError(
                f"{shown} is no place for files: write s3://bucket/prefix or gs://bucket/prefix, without credentials, port or "
                f"question mark (credentials and {ENDPOINTS[1]} are variables of their own)",
                ErrorReason.BAD_SPEC,
            )
        return cls(f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/"))

    def __str__(self) -> str:
        return self.url

    def under(self, name: str) -> Store:
        """A prefix below this one."""
        return Store(f"{self.url}/{name.strip('/')}")

    def where(self, key: str) -> str:
        """The URL of an object."""
        return f"{self.url}/{key}"

    def objects(self) -> list[Object]:
        """Every object below the prefix, sorted by key; empty where there is none, folders' own objects left out.

        Raises:
            TerminalError: no such bucket (BAD_SPEC), or it may not be listed (NO_ACCESS).
            TransientError: the store does not answer.
        """
        from pyarrow.fs import FileSelector, FileType

        # With allow_not_found a bucket that is missing would be an empty one.
        selector = FileSelector(self._path, recursive=True)
        try:
            found = self._ask(f"listing {self.url}", "listed", lambda: self._fs.get_file_info(selector))
        except GoneError as error:
            if _GCS_NO_BUCKET in str(error):
                raise _no_bucket(f"listing {self.url}", error) from error
            if isinstance(error.__cause__, FileNotFoundError):
                return []
            # A proxy or a server that is no store answers 404, too; of an empty prefix a store says that it is empty.
            raise TransientError(
                f"{error}; look whether {ENDPOINTS[1]} leads to the store, then try again"
            ) from error
        skip = len(self._path) + 1
        return sorted(
            (Object(i.path[skip:], i.size, i.mtime_ns) for i in found if i.type is FileType.File),
            key=lambda one: one.key,
        )

    def size(self, key: str) -> int | None:
        """How many bytes an object has; None where there is none. Errors are `objects`'."""
        try:
            return self._head(key)[0]
        except GoneError:
            return None

    def fetch(self, key: str, target: Path) -> str:
        """Write an object into a file, a block at a time; returns the SHA-256 of what was written.

        Args:
            key: of the object.
            target: the file; written over.

        Raises:
            GoneError: there is none, or it became another one meanwhile; the file is not to be used then.
            NoAccessError: it may not be read.
            TransientError: the store does not answer.
            OSError: the file cannot be written.
        """
        digest, block = hashlib.sha256(), settings.STORE_BLOCK_MB.number() << 20
        before, stream = self._opened(key)
        with stream, target.open("wb") as file:
            while content := self._ask(f"reading {self.where(key)}", "read", lambda: stream.read(block)):
                digest.update(content)
                file.write(content)
            size = file.tell()
        if self._head(key) != before or size != before[0]:
            raise GoneError(f"{self.where(key)} changed while it was read; try again", ErrorReason.BUSY)
        return digest.hexdigest()

    def tail(self, key: str, count: int) -> bytes:
        """The last bytes of an object. Errors are `fetch`'s."""
        path = self._path_of(key)

        def read() -> bytes:
            with self._fs.open_input_file(path) as file:
                size = file.size()
                return bytes(file.read_at(min(count, size), max(size - count, 0)))

        return self._ask(f"reading {self.where(key)}", "read", read)

    def read(self, key: str) -> bytes:
        """A small object, whole. Errors are `fetch`'s."""
        with self._opened(key)[1] as stream:
            return bytes(self._ask(f"reading {self.where(key)}", "read", stream.read))

    def put(self, source: Path, key: str) -> None:
        """Write a file into an object, a block at a time.

        Raises:
            TerminalError: no such bucket (BAD_SPEC), or it may not be written (NO_ACCESS).
            TransientError: the store does not answer, or has not got all of it.
            OSError: the file cannot be read.
        """
        with source.open("rb") as file:
            block = settings.STORE_BLOCK_MB.number() << 20
            self._write(key, iter(lambda: file.read(block), b""))

    def write(self, key: str, content: bytes) -> None:
        """Write a small object, whole. Errors are `put`'s."""
        self._write(key, iter((content,)))

    def _write(self, key: str, blocks: Iterator[bytes]) -> None:
        what, size = f"writing {self.where(key)}", 0
        try:
            # By itself Arrow packs what ends in .gz.
            stream = self._ask(
                what, "written", lambda: self._fs.open_output_stream(self._path_of(key), compression=None)
            )
            for block in blocks:
                self._ask(what, "written", partial(stream.write, block))
                size += len(block)
            self._ask(what, "written", stream.close)
        except GoneError as error:  # what can be missing where something is written
            raise _no_bucket(what, error) from error
        if (found := self.size(key)) != size:
            raise TransientError(f"{what}: {found} of {size} bytes are there; try again")

    def _opened(self, key: str) -> tuple[tuple[int, bytes, bytes], Any]:
        """A stream, and what tells its object from another one under the same name: size, tag and time."""
        what, path = f"reading {self.where(key)}", self._path_of(key)
        # By itself Arrow unpacks what ends in .gz.
        stream = self._ask(what, "read", lambda: self._fs.open_input_stream(path, compression=None))
        told = {n.lower(): v for n, v in (self._ask(what, "read", stream.metadata) or {}).items()}
        size = int(told.get("content-length") or told["size"])
        tag = told.get("generation") or told.get("etag", b"")
        return (size, tag, told.get("last-modified") or told.get("updated", b"")), stream

    def _head(self, key: str) -> tuple[int, bytes, bytes]:
        found, stream = self._opened(key)
        stream.close()
        return found

    @property
    def _path(self) -> str:
        return self.url.partition("://")[2]

    def _path_of(self, key: str) -> str:
        return f"{self._path}/{key}"

    @cached_property
    def _fs(self) -> FileSystem:
        # Not at the module's top: a worker that forks for its tasks imports it, and threads of a store do not outlive a fork.
        from pyarrow import fs

        if self.url.startswith("gs://"):
            patience = timedelta(seconds=GIVE_UP_S)
            emulator = urlsplit(os.environ.get(EMULATOR, ""))
            if emulator.netloc:
                return fs.GcsFileSystem(
                    anonymous=True,
                    scheme=emulator.scheme,
                    endpoint_override=emulator.netloc,
                    retry_time_limit=patience,
                )
            return fs.GcsFileSystem(retry_time_limit=patience)
        endpoint, region = _first(ENDPOINTS), _first(REGIONS)
        if not endpoint and not region:
            bucket = self._path.partition("/")[0]
            region = self._ask(f"looking for {self.url}", "found", lambda: fs.resolve_s3_region(bucket))
        return fs.S3FileSystem(
            endpoint_override=endpoint or None,
            region=region or None,
            background_writes=False,  # blocks that wait would take memory
            connect_timeout=CONNECT_S,
            request_timeout=ANSWER_S,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=TRIES),
        )

    def _ask(self, doing: str, done: str, call: Callable[[], T]) -> T:
        """Ask the store, and tell what comes wrong.

        Args:
            doing: for the message: `reading s3://…`.
            done: what may not be done then: `read`.
            call: the call.
        """
        try:
            return call()
        except OSError as error:
            line = in_one_line(error)
            if _NO_BUCKET.search(line):
                raise _no_bucket(doing, line) from error
            if isinstance(error, FileNotFoundError) or _NO_KEY.search(line):
                raise GoneError(f"{doing}: it is not there ({line})", ErrorReason.NO_ROWS) from error
            if isinstance(error, PermissionError) or _DENIED.search(line):
                raise NoAccessError(
                    f"{doing}: it may not be {done} with the credentials of this worker ({line}); give them the rights that "
                    "docs/storage.md names, and look whether they have run out",
                    ErrorReason.NO_ACCESS,
                ) from error
            raise TransientError(
                f"{doing}: the store does not answer as it should ({line}); try again"
            ) from error


Place = Path | Store


def place(variable: settings.Variable, name: str = "") -> Place:
    """The folder or the prefix that a variable names, with a name what is below it; see `Variable.place`.

    Raises:
        TerminalError: a URL that cannot be used.
    """
    return of(variable.place(name))


def of(found: Path | str) -> Place:
    """A folder as it is, or the prefix of a URL. Errors are `place`'s."""
    return Store.at(found) if isinstance(found, str) else found


def moment(mtime_ns: int) -> datetime:
    """Nanoseconds as an aware time."""
    return datetime.fromtimestamp(mtime_ns / 1e9, UTC)


def _no_bucket(doing: str, why: object) -> TerminalError:
    return TerminalError(
        f"{doing}: there is no such bucket ({why}); make it, or mend the variable or spec that names it",
        ErrorReason.BAD_SPEC,
    )


def _first(names: tuple[str, ...]) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")
