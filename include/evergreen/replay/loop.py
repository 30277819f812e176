"""One moment of a replayed policy: score, judge, look at a new champion, decide, train; in the order of the live loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from evergreen import registry
from evergreen.errors import ErrorReason, TerminalError
from evergreen.ledger import Decision
from evergreen.ledger.evidence import SettledEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.microseconds import micros_of
from evergreen.monitoring.trigger import policy, wake_rule
from evergreen.monitoring.windows import (
    due_windows,
    reads,
)
from evergreen.monitoring.windows.judge import judge_due
from evergreen.monitoring.windows.plan import WEEK
from evergreen.promotion.after_promotion import look_if_due
from evergreen.reference import calendar
from evergreen.reference.calendar import Window
from evergreen.registry.in_office import begun
from evergreen.registry.under_watch import champion_under_watch
from evergreen.replay.checkpoint import PolicyFolder
from evergreen.replay.known import KnownRows, known
from evergreen.replay.policies import Policy, scheduled
from evergreen.replay.policies import PolicyKind as Wanted
from evergreen.replay.replayed_policy import ReplayedTrigger
from evergreen.replay.replayed_watch import ReplayedWatch
from evergreen.replay.state import RUN, ReplayState, Step
from evergreen.replay.training import Trainer
from evergreen.replay.windows import ReplayedWindows, Versions, predictions
from evergreen.scoring import shadow
from evergreen.spec import ModelSpec, Specs
from evergreen.training.plan import plan_run

# Windows after FROM that are tried where no first champion passes; each is a training.
LATER = (0, 1, 3, 7, 15, 31, 63)


@dataclass
class Loop:
    """A policy's loop.

    Attributes:
        model: the policy's spec.
        begin: as-of time of the first champion.
        ends: every later moment: the ends of the windows.
    """

    specs: Specs
    model: ModelSpec
    policy: Policy
    begin: datetime
    ends: list[datetime]
    folder: PolicyFolder
    fits: Path

    def __post_init__(self) -> None:
        self.state = ReplayState()
        self._trainer = Trainer(self.specs, self.model, self.folder, self.fits)
        self._versions = Versions(self.model, self.folder, self._trainer)

    def resume(self) -> int:
        """Take in what earlier runs have finished; returns how many steps that are."""
        count = 0
        length = self.model.monitoring.window
        for content, rows in self.folder.read():
            starts = rows["_time"].map(lambda t: calendar.window_of(t, length).start)
            self.state.absorb(content, rows, starts)
            count += 1
        return count

    def moments(self) -> list[datetime]:
        """The as-of time of each step."""
        return [self.begin, *self.ends]

    def step(self, number: int) -> Step:
        """Do one step and keep it.

        Raises:
            TerminalError: there is no first champion; or the feature query does not run.
            TransientError: the warehouse does not answer.
        """
        as_of = self.moments()[number]
        step = Step(number, as_of)
        if number == 0:
            self._first(step)
        else:
            self._moment(step)
        self.folder.write(step)
        return step

    def fit_ahead(self, as_of: datetime) -> None:
        """Do the fits of a training that will come, into the folder that all policies share.

        Raises:
            TerminalError: the training cannot be done.
            TransientError: the warehouse does not answer.
        """
        self._trainer.fit_ahead(as_of)

    def _first(self, step: Step) -> None:
        plan = plan_run("scheduled", step.as_of, [], woken=False)
        assert plan is not None
        made = self._trainer.train(self.state, step, plan, None)
        if made.kind is not DecisionKind.PROMOTED:
            raise TerminalError(
                f"{self.model.name}: the gate refuses the first champion, as of {step.as_of.isoformat()} ({made.reason}: "
                f"{SettledEvidence.of(made).message}); {self._later()}, or change the gate in a spec of its own",
                ErrorReason.NO_CHAMPION,
            )

    def _later(self) -> str:
        """A later FROM at which the gate lets a first champion through; ever farther ones are tried."""
        tried = [self.ends[place] for place in LATER if place < len(self.ends) - 1]
        for moment in tried:
            if self._trainer.first_passes(moment):
                return f"a FROM that works is {moment:%Y-%m-%dT%H:%MZ}"
        if not tried:
            return "there is no later FROM before TO"
        names = ", ".join(f"{moment:%Y-%m-%dT%H:%MZ}" for moment in tried)
        return f"it refuses one at the later FROM {names}, too"

    def _moment(self, step: Step) -> None:
        with known(self.specs, self.model, step.as_of) as there:
            counts = self._score(step, there)
            windows = ReplayedWindows(self.model, self.state, step, there, counts, self._versions)
            judge_due(windows, self.model, step.as_of)
            look_if_due(ReplayedWatch(self.model, self.state, step, there), self.model, step.as_of, RUN)
        decision = None
        if self.policy.kind is Wanted.DRIFT:
            trigger = ReplayedTrigger(self.model, self.state, step)
            decision = policy.ask_if_due(trigger, self.model, step.as_of, RUN, self.specs)
        self._train(step, decision)
        self.state.forget(
            min(self._earliest(step.as_of), self._champion().trained_until - self.model.monitoring.window)
        )

    # ------------------------------------------------------------------ who is champion

    def _champion(self) -> registry.Champion:
        return self.state.champion(self.model.name)

    def _reign(self, champion: registry.Champion) -> datetime:
        return begun(champion, self.state.changes()[0])

    # ------------------------------------------------------------------ scoring

    def _earliest(self, as_of: datetime) -> datetime:
        """Start of the oldest window that is looked at."""
        length, delay = self.model.monitoring.window, self.model.label.delay
        first = calendar.window_of(self.begin - delay, length).start
        return max(first, due_windows.oldest(length, as_of, delay))

    def _score(self, step: Step, there: KnownRows) -> reads.Counted:
        """Predict what has arrived and was not predicted; the champion before, while it is watched, in the shadow."""
        as_of, length = step.as_of, self.model.monitoring.window
        start = self._earliest(as_of)
        counts = there.counts(start, min(start, as_of - self.model.monitoring.freshness - max(length, WEEK)))
        champion = self._champion()
        found = champion_under_watch(self.model, self.state.changes())
        beside = found if shadow.active(found, as_of) else None
        serving = self._trainer.load(self.model, champion.version)
        for begin, (rows, _) in sorted(counts.windows.items()):
            done = self.state.predicted(begin)
            if len(done) >= min(rows, self.model.monitoring.sample_rows):
                continue
            window = Window(begin, begin + length)
            table = there.rows(window)
            fresh = ~np.isin(table["_key"].to_numpy(zero_copy_only=False), done.index.to_numpy())
            fresh &= _times(table) >= micros_of(self.begin - self.model.label.delay)
            todo = table.filter(pa.array(fresh))
            if not todo.num_rows:
                continue
            self.state.predict(step, window, predictions(serving, todo), shadow=False)
            if beside is not None and beside.previous is not None:
                unseen = todo.filter(pa.array(_times(todo) >= micros_of(champion.trained_until)))
                before = self._trainer.load(self.model, beside.previous)
                self.state.predict(step, window, predictions(before, unseen), shadow=True)
        return counts

    # ------------------------------------------------------------------ deciding and training

    def _train(self, step: Step, decision: Decision | None) -> None:
        as_of = step.as_of
        if self.policy.kind is Wanted.DRIFT:
            waiting = self.state.open_requests()
            opened = decision if decision is not None and decision in waiting else None
            if not wake_rule.should_wake(waiting, self.state.find(DecisionKind.RUN_FAILED), opened, as_of):
                return
            plan = plan_run("asset_triggered", as_of, waiting, woken=True)
        else:
            last = self.state.trained_at or self.begin
            if not scheduled(self.policy, self.ends, as_of, last):
                return
            plan = plan_run("scheduled", as_of, [], woken=False)
        if plan is not None:
            self._trainer.train(self.state, step, replace(plan, as_of=as_of), self._champion())


def _times(table: pa.Table) -> np.ndarray:
    found: np.ndarray = table["_time"].cast(pa.int64()).to_numpy()
    return found
