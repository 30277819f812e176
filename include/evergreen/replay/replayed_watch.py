"""The watch after a promotion in a replay: on the predictions that the replay keeps."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from evergreen import registry
from evergreen.ledger import Decision, model_subject
from evergreen.ledger.evidence import RollbackEvidence
from evergreen.ledger.reasons import DecisionKind, WatchReason
from evergreen.ledger.succession import succession
from evergreen.promotion import superseded_watches
from evergreen.promotion.after_promotion import SCHEMA, WatchLook, compared, unseen
from evergreen.promotion.rollback import about
from evergreen.reference import calendar
from evergreen.registry.under_watch import WatchedChampion
from evergreen.replay.known import KnownRows
from evergreen.replay.state import RUN, ReplayState, Step
from evergreen.spec import ModelSpec


class ReplayedWatch:
    """See `promotion.after_promotion.WatchStore`.

    Args:
        model: the policy's spec.
        state: what the policy has decided and predicted.
        step: of now; decisions go to it.
        there: the rows that were known.
    """

    def __init__(self, model: ModelSpec, state: ReplayState, step: Step, there: KnownRows) -> None:
        self._model, self._state, self._step, self._there = model, state, step, there

    def changes(self) -> list[Decision]:
        return self._state.changes()

    def ended(self) -> set[int | None]:
        return superseded_watches.ended(self._state.find(DecisionKind.WATCH_ENDED))

    def taken(self, key: str) -> Decision | None:
        return self._state.decided(key)

    def champion(self) -> registry.Champion:
        return self._state.champion(self._model.name)

    def takeover(self, promotion: Decision) -> list[Decision]:
        """None: in a replay nothing is asked online, so each champion answers for all from the beginning, as in batch scoring."""
        return []

    def append(self, decision: Decision) -> Decision:
        return self._state.decide(self._step, decision)

    def again(self, done: Decision) -> Decision | None:
        return None

    def roll_back(
        self, champion: registry.Champion, found: WatchedChampion, key: str, evidence: RollbackEvidence
    ) -> Decision | None:
        as_of, state = self._step.as_of, self._state
        return self.append(
            Decision(
                as_of=as_of,
                subject=model_subject(self._model.name),
                kind=DecisionKind.ROLLED_BACK,
                reason=WatchReason.WORSE.value,
                run_id=RUN,
                dedupe_key=key,
                evidence=evidence,
                version=succession(state.changes())[-2],
                answers=about(state.open_requests(), champion.version, as_of),
            )
        )

    def look(self, champion: registry.Champion, found: WatchedChampion) -> tuple[WatchLook, float]:
        there, state, model = self._there, self._state, self._model
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
            return unseen(found), 0.0
        table = pa.Table.from_pandas(pd.concat(parts)[SCHEMA.names], preserve_index=False)
        return compared(model, table.cast(SCHEMA)), both / mine
