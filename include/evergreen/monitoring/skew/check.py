"""Training–serving skew: are online predictions those that a batch makes of the same rows? Looked at once a day for each model.

A sample of the records of the last days (UTC) that named their key is held against the warehouse in two ways:

- **the same features, another number**: what was answered against what the version that answered makes of the features that were kept
  with the request, the batch way. It must never be; one record is enough.
- **other features**: what was answered against what that version makes of the row that the model's feature query gives for the key. Where
  the features were kept, the columns are named in which they differ.

**As of when the row is read.** What is corrected after an answer, and a label that comes late, make no skew. Exact would be the row as of the
moment of each request, and that would be one read of the query for each record. So the rows are read as of the end of the days, in one
read; what differs or is not there is read as of now, since many rows come later than the request about them. Only where what is left would
be told of, the first `MOST_CLOSELY` differing records are read as of their own moments: one that a correction of the same day changed is
alike then, and the same share of the others is taken to be so. A row that was not there at that moment is judged by the later ones.

Rows are compared from the end of the comparison before on, so that a day with too few of them is looked at with the next.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from evergreen import ledger, registry
from evergreen.errors import TerminalError
from evergreen.ledger import Decision
from evergreen.ledger.evidence import SkewEvidence
from evergreen.ledger.reasons import DecisionKind, EndReason
from evergreen.monitoring.skew import compare, outcome, sample, told
from evergreen.monitoring.skew.compare import Compared
from evergreen.monitoring.skew.outcome import Comparison
from evergreen.monitoring.skew.sample import Record
from evergreen.registry.models import LoadedModel
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import Connection, connect
from evergreen.warehouse.features import arrow, feature_query, views

log = logging.getLogger(__name__)

FARTHEST = timedelta(days=7)
"""What was asked before is not compared any more: its row is not going to come."""
MOST_CLOSELY = 30


def compare_served(specs: Specs, model: ModelSpec, as_of: datetime, run_id: str) -> Decision | None:
    """Compare what was served until the last midnight (UTC) before a time, and owe a mail where it differs or is alike again; once.

    Args:
        specs: all specs.
        model: whose online predictions.
        as_of: of the run, aware; requests and rows of a later time do not count.
        run_id: `dag_id/run_id`.

    Returns:
        The row of the ledger; None where this day is compared already, nothing is to be compared, or there are too few records with a row.

    Raises:
        TerminalError: the feature query does not run (BAD_QUERY).
        TransientError: warehouse or MLflow do not answer; nothing is written then.
    """
    until = as_of.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    key, limit = f"skew:{model.name}:{until:%Y-%m-%d}", model.serving.skew
    if not model.serving.online or limit is None:
        with connect() as conn:
            told.end(conn, model, EndReason.NOT_COMPARED, as_of, run_id)
        return None
    with connect() as conn:
        since = _since(conn, model, key, until, as_of)
        if since is None:
            return None
        records = sample.sample(conn, model, since, until)
        if not records and not sample.asked_since(conn, model, until - FARTHEST, until):
            told.end(conn, model, EndReason.NOT_COMPARED, as_of, run_id)
    if not records:
        return None
    with arrow.sharing():
        found = _compared(specs, model, records, (since, until, as_of), limit)
    why = outcome.reason(found, limit)
    if why is None:
        log.info(
            "%s: %s online predictions of which the warehouse has the row: too few to compare",
            model.name,
            found.rows,
        )
        return None
    evidence = outcome.evidence(found, why, limit)
    decision = Decision(
        as_of=as_of, subject=ledger.model_subject(model.name), kind=DecisionKind.SERVING_COMPARED, reason=why.value,
        run_id=run_id, dedupe_key=key, version=records[0].version if len({r.version for r in records}) == 1 else None,
        evidence=evidence,
    )  # fmt: skip
    with connect() as conn:
        ledger.lock(conn, model.name)
        if ledger.find(conn, dedupe_key=key):
            return None
        decision = ledger.append(conn, decision)
        told.tell(conn, model, decision, as_of, run_id)
    return decision


def _since(conn: Connection, model: ModelSpec, key: str, until: datetime, as_of: datetime) -> datetime | None:
    """From when on records are compared; None: the day is compared already."""
    if ledger.find(conn, dedupe_key=key):
        return None
    before = ledger.find(
        conn, ledger.model_subject(model.name), (DecisionKind.SERVING_COMPARED,), limit=1, as_of=as_of
    )
    last = SkewEvidence.of(before[0]).until if before else None
    since = max(last or until - FARTHEST, until - FARTHEST)
    return since if since < until else None


def _compared(
    specs: Specs,
    model: ModelSpec,
    records: Sequence[Record],
    times: tuple[datetime, datetime, datetime],
    limit: float,
) -> Comparison:
    since, until, as_of = times
    versions, left_out = _versions(specs, model, records, as_of)
    known = [record for record in records if record.version in versions]
    numbers = [
        one
        for version, loaded in versions.items()
        for one in compare.against_themselves(
            loaded, [r for r in known[: sample.ROWS] if r.version == version]
        )
    ]
    found = _rows(specs, model, versions, known, until)
    open_ones = [r for r in known if r.key not in found or found[r.key].differs]
    if as_of > until and open_ones:
        later = _rows(specs, model, versions, open_ones, as_of)
        found = {**later, **found, **{key: one for key, one in later.items() if not one.differs}}
    chosen = [found[r.key] for r in known if r.key in found][: sample.ROWS]
    differing = [one for one in chosen if one.differs]
    number = len(differing)
    closely: list[Compared] = []
    if chosen and number / len(chosen) >= limit:
        looked = differing[:MOST_CLOSELY]
        closely = _still_differing(specs, model, versions, looked)
        number = round(number * len(closely) / len(looked))
    return Comparison(since, until, len(chosen), number, tuple(closely), tuple(numbers), left_out)


def _rows(
    specs: Specs,
    model: ModelSpec,
    versions: dict[str, LoadedModel],
    records: Sequence[Record],
    as_of: datetime,
) -> dict[str, Compared]:
    """The records against their rows as they were known at a time, by key; without those whose row was not there."""
    found: dict[str, Compared] = {}
    with views.reading(specs, model, as_of) as reader:
        for version, loaded in versions.items():
            its = [record for record in records if record.version == version]
            if its:
                found |= compare.against_rows(loaded, its, sample.rows(reader, model, loaded, its))
    return found


def _still_differing(
    specs: Specs, model: ModelSpec, versions: dict[str, LoadedModel], looked: Sequence[Compared]
) -> list[Compared]:
    """Those that are not what a batch makes of the row as it was known when they were asked for, either."""
    then: dict[str, Compared] = {}
    # Records of one request have one moment.
    for moment in sorted({one.record.asked_at for one in looked}):
        its = [one.record for one in looked if one.record.asked_at == moment]
        then |= _rows(specs, model, versions, its, moment)
    return [one for one in looked if one.record.key not in then or then[one.record.key].differs]


def _versions(
    specs: Specs, model: ModelSpec, records: Sequence[Record], as_of: datetime
) -> tuple[dict[str, LoadedModel], str]:
    """The versions that answered, loaded the batch way; and those that cannot predict any more, with why.

    One that is gone from MLflow, or whose features the query has left, is no finding: scoring tells where it is the champion.
    """
    found: dict[str, LoadedModel] = {}
    lost = []
    with views.reading(specs, model, as_of) as reader:
        types = feature_query.types(reader)
    for version in sorted({record.version for record in records}):
        try:
            loaded = registry.load(model, version)
        except TerminalError as error:
            lost.append(f"version {version}: {error}")
            continue
        lacks = feature_query.lacking(loaded.seen_by(model), types, loaded.categories)
        if lacks:
            lost.append(f"version {version}: {'; '.join(f'{name}: {why}' for name, why in lacks.items())}")
        else:
            found[version] = loaded
    for what in lost:
        log.warning("%s: online predictions are not compared of %s", model.name, what)
    return found, "; ".join(lost)
