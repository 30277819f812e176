"""Versions that wait for a decision."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import ModuleType

import pytest

from evergreen.promotion import ruling


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType, timedelta], None]:
    """Let a module find that the version was registered so much earlier than it was."""

    def earlier(module: ModuleType, by: timedelta) -> None:
        monkeypatch.setattr(module, "check_version", lambda *args: ruling.check_version(*args) - by)

    return earlier
