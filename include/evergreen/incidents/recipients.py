"""Who is told about what. An address that cannot be read never keeps a mail from the others; the mail says so."""

from __future__ import annotations

from evergreen import settings
from evergreen.spec import DatasetSpec, ModelSpec, Specs
from evergreen.spec.address import readable


def recipients(specs: Specs, subject: str) -> list[str]:
    """Who is told about a subject: the `alerts` of its spec, or EVERGREEN_MAIL_TO, those who answer for the fleet."""
    kind, _, name = subject.partition("/")
    spec: ModelSpec | DatasetSpec | None = None
    if kind == "model":
        spec = specs.models.get(name)
    elif kind == "dataset":
        spec = specs.datasets.get(name)
    return readable(", ".join(spec.alerts))[0] if spec and spec.alerts else fleet()


def fleet() -> list[str]:
    """Those who answer for the fleet: EVERGREEN_MAIL_TO."""
    return readable(settings.MAIL_TO.read())[0]


def unreadable() -> list[str]:
    """The parts of EVERGREEN_MAIL_TO that are no addresses."""
    return readable(settings.MAIL_TO.read())[1]
