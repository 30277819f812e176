"""Windows judged one after the other, for tests of what follows from judgements: a request, an incident, its end."""

from __future__ import annotations

from datetime import datetime

from monitoring_scene import CUTOFF, WEEK, at, model

from evergreen.ledger import Decision, append
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.windows import judgement as store
from evergreen.monitoring.windows.judgement import Judgement, Status, Violation, What
from evergreen.warehouse.connection import connect, fetch

AMOUNT = Violation(What.DATA_DRIFT, "amount", "wasserstein", 0.9, 0.2)
KIND = Violation(What.NEW_CATEGORY, "kind", "unseen_share", 0.4, 0.05)
BROKEN = Violation(What.UNREADABLE, "kind", "jensenshannon", None, 0.1, "all 168 values are missing")
LATE = Violation(What.STALE, "_time", "hours_since_newest_row", 40.0, 36.0)
FEW = Violation(What.VOLUME, "_key", "rows", 3, 84)
SPEC = model(trigger={"m": 2, "n": 3, "cooldown": "14d"})


def promote(
    version: str, as_of: datetime, answers: tuple[int, ...] = (), kind: DecisionKind = DecisionKind.PROMOTED
) -> None:
    """A version of the model becomes champion, or another decision about it is written."""
    with connect() as conn:
        append(
            conn,
            Decision(as_of, "model/watched", kind, "r", "t/1", f"{kind.value}:{version}:{as_of}", {"mlflow_run": "x"}, version, answers),
        )  # fmt: skip


def judged(
    number: int, *violations: Violation, revision: int = 1, version: str = "1", as_of: datetime | None = None
) -> None:
    """The judgement of a week, with what it found; number 0 is the first week after the cut-off."""
    kinds = {v.kind for v in violations}
    status = Status.VIOLATION if violations else Status.OK
    status = Status.STALE if What.STALE in kinds else Status.INSUFFICIENT if What.VOLUME in kinds else status
    start = CUTOFF + number * WEEK
    with connect() as conn:
        store.insert(
            conn,
            Judgement(
                "watched", version, start, start + WEEK, revision, as_of or at(number + 1), status, 168, 168, 168,
                violations=violations, report="monitoring/x/drift.html", mlflow_run="x",
            ),
        )  # fmt: skip


def mails() -> list[tuple[str, str]]:
    """Kind and incident of each mail that is owed, oldest first."""
    with connect() as conn:
        return [
            (r["kind"], r["incident"])
            for r in fetch(conn, "SELECT kind, incident FROM evergreen.mail ORDER BY id")
        ]


def reject(request: Decision, as_of: datetime, reason: str = "not_better_than_champion") -> None:
    """A training that was asked for ends without a new champion."""
    with connect() as conn:
        append(
            conn,
            Decision(as_of, "model/watched", DecisionKind.REJECTED, reason, "t/1", f"reject:{request.id}", {}, "2", (request.id,)),
        )  # fmt: skip
