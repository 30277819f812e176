"""Files of MLflow runs and model versions, out and in; what came in is kept on this machine for the next time."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow.artifacts
from mlflow.entities import Run

from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError
from evergreen.registry import identity
from evergreen.registry.client import WAY_ON, client, guarded
from evergreen.warehouse.connection import connect

log = logging.getLogger(__name__)

KEEP_FOLDERS = 24
IN_USE_S = 3600.0
PART = ".part-"


def artifact_folder(run_id: str, path: str) -> Path:
    """A local copy of an artifact (folder or file) of a run.

    Kept by run and path and never asked for again, so it is for what a training wrote once (its reference),
    not for what is added to later.

    Args:
        run_id: MLflow's run id.
        path: path of the artifact in the run, such as `reference`.

    Raises:
        TerminalError: the run has no such artifact (REGISTRY_MISMATCH).
        TransientError: MLflow does not answer.
    """
    with guarded(f"read {path} of MLflow run {run_id}"):
        return _folder(client().get_run(run_id), path)


def local_copy(model_name: str, run_id: str, path: str) -> Path:
    """A local copy of a folder or file that travels with a version (its reference, its spec), as it was registered.

    Of a version that an earlier release registered no sums are known; its files are taken as they are.

    Args:
        model_name: name of the model.
        run_id: MLflow's id of the run that made the version.
        path: path of the folder or file in the run.

    Raises:
        TerminalError: the run has no such thing, or its files are not those that were registered (REGISTRY_MISMATCH).
        TransientError: warehouse or MLflow do not answer.
    """
    what = f"{model_name}, MLflow run {run_id}"
    with guarded(f"read {path} of MLflow run {run_id}"):
        run = client().get_run(run_id)
    with connect() as conn:
        sums = identity.expected(what, run.data.tags, identity.known_run(conn, model_name, run_id))
    with guarded(f"read {path} of MLflow run {run_id}"):
        found = _folder(run, path)
    if sums is None:
        log.warning(
            "%s was made by an earlier release, which kept no sum of %s; it is taken as it is", what, path
        )
        return found
    root = found.parent
    names = {name for name in sums if name == path or name.startswith(f"{path}/")}
    names |= {str(p.relative_to(root)) for p in found.rglob("*") if p.is_file()}
    identity.verify(what, root, {name: root / name for name in sorted(names)}, sums)
    return found


def _folder(run: Run, path: str) -> Path:
    """The local copy, see `artifact_folder`; to be called inside `guarded`."""
    run_id = run.info.run_id
    name = f"runs/{run_id}-{hashlib.sha256(path.encode()).hexdigest()[:16]}"
    return fetched(name, f"{run.info.artifact_uri}/{path}") / Path(path).name


def log_files(run_id: str, source: Path, artifact_path: str | None = None) -> None:
    """Put a file, or all files of a folder, into a run.

    Args:
        run_id: MLflow's run id.
        source: the file or folder.
        artifact_path: folder in the run; None for its root.

    Raises:
        TransientError: MLflow does not answer.
    """
    with guarded(f"write {source.name} into MLflow run {run_id}"):
        if source.is_dir():
            client().log_artifacts(run_id, str(source), artifact_path)
        else:
            client().log_artifact(run_id, str(source), artifact_path)


def fetched(key: str, uri: str) -> Path:
    """The folder of the cache under `key`, filled from `uri` if it is not there; to be called inside `guarded`.

    It appears whole or not at all, also when two processes fetch it at once.
    """
    target = settings.HOME.path() / "cache" / "mlflow" / key
    if target.is_dir():
        os.utime(target)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _part(target.parent) as part:
        mlflow.artifacts.download_artifacts(
            artifact_uri=uri, dst_path=str(part), tracking_uri=settings.MLFLOW.read()
        )
        if not any(p.is_file() for p in part.rglob("*")):
            raise TerminalError(
                f"{uri} is empty in MLflow. {WAY_ON}",
                ErrorReason.REGISTRY_MISMATCH,
            )
        try:
            part.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    _trim(target.parent, keep=target)
    return target


@contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """A new folder to fill, locked as long as its process lives, and gone afterwards unless it was renamed."""
    while True:
        part = Path(tempfile.mkdtemp(prefix=PART, dir=folder))
        held = _locked(part, wait=True)
        if held is not None:
            break  # else another process took it for one that was left, in the moment before it was locked
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        os.close(held)


def _locked(part: Path, *, wait: bool) -> int | None:
    """Lock a folder; the open file that holds the lock, or None where another process holds it or the folder is gone."""
    try:
        held = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.fstat(held).st_nlink:
            return held
    except BlockingIOError:
        pass
    os.close(held)
    return None


def _trim(folder: Path, keep: Path) -> None:
    """Drop what was used longest ago, and what a killed download left; never what another process may just be using."""
    now = time.time()
    parts = set(folder.glob(f"{PART}*"))
    for left in parts:
        # Who fills one holds its lock; nobody holds that of a process that was killed.
        if (held := _locked(left, wait=False)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(held)
    found = sorted((p for p in folder.iterdir() if p != keep and p not in parts), key=_used, reverse=True)
    for old in found[KEEP_FOLDERS - 1 :]:
        if now - _used(old) > IN_USE_S:
            shutil.rmtree(old, ignore_errors=True)


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
