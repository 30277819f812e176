"""What a training says in its log of its rows and its fit."""

from __future__ import annotations

import logging

from evergreen.progress import counted, moment, span
from evergreen.spec import ModelSpec
from evergreen.training.data.split import Split
from evergreen.training.fitting.fit import Fitted

log = logging.getLogger(__name__)


def rows(model: ModelSpec, parts: Split) -> None:
    """The rows by their part, and how many features."""
    purged = f", {parts.purged:,} between them whose labels were not known yet" if parts.purged else ""
    log.info(
        "%s: %s with %s: %s to learn from, %s in the holdout, from %s on (UTC)%s",
        model.name, counted(len(parts.rows), "row"), counted(len(model.features.all), "feature"),
        f"{len(parts.training):,}", f"{len(parts.holdout):,}", moment(parts.boundary), purged,
    )  # fmt: skip


def fitted(model: ModelSpec, found: Fitted, rows: int, seconds: float) -> None:
    """What a fit came to: rounds, and the score by which early stopping chose them."""
    best = (
        ""
        if found.stopping_score is None
        else f", {found.stopping_metric} {found.stopping_score:.4g} on the newest rows that it had not learnt"
    )
    log.info(
        "%s: fitted %s on %s in %s%s",
        model.name, counted(found.rounds, "round"), counted(rows, "row"), span(seconds), best,
    )  # fmt: skip
