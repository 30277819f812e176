"""Where `hour.csv` of UCI Bike Sharing is: found on this machine, or downloaded once, and never another file."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import tempfile
import time
import urllib.request
import zipfile
import zlib
from pathlib import Path

from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError

URL = "https://archive.ics.uci.edu/static/public/275/bike+sharing+dataset.zip"
SHA256 = "e03de4ee4ef4dc376ac6e04bf829673c6269e8eba5c60fa121640fa2f829504f"
SIZE = 1_156_736
MEMBER = "hour.csv"

TIMEOUT_S, DEADLINE_S = 20.0, 120.0
MAX_BYTES = 8 << 20
BLOCK = 1 << 16
# What a lost connection, an address that is none, and a zip file that is none raise; RuntimeError: an encrypted one.
BAD_DOWNLOAD = (
    OSError, http.client.HTTPException, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def find() -> Path:
    """The verified file on this machine, without a download.

    Looks for `$EVERGREEN_DATA_DIR/bike_sharing/hour.csv`, `$EVERGREEN_DATA_DIR/hour.csv` and the cache, in that
    order; the first one that exists counts.

    Raises:
        TerminalError: there is none (NO_ROWS), or it is another file (BAD_BATCH).
    """
    path = _existing()
    if path is None:
        raise TerminalError(
            f"UCI Bike Sharing ({MEMBER}) is not on this machine. {_ways()}", ErrorReason.NO_ROWS
        )
    return path


def obtain(url: str = URL) -> Path:
    """The verified file: from this machine, else downloaded from UCI into the cache.

    Args:
        url: address of the zip file.

    Raises:
        TerminalError: a file that is there or came is another one (BAD_BATCH); it cannot be downloaded (UNREACHABLE).
    """
    path = _existing()
    if path is not None:
        return path
    try:
        content = _member(_download(url))
    except BAD_DOWNLOAD as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise TerminalError(
            f"{url} cannot be downloaded ({told}). {_ways()}", ErrorReason.UNREACHABLE
        ) from error
    _verify(f"{MEMBER} from {url}", hashlib.sha256(content).hexdigest(), _ways())
    return _store(content, cache_path())


def cache_path() -> Path:
    """Where a download is kept: under $XDG_CACHE_HOME, else ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "evergreen" / "bike_sharing" / MEMBER


def _existing() -> Path | None:
    given = settings.DATA_DIR.read()
    folder = settings.DATA_DIR.path()
    places = [folder / "bike_sharing" / MEMBER, folder / MEMBER] if given else []
    for path in [*places, cache_path()]:
        if path.is_file():
            remedy = (
                "delete it; it is downloaded again"
                if path == cache_path()
                else f"put the original there. {_ways()}"
            )
            try:
                found = _digest(path)
            except OSError as error:
                raise TerminalError(
                    f"{path} cannot be read ({error}); make it readable", ErrorReason.BAD_BATCH
                ) from error
            _verify(str(path), found, remedy)
            return path
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(what: str, found: str, remedy: str) -> None:
    if found != SHA256:
        raise TerminalError(
            f"{what} is not the UCI file: SHA-256 found {found}, expected {SHA256} ({SIZE} bytes); {remedy}",
            ErrorReason.BAD_BATCH,
        )


def _download(url: str) -> bytes:
    end = time.monotonic() + DEADLINE_S
    content = io.BytesIO()
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        while block := answer.read(BLOCK):
            content.write(block)
            if content.tell() > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes came; the file is smaller than that")
            if time.monotonic() > end:
                raise TimeoutError(f"not complete after {DEADLINE_S:.0f} s")
    return content.getvalue()


def _member(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = archive.getinfo(MEMBER).file_size
        if size > MAX_BYTES:
            raise ValueError(f"{MEMBER} in the zip file has {size} bytes, {SIZE} are expected")
        return archive.read(MEMBER)


def _store(content: bytes, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as part:
            part.write(content)
        Path(part.name).replace(path)
    except OSError as error:
        raise TerminalError(
            f"{path} cannot be written ({error}); set XDG_CACHE_HOME to a folder that can",
            ErrorReason.UNREACHABLE,
        ) from error
    return path


def _ways() -> str:
    return (
        f"Three ways: (1) with a network, it is downloaded from {URL}; (2) put {MEMBER} of that zip file into a folder "
        f"and set EVERGREEN_DATA_DIR to it; (3) put it at {cache_path()}. Or use the simulated data, which needs none."
    )
