"""Brings versions from MLflow to this disk, tried, whole or not at all; each in a thread, so that one that hangs holds up nothing else."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evergreen import registry
from evergreen.errors import EvergreenError, TransientError, in_one_line
from evergreen.reference.reference import SAMPLE_FILE
from evergreen.registry.models import EXTRA, MODEL_FILE, PROBE_FILE, LoadedModel, probe
from evergreen.serving import kept
from evergreen.serving.kept import Version
from evergreen.spec import ModelSpec

log = logging.getLogger(__name__)

AT_ONCE = 2
"""So many versions are fetched at the same time; the others wait for their turn."""
SLOW_S = 15.0
"""A version that has not come after so long makes MLflow the one that is away."""


class NotYetError(TransientError):
    """A version is on its way; `late`: for so long that MLflow seems to hang."""

    def __init__(self, message: str, *, late: bool) -> None:
        super().__init__(message)
        self.late = late


@dataclass
class _Fetch:
    """A version that is on its way; `failed`: why the fetching before this one came to nothing."""

    coming: Future[Version]
    began: float
    failed: str = ""
    told: bool = False

    @property
    def running(self) -> bool:
        return not self.coming.done()

    @property
    def late(self) -> bool:
        return self.running and time.monotonic() - self.began > SLOW_S


class Fetches:
    """The versions that are on their way; for one thread."""

    def __init__(self) -> None:
        """None is."""
        self._fetches: dict[tuple[str, str], _Fetch] = {}
        self._asked: set[tuple[str, str]] = set()

    def get(
        self, model: ModelSpec, number: str, metrics: Callable[[], dict[str, float]], wait_s: float
    ) -> Version:
        """A version that is not on this disk; who asks again is given what has come meanwhile.

        Args:
            model: of the version.
            number: of the version.
            metrics: says those of its holdout; called where the fetching begins.
            wait_s: so long it is waited for.

        Raises:
            NotYetError: it has not come yet, and goes on coming.
            EvergreenError: it cannot be fetched, or does not pass; the next call begins anew.
        """
        name = (model.name, number)
        told = f"version {number} of {model.name}"
        self._asked.add(name)
        fetch = self._fetches.get(name)
        if fetch is None or fetch.told:
            others = [one for one in self._fetches.values() if one.running]
            if len(others) >= AT_ONCE:
                raise NotYetError(
                    f"{told} waits until others were fetched", late=any(one.late for one in others)
                )
            failed = fetch.failed if fetch else ""
            fetch = _Fetch(_started(model, number, metrics()), time.monotonic(), failed)
            self._fetches[name] = fetch
        wait([fetch.coming], timeout=wait_s)
        if fetch.running:
            # One that failed before does not work until it has come.
            before = f" ({fetch.failed})" if fetch.failed else ""
            raise NotYetError(
                f"{told} is being fetched and has not come yet{before}", late=fetch.late or bool(before)
            )
        try:
            found = fetch.coming.result()
        except EvergreenError as error:
            fetch.failed, fetch.told = in_one_line(error), True
            raise
        del self._fetches[name]
        return found

    def forget(self) -> None:
        """Leave alone what has come and nobody has asked for since the last time: it is on the disk, or is fetched anew."""
        self._fetches = {
            name: one for name, one in self._fetches.items() if one.running or name in self._asked
        }
        self._asked = set()


def _started(model: ModelSpec, number: str, metrics: dict[str, float]) -> Future[Version]:
    """A fetching that has begun. It does not hold up the end of the process."""
    coming: Future[Version] = Future()

    def work() -> None:
        try:
            loaded = registry.load(model, number)
            probe(loaded)
            coming.set_result(_keep(model, loaded, metrics))
        except EvergreenError as error:
            coming.set_exception(error)
        except BaseException as error:
            # A full disk, a damaged file: of this version alone, so what else the ledger says is brought up.
            why = f"version {number} of {model.name} cannot be fetched: {type(error).__name__}: {in_one_line(error)}"
            coming.set_exception(TransientError(why))

    threading.Thread(target=work, name=f"fetch {model.name} {number}", daemon=True).start()
    return coming


def remove_drafts() -> None:
    """Remove what a process that was ended in the middle of a fetching has left; for who alone works in the folder."""
    for path in kept.versions_folder().glob(".*"):
        shutil.rmtree(path, ignore_errors=True)


def folder_of(name: str, number: str, run_id: str) -> str:
    """The folder of a version, in `versions_folder`: another run's version of the same number has another one."""
    return f"{name}-{number}-{run_id}"


def on_disk(folder: str) -> Version | None:
    """What is kept of a version in a folder; None where nothing whole is."""
    path = kept.versions_folder() / folder
    try:
        found = msgspec.json.decode((path / kept.VERSION_FILE).read_bytes(), type=Version)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None
    whole = all((path / name).is_file() for name in (kept.MODEL_FILE, kept.PROBE_FILE))
    return found if whole and found.folder == folder else None


def _keep(model: ModelSpec, loaded: LoadedModel, metrics: dict[str, float]) -> Version:
    """Put a version that was fetched and tried on this disk, whole or not at all."""
    rows = pq.read_table(loaded.folder / EXTRA / PROBE_FILE)
    encoded = loaded.encode(rows)
    sample = _sample(model, loaded)
    lows, highs = _range(loaded, sample)
    encoding = loaded.encoding
    version = Version(
        version=loaded.version,
        run_id=loaded.run_id,
        folder=folder_of(model.name, loaded.version, loaded.run_id),
        numeric=tuple(encoding.numeric),
        categorical=encoding.categorical,
        lows=lows,
        highs=highs,
        example={name: _plain(rows[name][0].as_py()) for name in encoding.features},
        metrics=metrics,
    )
    kept.versions_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    target = kept.versions_folder() / version.folder
    draft = Path(tempfile.mkdtemp(prefix=".", dir=kept.versions_folder()))
    try:
        shutil.copyfile(loaded.folder / MODEL_FILE, draft / kept.MODEL_FILE)
        np.savez(draft / kept.PROBE_FILE, rows=encoded.matrix, predictions=loaded.predict_encoded(encoded))
        kept.write(draft / kept.VERSION_FILE, version)
        if target.exists():  # a half of an earlier release
            shutil.rmtree(target)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    log.info(
        "%s: version %s was fetched and gives the predictions that were kept with it",
        model.name,
        loaded.version,
    )
    return version


def _sample(model: ModelSpec, loaded: LoadedModel) -> pa.Table | None:
    """The sample of the rows that a version learnt from; None where it cannot be read, as that is only told to people."""
    try:
        folder = registry.local_copy(model.name, loaded.run_id, "reference")
        return pq.read_table(folder / SAMPLE_FILE, columns=list(loaded.encoding.numeric))
    except (EvergreenError, OSError, pa.ArrowException) as error:
        log.warning(
            "%s: version %s tells no ranges of its features: %s",
            model.name,
            loaded.version,
            in_one_line(error),
        )
        return None


def _range(loaded: LoadedModel, sample: pa.Table | None) -> tuple[dict[str, float], dict[str, float]]:
    lows: dict[str, float] = {}
    highs: dict[str, float] = {}
    if sample is None:
        return lows, highs
    for name in loaded.encoding.numeric:
        values = pc.drop_null(sample[name].cast(pa.float64()))
        numbers = values.filter(pc.is_finite(values)).to_numpy()
        if len(numbers):
            lows[name], highs[name] = float(numbers.min()), float(numbers.max())
    return lows, highs


def _plain(value: Any) -> float | str | None:
    return value if isinstance(value, str) or value is None else float(value) if np.isfinite(value) else None
