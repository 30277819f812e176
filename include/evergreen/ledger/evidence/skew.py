"""What the ledger keeps of a comparison of online predictions with batch ones, see `evergreen.monitoring.skew`."""

from __future__ import annotations

from evergreen.ledger.evidence.base import Evidence, Part, Time, rare


class DifferingColumn(Part):
    """A feature that was sent otherwise than the warehouse has it.

    Attributes:
        column: its name.
        rows: in how many of the records that were looked at closely.
        share: of these records.
        key: of a record, as an example.
        sent, found: the values of that record, in the request and in the warehouse, as text.
    """

    column: str | None = None
    rows: int | None = None
    share: float | None = None
    key: str | None = None
    sent: str | None = None
    found: str | None = None


class DifferingClient(Part):
    """A client of the prediction service, with how many of the records that were looked at closely are its own."""

    client: str | None = None
    rows: int | None = None


class DifferingPrediction(Part):
    """The record with the largest difference: what was answered, and what a batch predicts (the label's unit, or a probability)."""

    key: str | None = None
    version: str | None = None
    answered: float | None = None
    batch: float | None = None


class SkewEvidence(Evidence):
    """Of a comparison.

    Attributes:
        message: the outcome in a sentence.
        since, until: the records that were asked for in between (UTC).
        rows: records that were compared with a row of the warehouse.
        differing: how many of them have another prediction than a batch gives; where more differ than are looked at closely,
            estimated from those that are.
        share: the same as a share of `rows`.
        limit: the smallest share that is told.
        largest: the largest difference, relative to the larger of the two predictions.
        closely: differing records that were held against the row as of the moment of their request and differ from that one, too.
        other_numbers: records whose own features, as they were kept, give another prediction in a batch.
        columns: the features in which the closely looked at records differ, the most frequent ones first.
        clients: whose they are, those with the most first.
        example: one of them.
        left_out: versions that could not predict, and why.
    """

    message: str = ""
    since: Time | None = None
    until: Time | None = None
    rows: int | None = None
    differing: int | None = None
    share: float | None = None
    limit: float | None = None
    largest: float | None = rare(None)
    closely: int | None = rare(None)
    other_numbers: int | None = rare(None)
    columns: tuple[DifferingColumn, ...] = rare(())
    clients: tuple[DifferingClient, ...] = rare(())
    example: DifferingPrediction | None = rare(None)
    left_out: str | None = rare(None)
