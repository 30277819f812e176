from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _addresses(no_addresses: None) -> None:
    """Each test names those whom it writes to."""
