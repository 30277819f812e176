"""The trigger policy in a replay: it reads and writes the memory of the policy, and tells nobody."""

from __future__ import annotations

from collections.abc import Sequence

from evergreen.ledger import Decision
from evergreen.monitoring.trigger.policy import READ
from evergreen.monitoring.trigger.verdict import TriggerVerdict
from evergreen.monitoring.windows.judgement import Judgement
from evergreen.registry import Champion
from evergreen.registry.in_office import begun
from evergreen.replay.state import ReplayState, Step
from evergreen.spec import ModelSpec


class ReplayedTrigger:
    """See `monitoring.trigger.policy.TriggerStore`."""

    def __init__(self, model: ModelSpec, state: ReplayState, step: Step) -> None:
        self._model, self._state, self._step = model, state, step

    def champion(self) -> Champion | None:
        return self._state.champion(self._model.name)

    def judgements(self, champion: Champion) -> list[Judgement]:
        return self._state.newest(champion.version, begun(champion, self._state.changes()[0]))

    def earlier(self) -> list[Decision]:
        return self._state.find(*READ)

    def append(self, decision: Decision) -> Decision:
        return self._state.decide(self._step, decision)

    def tell_windows(
        self, champion: Champion, judgements: Sequence[Judgement], hits: Sequence[Judgement]
    ) -> None:
        """Nobody is told of a replay."""

    def tell_drift(
        self, decision: Decision, verdict: TriggerVerdict, judgements: Sequence[Judgement]
    ) -> None:
        """Nobody is told of a replay."""
