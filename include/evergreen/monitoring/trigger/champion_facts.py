"""What the trigger policy must know besides windows and ledger: the champion's training, new rows, the spec of now.

The ledger knows the training; new rows are counted in the warehouse, only when an answer depends on their number, and
only up to the number that decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from psycopg2 import sql

from evergreen.ledger import Decision, answers, promotion
from evergreen.ledger.evidence import SettledEvidence
from evergreen.spec import ModelSpec, Specs
from evergreen.spec.hashes import training_hash
from evergreen.warehouse.features import feature_query, views


@dataclass(frozen=True)
class ChampionFacts:
    """What is known about the champion as of a time; None: not known, and then nothing is asked or suppressed for it.

    Attributes:
        trained_as_of: the cut-off of the champion's training.
        trained_rows: how many labelled rows its training knew, the holdout among them.
        new_rows: labelled and mature rows that have come since, counted up to the number that decides.
        rows_since_training: the same since the newest training that was settled, see `settled`.
        rows_since_answer: the same since the last training that answered the drift of now.
        trained_hash: `provenance.training_hash` of the spec that made the champion.
        spec_hash: the same of the spec of now.
    """

    trained_as_of: datetime | None = None
    trained_rows: int | None = None
    new_rows: int | None = None
    rows_since_training: int | None = None
    rows_since_answer: int | None = None
    trained_hash: str | None = None
    spec_hash: str | None = None


def known(specs: Specs, model: ModelSpec, version: str, decisions: Sequence[Decision]) -> ChampionFacts:
    """What spec and ledger tell; reads no database.

    Args:
        specs: all specs.
        model: whose champion.
        version: the champion.
        decisions: of the model as of a time, its promotions among them, in any order.
    """
    made = promotion(version, decisions)
    if made is None:
        return ChampionFacts()
    training = SettledEvidence.of(made)
    return ChampionFacts(
        trained_as_of=made.as_of,
        trained_rows=training.rows.get("all"),
        trained_hash=training.training_hash or None,
        spec_hash=training_hash(specs, model),
    )


def counted(
    specs: Specs,
    model: ModelSpec,
    facts: ChampionFacts,
    version: str,
    decisions: Sequence[Decision],
    as_of: datetime,
    *,
    least: int,
) -> ChampionFacts:
    """The same with the new rows, counted as they were known at a time.

    New is what no training before could know: rows of event times from the end of what the training had seen on. A row
    that came late, for a time before that, does not count.

    Args:
        specs: all specs.
        model: whose feature query.
        facts: what `known` gave.
        version: the champion.
        decisions: what `known` was given.
        as_of: rows and labels that arrived later do not count.
        least: how many new rows a drift needs; `trigger.new_rows` is looked at too.

    Raises:
        TerminalError: the feature query does not run.
        TransientError: the warehouse does not answer.
    """
    made = promotion(version, decisions)
    if made is None:
        return facts
    new = _count(specs, model, _seen_until(model, made), as_of, least)
    facts = replace(facts, new_rows=new)
    share = model.monitoring.trigger.new_rows
    if share is None or not facts.trained_rows:
        return facts
    newest = max(settled(decisions, made.as_of), default=made, key=lambda d: d.as_of)
    most = math.ceil(share * facts.trained_rows)
    return replace(facts, rows_since_training=_count(specs, model, _seen_until(model, newest), as_of, most))


def since_answer(
    specs: Specs, model: ModelSpec, facts: ChampionFacts, answer: Decision, as_of: datetime, most: int
) -> ChampionFacts:
    """The same with the rows that have come since a training, counted as `counted` does and up to `most`."""
    rows = _count(specs, model, _seen_until(model, answer), as_of, most)
    return replace(facts, rows_since_answer=rows)


def settled(decisions: Sequence[Decision], trained_as_of: datetime) -> list[Decision]:
    """The trainings of a later cut-off than the champion's that came to an answer, whatever had asked for them.

    Those are promotions (of a champion that was taken back) and rejections of challengers that were judged.
    """
    return [d for d in decisions if answers.conclusive(d) and d.as_of > trained_as_of]


def _seen_until(model: ModelSpec, training: Decision) -> datetime:
    """Before which event time a training knew labels: the end of its rows, else what was mature at its cut-off."""
    known = SettledEvidence.of(training)
    if known.trained_until and known.refitted:
        return known.trained_until
    return _mature_before(model, training.as_of)


def _mature_before(model: ModelSpec, as_of: datetime) -> datetime:
    """The first event time whose label is not mature at a time."""
    return as_of - model.label.delay + timedelta(microseconds=1)


def _count(specs: Specs, model: ModelSpec, start: datetime, as_of: datetime, most: int) -> int:
    """How many rows from an event time on have a mature label, `most` at most."""
    end = _mature_before(model, as_of)
    if end <= start:
        return 0
    query = sql.SQL(
        "SELECT count(*) AS rows FROM (SELECT FROM ({rows}) AS f WHERE _label IS NOT NULL LIMIT {most}) AS _some"
    ).format(rows=feature_query.event_query(model, start, end), most=sql.Literal(most))
    with views.reading(specs, model, as_of) as reader:
        return int(reader.rows(query)[0]["rows"])
