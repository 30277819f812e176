"""What a replayed policy knows at a time: its ledger, judgements, versions and predictions, in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pandas as pd

from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.windows.judgement import Judgement
from evergreen.reference.calendar import Window
from evergreen.registry.champions import Champion, champion_of
from evergreen.replay import records

RUN = "replay"
CHANGES = (DecisionKind.PROMOTED, DecisionKind.ROLLED_BACK)
PREDICTED = ("_key", "_time", "prediction", "version", "shadow")


@dataclass
class Step:
    """What came of one moment, to be kept before the next one begins.

    Attributes:
        number: 0 for the first champion, then the ends of the windows in turn.
        as_of: the moment.
        predictions: served and shadow predictions (`PREDICTED`).
        fit_seconds: what the fits of its training took, those of validation and tuning too.
    """

    number: int
    as_of: datetime
    decisions: list[Decision] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    predictions: list[pd.DataFrame] = field(default_factory=list)
    trained: str | None = None
    fit_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """All but the predictions, as JSON."""
        return {
            "number": self.number,
            "as_of": self.as_of.isoformat(),
            "decisions": [records.decision_to(d) for d in self.decisions],
            "judgements": [records.judgement_to(j) for j in self.judgements],
            "trained": self.trained,
            "fit_seconds": self.fit_seconds,
        }


class ReplayState:
    """Everything up to now; a step adds to it, or what a step had kept does."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.judgements: list[Judgement] = []
        self.served: dict[datetime, pd.DataFrame] = {}
        self.shadow: dict[datetime, pd.DataFrame] = {}
        self.first_scored: datetime | None = None
        self.trained_at: datetime | None = None
        self.trainings = 0

    # ------------------------------------------------------------------ the ledger

    def decide(self, step: Step, decision: Decision) -> Decision:
        """Append a decision, with the number that it gets; one whose key is there already is returned as it stands."""
        standing = self.decided(decision.dedupe_key)
        if standing is not None:
            return standing
        numbered = replace(decision, id=len(self.decisions) + 1, decided_at=decision.as_of)
        numbered = records.decision_from(records.decision_to(numbered))
        self.decisions.append(numbered)
        step.decisions.append(numbered)
        return numbered

    def changes(self) -> list[Decision]:
        """Every change of champion, newest first."""
        return [d for d in reversed(self.decisions) if d.kind in CHANGES]

    def champion(self, name: str) -> Champion:
        """The champion of now."""
        changes = self.changes()
        return champion_of(name, changes[0], changes)

    def find(self, *kinds: DecisionKind) -> list[Decision]:
        """The decisions of some kinds, newest first."""
        return [d for d in reversed(self.decisions) if d.kind in kinds]

    def decided(self, key: str) -> Decision | None:
        """The decision of a key; None where there is none yet."""
        return next((d for d in self.decisions if d.dedupe_key == key), None)

    def open_requests(self) -> list[Decision]:
        """Retrain requests that no decision has answered, oldest first."""
        answered = {i for d in self.decisions for i in d.answers}
        return [
            d for d in self.decisions if d.kind is DecisionKind.RETRAIN_REQUESTED and d.id not in answered
        ]

    # ------------------------------------------------------------------ judgements

    def judge(self, step: Step, judgement: Judgement) -> Judgement:
        """Keep a judgement, with the number that it gets."""
        numbered = replace(judgement, id=len(self.judgements) + 1)
        numbered = records.judgement_from(records.judgement_to(numbered))
        self.judgements.append(numbered)
        step.judgements.append(numbered)
        return numbered

    def newest(self, version: str | None, ends_after: datetime) -> list[Judgement]:
        """The newest revision of each window of a version that ends later than a time, oldest window first.

        Without a version those of every one, each version's own.
        """
        found = {
            (j.window_start, j.version): j
            for j in self.judgements
            if version in (None, j.version) and j.window_end > ends_after
        }
        return [found[key] for key in sorted(found)]

    # ------------------------------------------------------------------ predictions

    def predict(self, step: Step, window: Window, rows: pd.DataFrame, *, shadow: bool) -> None:
        """Keep predictions of a window's rows (`PREDICTED` without `shadow`)."""
        if rows.empty:
            return
        step.predictions.append(rows.assign(shadow=shadow))
        self._keep(window.start, rows, shadow, step.as_of)

    def predicted(self, start: datetime, *, shadow: bool = False) -> pd.DataFrame:
        """The predictions of a window by key: `_time`, `prediction`, `version`, and `as_of` of the step that made them."""
        found = (self.shadow if shadow else self.served).get(start)
        if found is None:
            return pd.DataFrame({"_time": [], "prediction": [], "version": [], "as_of": []})
        return found

    def forget(self, before: datetime) -> None:
        """Let go of the predictions of windows that began before a time."""
        for kept in (self.served, self.shadow):
            for start in [s for s in kept if s < before]:
                del kept[start]

    def absorb(self, content: dict[str, Any], predictions: pd.DataFrame, starts: pd.Series) -> None:
        """Take in what a step of an earlier run had kept.

        Args:
            content: `Step.to_dict`.
            predictions: of that step.
            starts: the window of each prediction, by its start.
        """
        self.decisions += [records.decision_from(d) for d in content["decisions"]]
        self.judgements += [records.judgement_from(j) for j in content["judgements"]]
        as_of = datetime.fromisoformat(content["as_of"])
        for (start, shadow), rows in predictions.groupby([starts, "shadow"]):
            self._keep(start.to_pydatetime(), rows.drop(columns="shadow"), bool(shadow), as_of)
        if content["trained"] is not None:
            self.trained(as_of)

    def trained(self, at: datetime) -> None:
        """A training took place."""
        self.trained_at = at
        self.trainings += 1

    def _keep(self, start: datetime, rows: pd.DataFrame, shadow: bool, as_of: datetime) -> None:
        kept = self.shadow if shadow else self.served
        keyed = rows.assign(as_of=as_of).set_index("_key")
        kept[start] = pd.concat([kept[start], keyed]) if start in kept else keyed
        first = rows["_time"].min().to_pydatetime()
        if not shadow and (self.first_scored is None or first < self.first_scored):
            self.first_scored = first
