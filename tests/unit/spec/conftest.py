"""A folder of good specs of its own for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the specs that the project ships."""
    for name in ("datasets", "models"):
        shutil.copytree(REPOSITORY / "include" / name, tmp_path / "specs" / name)
    return tmp_path / "specs"
