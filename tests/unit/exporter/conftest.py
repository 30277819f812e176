"""An exporter in this process, as `evergreen exporter` starts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from scraped import Scraped, fetched, parsed, write_ledger

from evergreen.exporter.collector import WarehouseCollector


@pytest.fixture
def ledger(warehouse_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warehouse with the ledger of `write_ledger`, and folders for the files."""
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path))
    monkeypatch.setenv("EVERGREEN_LANDING", str(tmp_path / "landing"))
    monkeypatch.setenv("EVERGREEN_SNAPSHOTS", str(tmp_path / "not there yet"))
    monkeypatch.delenv("EVERGREEN_SPECS", raising=False)
    write_ledger()


@pytest.fixture
def scrape() -> Iterator[Callable[[], Scraped]]:
    """Scrape an exporter that asks anew each time."""
    servers = []

    def ask() -> Scraped:
        if not servers:
            registry = CollectorRegistry()
            registry.register(WarehouseCollector(hold_s=0.0))
            servers.append(start_http_server(0, "127.0.0.1", registry)[0])
        return parsed(fetched(f"http://127.0.0.1:{servers[0].server_port}/metrics"))

    yield ask
    for server in servers:
        server.shutdown()
        server.server_close()
