"""deploy/release.py, which is in no package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def _load():
    found = importlib.util.spec_from_file_location("release", REPOSITORY / "deploy" / "release.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


release = _load()
