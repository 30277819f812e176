"""Who is champion of a changed model, how old it is beside the spec of now, and a rehearsal of the training that comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from evergreen import ledger
from evergreen.changes.compare import SHOWN, Change
from evergreen.errors import EvergreenError
from evergreen.monitoring.trigger import champion_facts
from evergreen.spec import Problem, Specs
from evergreen.warehouse.connection import Connection, connect, fetch

MOST_ROWS = 20_000


def with_champions(changes: Sequence[Change], specs: Specs) -> tuple[Change, ...]:
    """The same with what the ledger knows of each model's champion; reads alone.

    Raises:
        TransientError: the warehouse does not answer.
    """
    with connect() as conn:
        conn.set_session(readonly=True)
        there = fetch(conn, "SELECT to_regclass('evergreen.decision') IS NOT NULL AS there")[0]["there"]
        return tuple(
            replace(c, champion=_champion(conn, c, specs, there=there)) if c.kind == "model" else c for c in changes
        )  # fmt: skip


def rehearsed(
    changes: Sequence[Change], specs: Specs, as_of: datetime
) -> tuple[tuple[Change, ...], list[Problem]]:
    """The same with what a training as of a time would come to, of each model whose training or gate is another one.

    Returns:
        The changes, and what keeps a model from being trained.
    """
    from evergreen.training.rehearsal import trial  # imports XGBoost and MLflow

    found, problems = [], []
    for change in changes:
        model = specs.models.get(change.name) if change.worth_rehearsing else None
        if model is not None:
            try:
                said = trial(specs, model, as_of, MOST_ROWS).sentence()
            except EvergreenError as error:
                said = f"it cannot be trained as of {as_of:%Y-%m-%d %H:%M} UTC: {error}"
                problems.append(Problem(f"models/{change.name}.yaml", "", "", said))
            change = replace(change, rehearsal=said)
        elif change.kind == "model" and change.what != "removed":
            why = (
                "its spec cannot be read"
                if change.worth_rehearsing
                else "neither what is trained nor the gate changes"
            )
            change = replace(change, rehearsal=f"none, as {why}")
        found.append(change)
    return tuple(found), problems


def _champion(conn: Connection, change: Change, specs: Specs, *, there: bool) -> str:
    successions = ledger.champions(conn, change.name) if there else []
    if not successions or successions[0].version is None:
        return "no champion yet"
    version = successions[0].version
    said = f"champion is version {version}"
    model = specs.models.get(change.name)
    if model is None:
        return said
    known = champion_facts.known(specs, model, version, successions)
    if known.trained_hash is None:
        return (
            f"{said}; an earlier release trained it, and whether the spec of now trains the same is not known"
        )
    if known.trained_hash == known.spec_hash:
        return f"{said}, made by a spec that trains the same; it is not retrained for this"
    return f"{said}, made by another spec (training hash {known.trained_hash[:SHOWN]}); it is retrained as said above"
