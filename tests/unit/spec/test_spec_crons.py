"""A schedule that cannot be read, would be read otherwise, or never comes, is a mistake of its spec, wherever it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from evergreen.spec import load_specs
from evergreen.spec.cron import PRESETS, check_cron

REFUSED = {
    "minute 61": ("61 2 * * *", "is not a cron expression (is not acceptable, out of range)"),
    "hour 24": ("0 24 * * *", "is not a cron expression"),
    "day 0": ("0 0 0 * *", "is not a cron expression"),
    "month 13": ("0 0 1 13 *", "is not a cron expression"),
    "step 0": ("*/0 * * * *", "is not a cron expression"),
    "step 0 of a range": ("1-5/0 * * * *", "is not a cron expression"),
    "30 February": ("0 2 30 2 *", "never fires: no month has such a day"),
    "31 April": ("0 2 31 4 *", "never fires"),
    "31 of short months": ("0 2 31 feb,apr,jun *", "never fires"),
    "step of 70 minutes": ("*/70 * * * *", "it does not fire every 70 minutes"),
    "step of 36 hours": ("0 */36 * * *", "it does not fire every 36 hours"),
    "step of a list": ("0 1,2-5/48 * * *", "it does not fire every 48 hours"),
    "step of 14 weekdays": ("0 0 * * */14", "it does not fire every 14 weekdays"),
    "sixth Friday": ("0 0 * * 5#6", "is not a cron expression"),
    "with seconds": ("0 0 2 * * *", "is not a cron expression of five fields"),
    "with a year": ("0 2 * * * 0 2099", "is not a cron expression of five fields"),
    "four fields": ("0 2 * *", "is not a cron expression of five fields"),
    "empty": ("", "is not a cron expression of five fields"),
    "words": ("at night", "is not a cron expression of five fields"),
    "once": ("@once", "of the presets use one of @hourly"),
    "at start": ("@reboot", "of the presets use one of @hourly"),
    "random": ("R 2 * * *", "another time in each reading"),
    "by hash": ("H H * * *", "another time in each reading"),
    "negative": ("-1 * * * *", "is not a cron expression"),
    "fraction": ("1.5 * * * *", "is not a cron expression"),
    "hole in a list": ("1,,2 * * * *", "is not a cron expression"),
    "other digits": ("٣ * * * *", "is not a cron expression of five fields"),
    "wide spaces": ("0\u30002 * * *", "is not a cron expression of five fields"),
    "many digits": ("9" * 5000 + " * * * *", "is not a cron expression of five fields"),
    "number": (5, "is not a cron expression of five fields"),
    "boolean": (True, "is not a cron expression of five fields"),
    "list": (["0 2 * * *"], "is not a cron expression of five fields"),
}


@pytest.mark.parametrize(("value", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(value: object, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_cron(value)
    assert said in str(caught.value)
    assert (
        "write five fields" in str(caught.value)
        or "use one of" in said
        or "or write null" in str(caught.value)
    )


TAKEN = {
    "plain": ("0 2 * * *", "0 2 * * *"),
    "29 February": ("0 2 29 2 *", "0 2 29 2 *"),
    "last day": ("0 2 L * *", "0 2 L * *"),
    "second Friday": ("0 2 * * 5#2", "0 2 * * 5#2"),
    "last Friday": ("0 2 * * L5", "0 2 * * L5"),
    "names": ("0 2 * jan-mar mon,wed", "0 2 * jan-mar mon,wed"),
    "steps as long as the field": ("*/60 */24 * * *", "*/60 */24 * * *"),
    "steps": ("*/15 8-18/2 * * 1-5", "*/15 8-18/2 * * 1-5"),
    "spaces and a tab": (" 0\t2  * * * \n", "0 2 * * *"),
    "day that is none, or a weekday": ("0 2 30 2 1", "0 2 30 2 1"),
    "none": (None, None),
    **{name: (name, name) for name in PRESETS},
}


@pytest.mark.parametrize(("value", "kept"), TAKEN.values(), ids=TAKEN.keys())
def test_taken(value: str | None, kept: str | None) -> None:
    assert check_cron(value) == kept


@pytest.mark.parametrize(("value", "kept"), TAKEN.values(), ids=TAKEN.keys())
def test_airflow_reads_what_is_taken(value: str | None, kept: str | None) -> None:
    """With the library that reads the specs only, this would be a promise about another program."""
    timetables = pytest.importorskip("airflow.timetables.trigger")
    pendulum = pytest.importorskip("pendulum")
    if kept is not None:
        timetable = timetables.CronTriggerTimetable(kept, timezone="UTC")
        timetable.validate()
        assert timetable._get_next(pendulum.datetime(2026, 1, 1)) > pendulum.datetime(2026, 1, 1)


PLACES = {
    "dataset": ("datasets/bike_hourly.yaml", "owner: bike-team", 'schedule: "{}"', "schedule"),
    "training": ("models/bike_rush.yaml", 'schedule: "15 2 * * *"', 'schedule: "{}"', "schedule"),
    "scoring": (
        "models/bike_rush.yaml",
        "monitoring:",
        'scoring: {{schedule: "{}"}}\nmonitoring:',
        "scoring.schedule",
    ),
    "monitoring": (
        "models/bike_rush.yaml",
        "monitoring:",
        'monitoring:\n  schedule: "{}"',
        "monitoring.schedule",
    ),
}


@pytest.mark.parametrize("cron", ["61 2 * * *", "0 2 30 2 *", "*/0 * * * *", "@once"])
@pytest.mark.parametrize(("file", "old", "new", "field"), PLACES.values(), ids=PLACES.keys())
def test_wherever_it_stands(folder: Path, file: str, old: str, new: str, field: str, cron: str) -> None:
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new.format(cron), 1))
    own = [p for p in load_specs(folder).problems if not p.because]
    assert [(p.file, p.field) for p in own] == [(file, field)]
