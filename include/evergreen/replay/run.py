"""A whole replay: plan it, let workers go through the policies, show how far they are, write the result."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import evergreen
from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.replay import checkpoint, first, output, result
from evergreen.replay.checkpoint import ERROR_FILE, PolicyFolder, locked
from evergreen.replay.progress import ReplayProgress
from evergreen.replay.request import ReplayRequest, ask
from evergreen.replay.result import PolicyOutcome
from evergreen.replay.worker import loop_of
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.storage import progress_store

POLL_S = 0.5


@dataclass(frozen=True)
class Replayed:
    """A finished replay."""

    asked: ReplayRequest
    outcomes: list[PolicyOutcome]
    files: dict[str, Path]

    @property
    def table(self) -> str:
        """As text."""
        return output.table(self.outcomes, self.asked.model.performance_metric)


def replay(  # noqa: PLR0913  # what a person asks for, by the names of the command's options
    specs: Specs,
    model: ModelSpec,
    begin: datetime,
    end: datetime,
    names: list[str],
    *,
    home: Path | None = None,
    workers: int | None = None,
    say: Callable[[str], None] | None = None,
    keep_fits: bool = False,
) -> Replayed:
    """Replay a model's loop; called again with the same arguments it goes on after the last finished step.

    Nothing is written to the warehouse or to MLflow. Rows that came meanwhile and change what was known up to TO make it
    another replay.

    Args:
        specs: all specs.
        model: whose loop.
        begin, end: event times, aware.
        names: of the policies, see `policies.KNOWN`.
        home: folder of all replays; default `EVERGREEN_HOME/replays`.
        workers: processes; default one a core. 0: one policy after the other in this process.
        say: takes a line of progress; default: stderr, one line that is written over on a terminal.
        keep_fits: leave the fits where they are, for another call with more policies.

    Raises:
        TerminalError: a policy, spec or range that cannot be used, too few rows for a first champion, or a bucket of
            EVERGREEN_PROGRESS that is missing or may not be used.
        TransientError: warehouse or bucket do not answer, or another process runs the same replay.
    """
    asked = ask(specs, model, begin, end, names, home)
    with ExitStack() as stack:
        if not stack.enter_context(locked(asked.folder, wait=False)):
            raise TransientError(
                f"another process runs the replay in {asked.folder}; wait for it, or end it", ErrorReason.BUSY
            )
        progress_store.fetch_folder(asked.folder, checkpoint.ends_step)
        sender = progress_store.Sender(asked.folder, checkpoint.is_kept, checkpoint.ends_step)
        asked = asked.with_finished()
        asked.write()
        for policy, spec in asked.policies:
            if not asked.policy_folder(policy, spec).finished():
                first.require(specs, spec, asked.begin, asked.end)
        _work(asked, workers, say, sender.now_and_then)
        outcomes = result.gather(asked)
        files = output.write(asked, outcomes)
        sender.send()
        _tidy(asked, keep_fits)
        return Replayed(asked, outcomes, files)


def _tidy(asked: ReplayRequest, keep_fits: bool) -> None:
    """Remove what only an unfinished replay needs; its steps stay."""
    if not keep_fits:
        shutil.rmtree(asked.folder / "fits", ignore_errors=True)
    for policy, model in asked.policies:
        place = asked.policy_folder(policy, model).path
        for name in ("versions", "studies", "scratch", "ahead"):
            shutil.rmtree(place / name, ignore_errors=True)


def _work(
    asked: ReplayRequest, workers: int | None, say: Callable[[str], None] | None, keep: Callable[[], None]
) -> None:
    folders = {p.label: asked.policy_folder(p, m) for p, m in asked.policies}
    totals = {p.label: len(asked.ends(m)) + 1 for p, m in asked.policies}
    for folder in folders.values():
        (folder.path / ERROR_FILE).unlink(missing_ok=True)
    progress = ReplayProgress(asked.model.name, totals, {n: f.finished() for n, f in folders.items()}, say)
    if progress.complete:
        return

    def finished() -> dict[str, int]:
        return {n: f.finished() for n, f in folders.items()}

    def tell() -> None:
        progress.tell(finished())
        keep()

    if workers == 0:
        _one_after_the_other(asked, tell)
        progress.end(finished())
        return
    try:
        _side_by_side(asked, workers, progress, tell)
    finally:
        progress.end(finished())
    _require_done(asked, folders, progress)


def _one_after_the_other(asked: ReplayRequest, tell: Callable[[], None]) -> None:
    for policy, model in asked.policies:
        loop = loop_of(asked, policy, model)
        for number in range(loop.resume(), len(loop.moments())):
            loop.step(number)
            tell()


def _side_by_side(
    asked: ReplayRequest, workers: int | None, progress: ReplayProgress, tell: Callable[[], None]
) -> None:
    """Let processes go through the policies, until all are done or one has failed."""
    cores = len(os.sched_getaffinity(0))
    count = workers or cores
    environment = _environment(max(1, cores // count))
    with ExitStack() as stack:
        running = []
        for number in range(count):
            log = stack.enter_context((asked.folder / f"worker-{number}.log").open("wb"))
            command = [sys.executable, "-m", "evergreen.replay.worker", str(asked.folder), str(os.getpid())]
            running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        try:
            while not progress.complete and any(p.poll() is None for p in running):
                if any(p.poll() not in (None, 0) for p in running):
                    break
                time.sleep(POLL_S)
                tell()
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


def _require_done(
    asked: ReplayRequest, folders: Mapping[str, PolicyFolder], progress: ReplayProgress
) -> None:
    """Raise what stopped a worker."""
    for name, folder in folders.items():
        if failure := folder.failure():
            kind = TransientError if failure["transient"] else TerminalError
            raise kind(
                f"the policy {name} cannot go on: {failure['message']}", ErrorReason(failure["reason"])
            )
    if not progress.complete:
        raise TransientError(
            f"a worker ended before its work was done; {asked.folder}/worker-*.log say why. Run the same command again"
        )


def _environment(threads: int) -> dict[str, str]:
    package = str(Path(next(iter(evergreen.__path__))).parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    one = dict.fromkeys((settings.THREADS.name, "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    return {**os.environ, **one, "PYTHONPATH": os.pathsep.join(paths), "MPLBACKEND": "Agg"}
