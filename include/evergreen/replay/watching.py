"""The watch after a promotion in a replay: the live comparison, on the predictions that the replay keeps."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from evergreen import registry
from evergreen.ledger import Decision, model_subject
from evergreen.ledger.evidence import Look, RollbackEvidence, WatchEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.promotion import after_promotion, superseded
from evergreen.promotion.after_promotion import WatchLook
from evergreen.promotion.rollback import about
from evergreen.reference import calendar
from evergreen.registry.champions import succession
from evergreen.registry.under_watch import WatchedChampion, champion_under_watch
from evergreen.replay.known import KnownRows
from evergreen.replay.state import RUN, ReplayState, Step
from evergreen.spec import ModelSpec


def look(model: ModelSpec, state: ReplayState, step: Step, there: KnownRows) -> Decision | None:
    """Look at the newest promotion, once for each part of its watch period; roll back what is surely worse.

    Args:
        model: its `watch` section.
        state: the policy's; gets the decision.
        step: of now.
        there: what is known now.

    Returns:
        The decision; None where no look is due or nothing can be said yet.
    """
    changes, as_of = state.changes(), step.as_of
    ended = superseded.watched(state.find(DecisionKind.WATCH_ENDED))
    for row in superseded.rows(model, changes, ended, after_promotion.WatchReason.WORSE.value, RUN):
        state.decide(step, row)
    found = champion_under_watch(model, changes)
    if found is None:
        return None
    champion = state.champion(model.name)
    over = as_of > found.judged_until
    number = after_promotion.LOOKS if over else after_promotion.part(found, as_of)
    key = f"watch:{model.name}:{found.promotion.id}:{number}"
    if state.decided(key):
        return None
    seen, coverage = _seen(model, state, there, champion, found)
    reason, seen = after_promotion.concluded(model, found, champion, seen, coverage, over)
    if reason is None:
        return None
    how = seen.improvement
    evidence = WatchEvidence(
        message=seen.problem,
        watch=Look(
            version=champion.version,
            promotion=found.promotion.id,
            look=number,
            rows=seen.rows,
            improvement=how.point if how else None,
            at_most=how.high if how else None,
        ),
    )
    kind, version = DecisionKind.WATCH_ENDED if over else DecisionKind.WATCHED, champion.version
    answers: tuple[int, ...] = ()
    if reason is after_promotion.WatchReason.WORSE:
        kind, version = DecisionKind.ROLLED_BACK, succession(changes)[-2]
        answers = about(state.open_requests(), champion.version, as_of)
        evidence = RollbackEvidence(
            message=evidence.message,
            watch=evidence.watch,
            blocked=after_promotion.blocked(champion.version, found.promotion),
        )
    decision = Decision(
        as_of, model_subject(model.name), kind, reason.value, RUN, key, evidence, version, answers
    )
    return state.decide(step, decision)


def _seen(
    model: ModelSpec,
    state: ReplayState,
    there: KnownRows,
    champion: registry.Champion,
    found: WatchedChampion,
) -> tuple[WatchLook, float]:
    """What the look sees, and which share of what the champion scored in the watch period the previous one predicted too."""
    if found.previous is None:
        return WatchLook(0, problem=found.alone, comparable=False), 0.0
    mature = there.as_of - model.label.delay
    parts, mine, both = [], 0, 0
    for window in calendar.complete(model.monitoring.window, champion.trained_until, there.as_of):
        new, old = state.predicted(window.start), state.predicted(window.start, shadow=True)
        if new.empty:
            continue
        new = new[(new["version"] == champion.version) & (new["_time"] >= champion.trained_until)]
        # From then on nothing is predicted in the shadow, and rows without one say nothing against it.
        new = new[new["as_of"] <= found.shadowed_until]
        mine += len(new)
        if old.empty:
            continue
        old = old[old["version"] == found.previous]
        both += int(new.index.isin(old.index).sum())
        rows = there.rows(window).select(["_key", "_time", "_label"]).to_pandas().set_index("_key")
        rows = rows[rows["_label"].notna() & (rows["_time"] <= mature)]
        rows = rows.join(new["prediction"].rename("_new"), how="inner")
        parts.append(rows.join(old["prediction"].rename("_old"), how="inner"))
    if not both:
        problem = f"version {found.previous}, the champion before, has predicted no row in the shadow"
        return WatchLook(0, problem=problem, comparable=False), 0.0
    table = pa.Table.from_pandas(pd.concat(parts)[after_promotion.SCHEMA.names], preserve_index=False)
    return after_promotion.compared(model, table.cast(after_promotion.SCHEMA)), both / mine
