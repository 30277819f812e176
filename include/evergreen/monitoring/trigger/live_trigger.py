"""The trigger policy applied to the warehouse: its decision and the e-mails that it owes stand or fall together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from evergreen import ledger, registry
from evergreen.ledger import Decision
from evergreen.ledger.evidence import RetrainEvidence
from evergreen.monitoring.alarms import raised, recovered
from evergreen.monitoring.trigger.policy import READ, ask_if_due
from evergreen.monitoring.trigger.verdict import TriggerVerdict
from evergreen.monitoring.windows import judgement
from evergreen.monitoring.windows.judgement import Judgement
from evergreen.registry import Champion
from evergreen.registry.in_office import in_office_since
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import Connection, connect

MOST_WINDOWS = 1000


def apply(model: ModelSpec, as_of: datetime, run_id: str, specs: Specs | None = None) -> Decision | None:
    """Decide on the newest windows, see `policy.ask_if_due`, and write the decision with the e-mails it owes, in one transaction.

    Applying again on the same judgements changes nothing, unless a training answered their request without being
    able to tell and the cool-down has passed: then they are asked for again. Windows that could not be judged, and columns that
    could not be read, are told whether or not there is a drift; so is the end of either. A request without a drift owes no
    mail: the training that it starts tells how it ended.
    """
    with connect() as conn:
        ledger.lock(conn, model.name)
        return ask_if_due(LiveTrigger(conn, model, as_of, run_id), model, as_of, run_id, specs)


class LiveTrigger:
    """See `policy.TriggerStore`; `conn` holds the model's lock."""

    def __init__(self, conn: Connection, model: ModelSpec, as_of: datetime, run_id: str) -> None:
        self._conn, self._model, self._as_of, self._run_id = conn, model, as_of, run_id

    def champion(self) -> Champion | None:
        return registry.champion(self._conn, self._model.name, repair=False, as_of=self._as_of)

    def judgements(self, champion: Champion) -> list[Judgement]:
        since = in_office_since(self._conn, self._model, champion, self._as_of)
        return judgement.newest(
            self._conn,
            self._model.name,
            champion.version,
            ends_after=since,
            as_of=self._as_of,
            limit=MOST_WINDOWS,
        )

    def earlier(self) -> list[Decision]:
        return ledger.find(self._conn, ledger.model_subject(self._model.name), READ)

    def append(self, decision: Decision) -> Decision:
        return ledger.append(self._conn, decision)

    def tell_windows(
        self, champion: Champion, judgements: Sequence[Judgement], hits: Sequence[Judgement]
    ) -> None:
        raised.tell_data_problems(self._conn, self._model, judgements, self._as_of, self._run_id)
        if not hits:
            recovered.end_drift(
                self._conn, self._model, champion.version, judgements, self._as_of, self._run_id
            )

    def tell_drift(
        self, decision: Decision, verdict: TriggerVerdict, judgements: Sequence[Judgement]
    ) -> None:
        incident = RetrainEvidence.of(decision).incident
        assert incident is not None
        more = {"gave_up": True} if verdict.gave_up else {}
        raised.tell_drift(
            self._conn, self._model, decision, incident, verdict.hits, more, judgements=judgements
        )
