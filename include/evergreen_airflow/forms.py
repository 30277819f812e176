"""The fields of the forms with which a person starts a run, and a time as it is typed into one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowFailException

# Windows and cut-offs are counted back from it; a year with a zero in front is a slip of the pen.
EARLIEST, LATEST = (datetime(year, 1, 1, tzinfo=UTC) for year in (1900, 2200))
# The same as Airflow's form and API take it: no run is started with another one.
TIME: dict[str, Any] = {"format": "date-time", "pattern": r"^(19|20|21)\d\d-"}


def as_of_param() -> Param:
    """The Param with which a person sets the as-of time."""
    return Param(
        None,
        type=["null", "string"],
        **TIME,
        title="As of",
        description="Only what was known by then is used (ISO time, UTC where no zone is given). Empty: now.",
    )


def reason_param(required: bool = False) -> Param:
    """The Param with which a person says why; where it is required Airflow starts no run without."""
    what: dict[str, Any] = {
        "title": "Reason",
        "description": "Why this run is started by hand; it goes to the ledger and into the e-mail.",
    }
    return required_param(**what) if required else Param("", type="string", **what)


def required_param(**schema: Any) -> Param:
    """A text that a person must fill in. Only for DAGs that nothing but a person starts."""
    return Param(**{"type": "string", "minLength": 1, "pattern": r"\S", **schema})


def flag_param(title: str, description: str) -> Param:
    """A switch in the trigger form, off by default."""
    return Param(False, type="boolean", title=title, description=description)


def parse_time(value: str | None, field: str) -> datetime | None:
    """A time Param as an aware datetime (UTC where it names no zone), or None where it is empty; `field` is its title."""
    return moment(value, field) if value else None


def moment(value: str, field: str = "As of") -> datetime:
    """A time as an aware datetime, UTC where it names no zone; `field` is the title of the form's field, for the error.

    Raises:
        AirflowFailException: it is none, or lies outside of the years that data has.
    """
    try:
        parsed = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError as error:
        raise AirflowFailException(
            f"{field}: {value!r} is no ISO time; write it like 2026-05-01T02:00:00Z"
        ) from error
    try:
        found = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:  # such as year 1 east of Greenwich
        found = None
    if found is None or not EARLIEST <= found < LATEST:
        raise AirflowFailException(
            f"{field}: {value!r} lies outside of the years {EARLIEST.year} to {LATEST.year - 1}; write a time of the data, like "
            "2026-05-01T02:00:00Z, or leave the Param empty for now"
        )
    return found
