"""When something runs: cron expressions, checked by the library that Airflow reads them with."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BeforeValidator

# Airflow's own, and two that its library knows. @once and @continuous are no crons.
PRESETS = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@quarterly", "@yearly", "@annually")
_EXAMPLE = "write five fields (minute hour day month weekday), such as '0 2 * * *'"
LONGEST = 200
_SPACE = " \t\r\n"
# The fields' names, and how many values each has.
_FIELDS = {"minutes": 60, "hours": 24, "days": 31, "months": 12, "weekdays": 7}
# Any leap year: what does not fire in the fifty years after it never does.
_START = datetime(2000, 1, 1)


def check_cron(value: Any) -> Any:
    """A cron expression of five fields or a preset, with single spaces; None stays None.

    Raises:
        ValueError: no cron, one that Airflow would read otherwise than people do, or one that never fires.
    """
    return value if value is None else _checked(value) if isinstance(value, str) else _refuse(value)


@lru_cache(maxsize=1000)
def _checked(value: str) -> str:
    text = value.strip(_SPACE)
    if text.startswith("@"):
        if text.lower() not in PRESETS:
            raise ValueError(
                f"{value!r} is not a cron expression; of the presets use one of {', '.join(PRESETS)}"
            )
        return text.lower()
    fields = text.replace("\t", " ").replace("\r", " ").replace("\n", " ").split(" ")
    fields = [field for field in fields if field]
    if len(text) > LONGEST or len(fields) != 5 or not text.isascii():
        raise ValueError(f"{value[:LONGEST]!r} is not a cron expression of five fields; {_EXAMPLE}")
    if any(field[0].lower() in "hr" for field in fields):
        raise ValueError(f"{value!r}: h and r stand for another time in each reading; {_EXAMPLE}")
    for field, (name, count) in zip(fields, _FIELDS.items(), strict=True):
        for step in (part.partition("/")[2] for part in field.split(",")):
            if step.isdigit() and int(step) > count:
                raise ValueError(
                    f"{value!r}: of {count} {name} a step of {step} takes the first and no other, so it does not fire every "
                    f"{step} {name}; {_EXAMPLE}"
                )
    # A tenth of a second to import, and only here.
    from croniter import CroniterBadDateError, croniter

    expression = " ".join(fields)
    try:
        croniter(expression, _START).get_next(datetime)
    except CroniterBadDateError:
        raise ValueError(
            f"{value!r} never fires: no month has such a day; mend day and month, or write null to run it by hand only"
        ) from None
    except Exception as error:
        said = str(error).replace(f"[{expression}]", "").replace(expression, "").strip()
        raise ValueError(f"{value!r} is not a cron expression ({said[:100]}); {_EXAMPLE}") from None
    return expression


def _refuse(value: Any) -> Any:
    raise ValueError(f"{value!r} is not a cron expression of five fields; {_EXAMPLE}")


Cron = Annotated[str | None, BeforeValidator(check_cron, json_schema_input_type=str | None)]
