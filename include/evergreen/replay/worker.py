"""`python -m evergreen.replay.worker FOLDER PARENT`: one warm process that takes a policy after the other.

Policies are taken by their folder's lock, so any number of workers share them without a master. A worker without a policy
does fits that a scheduled policy will ask for, from the last moment backwards. It ends when the process that began it is
gone; what it has finished stays.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from evergreen.errors import EvergreenError, TerminalError
from evergreen.replay.checkpoint import PolicyFolder, locked
from evergreen.replay.loop import Loop
from evergreen.replay.policies import Policy, PolicyKind, moments
from evergreen.replay.request import ReplayRequest, cost
from evergreen.spec import ModelSpec

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Take policies until none is left; 1 if one cannot go on, and its folder says why."""
    folder, parent = (argv or sys.argv[1:])[:2]
    # Its parent may have ended while this process imported; then another one has taken its place.
    return work(ReplayRequest.read(Path(folder)), int(parent))


def work(asked: ReplayRequest, parent: int) -> int:
    """Take policies while the process with that id is this one's parent."""
    todo = sorted(asked.policies, key=lambda item: cost(item[0]))
    for policy, model in todo:
        place = asked.policy_folder(policy, model)
        with locked(place.path, wait=False) as mine:
            if mine and not _run(asked, policy, model, place, parent):
                return 1
    for policy, model in todo:
        _ahead(asked, policy, model, parent)
    # A policy may still have been in the hands of a worker of a killed run, which gives up when it notices.
    for policy, model in todo:
        place = asked.policy_folder(policy, model)
        with locked(place.path, wait=True):
            if not _run(asked, policy, model, place, parent):
                return 1
    return 0


def loop_of(asked: ReplayRequest, policy: Policy, model: ModelSpec) -> Loop:
    """The loop of a policy."""
    place = asked.policy_folder(policy, model)
    return Loop(asked.specs, model, policy, asked.begin, asked.ends(model), place, asked.folder / "fits")


def _run(asked: ReplayRequest, policy: Policy, model: ModelSpec, place: PolicyFolder, parent: int) -> bool:
    loop = loop_of(asked, policy, model)
    last = len(loop.moments())
    if place.finished() >= last:
        return True
    try:
        for number in range(loop.resume(), last):
            _still_wanted(parent)
            loop.step(number)
    except EvergreenError as error:
        place.fail(error)
        log.exception("%s cannot go on", policy.name)
        return False
    return True


def _ahead(asked: ReplayRequest, policy: Policy, model: ModelSpec, parent: int) -> None:
    """Do the fits of a scheduled policy's last moments; whoever comes to them first, both find the other's work."""
    place, loop = asked.policy_folder(policy, model), loop_of(asked, policy, model)
    whole = policy.kind is PolicyKind.SCHEDULE and not policy.every
    wanted = (
        set(loop.ends)
        if whole
        else moments(policy, loop.ends)
        if policy.kind is PolicyKind.MOMENTS
        else set()
    )
    times = loop.moments()
    for number in range(len(times) - 1, 0, -1):
        # The policy is about to come here by itself.
        if number <= place.finished() + 1:
            return
        _still_wanted(parent)
        if times[number] in wanted:
            with locked(place.path / "ahead" / str(number), wait=False) as mine, suppress(TerminalError):
                if mine:  # whatever fails here fails in its own training, which says so
                    loop.fit_ahead(times[number])


def _still_wanted(parent: int) -> None:
    if os.getppid() != parent:
        raise SystemExit("the process that began this worker is gone")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    sys.exit(main())
