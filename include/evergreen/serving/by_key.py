"""Features of a request by key: asked of the warehouse in threads, with a limit on how many wait and how long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from evergreen import settings
from evergreen.errors import ErrorReason, EvergreenError, TransientError
from evergreen.serving import records
from evergreen.serving.predict import Found, RefusedError
from evergreen.serving.records import Problem
from evergreen.serving.served import Served

log = logging.getLogger(__name__)

CONNECTIONS = 2
"""To the warehouse, for each model that is asked by key."""
MOST_WAITING = 32


class FeaturesByKey:
    """Looks rows up; what is needed for it is imported when it is first asked for."""

    def __init__(self) -> None:
        """Nothing is open yet."""
        self._threads = ThreadPoolExecutor(2 * CONNECTIONS, thread_name_prefix="by-key")
        self._lookups: dict[str, tuple[str, Any]] = {}
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
            return await asyncio.wait_for(asyncio.shield(work), served.model.timeout_ms / 1000 + 0.5)
        except TimeoutError:
            raise RefusedError(504, f"the features took longer than {served.model.timeout_ms} ms") from None
        finally:
            self._waiting -= 1

    def _find(self, served: Served, keys: Sequence[dict[str, Any]]) -> list[Found | None]:
        from evergreen.warehouse.features.lookup import BadKeysError

        try:
            return list(self._lookup(served).rows(keys, timeout_s=served.model.timeout_ms / 1000))
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

    def _lookup(self, served: Served) -> Any:
        """The lookup of a model; another one where its spec has changed."""
        from evergreen.spec import load_specs
        from evergreen.warehouse.features.lookup import Lookup

        model = served.model
        known = self._lookups.get(model.name)
        if known is None or known[0] != model.spec:
            specs = load_specs(settings.specs_folder())
            if known is not None:
                known[1].close()
            known = self._lookups[model.name] = (
                model.spec,
                Lookup(specs, specs.models[model.name], connections=CONNECTIONS),
            )
        return known[1]

    def close(self) -> None:
        """End the threads and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for _, lookup in self._lookups.values():
            lookup.close()
