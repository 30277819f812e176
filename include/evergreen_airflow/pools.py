"""The Airflow pools that bound how many trainings and scorings run at once."""

from __future__ import annotations

import time
from contextlib import suppress

from evergreen import settings

TRIES, PAUSE_S = 5, 2.0
DESCRIPTION = "Made by Evergreen, which leaves the number of slots as it is from now on"


def pool(name: str) -> str:
    """The Airflow pool evergreen_NAME (see `settings.POOL_SIZES`), or Airflow's default pool unless EVERGREEN_POOLS is on.

    Airflow never starts a task whose pool does not exist and says so in the scheduler's log alone; so a pool is named only
    where somebody has said that there are pools.
    """
    return f"evergreen_{name}" if settings.POOLS.read() == "on" else "default_pool"


def make_pools() -> None:
    """Make the pools that EVERGREEN_POOLS wants and that are missing; one that is there keeps its size, whoever set it.

    Airflow never starts a task of a missing pool and tells nobody. The scheduler may write to Airflow's database.

    Raises:
        SystemExit: Airflow's database could not be asked. The scheduler ends with it and is started again, where any other exception
            would be logged and passed over.
    """
    if settings.POOLS.read() != "on":
        return
    from sqlalchemy.exc import SQLAlchemyError

    for tries_left in reversed(range(TRIES)):
        try:
            return _make_missing()
        except SQLAlchemyError as error:
            if not tries_left:
                raise SystemExit(
                    f"the pools {', '.join(settings.POOL_SIZES)} could not be made ({' '.join(str(error).split())[:300]}), and without them "
                    "no training or scoring starts; look at Airflow's database, or set EVERGREEN_POOLS=off"
                ) from error
            time.sleep(PAUSE_S)


def _make_missing() -> None:
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session
    from sqlalchemy.exc import IntegrityError

    for name, slots in settings.POOL_SIZES.items():
        # Another scheduler may make it at the same time.
        with suppress(IntegrityError), create_session() as session:
            if Pool.get_pool(name, session=session) is None:
                session.add(Pool(pool=name, slots=slots, description=DESCRIPTION, include_deferred=False))
