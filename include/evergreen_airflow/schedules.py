"""When a DAG runs by itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, AssetAny, AssetOrTimeSchedule, CronTriggerTimetable

from evergreen import settings


def schedule(cron: str | None, *assets: Asset) -> Any:
    """A DAG schedule from a spec's cron (UTC) and the assets that wake the DAG, either of which may be absent.

    EVERGREEN_SCHEDULES=off leaves the cron out: for a stack whose data ended in the past.
    """
    if settings.SCHEDULES.read() == "off":
        cron = None
    # By default Airflow starts a new DAG with the tick before it was unpaused, where that is less than a tenth of a period ago:
    # a second training beside the one that a person has just asked for.
    timetable = CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta(0)) if cron else None
    if timetable and assets:
        return AssetOrTimeSchedule(timetable=timetable, assets=AssetAny(*assets))
    return timetable or (AssetAny(*assets) if assets else None)
