"""What Airflow's state of a task says of how it ended; what is not known to be over is not forgotten."""

from __future__ import annotations

import pytest

from evergreen.incidents.unfinished_tasks import End, end_of


@pytest.mark.parametrize(
    ("state", "there", "run_failed", "end"),
    [
        pytest.param("failed", True, True, End.FAILED, id="failed"),
        pytest.param("failed", True, False, End.FAILED, id="failed-and-the-run-goes-on"),
        pytest.param("skipped", True, True, End.CUT_OFF, id="skipped-in-a-failed-run"),
        pytest.param("skipped", True, False, End.NOTHING_TO_TELL, id="skipped-in-a-green-run"),
        pytest.param("success", True, True, End.NOTHING_TO_TELL, id="it-works"),
        pytest.param("upstream_failed", True, True, End.NOTHING_TO_TELL, id="another-failed-before-it"),
        pytest.param("removed", True, True, End.NOTHING_TO_TELL, id="removed-from-its-dag"),
        pytest.param(None, False, False, End.NOTHING_TO_TELL, id="gone-from-airflow"),
        *(
            pytest.param(state, True, True, End.NOT_YET, id=str(state))
            for state in (
                None,
                "running",
                "queued",
                "up_for_retry",
                "up_for_reschedule",
                "deferred",
                "a state of later",
            )
        ),
    ],
)
def test_how_a_task_ended(state: str | None, there: bool, run_failed: bool, end: End) -> None:
    assert end_of(state, there=there, run_failed=run_failed) is end
