"""What the ledger keeps of a challenger: how it was made and judged, whether it waits for a person, and what became of it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from evergreen.ledger.evidence.base import Evidence, Part, Time, rare


class GateCheck(Part):
    """One rule of the gate; see `training.gate.verdict.Check`."""

    check: str
    value: bool | int | float | str | None = None
    limit: bool | int | float | str | None = None
    passed: bool
    code: str = ""
    sentence: str = ""


class GateAnswer(Part):
    """The gate's answer with every check; see `training.gate.verdict.GateVerdict`."""

    passed: bool
    reason: str
    checks: tuple[GateCheck, ...] = ()


class TrainedEvidence(Evidence):
    """What is kept of a training, whatever became of its challenger.

    Attributes:
        message: the decision in a sentence.
        trigger: reason code for which it was trained.
        metric: the one that the gate goes by.
        metrics: of challenger, baseline and champion on the judged rows, by who and name.
        holdout: the challenger's on its whole holdout, by name.
        rows: numbers of rows by their part: `all` the training knew, `judged` counted for the gate.
        previous_version: the champion of then.
        requests: ids of the retrain requests that the training answers.
        mlflow_run: its run in MLflow.
        digest: over all files that are loaded with the version, see `registry.identity`; empty: an earlier release trained it.
        trained_until: the final model saw labels of event times before it (UTC).
        refitted: on all rows, the holdout among them.
        fingerprint: of the snapshot that it was judged on.
        spec_hash: of the spec.
        training_hash: of what of the spec shapes a model; empty: of before there was one.
        choice: window and parameters that the validation chose, see `training.search.choose`.
        note: what the spec asked for and the machine could not give.
        error_limit: a sentence where the watch on the served error can hardly alarm.
        asked_because: what the person said who started the training.
    """

    message: str = ""
    trigger: str | None = None
    metric: str | None = None
    metrics: dict[str, dict[str, float]] = Field(default_factory=dict)
    holdout: dict[str, float] = Field(default_factory=dict)
    rows: dict[str, int] = Field(default_factory=dict)
    previous_version: str | None = None
    requests: tuple[int, ...] = ()
    mlflow_run: str | None = None
    digest: str | None = None
    trained_until: Time | None = None
    refitted: bool = False
    fingerprint: str | None = None
    spec_hash: str | None = None
    training_hash: str | None = None
    choice: dict[str, Any] | None = rare(None)
    note: str = rare("")
    error_limit: str = rare("")
    asked_because: str = rare("")


class SettledEvidence(TrainedEvidence):
    """Of a challenger that was promoted or rejected.

    Attributes:
        checks: of the gate.
        compared_with: the champion that the gate compared with.
        training_run: `dag_id/run_id` of the training.
        champion_below_baseline: a sentence where the champion, or the one that it becomes, is worse than the naive baseline.
        effective_from: of a promotion: from when on it is in force, in as-of terms; None: as of the decision.
        gate: of one that had waited: the gate's reason code.
        awaiting: of one that had waited: id of the row by which it did.
        answered_by, answered_at, comment: who answered, when (UTC) and what was said; None: nobody.
        superseded_by: the version that took its place.
    """

    checks: tuple[GateCheck, ...] = ()
    compared_with: str | None = None
    training_run: str | None = None
    champion_below_baseline: str = rare("")
    effective_from: Time | None = rare(None)
    gate: str | None = None
    awaiting: int | None = None
    answered_by: str | None = None
    answered_at: Time | None = None
    comment: str | None = None
    superseded_by: str | None = None


class AwaitingEvidence(TrainedEvidence):
    """Of a challenger that waits for a person: the whole outcome of its training, see `training.record.outcome`.

    Attributes:
        model: its name.
        run_id: `dag_id/run_id` of the training.
        as_of: of the training.
        dry_run: False.
        version: of the challenger.
        verdict: the gate's.
        rounds: of boosting.
        champion_version: that the gate compared with.
        champion_decision: id of the decision that made that one champion.
        approval_timeout_s: how long it waits for an answer, in seconds by the clock.
    """

    model: str | None = None
    run_id: str | None = None
    as_of: Time | None = None
    dry_run: bool = False
    version: str | None = None
    verdict: GateAnswer | None = None
    rounds: int | None = None
    champion_version: str | None = None
    champion_decision: int | None = None
    approval_timeout_s: float | None = None
    # The outcome is kept whole, also what is empty in it.
    choice: dict[str, Any] | None = None
    note: str = ""
    error_limit: str = ""


class ApprovalAskedEvidence(Evidence):
    """Of a run that asks a person about a challenger.

    Attributes:
        awaiting: id of the row by which the challenger waits.
        until: when the wait ends without an answer (UTC, by the clock).
    """

    awaiting: int | None = None
    until: Time | None = None
