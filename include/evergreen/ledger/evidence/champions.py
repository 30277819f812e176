"""What the ledger keeps of a champion after its promotion: the watch, the way back, and the alias in MLflow."""

from __future__ import annotations

from pydantic import Field

from evergreen.ledger.evidence.base import Evidence, Part, Time, rare


class Look(Part):
    """What a watch saw, or how another change of champion ended it; see `promotion.after_promotion`.

    Attributes:
        metric: the one that is compared.
        version: the champion under watch.
        value: its metric.
        previous: the version that was champion before.
        previous_value: its metric on the same rows.
        improvement: by what share the distance from perfect became smaller; negative: the champion is worse.
        at_least, at_most: the ends of its interval.
        margin: by how much it may be worse.
        confidence: of the whole watch.
        rows: how many were compared.
        coverage: which share of the champion's scored rows the previous one predicted too.
        blocks: of time, into which the rows fall.
        look: which one, counted from 1.
        looks: how many a watch has at most.
        since: the rows' first event time (UTC).
        as_of: of the look.
        until: when the watch ends, in as-of terms.
        promotion: id of the decision that made the champion.
        by, by_version: of a watch that ended early: the decision that ended it, and its version.
    """

    metric: str | None = None
    version: str | None = None
    value: float | None = None
    previous: str | None = None
    previous_value: float | None = None
    improvement: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    margin: float | None = None
    confidence: float | None = None
    rows: int | None = None
    coverage: float | None = None
    blocks: int | None = None
    look: int | None = None
    looks: int | None = None
    since: Time | None = None
    as_of: Time | None = None
    until: Time | None = None
    promotion: int | None = None
    by: int | None = None
    by_version: str | None = None


class Blocked(Part):
    """The challenger that a rollback keeps from coming back; hashes as in `TrainedEvidence`."""

    version: str | None = None
    fingerprint: str | None = None
    training_hash: str | None = None
    spec_hash: str | None = None


class WatchEvidence(Evidence):
    """Of a look at a champion under watch, and of the end of a watch.

    Attributes:
        message: the decision in a sentence.
        watch: what was seen.
    """

    message: str = ""
    watch: Look | None = None


class RollbackEvidence(WatchEvidence):
    """Of a rollback; `watch` where the watch asked for it.

    Attributes:
        blocked: the challenger that is not promoted again; None where a person rolled back.
        previous_version: the champion that is left.
        asked_version: the version that was named; None: the one before.
        probe_rows, probe_difference: how many rows the version that comes back predicted for a test, and the largest
            difference from what it had predicted.
    """

    blocked: Blocked | None = rare(None)
    previous_version: str | None = None
    asked_version: str | None = None
    probe_rows: int | None = None
    probe_difference: float | None = None


class CanaryEvidence(Evidence):
    """Of the share of the keys that a new champion answers for online, while the one before it answers for the rest.

    Attributes:
        message: the decision in a sentence.
        promotion: id of the decision that made the champion.
        version: the champion.
        former: the version that answers for the rest.
        share: of the keys, from this row on.
        before: the share up to this row.
        for: how long it lasts by the spec of the promotion, as `3d`.
        until: when that is over, in as-of terms.
        look: of the watch, by which the share grew; see `Look`.
        seen: id of the row of the watch by which it grew or ended.
    """

    message: str = ""
    promotion: int | None = None
    version: str | None = None
    former: str | None = None
    share: float | None = Field(None, ge=0, le=1)
    before: float | None = rare(None)
    for_: str | None = Field(None, alias="for")
    until: Time | None = None
    look: int | None = rare(None)
    seen: int | None = rare(None)


class AliasEvidence(Evidence):
    """Of an alias in MLflow that was put right.

    Attributes:
        message: the decision in a sentence.
        alias: its name.
        found_version: the version that it named; None: it was gone.
        champion_decision: id of the decision that made the champion.
    """

    message: str = ""
    alias: str | None = None
    found_version: str | None = None
    champion_decision: int | None = None
