"""Follows the ledger: which versions answer, fetched from MLflow and tried, and kept on this disk for the server."""

from __future__ import annotations

import logging
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from evergreen import registry, settings
from evergreen.errors import EvergreenError, in_one_line
from evergreen.health.specs import SpecsFolder
from evergreen.registry import identity
from evergreen.registry.rollout import Rollout, rollout
from evergreen.serving import kept
from evergreen.serving.fetch import Fetches, NotYetError, folder_of, on_disk, remove_drafts
from evergreen.serving.kept import Client, Model, State, Version
from evergreen.spec import ModelSpec, Specs
from evergreen.spec.hashes import spec_document, spec_hash
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.features import feature_query, views

log = logging.getLogger(__name__)

KEPT_VERSIONS = 4
"""Of each model, beside those that answer: a rollback to one of them needs no MLflow."""
WAIT_S = 5.0
"""So long a look waits for versions that are fetched; the next one goes on. Meanwhile clients, and other models, are brought up."""
LOOK_S = 60.0
"""After so long the ledger is read whole, whatever seems to have changed."""


class Follower:
    """Brings what is kept up to what the ledger says."""

    def __init__(self) -> None:
        """With what an earlier companion kept."""
        self._specs = SpecsFolder(settings.specs_folder())
        self._state = kept.read_state() or State()
        self._unserved: dict[str, str] = {}
        self._keys: dict[str, dict[str, str]] = {}
        self._newest: object = None
        self._seen: object = None
        """What the last look that came to its end was made of."""
        self._looked = 0.0
        self.mlflow = ""
        """Why MLflow could not give a version that is wanted; empty where it could, or was not asked."""
        self._fetches = Fetches()
        remove_drafts()
        self._waits = False
        """A version that is wanted is on its way."""

    def is_due(self, conn: Connection) -> bool:
        """Whether anything may have changed since the last look: one question, however many models there are.

        Raises:
            psycopg2.Error: the warehouse does not answer.
        """
        found = fetch(
            conn,
            "SELECT (SELECT max(id) FROM evergreen.decision) AS decision, (SELECT max(id) FROM evergreen.window_judgement) AS window,"
            " (SELECT array_agg((name, key_sha256, models, rate, revoked_at)::text ORDER BY name) FROM evergreen.client) AS clients",
        )
        conn.commit()
        self._newest = (found, self._specs.read())
        return bool(
            self.mlflow
            or self._waits
            or self._newest != self._seen
            or time.monotonic() - self._looked > LOOK_S
        )

    def bring_up(self, conn: Connection) -> State:
        """Read the ledger once, fetch what is wanted, and write the state where it is another one.

        Args:
            conn: the warehouse; nothing is written in it.

        Raises:
            TransientError: the warehouse does not answer.
            OSError: the disk is full or not writable.
        """
        specs, self._looked = self._specs.read(), time.monotonic()
        self.mlflow, self._waits = "", False
        models, self._unserved = {}, {}
        for model in specs.models.values():
            if not model.serving.online:
                continue
            found = self._model(conn, specs, model)
            if found is not None:
                models[model.name] = found
        # A spec that cannot be read now takes nobody's predictions away.
        for name, before in self._state.models.items() if specs.problems else ():
            if name not in specs.models:
                why = f"its spec cannot be used ({specs.problems[0]}); version {before.champion} goes on answering"
                models[name] = msgspec.structs.replace(before, problem=why)
        state = State(models, _clients(conn), self._unserved)
        if state != self._state or not kept.state_file().exists():
            kept.write(kept.state_file(), state)
            self._state = state
            self._trim()
        self._fetches.forget()
        self._seen = self._newest
        return state

    def _model(self, conn: Connection, specs: Specs, model: ModelSpec) -> Model | None:
        """A model as it is to be served; as it was where it cannot be brought up; None: it has no champion."""
        before = self._state.models.get(model.name)
        try:
            who = rollout(conn, model, datetime.now(UTC))
            if who is None:
                return None
            champion = registry.champion(conn, model.name, repair=False)
            assert champion is not None
            key = self._key(specs, model)
            wanted = [who.champion, *([who.former] if who.former is not None and who.share < 1 else [])]
            versions = {number: self._version(conn, model, number) for number in wanted}
        except EvergreenError as error:
            return self._as_before(model, before, error)
        return _told(specs, model, who, champion, key, versions, _drift(conn, model.name))

    def _as_before(self, model: ModelSpec, before: Model | None, error: EvergreenError) -> Model | None:
        level = logging.ERROR
        if isinstance(error, NotYetError):
            self._waits = True
            level = logging.WARNING if error.late else logging.INFO
        if not isinstance(error, NotYetError) or error.late:
            self.mlflow = self.mlflow or in_one_line(error)
        problem = f"the champion of the ledger does not answer yet: {in_one_line(error)}"
        if before is None:
            if self._state.unserved.get(model.name) != problem:
                log.log(level, "%s: %s", model.name, problem)
            self._unserved[model.name] = problem
            return None
        if before.problem != problem:
            log.log(level, "%s: %s; version %s goes on answering", model.name, problem, before.champion)
        return msgspec.structs.replace(before, problem=problem)

    def _key(self, specs: Specs, model: ModelSpec) -> dict[str, str]:
        """The SQL types of the key's columns, asked once for each text of the spec."""
        hashed = spec_hash(spec_document(specs, model))
        if hashed not in self._keys:
            with views.reading(specs, model, datetime.now(UTC), timeout_s=30) as reader:
                types = feature_query.types(reader)
            self._keys[hashed] = {name: types[name] for name in model.key}
        return self._keys[hashed]

    def _version(self, conn: Connection, model: ModelSpec, number: str) -> Version:
        """A version as it lies on this disk, fetched where it does not."""
        known = identity.known(conn, model.name, number)
        conn.commit()
        if known is not None and (found := on_disk(folder_of(model.name, number, known.run_id))) is not None:
            return found
        patience = max(0.0, self._looked + WAIT_S - time.monotonic())
        return self._fetches.get(model, number, lambda: _metrics(conn, model.name, number), patience)

    def _trim(self) -> None:
        """Drop the versions that were kept longest ago, but for those that answer and the newest of each model."""
        used = {version.folder for m in self._state.models.values() for version in m.versions.values()}
        by_model: dict[str, list[Path]] = {}
        for path in kept.versions_folder().glob("*"):
            if path.name not in used and not path.name.startswith("."):
                by_model.setdefault(path.name.partition("-")[0], []).append(path)
        for paths in by_model.values():
            for old in sorted(paths, key=lambda p: p.stat().st_mtime, reverse=True)[KEPT_VERSIONS:]:
                shutil.rmtree(old, ignore_errors=True)


def _told(  # what is known of a model, from as many places
    specs: Specs,
    model: ModelSpec,
    who: Rollout,
    champion: registry.Champion,
    key: dict[str, str],
    versions: dict[str, Version],
    drift: str,
) -> Model:
    return Model(
        name=model.name,
        task=model.task,
        description=model.description,
        metric=model.gate_metric,
        champion=who.champion,
        former=who.former if who.share < 1 else None,
        share=who.share,
        promoted_at=champion.decided_at.astimezone(UTC).isoformat(timespec="seconds"),
        key=key,
        event_time=model.event_time,
        by_key=model.serving.features,
        timeout_ms=model.serving.timeout_ms,
        sensitive=model.serving.sensitive,
        logged=model.serving.log.share,
        versions=versions,
        drift=drift,
        spec=spec_hash(spec_document(specs, model)),
    )


def _metrics(conn: Connection, name: str, number: str) -> dict[str, float]:
    found = next((c for c in registry.history(conn, name) if c.version == number), None)
    conn.commit()
    return {k: float(v) for k, v in found.holdout.items()} if found else {}


def _clients(conn: Connection) -> tuple[Client, ...]:
    rows = fetch(
        conn,
        "SELECT name, key_sha256, models, rate FROM evergreen.client WHERE revoked_at IS NULL ORDER BY name",
    )
    conn.commit()
    return tuple(Client(r["name"], r["key_sha256"], tuple(r["models"]), float(r["rate"])) for r in rows)


def _drift(conn: Connection, name: str) -> str:
    """What the newest judged window says, as a sentence."""
    rows = fetch(
        conn,
        "SELECT status, window_start, violations FROM evergreen.window_judgement WHERE model = %s"
        " ORDER BY window_start DESC, revision DESC LIMIT 1",
        (name,),
    )
    conn.commit()
    if not rows:
        return "no window was judged yet"
    row = rows[0]
    columns = sorted({str(v.get("column")) for v in row["violations"] if v.get("column")})
    beyond = f": {', '.join(columns)}" if columns and row["status"] == "violation" else ""
    return f"window of {row['window_start'].astimezone(UTC):%Y-%m-%d %H:%M} UTC: {row['status']}{beyond}"
