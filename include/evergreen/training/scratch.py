"""The folder for a training's working files: beside its snapshot, and gone when the training is."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evergreen.warehouse import leftovers

PREFIX = ".work-"
_LOCK = "lock"


@contextmanager
def folder(beside: Path) -> Iterator[Path]:
    """Make a folder in another one and remove it at the end; what killed trainings left there goes too."""
    beside.mkdir(parents=True, exist_ok=True)
    leftovers.sweep(beside, f"{PREFIX}*", _LOCK)
    made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=beside))
    try:
        with leftovers.held(made / _LOCK):
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def own_temporaries(work: Path) -> Iterator[None]:
    """Let every temporary file of this process be made in a folder, those of MLflow and XGBoost too.

    So they go with the folder where the process is killed. It holds for the whole process, which a training has to itself.
    """
    before = tempfile.tempdir
    tempfile.tempdir = str(work)
    try:
        yield
    finally:
        tempfile.tempdir = before
