"""A run of the monitor wakes the training for its own request, and for an open one unless trainings keep failing."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from monitoring_scene import CUTOFF, model

from evergreen.incidents.failures import record
from evergreen.ledger import Decision, append
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.trigger.wake_rule import should_wake, wake
from evergreen.warehouse.connection import connect

NOW = CUTOFF + timedelta(days=30)
HOUR = timedelta(hours=1)


def request(number: int, when: datetime, kind: DecisionKind = DecisionKind.RETRAIN_REQUESTED) -> Decision:
    return Decision(when, "model/watched", kind, "data_drift", "monitor/1", f"policy:{number}", id=number)


def failed(
    number: int, when: datetime, dag: str = "train__watched", kind: DecisionKind = DecisionKind.RUN_FAILED
) -> Decision:
    evidence = {"dag_id": dag}
    return Decision(when, "model/watched", kind, "fit", f"{dag}/1", f"failed:{number}", evidence, id=number)


OPEN = [request(5, NOW - 30 * HOUR)]


@pytest.mark.parametrize(
    ("waiting", "failures", "opened", "expected"),
    [
        pytest.param([], [], None, False, id="nothing is open"),
        pytest.param(OPEN, [], None, True, id="an open one whose wake-up may be lost"),
        pytest.param([request(5, NOW)], [], request(5, NOW), True, id="opened by this run"),
        pytest.param([*OPEN, request(9, NOW)], [failed(8, NOW - HOUR)], request(9, NOW), True, id="opened now in spite of a failure"),
        pytest.param(OPEN, [failed(8, NOW - HOUR)], None, False, id="its training failed"),
        pytest.param(OPEN, [failed(8, NOW - HOUR)], OPEN[0], False, id="an earlier run's request met again"),
        pytest.param(OPEN, [failed(8, NOW - HOUR)], request(9, NOW, DecisionKind.RETRAIN_SUPPRESSED), False, id="a suppression opens nothing"),
        pytest.param(OPEN, [failed(8, NOW - 23 * HOUR)], None, False, id="failed twenty-three hours ago"),
        pytest.param(OPEN, [failed(8, NOW - 24 * HOUR)], None, True, id="failed a day ago"),
        pytest.param([request(5, NOW - HOUR)], [failed(8, NOW - HOUR)], None, False, id="failed as of the request's own time"),
        pytest.param([request(5, NOW - HOUR)], [failed(4, NOW - HOUR)], None, True, id="failed before it was written"),
        pytest.param([request(5, NOW - HOUR)], [failed(8, NOW - 2 * HOUR)], None, True, id="failed for an earlier time"),
        pytest.param(OPEN, [failed(8, NOW - HOUR, "score__watched")], None, True, id="another DAG failed"),
        pytest.param(OPEN, [failed(8, NOW - HOUR, "train__watched2")], None, True, id="another model's training failed"),
        pytest.param(OPEN, [failed(8, NOW - HOUR, kind=DecisionKind.MAIL_FAILED)], None, True, id="a mail failed"),
        pytest.param([request(7, NOW - HOUR), *OPEN], [failed(6, NOW - 2 * HOUR)], None, True, id="the newest open one counts"),
    ],
)  # fmt: skip
def test_when_a_training_is_woken(waiting, failures, opened, expected):
    assert should_wake(waiting, failures, opened, NOW) is expected


def written(when: datetime, key: str, kind: DecisionKind = DecisionKind.RETRAIN_REQUESTED, answers: tuple[int, ...] = ()) -> Decision:  # fmt: skip
    with connect() as conn:
        return append(
            conn, Decision(when, "model/watched", kind, "r", "m/1", key, {}, "1", answers)
        )  # fmt: skip


def test_the_ledger_tells_whether_to_wake_and_for_which_request(warehouse_url):
    spec = model()
    assert wake(spec, None, NOW) == (False, None)
    first = written(NOW - 3 * HOUR, "a")
    assert wake(spec, first, NOW - 3 * HOUR) == (True, first.id)
    assert wake(spec, first, NOW) == (True, first.id)
    record("model/watched", "train__watched/r1", "fit", 3, "boom", "http://log", NOW - 2 * HOUR)
    assert wake(spec, first, NOW) == (False, first.id)
    assert wake(spec, first, NOW + 23 * HOUR) == (True, first.id)
    second = written(NOW, "b")
    assert wake(spec, second, NOW) == (True, second.id)
    assert wake(spec, None, NOW - HOUR) == (False, first.id), "a later request is not this run's"
    written(NOW, "c", DecisionKind.REJECTED, (first.id, second.id))
    assert wake(spec, second, NOW) == (False, None), "answered meanwhile"
