"""Where a fit runs: the engine and the device that the spec asks for, or the CPU where no GPU can be used."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from evergreen.spec import ModelSpec
from evergreen.training.fitting.cuda import why_no_cuda

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machine:
    """The engine (`local`, `dask`) and the device (`cpu`, `cuda`) of a fit; `note` says what was asked for in vain."""

    engine: str = "local"
    device: str = "cpu"
    note: str = ""


def choose(model: ModelSpec) -> Machine:
    """The machine for a model's fits.

    Raises:
        TerminalError: the engine is dask and no scheduler is named (BAD_SPEC).
        TransientError: the scheduler does not answer.
    """
    engine, device = model.training.engine, model.training.device
    if device == "cpu":
        return Machine(engine)
    if engine == "dask":
        # Dask is imported only where a spec asks for it.
        from evergreen.training.fitting import dask

        reason = dask.why_no_cuda()
    else:
        reason = why_no_cuda()
    if not reason:
        return Machine(engine, device)
    note = f"device: cuda asked for, none usable: {reason}"
    log.warning("%s: %s; the fit runs on the CPU", model.name, note)
    return Machine(engine, "cpu", note)
