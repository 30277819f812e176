"""The folder for a training's working files: beside its snapshot, and gone when the training is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evergreen.warehouse.storage.working_folder import PREFIX, folder

__all__ = ["PREFIX", "folder", "own_temporaries"]


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
