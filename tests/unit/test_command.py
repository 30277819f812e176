"""What commands have in common: a time as it is typed, and the stack where no server is named."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evergreen.command import moment, use_stack
from evergreen.errors import TerminalError
from evergreen.stack.layout import Layout
from evergreen.stack.variables import environment

NAMES = (
    "EVERGREEN_WAREHOUSE_URL",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a stack that was started once, and of which the process knows nothing yet."""
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    for name in (*NAMES, "EVERGREEN_MLFLOW_URL"):
        monkeypatch.setenv(name, "")  # so that what the test sets is taken back
    Layout.of().create()
    assert Layout.of().secrets
    return environment()


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2025-06-02", datetime(2025, 6, 2, tzinfo=UTC)),
        ("2025-06-02T13:00Z", datetime(2025, 6, 2, 13, tzinfo=UTC)),
        ("2025-06-02T13:00+02:00", datetime(2025, 6, 2, 11, tzinfo=UTC)),
    ],
)
def test_a_time_is_utc_unless_it_names_a_zone(text: str, time: datetime) -> None:
    assert moment(text) == time
    assert moment(text).tzinfo is UTC


def test_what_is_no_time_is_told_with_one_that_is() -> None:
    with pytest.raises(
        argparse.ArgumentTypeError, match="'tomorrow' is no time; write one such as 2025-06-02"
    ):
        moment("tomorrow")


def test_the_stack_is_used_where_no_warehouse_is_named(there: dict[str, str]) -> None:
    use_stack()
    assert {name: os.environ[name] for name in NAMES} == {name: there[name] for name in NAMES}


def test_a_warehouse_that_is_named_stays_and_is_not_mixed_with_the_stacks_mlflow(
    there: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NAMES[0], "postgresql://other/warehouse")
    use_stack()
    assert [os.environ[name] for name in NAMES] == ["postgresql://other/warehouse", "", "", ""]


def test_an_mlflow_that_is_named_gets_no_login_of_the_stack(
    there: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NAMES[1], "https://mlflow.example.org")
    use_stack()
    assert [os.environ[name] for name in NAMES] == [there[NAMES[0]], "https://mlflow.example.org", "", ""]


def test_without_a_stack_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "nothing"))
    monkeypatch.setenv(NAMES[0], "")
    use_stack()
    assert os.environ[NAMES[0]] == ""


def test_a_folder_that_cannot_be_used_is_told_in_a_sentence(
    there: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Layout.of().secrets_file.write_text("{ not json")
    with pytest.raises(TerminalError):
        use_stack()
