"""Owes the weekly digests: one mail to each set of recipients, once for each day as of which they are asked for."""

from __future__ import annotations

import hashlib
from datetime import datetime

from evergreen.alert_kinds import AlertKind
from evergreen.incidents.outbox import owe
from evergreen.incidents.recipients import EMAIL, ways
from evergreen.ledger import dataset_subject, model_subject
from evergreen.spec import Specs
from evergreen.warehouse.connection import connect

SUBJECT = "digest/weekly"


def owe_digests(specs: Specs, as_of: datetime) -> int:
    """Owe a digest to each set of recipients, about the models and datasets of which they are told.

    Returns:
        How many are owed now that were not before.

    Raises:
        TransientError: the warehouse does not answer.
    """
    told: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for kind, names, subject in (
        ("models", sorted(specs.models), model_subject),
        ("datasets", sorted(specs.datasets), dataset_subject),
    ):
        for name in names:
            found = ways(specs, subject(name), AlertKind.DIGEST)
            to = tuple(sorted({*found.get(EMAIL, ()), *(found.keys() - {EMAIL})}))
            told.setdefault(to, {"models": [], "datasets": []})[kind].append(name)
    with connect() as conn:
        return sum(
            owe(
                conn,
                f"digest:{as_of:%Y-%m-%d}:{hashlib.sha256(','.join(to).encode()).hexdigest()[:12]}",
                SUBJECT,
                AlertKind.DIGEST,
                None,
                {"as_of": as_of.isoformat(), "to": list(to), **names},
                as_of=as_of,
            )
            for to, names in told.items()
            if to
        )
