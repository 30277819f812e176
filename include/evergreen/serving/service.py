"""The running service: what it serves now, and what it does beside answering: take up what the companion keeps, write the log, count."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable

from evergreen.serving import kept
from evergreen.serving.clients import Clients
from evergreen.serving.kept import Health, State
from evergreen.serving.predict import Features, Predictions
from evergreen.serving.served import Loaded, Served, Shelf
from evergreen.serving.spool import Spool
from evergreen.serving.traffic import Traffic

log = logging.getLogger(__name__)

LOOK_S = 0.25
FLUSH_S = 0.5
LIVE_S = 60.0
"""So often the service says in the warehouse that it lives."""
AGAIN_S = 10.0
"""After so long a version that could not be loaded is tried once more."""
STALE_S = 60.0
"""After so long without a word of the companion it is told to be away."""


class Service:
    """All that one process of the service holds; used in its event loop alone."""

    def __init__(self, features: Features) -> None:
        """Begin with nothing served; `features` finds rows by key."""
        self.served: dict[str, Served] = {}
        self.clients = Clients()
        self.traffic = Traffic()
        self.spool = Spool(f"{socket.gethostname()[:40]}-{os.getpid()}-{os.urandom(3).hex()}")
        self.predictions = Predictions(features)
        self.health = Health()
        self.state: State | None = None
        self.problems: dict[str, str] = {}
        """Why a version of a model cannot be served here, by model."""
        self._shelf = Shelf()
        self._seen: tuple[int, int] = (0, 0)
        self._again_at = 0.0
        self._retired: list[Loaded] = []
        self._works: list[tuple[float, Callable[[], Awaitable[None]]]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take up what is there, and go on looking."""
        await self._look()
        # What is here to stay need not be looked through again and again, and a pause for that falls on a request.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 50, 100)
        self.every(LOOK_S, self._look)
        self.every(FLUSH_S, self._flush)
        self.spool.live()
        self.every(LIVE_S, self._live)
        self._tasks += [asyncio.create_task(self._forever(work, every)) for every, work in self._works]

    def every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Have something done again and again once the service has started; what it raises is told, and it is done again."""
        self._works.append((seconds, work))

    async def stop(self) -> None:
        """Write what was gathered, and end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for minute in self.traffic.minutes(self.spool.lost, last=True):
            self.spool.add_minute(minute)
        self.spool.flush()

    async def _forever(self, work: Callable[[], Awaitable[None]], every: float) -> None:
        while True:
            due = time.monotonic() + every
            await asyncio.sleep(every)
            self.traffic.lag.set(max(0.0, time.monotonic() - due))
            try:
                await work()
            except Exception:
                log.exception("%s failed; the service goes on", work.__name__.strip("_"))

    async def _flush(self) -> None:
        for minute in self.traffic.minutes(self.spool.lost):
            self.spool.add_minute(minute)
        self.spool.flush()

    async def _live(self) -> None:
        self.spool.live()

    async def _look(self) -> None:
        self.health = kept.read_health()
        self._tell_health()
        try:
            found = kept.state_file().stat()
        except FileNotFoundError:
            return
        same = (found.st_mtime_ns, found.st_ino) == self._seen
        if same and not (self.problems and time.monotonic() > self._again_at):
            return
        state = await asyncio.to_thread(kept.read_state)
        if state is None:
            log.error(
                "%s is damaged; what is served goes on, and the companion writes it again", kept.state_file()
            )
            return
        self.clients.renew(state.clients)
        served, problems = await asyncio.to_thread(self._serve, state)
        for name, one in served.items():
            self._tell_swap(self.served.get(name), one)
        # Between two requests: from here to the end nothing else runs in this loop.
        self.served, self.state, self.problems = served, state, problems
        self._seen = (found.st_mtime_ns, found.st_ino)
        self._again_at = time.monotonic() + AGAIN_S
        for loaded in self._retired:
            loaded.close()
        self._retired = self._shelf.keep(list(served.values()))
        self._tell_shares()

    def _serve(self, state: State) -> tuple[dict[str, Served], dict[str, str]]:
        """Load what the state names, in a thread of its own; a model that cannot be loaded stays as it was."""
        served, problems = {}, {}
        for name, model in state.models.items():
            try:
                served[name] = self._shelf.serve(model)
            except Exception as error:
                problems[name] = f"version {model.champion} cannot be served: {error}"
                log.error("%s: %s; what was served goes on", name, problems[name])
                if before := self.served.get(name):
                    served[name] = before
        return served, problems

    def _tell_swap(self, before: Served | None, now: Served) -> None:
        versions = [loaded.version.version for loaded in now.loaded()]
        if before is not None and versions == [loaded.version.version for loaded in before.loaded()]:
            return
        self.traffic.swaps.labels(now.model.name).inc()
        others = (
            f", version {versions[1]} for {1 - now.model.share:.0%} of the keys" if len(versions) > 1 else ""
        )
        log.info("%s: version %s answers%s", now.model.name, versions[0], others)

    def _tell_shares(self) -> None:
        kept_pairs = {(s.model.name, x.version.version) for s in self.served.values() for x in s.loaded()}
        self.traffic.forget(kept_pairs | {(s.model.name, "") for s in self.served.values()})
        self.traffic.share.clear()
        for name, one in self.served.items():
            share = one.model.share if one.former is not None else 1.0
            self.traffic.share.labels(name, one.champion.version.version).set(share)
            if one.former is not None:
                self.traffic.share.labels(name, one.former.version.version).set(1 - share)

    def _tell_health(self) -> None:
        away = self.away()
        for part in ("companion", "warehouse", "mlflow"):
            self.traffic.up.labels(part).set(part not in away)
        self.traffic.waiting.set(self.health.waiting)

    def away(self) -> dict[str, str]:
        """What does not answer, each with what is known of it; the service goes on without."""
        found = {}
        if time.time() - self.health.told_at > STALE_S:
            found["companion"] = (
                "it has not written for a minute; nothing new is served or logged in the warehouse until it does"
            )
            return found
        for part in ("warehouse", "mlflow"):
            if problem := getattr(self.health, part):
                since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(getattr(self.health, f"{part}_since")))
                found[part] = f"since {since} UTC: {problem}"
        return found

    def problem(self, name: str) -> str:
        """Why what answers for a model is not the ledger's champion; empty where it is."""
        if self.state is None:
            return ""
        own = self.state.models[name].problem if name in self.state.models else ""
        return self.problems.get(name) or own or self.state.unserved.get(name, "")
