from __future__ import annotations

from pathlib import Path

import pytest

from evergreen.stack.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A home with its folders made."""
    made = Layout.of(tmp_path / "home")
    made.create()
    return made
