"""A drift in every second window: how often it retrains, and how many e-mails people get for it.

    python -m benchmarks.decisions_flapping

Thirty windows, of which every second one has a drift, go through the real policy, ledger and outbox on a PostgreSQL of
its own. Each request is answered at once, as `settle` writes it: by rejections; by a promotion and rejections from then
on; or by promotions only, where every new champion meets the same stream. The windows are days or weeks; for days also
with a cool-down of one day, so that nothing but the budget spaces the requests. The rule is the default one, 2 of the last 3.
Estimates of the error that are beyond the limit in every second window ask for nothing, but people are told of them, too.
Every mail of the stream counts: of the drift, of each training that it asked for, of giving up.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

from benchmarks.place import warehouse
from benchmarks.table import Row, markdown
from evergreen import ledger
from evergreen.alert_kinds import AlertKind
from evergreen.alerting.delivery import deliver
from evergreen.incidents.outbox import raise_incident
from evergreen.ledger import Decision
from evergreen.ledger.evidence import SettledEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.alarms import early_alarm
from evergreen.monitoring.trigger.holds import BUDGET_PERIOD
from evergreen.monitoring.trigger.live_trigger import apply
from evergreen.monitoring.windows import judgement
from evergreen.monitoring.windows.judgement import Judgement, MetricResult, Status, Violation, What
from evergreen.promotion.ruling import told_with
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import connect

START = datetime(2026, 1, 5, tzinfo=UTC)
WINDOWS, MOST_MAILS, ROWS = 30, 4, 1000
SOON = timedelta(hours=2)
DRIFT = Violation(What.DATA_DRIFT, "temperature", "wasserstein", 0.9, 0.2)
ESTIMATE = Violation(What.ESTIMATED_PERFORMANCE, "rmse", "rmse", 2.0, 1.3)
RULES: dict[str, dict[str, object]] = {
    "windows of a week": {"window": "7d"},
    "windows of a day": {"window": "1d"},
    "windows of a day, cool-down 1d": {"window": "1d", "trigger": {"cooldown": "1d"}},
}
ANSWERS = {
    "rejected": (DecisionKind.REJECTED,),
    "promoted, then rejected": (DecisionKind.PROMOTED, DecisionKind.REJECTED),
    "promoted": (DecisionKind.PROMOTED,),
}


@dataclass(frozen=True)
class Stream:
    """What a stream came to: when it asked for trainings, what was mailed, and why nothing was asked."""

    requests: tuple[datetime, ...]
    mails: tuple[str, ...]
    holds: dict[str, int]

    @property
    def most_in_a_week(self) -> int:
        """The most requests in any 7 days."""
        return max((sum(a <= b < a + BUDGET_PERIOD for b in self.requests) for a in self.requests), default=0)


def spec(name: str, monitoring: dict[str, object]) -> ModelSpec:
    """A model that is watched with the default settings but those given."""
    return ModelSpec.model_validate({
        "name": name, "task": "regression", "datasets": ["bikes"], "key": ["ts"], "event_time": "ts",
        "label": {"column": "cnt"}, "features": {"numeric": ["temperature"]}, "query": "SELECT 1",
        "monitoring": {"min_rows": 50, **monitoring},
    })  # fmt: skip


def stream(model: ModelSpec, answers: tuple[DecisionKind, ...] = (), found: Violation = DRIFT) -> Stream:
    """Drive the windows, every second one with what is found, through the monitor; the last answer is repeated."""
    _settle(model, "1", DecisionKind.PROMOTED, START, ())
    version, trained = 1, 1
    sent: list[EmailMessage] = []
    for number in range(WINDOWS):
        as_of = START + (number + 1) * model.monitoring.window + SOON
        _judge(model, str(version), number, as_of, found)
        apply(model, as_of, f"monitor/{number}")
        early_alarm.tell(model, as_of, f"monitor/{number}")
        with connect() as conn:
            requests = ledger.open_requests(conn, model.name)
        if requests:
            answer = answers[min(trained, len(answers)) - 1]
            trained += 1
            _settle(model, str(trained), answer, as_of, tuple(d.id for d in requests if d.id), version)
            version = trained if answer is DecisionKind.PROMOTED else version
        # After each run, as the DAGs do: what waits together is one letter.
        deliver(Specs({}, {model.name: model}), sent.append, subject=ledger.model_subject(model.name))
    with connect() as conn:
        decisions = ledger.find(
            conn,
            ledger.model_subject(model.name),
            (DecisionKind.RETRAIN_REQUESTED, DecisionKind.RETRAIN_SUPPRESSED),
        )
    holds = [d.reason for d in decisions if d.kind is DecisionKind.RETRAIN_SUPPRESSED]
    return Stream(
        tuple(d.as_of for d in reversed(decisions) if d.kind is DecisionKind.RETRAIN_REQUESTED),
        tuple(str(message["Subject"]) for message in sent),
        {hold: holds.count(hold) for hold in sorted(set(holds))},
    )


def measure() -> list[Row]:
    """The rows of the table."""
    every = f"in every second of {WINDOWS} windows"
    rows: list[Row] = []
    with warehouse():
        for rule, monitoring in RULES.items():
            for told, answers in ANSWERS.items():
                model = spec(f"flapping_{len(rows)}", monitoring)
                what = f"drift {every}: {rule}; challengers {told}"
                rows.append(_row(what, model, stream(model, answers)))
            model = spec(f"flapping_{len(rows)}", {**monitoring, "performance": {"estimate": True}})
            rows.append(
                _row(f"estimate beyond its limit {every}: {rule}", model, stream(model, found=ESTIMATE))
            )
    return rows


def _row(what: str, model: ModelSpec, found: Stream) -> Row:
    budget = model.monitoring.trigger.budget
    print(what, *found.mails, sep="\n  ", file=sys.stderr)
    held = ", ".join(f"{hold} {count}" for hold, count in found.holds.items())
    return Row(
        what,
        f"{len(found.requests)} retrains, {found.most_in_a_week} in 7 days at most; {len(found.mails)} mails",
        "",
        None,
        f"≤ {budget} in 7 days; ≤ {MOST_MAILS} mails",
        found.most_in_a_week <= budget and len(found.mails) <= MOST_MAILS,
        f"held back: {held}" if held else "",
    )


def _judge(model: ModelSpec, version: str, number: int, as_of: datetime, found: Violation) -> None:
    start = START + number * model.monitoring.window
    violations = (found,) if number % 2 == 0 else ()
    with connect() as conn:
        judgement.insert(
            conn,
            Judgement(
                model.name, version, start, start + model.monitoring.window, 1, as_of,
                Status.VIOLATION if violations else Status.OK, ROWS, ROWS, ROWS, violations=violations,
                metrics={"rmse": MetricResult(1.0, 1.3, 1.0, "estimated")},
            ),
        )  # fmt: skip


def _settle(
    model: ModelSpec,
    version: str,
    kind: DecisionKind,
    as_of: datetime,
    answers: tuple[int, ...],
    champion: int = 0,
) -> None:
    """The row of a training that was settled, with its mail; the first champion's is not of the stream."""
    promoted = kind is DecisionKind.PROMOTED
    reason = "not_worse_than_champion" if promoted else "not_better_than_champion"
    subject = ledger.model_subject(model.name)
    with connect() as conn:
        decision = ledger.append(
            conn,
            Decision(
                as_of, subject, kind, reason, "train/1", f"settle:{model.name}:{version}",
                SettledEvidence(mlflow_run="none", trained_until=as_of), version, answers,
            ),
        )  # fmt: skip
        if champion:
            incident = (
                f"promoted:{model.name}:{version}"
                if promoted
                else f"rejected:{model.name}:{champion}:{reason}:{told_with(conn, answers)}"
            )
            raise_incident(
                conn,
                incident,
                subject,
                AlertKind.CHAMPION_CHANGED if promoted else AlertKind.CHALLENGER_REJECTED,
                decision.id,
                {},
            )


if __name__ == "__main__":
    result = measure()
    print(markdown(result))
    sys.exit(0 if all(row.met for row in result) else 1)
