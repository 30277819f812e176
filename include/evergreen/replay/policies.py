"""The policies that can be replayed, as a person names them, and when each of them trains."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import numpy as np

from evergreen.errors import ErrorReason, TerminalError
from evergreen.spec import parse_duration

DEFAULT = ("never", "every_window", "weekly", "on_drift")
WEEK = timedelta(days=7)
EVEN = -1
KNOWN = (
    "never, every_window, weekly, on_drift, every:14d, even:K (K evenly spread windows), random:K:SEED (K random windows), or the path of a changed spec "
    "of the model (.yaml), which runs on drift"
)


class PolicyKind(StrEnum):
    """What makes a policy train."""

    NEVER = "never"
    SCHEDULE = "schedule"
    MOMENTS = "moments"
    DRIFT = "drift"


@dataclass(frozen=True)
class Policy:
    """A policy.

    Attributes:
        name: as it was asked for; unique within a replay.
        kind: what makes it train.
        every: least time between two trainings of a schedule; zero trains at the end of every window.
        count, seed: of the moments; the seed `EVEN` spreads them evenly.
        spec: a changed spec of the model; None for the model's own.
    """

    name: str
    kind: PolicyKind
    every: timedelta = timedelta(0)
    count: int = 0
    seed: int = 0
    spec: Path | None = None

    @property
    def folder(self) -> str:
        """Its name as a folder's."""
        if self.spec is not None:
            return f"spec-{re.sub(r'[^A-Za-z0-9_.-]', '-', str(self.spec).strip('/'))[-80:]}"
        return self.name.replace(":", "-")

    @property
    def label(self) -> str:
        """Its name in tables and pictures."""
        return self.spec.stem if self.spec is not None else self.name


def parse(name: str) -> Policy:
    """Read a policy.

    Raises:
        TerminalError: it is none (BAD_SPEC).
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise TerminalError(
                f"the policy {name}: no such file; give a changed copy of the model's spec",
                ErrorReason.BAD_SPEC,
            )
        return Policy(name, PolicyKind.DRIFT, spec=path)
    word, _, rest = name.partition(":")
    try:
        if word == "random" and rest:
            count, _, seed = rest.partition(":")
            return Policy(name, PolicyKind.MOMENTS, count=int(count), seed=int(seed))
        if word == "even" and rest:
            return Policy(name, PolicyKind.MOMENTS, count=int(rest), seed=EVEN)
        if word == "every" and rest:
            return Policy(name, PolicyKind.SCHEDULE, every=parse_duration(rest))
    except ValueError as error:
        raise TerminalError(f"the policy {name}: {error}; known are {KNOWN}", ErrorReason.BAD_SPEC) from error
    found = {
        "never": Policy(name, PolicyKind.NEVER),
        "every_window": Policy(name, PolicyKind.SCHEDULE),
        "weekly": Policy(name, PolicyKind.SCHEDULE, every=timedelta(days=7)),
        "on_drift": Policy(name, PolicyKind.DRIFT),
    }.get(name)
    if found is None:
        raise TerminalError(f"no policy is named {name!r}; known are {KNOWN}", ErrorReason.BAD_SPEC)
    return found


def parse_all(names: list[str]) -> list[Policy]:
    """Read several policies; one that is named twice counts once.

    Raises:
        TerminalError: one of them is none, or two specs have the same file name (BAD_SPEC).
    """
    found = list({name: parse(name) for name in names}.values())
    labels = [policy.label for policy in found]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise TerminalError(
            f"two policies are named {', '.join(twice)}; rename one of the files", ErrorReason.BAD_SPEC
        )
    return found


def scheduled(policy: Policy, ends: list[datetime], now: datetime, last: datetime) -> bool:
    """Whether a policy trains at a time whatever was found.

    Args:
        policy: whose schedule or random moments.
        ends: the ends of all windows of the replay.
        now: one of them.
        last: when it trained last.
    """
    if policy.kind is PolicyKind.SCHEDULE:
        return now - last >= policy.every
    if policy.kind is PolicyKind.MOMENTS:
        return now in moments(policy, ends)
    return False


def moments(policy: Policy, ends: list[datetime]) -> set[datetime]:
    """The moments of a policy, different window ends: random ones, the same for the same seed, or evenly spread."""
    count = min(policy.count, len(ends))
    if policy.seed == EVEN:
        return {ends[i] for i in np.linspace(0, len(ends), count + 2)[1:-1].astype(int)}
    chosen = np.random.default_rng(policy.seed).choice(len(ends), count, replace=False)
    return {ends[i] for i in chosen}
