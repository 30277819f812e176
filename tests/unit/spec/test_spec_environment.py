"""Environment variables with values that cannot be used: each a sentence, and no DAG is lost for it."""

from __future__ import annotations

import re

import pytest

from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError
from evergreen.spec.environment import digest_cron, environment_problems

WRONG = [
    ("EVERGREEN_DIGEST", "mondays", "is not a cron expression.*or off"),
    ("EVERGREEN_DIGEST", "61 6 * * 1", "is not a cron expression"),
    ("EVERGREEN_DIGEST", "0 0 30 2 *", "never fires"),
    ("EVERGREEN_DIGEST", "OFF", "or off"),
    ("EVERGREEN_SCHEDULES", "OFF", "neither on nor off"),
    ("EVERGREEN_SCHEDULES", "false", "neither on nor off"),
    ("EVERGREEN_POOLS", "yes", "take no slots of pools, as with off"),
    ("EVERGREEN_THREADS", "two", "no whole number"),
    ("EVERGREEN_THREADS", "0", "no whole number"),
    ("EVERGREEN_THREADS", "1.5", "no whole number"),
    ("EVERGREEN_TRAINING_MEMORY_MB", "1 GB", "no whole number"),
    ("EVERGREEN_AIRFLOW_URL", "airflow.example.org", "write it like http"),
    ("EVERGREEN_MLFLOW_URL", "http://[::1", "write it like http"),
    ("EVERGREEN_MAIL_FROM", "nobody", "address"),
    ("EVERGREEN_MAIL_TO", "a@example.org, b", "address"),
]


def test_nothing_is_wrong_with_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in settings.ALL:
        monkeypatch.delenv(variable.name, raising=False)
    assert environment_problems() == []


@pytest.mark.parametrize(("name", "value", "said"), WRONG, ids=[f"{n}={v}" for n, v, _ in WRONG])
def test_a_value_that_cannot_be_used_is_a_sentence(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in settings.ALL:
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.setenv(name, value)
    (found,) = environment_problems()
    assert found.file == name
    assert re.search(said, found.remedy)


@pytest.mark.parametrize(
    ("value", "cron"),
    [("off", None), ("0 5 * * 2", "0 5 * * 2"), ("mondays", "0 6 * * 1"), ("0 0 30 2 *", "0 6 * * 1")],
)
def test_the_digest_keeps_its_default_where_the_cron_is_none(
    value: str, cron: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_DIGEST", value)
    assert digest_cron() == cron


@pytest.mark.parametrize("value", ["two", "-1", "0", "\u0663", "9" * 30])
def test_a_number_that_is_none_ends_a_task_with_a_sentence(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_THREADS", value)
    with pytest.raises(TerminalError, match=r"EVERGREEN_THREADS is .* no whole number from 1 on") as caught:
        settings.THREADS.number()
    assert caught.value.reason is ErrorReason.BAD_SPEC
