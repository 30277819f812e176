"""Waiting for what the scheduler does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

FAR = f"{datetime.now(UTC) + timedelta(hours=12):%M %H} * * *"
"""A daily cron with no tick near: Airflow makes up for one that passed less than a tenth of its period ago."""


def until(question: Callable[[], Any], what: str, timeout_s: float = 120) -> Any:
    """Ask until the answer is not empty, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (answer := question()):
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s in vain for {what}"
        time.sleep(0.5)
    return answer
