"""A training that leaves nothing behind: what the gate would say of a challenger of the spec of now.

Rows, fits, champion and gate are those of a training. MLflow is read for the champion alone; no run is logged, nothing is registered
and nothing is decided. A dry run of the DAG does the whole and logs its run.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from evergreen import ledger, registry
from evergreen.ledger.reasons import NEEDS_A_PERSON
from evergreen.spec import ModelSpec, Specs
from evergreen.spec.training import Tune
from evergreen.training.data.rows import Rows, opened
from evergreen.training.fitting.fit import HERE
from evergreen.training.gate.candidates import JudgedTraining
from evergreen.training.gate.evaluate import Again, Means, evaluate
from evergreen.training.gate.past_holdouts import KINDS, realised
from evergreen.training.gate.verdict import GateVerdict
from evergreen.training.train import read_again
from evergreen.warehouse.connection import connect
from evergreen.warehouse.features import snapshot

RUN = "trial"


@dataclass(frozen=True)
class Trial:
    """What came out.

    Attributes:
        verdict: the gate's.
        champion: version that the challenger was compared with; None where there is none.
        metric: that decides.
        metrics: of challenger, baseline and champion on the judged rows.
        rows: of each part.
        approval: whether the spec lets a person decide on a challenger that passed.
        sampled: whether these are a sample of the rows of a training.
        untuned: whether the search for parameters that the spec asks for was left out.
    """

    verdict: GateVerdict
    champion: str | None
    metric: str
    metrics: dict[str, dict[str, float]]
    rows: dict[str, int]
    approval: bool
    sampled: bool
    untuned: bool

    def sentence(self) -> str:
        """The gate's answer with its numbers, and what a training would have done otherwise."""
        values = (
            (who, self.metrics.get(name, {}).get(self.metric))
            for who, name in (
                ("challenger", "challenger"),
                (f"champion (version {self.champion})", "champion"),
                ("baseline", "baseline"),
            )
            if name != "champion" or self.champion
        )
        told = ", ".join(
            f"{who} {'unknown' if value is None else format(value, '.4g')}" for who, value in values
        )
        judged, learnt = self.rows.get("judged", 0), self.rows.get("training", 0)
        verdict, why = self.verdict, []
        if not verdict.passed:
            why = [c.sentence or c.check for c in verdict.checks if not c.passed]
        elif verdict.reason in NEEDS_A_PERSON:
            why = [c.sentence for c in verdict.checks if c.code == verdict.reason.value]
        # The sentence of the champion that cannot be evaluated says so itself.
        person = verdict.passed and self.approval and verdict.reason not in NEEDS_A_PERSON
        return "; ".join([
            f"the gate {'passes' if verdict.passed else 'rejects'} it ({verdict.reason.value})",
            f"{self.metric}: {told}, on {judged} holdout rows after {learnt} of training",
            *why,
            *(["a person is asked before it is champion"] if person else []),
            *(["on a sample of the rows, so the naive baseline knows less than it would"] if self.sampled else []),
            *(["without the search for parameters (training.tune)"] if self.untuned else []),
        ])  # fmt: skip


def trial(specs: Specs, model: ModelSpec, as_of: datetime, most_rows: int) -> Trial:
    """Train on what was known as of a time and ask the gate; nothing is written to warehouse, ledger or MLflow.

    The fits are made on this machine's CPU, with the parameters of the spec.

    Args:
        specs: all specs.
        model: what is trained.
        as_of: the cut-off, aware.
        most_rows: with more rows a sample of them is taken, the same each time.

    Raises:
        TerminalError: a training would stop with it: no rows, too few, labels or parameters that cannot be used.
        TransientError: warehouse or MLflow do not answer.
    """
    untuned = model.training.tune.on
    tried = model.model_copy(
        update={"training": model.training.model_copy(update={"tune": Tune(), "compare_with": ()})}
    )
    with connect() as conn:
        champion = registry.champion(conn, model.name, repair=False)
        watches = ledger.find(conn, ledger.model_subject(model.name), KINDS, as_of=as_of)
    with tempfile.TemporaryDirectory(prefix="evergreen-trial-") as place:
        work = Path(place)
        taken = snapshot.take(specs, tried, as_of, work / "snapshots", most_rows=most_rows)
        judged = evaluate(
            tried,
            taken,
            JudgedTraining(RUN, as_of, taken.fingerprint, realised=realised(watches, as_of)),
            champion,
            HERE,
            work,
            Means(again=_sampled(read_again(specs, tried, as_of, work), work), studies=work / "studies"),
        )
    return Trial(
        judged.verdict, champion.version if champion else None, model.gate_metric, judged.metrics, judged.rows,
        approval=model.gate.approval == "manual", sampled=taken.rows + taken.unlabelled >= most_rows, untuned=untuned,
    )  # fmt: skip


def _sampled(again: Again, work: Path) -> Again:
    """The same rows as the sample has, of those that are read once more for a champion with other features."""

    def rows(version: registry.LoadedModel, held: Rows) -> Rows:
        found = again(version, held)
        if len(found) <= len(held):
            return found
        path = work / "sampled.parquet"
        pq.write_table(found.take(np.flatnonzero(np.isin(found.hashes, held.hashes)), found.names), path)
        return opened(path)

    return rows
