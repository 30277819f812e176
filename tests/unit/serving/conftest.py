"""A service of its own for each test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving_scene import NoFeatures, Running, Scene

from evergreen.serving.service import Service


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """EVERGREEN_HOME of its own."""
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def kept_scene(home: Path) -> Scene:
    """Version 1 is champion."""
    scene = Scene()
    scene.add("1")
    scene.keep(scene.model())
    return scene


@pytest.fixture
def with_service(home: Path) -> Callable[[Callable[[Running], Any]], Any]:
    """Run a test's steps with the service that reads what is kept."""

    def run(steps: Callable[[Running], Any]) -> Any:
        async def whole() -> Any:
            service = Service(NoFeatures())
            await service.start()
            running = Running(service)
            try:
                return await steps(running)
            finally:
                await running.client.aclose()
                await service.stop()

        return asyncio.run(whole())

    return run
