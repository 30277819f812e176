"""Snapshots for tasks that share no disk: kept in a bucket, fetched into a cache on the worker that needs one.

A file is named by its SHA-256, so two that write the same one at once write the same bytes. What belongs together is named by
a manifest, which is written last: half an upload is no snapshot. What is fetched is read back and held against the manifest
each time that a task uses it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.features import snapshot
from evergreen.warehouse.features.snapshot import Snapshot
from evergreen.warehouse.storage import working_folder
from evergreen.warehouse.storage.bucket import GoneError, Place, Store
from evergreen.warehouse.storage.full_disk import room

log = logging.getLogger(__name__)

_ROWS, _BESIDE = "rows.parquet", "rows.unlabelled.parquet"
_TAKE_AGAIN = "run the training from its first task again"


def take(specs: Specs, model: ModelSpec, as_of: datetime, place: Place, *, timeout_s: int = 1500) -> Snapshot:
    """Take a snapshot, see `snapshot.take`, and keep it in a folder or in a bucket.

    In a bucket it lies as `MODEL/AS_OF-FINGERPRINT.json`, which is the path of what is returned, and the files that this names.

    Raises:
        TerminalError: no row qualifies, the feature query does not run, or the bucket is missing or may not be written.
        TransientError: warehouse or store do not answer, or the disk is full.
    """
    if isinstance(place, Path):
        return snapshot.take(specs, model, as_of, place, timeout_s=timeout_s)
    with working_folder.folder(_cache()) as work:
        taken = snapshot.take(specs, model, as_of, work, timeout_s=timeout_s)
        if snapshot.fingerprint_of(model, Path(taken.path)) != taken.fingerprint:
            raise TransientError(
                f"{model.name}: {taken.path} does not hold what was written to it; look at this worker's disk, then try again"
            )
        made = work / "whole"
        made.mkdir()
        Path(taken.path).rename(made / _ROWS)
        if taken.unlabelled:
            taken.beside.rename(made / _BESIDE)
        kept, files = _keep(model, taken, made, place.under(model.name))
        with ExitStack() as stack:  # the next task may run here
            _trim(_cache(), keep=sum(file["bytes"] for file in files.values()))
            _put(made, _entry(files), stack)
        return kept


def _keep(model: ModelSpec, taken: Snapshot, made: Path, store: Store) -> tuple[Snapshot, dict[str, Any]]:
    named = {}
    for path in sorted(made.iterdir()):
        size, digest = path.stat().st_size, _digest(path)
        named[path.name] = {"sha256": digest, "bytes": size}
        # What is there is the same, unless its upload was given up.
        if store.size(f"{digest}.parquet") != size:
            store.put(path, f"{digest}.parquet")
    key = Path(taken.path).with_suffix(".json").name
    kept = replace(taken, path=store.where(key))
    told = {
        "fingerprint": taken.fingerprint,
        "rows": taken.rows,
        "unlabelled": taken.unlabelled,
        "files": named,
    }
    store.write(key, json.dumps(told, indent=1).encode())
    log.info("%s: the snapshot is in %s", model.name, kept.path)
    return kept, named


@contextmanager
def local(taken: Snapshot) -> Iterator[Snapshot]:
    """A snapshot as files on this machine, for as long as the context lasts; one that lies in a folder is as it is.

    Two processes of a worker that want the same one at once each fetch it; who is last finds the other's.

    Raises:
        TerminalError: it is gone from the bucket, or is not what was written (NO_ROWS), or may not be read (NO_ACCESS).
        TransientError: the store does not answer, or the disk is full (NO_SPACE).
    """
    if "://" not in taken.path:
        yield taken
        return
    url, _, key = taken.path.rpartition("/")
    store = Store.at(url)
    try:
        content = store.read(key)
        manifest = json.loads(content)
        if (manifest["fingerprint"], manifest["rows"]) != (taken.fingerprint, taken.rows):
            raise ValueError
    except GoneError as error:
        raise TerminalError(
            f"the snapshot {taken.path} is gone; {_TAKE_AGAIN}", ErrorReason.NO_ROWS
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise TerminalError(
            f"{taken.path} is not the manifest of this snapshot; {_TAKE_AGAIN}", ErrorReason.NO_ROWS
        ) from error
    with ExitStack() as stack:
        entry = _entry(manifest["files"])
        if not _sound(entry, manifest["files"], stack):
            total, cache = sum(file["bytes"] for file in manifest["files"].values()), entry.parent
            with (
                room(f"fetching the snapshot {taken.path}", cache, lambda: total),
                working_folder.folder(cache) as work,
            ):
                made = work / "whole"
                _fetch(store, taken, manifest["files"], made)
                _trim(cache, keep=total)
                entry = _put(made, entry, stack)
        yield replace(taken, path=str(entry / _ROWS))


def _fetch(store: Store, taken: Snapshot, files: dict[str, Any], folder: Path) -> None:
    folder.mkdir()
    for name, file in files.items():
        key = f"{file['sha256']}.parquet"
        try:
            digest = store.fetch(key, folder / name)
        except GoneError as error:
            if error.reason is ErrorReason.BUSY:
                raise
            raise TerminalError(
                f"the snapshot {taken.path} lacks {store.where(key)}; {_TAKE_AGAIN}", ErrorReason.NO_ROWS
            ) from error
        if digest != file["sha256"]:
            raise TerminalError(
                f"{store.where(key)} has the SHA-256 {digest[:12]}…, and not the one of its name: somebody wrote over it, or its "
                f"upload was cut off; {_TAKE_AGAIN}",
                ErrorReason.NO_ROWS,
            )


def _put(made: Path, entry: Path, stack: ExitStack) -> Path:
    """Give a folder its place in the cache, held until the stack ends; where another process was first, one of its own."""
    _held(made, stack)
    try:
        made.rename(entry)
        return entry
    except OSError:
        own = entry.with_name(f"{entry.name}-{os.getpid()}")
        shutil.rmtree(own, ignore_errors=True)
        made.rename(own)
        stack.callback(shutil.rmtree, own, ignore_errors=True)
        return own


def _sound(entry: Path, files: dict[str, Any], stack: ExitStack) -> bool:
    """Whether the cache has the files as they were written; then they are held until the stack ends."""
    if not _held(entry, stack):
        return False
    try:
        if all(_digest(entry / name) == file["sha256"] for name, file in files.items()):
            os.utime(entry)
            return True
    except OSError:
        pass
    log.warning("%s in the cache is not what was fetched; it is fetched again", entry.name)
    shutil.rmtree(entry, ignore_errors=True)
    return False


def _held(folder: Path, stack: ExitStack) -> bool:
    """Lock a folder, beside others who do, until the stack or the process ends; False where it is gone."""
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    stack.callback(os.close, number)
    fcntl.flock(number, fcntl.LOCK_SH)
    return os.fstat(number).st_nlink > 0


def _trim(cache: Path, keep: int) -> None:
    """Drop what was used longest ago until the rest and `keep` bytes more are within the limit; never what somebody holds."""
    limit = (settings.CACHE_MB.number() << 20) - keep
    entries = [p for p in cache.iterdir() if p.is_dir() and not p.name.startswith(working_folder.PREFIX)]
    for entry in sorted(entries, key=_used, reverse=True):
        with suppress(FileNotFoundError):  # another process was first
            limit -= sum(f.stat().st_size for f in entry.glob("*.parquet"))
            if limit < 0:
                _drop(entry)


def _drop(entry: Path) -> None:
    number = os.open(entry, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(entry, ignore_errors=True)
    except BlockingIOError:
        log.info("%s is in use and stays in the cache", entry.name)
    finally:
        os.close(number)


def _used(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(files: dict[str, Any]) -> Path:
    """The folder of the cache for the files of a manifest."""
    return _cache() / hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:32]


def _cache() -> Path:
    return settings.HOME.path() / "cache" / "snapshots"
