"""Features of a request by key: asked of the warehouse in threads, with a limit on how many wait and how long."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from evergreen import settings
from evergreen.errors import ErrorReason, EvergreenError, TransientError
from evergreen.serving import records
from evergreen.serving.predict import Found, RefusedError
from evergreen.serving.records import Problem
from evergreen.serving.served import Served

if TYPE_CHECKING:
    from evergreen.warehouse.features.lookup import Lookup

log = logging.getLogger(__name__)

CONNECTIONS = 2
"""To the warehouse, for each model that is asked by key."""
MOST_WAITING = 32
PREPARE_S = 15.0
"""The first request by key for a model waits so long: its connections are made."""
GRACE_S = 0.5
"""The lookup's own limit comes first."""


class FeaturesByKey:
    """Looks rows up; what is needed for it is imported when it is first asked for."""

    def __init__(self) -> None:
        """Nothing is open yet."""
        self._threads = ThreadPoolExecutor(2 * CONNECTIONS, thread_name_prefix="by-key")
        self._lookups: dict[str, tuple[object, Lookup]] = {}
        self._prepared: set[str] = set()
        self._lock = threading.Lock()
        self._waiting = 0

    async def find(self, served: Served, keys: Sequence[dict[str, Any]]) -> list[Found | None]:
        """The features of each key, see `predict.Features`."""
        if self._waiting >= MOST_WAITING:
            raise RefusedError(
                503, f"more than {MOST_WAITING} requests by key wait for the warehouse; come again", wait_s=1
            )
        self._waiting += 1
        try:
            work = asyncio.get_running_loop().run_in_executor(self._threads, self._find, served, keys)
            limit_s = served.model.timeout_ms / 1000 if served.model.name in self._prepared else PREPARE_S
            return await asyncio.wait_for(asyncio.shield(work), limit_s + GRACE_S)
        except TimeoutError:
            raise RefusedError(504, f"the features took longer than {served.model.timeout_ms} ms") from None
        finally:
            self._waiting -= 1

    def _find(self, served: Served, keys: Sequence[dict[str, Any]]) -> list[Found | None]:
        from evergreen.warehouse.features.lookup import BadKeysError

        try:
            lookup = self._lookup(served)
            if served.model.name not in self._prepared:
                lookup.prepare()
                self._prepared.add(served.model.name)
            found = lookup.rows(keys, timeout_s=served.model.timeout_ms / 1000)
        except BadKeysError as error:
            problems = [Problem(p.position, p.column, p.message) for p in error.problems]
            raise RefusedError(422, "keys are not what the model takes", records.told(problems)) from None
        except TransientError as error:
            raise RefusedError(
                504 if error.reason is ErrorReason.BUSY else 503, str(error), wait_s=1
            ) from None
        except EvergreenError as error:
            log.error("%s: %s", served.model.name, error)
            raise RefusedError(503, str(error)) from None
        return [None if row is None else Found(row.key, row.event_time, row.features) for row in found]

    def _lookup(self, served: Served) -> Lookup:
        """The lookup of a model, for the features that its versions need; it follows a spec that has changed."""
        from evergreen.spec import load_specs
        from evergreen.warehouse.features.lookup import Lookup

        model = served.model
        wanted = (model.spec, tuple(loaded.version.folder for loaded in served.loaded()))
        with self._lock:
            known = self._lookups.get(model.name)
            if known is not None and known[0] == wanted:
                return known[1]
            specs = load_specs(settings.specs_folder())
            if model.name not in specs.models:
                if known is not None:
                    return known[1]
                raise RefusedError(
                    503, f"{model.name}: its spec cannot be used now, and by key it is needed", wait_s=5
                )
            versions = [loaded.version for loaded in served.loaded()]
            seen = specs.models[model.name].seeing(
                dict.fromkeys(name for version in versions for name in version.numeric),
                dict.fromkeys(name for version in versions for name in version.categorical),
            )
            if known is None:
                lookup = Lookup(specs, seen, connections=CONNECTIONS)
            else:
                lookup = known[1]
                lookup.follow(specs, seen)
            self._lookups[model.name] = (wanted, lookup)
            return lookup

    def close(self) -> None:
        """End the threads and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for _, lookup in self._lookups.values():
            lookup.close()
