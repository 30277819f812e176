"""Entries of `alerts`: addresses as ever, channels by name, kinds and severities; what is wrong is told with what to write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evergreen.alert_kinds import AlertKind
from evergreen.spec import DatasetSpec, load_specs
from evergreen.spec.alerts import AlertEntry, entry, targets

FILE = "datasets/bike_hourly.yaml"


def problems(folder: Path, alerts: str) -> list[tuple[str, str]]:
    path = folder / FILE
    path.write_text(f"{path.read_text()}\nalerts: {alerts}\n")
    return [(p.field, p.remedy) for p in load_specs(folder).problems if not p.because]


@pytest.mark.parametrize(
    "alerts",
    [
        "[ann@x.org, 'Bob <bob@x.org>, c@x.org']",
        "[channel:oncall]",
        "[ann@x.org, {to: bob@x.org}]",
        "[{to: channel:on_call2, on: [drift, approval], severity: warning}]",
        "[]",
    ],
)
def test_taken(folder: Path, alerts: str) -> None:
    assert problems(folder, alerts) == []


@pytest.mark.parametrize(
    ("alerts", "field", "said"),
    [
        ("[slack://a/b/c]", "alerts.0", "a URL holds a secret"),
        ("[{to: 'https://hooks.example.org/x'}]", "alerts.0.to", "write channel:NAME here"),
        ("[channel:OnCall]", "alerts.0", "is no name of a channel"),
        ("['channel:']", "alerts.0", "is no name of a channel"),
        ("[{to: nobody}]", "alerts.0.to", "is no e-mail address"),
        ("[{on: [drift]}]", "alerts.0.to", "is missing"),
        ("[{to: a@x.org, on: [drifft]}]", "alerts.0.on.0", "did you mean drift"),
        ("[{to: a@x.org, on: [recovered]}]", "alerts.0.on.0", "must be one of drift, "),
        ("[{to: a@x.org, on: drift}]", "alerts.0.on", "must be a list"),
        ("[{to: a@x.org, severity: urgent}]", "alerts.0.severity", "must be one of info, warning, critical"),
        ("[{to: a@x.org, sevrity: warning}]", "alerts.0.sevrity", "did you mean severity"),
        ("[a@x.org, 7]", "alerts.1", "text"),
    ],
)
def test_refused(folder: Path, alerts: str, field: str, said: str) -> None:
    (problem,) = problems(folder, alerts)
    assert problem[0] == field
    assert said in problem[1]


def test_a_url_in_a_spec_is_refused_without_being_repeated_in_the_remedy(folder: Path) -> None:
    ((_, remedy),) = problems(folder, "[slack://hunter2secret/b/c]")
    assert "hunter2secret" not in remedy


def test_a_plain_list_is_kept_as_it_was_written() -> None:
    given = {
        "name": "rides", "key": ["ts"], "event_time": "ts", "columns": {"ts": {"type": "timestamp"}},
        "alerts": ["ann@x.org", "channel:oncall", {"to": "bob@x.org", "on": ["drift"]}],
    }  # fmt: skip
    spec = DatasetSpec.model_validate(given)
    assert json.loads(spec.model_dump_json())["alerts"] == [
        "ann@x.org",
        "channel:oncall",
        {"to": "bob@x.org", "on": ["drift"], "severity": "info"},
    ]
    assert DatasetSpec.model_validate(spec.model_dump(by_alias=True)) == spec


@pytest.mark.parametrize("kind", AlertKind, ids=str)
def test_a_text_is_told_of_everything(kind: AlertKind) -> None:
    assert entry("ann@x.org").takes(kind)
    assert AlertEntry(to="ann@x.org", severity="critical").takes(kind) == (
        kind.traits.severity.value == "critical"
    )


def test_one_part_that_is_wrong_keeps_nothing_from_the_others() -> None:
    found = targets(['"Doe, Jane" <jane@x.org>, channel:oncall, nobody', "channel:oncall", "channel:BAD"])
    assert found == (['"Doe, Jane" <jane@x.org>'], ["channel:oncall"], ["nobody", "channel:BAD"])
