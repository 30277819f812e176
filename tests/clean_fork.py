"""Runs a function in a process that was forked from a clean one.

A fork of a process in which threads have run (XGBoost's, Arrow's) may find a lock taken that nobody will ever give back, and
hang. So the one that is forked is multiprocessing's fork server, which has only imported modules.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

import cloudpickle

_CONTEXT = multiprocessing.get_context("forkserver")
# What most steps import; the server does so once.
_CONTEXT.set_forkserver_preload([
    "mlflow", "xgboost", "great_expectations", "evergreen.validation.ingest", "evergreen.training.train",
    "evergreen.promotion.settlement", "evergreen.scoring.score", "evergreen.monitoring.windows.judge", "evergreen.monitoring.trigger.policy",
    "evergreen.incidents.outbox", "evergreen.alerting.letters.digest", "evergreen.promotion.rollback",
])  # fmt: skip


def start(
    work: Callable[[], object], *, pipe: Connection | None = None, modules: tuple[ModuleType, ...] = ()
) -> BaseProcess:
    """Start a process that runs a function, in the environment and the folder of this one.

    Args:
        work: what is run; it is pickled with all that it refers to.
        pipe: an end of a pipe that the process gets as the function's only argument.
        modules: modules of tests that `work` refers to and that cannot be imported by their name alone.
    """
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    arguments = (cloudpickle.dumps(work), dict(os.environ), str(Path.cwd()), pipe)
    process = _CONTEXT.Process(target=_run, args=arguments)
    process.start()
    return process


def _run(pickled: bytes, environment: dict[str, str], folder: str, pipe: Connection | None) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    work = cloudpickle.loads(pickled)
    if pipe is None:
        work()
    else:
        work(pipe)
