"""What an e-mail says, before it has a layout: one structure, from which the HTML and the plain text are both
made, so that they cannot tell two stories.

`KnownIncident` is all that is known about an incident. A fact that nobody recorded is shown as "not recorded"; recorded
evidence that no part of a letter used is listed at its end, so that nothing is invented and nothing is lost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from evergreen.ledger import Decision, words
from evergreen.spec import DatasetSpec, ModelSpec, Specs

MOST_LEFTOVERS = 30
LONGEST_VALUE = 400
MOST_NUMBERS = 5
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$")


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; `emphasis` marks rows that violate something."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    emphasis: tuple[bool, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """An image shown inside the mail, with the text that stands for it."""

    png: bytes
    alt: str


@dataclass(frozen=True)
class Letter:
    """The content of one e-mail, in the order in which it is read.

    Attributes:
        headline: the first line.
        summary: the mail's subject: who, what happened, and by how much, the most important words first.
        numbers: the two to five numbers that a person decides by, as label and value.
        lead: paragraphs.
        tone: bad, good or neutral.
        picture: shown inside the mail.
        next_title, steps: what the reader may do.
        links: label and address.
        runbook: where the runbook tells about this kind, in words, and its address or None.
        tables, facts: the rest of what a person wants to know; facts are label and value.
        small: what tells a computer which thing it is (hashes, ids of runs), as label and value; shown last, in small type.
    """

    headline: str
    summary: str
    lead: tuple[str, ...]
    tone: str = "neutral"
    numbers: tuple[tuple[str, str], ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    picture: Picture | None = None
    next_title: str = "What happens next"
    steps: tuple[str, ...] = ()
    links: tuple[tuple[str, str | None], ...] = ()
    runbook: tuple[str, str | None] | None = None
    small: tuple[tuple[str, str], ...] = ()


@dataclass
class KnownIncident:
    """An incident with its ledger row, its context and its spec; remembers which evidence was told."""

    incident: str
    kind: str
    subject: str
    specs: Specs
    created_at: datetime
    decision: Decision | None
    evidence: dict[str, Any]
    context: dict[str, Any]
    told: set[str] = field(default_factory=set)
    thread: str | None = None

    @property
    def name(self) -> str:
        """The model's or dataset's name."""
        return self.subject.partition("/")[2] or self.subject

    @property
    def model(self) -> ModelSpec | None:
        """The model's spec, if the subject is a model with a good one."""
        return self.specs.models.get(self.name) if self.subject.startswith("model/") else None

    @property
    def dataset(self) -> DatasetSpec | None:
        """The dataset's spec, if the subject is a dataset with a good one."""
        return self.specs.datasets.get(self.name) if self.subject.startswith("dataset/") else None

    @property
    def owner(self) -> str:
        """Who owns the subject."""
        spec = self.model or self.dataset
        return spec.owner if spec else words.MISSING

    @property
    def version(self) -> str | None:
        """The model's version that the decision is about."""
        found = self.decision.version if self.decision and self.decision.version else None
        other = self.get("version", "champion_version")
        return found or (None if other is None else str(other))

    @property
    def as_of(self) -> datetime | None:
        """The as-of time of the decision."""
        return self.decision.as_of if self.decision else None

    @property
    def effective_from(self) -> datetime | None:
        """From when on the decision is in force; its as-of time but for a version that waited."""
        return self.decision.effective_shown if self.decision else None

    @property
    def run_id(self) -> str | None:
        """Airflow's `dag_id/run_id`."""
        found = self.decision.run_id if self.decision else self.get("run_id")
        return found if isinstance(found, str) else None

    def get(self, *paths: str) -> Any:
        """The first of some dotted paths that is recorded, in the evidence or else in the context; or None."""
        for path in paths:
            for source in (self.evidence, self.context):
                value: Any = source
                for part in path.split("."):
                    value = value.get(part) if isinstance(value, Mapping) else None
                if value is not None:
                    self.told.add(path)
                    return value
        return None

    def text(self, *paths: str) -> str:
        """The same, as text for the reader."""
        return show(self.get(*paths))

    def mapping(self, *paths: str) -> dict[str, Any]:
        """The same, if it is a mapping; an empty one otherwise."""
        value = self.get(*paths)
        return dict(value) if isinstance(value, Mapping) else {}

    def items(self, *paths: str) -> list[Any]:
        """The same, if it is a list; an empty one otherwise."""
        value = self.get(*paths)
        return list(value) if isinstance(value, (list, tuple)) else []

    def leftovers(self) -> list[tuple[str, str]]:
        """Recorded evidence that no part of the letter has told, flat, at most MOST_LEFTOVERS lines."""
        lines: dict[str, str] = {}
        for source in (self.evidence, self.context):
            for key, value in _flat(source, ""):
                if value is not None and not any(key == t or key.startswith(f"{t}.") for t in self.told):
                    lines.setdefault(key.replace("_", " ").replace(".", ", "), show(value))
        rows = list(lines.items())
        if len(rows) > MOST_LEFTOVERS:
            more = len(rows) - MOST_LEFTOVERS
            rows = [*rows[:MOST_LEFTOVERS], ("and", f"{more} more in the ledger, decision {self.number}")]
        return rows

    @property
    def number(self) -> str:
        """The ledger's number of the decision."""
        return str(self.decision.id) if self.decision else words.MISSING


def show(value: Any) -> str:
    """Any recorded value as short text."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{key}: {show(item)}" for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        text = ", ".join(show(item) for item in value)
    else:
        text = words.when(value) if isinstance(value, str) and ISO_TIME.match(value) else words.num(value)
    text = text or words.MISSING
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def facts(*pairs: tuple[str, Any]) -> tuple[tuple[str, str], ...]:
    """Label and value pairs, each value as text."""
    return tuple(
        (label, value if isinstance(value, str) and value else show(value)) for label, value in pairs
    )


def recorded(*pairs: tuple[str, Any]) -> tuple[tuple[str, str], ...]:
    """The pairs of `facts` whose value is known."""
    return facts(*(pair for pair in pairs if pair[1] not in (None, "", words.MISSING)))


def numbers(*pairs: tuple[str, Any]) -> tuple[tuple[str, str], ...]:
    """The same for what stands first in a letter: at most MOST_NUMBERS."""
    return recorded(*pairs)[:MOST_NUMBERS]


def known_links(*pairs: tuple[str, str | None]) -> tuple[tuple[str, str | None], ...]:
    """The links that have a web address; anything else a reader could click is left out."""
    return tuple(pair for pair in pairs if pair[1] and pair[1].startswith(("http://", "https://")))


def _flat(value: Any, path: str) -> Sequence[tuple[str, Any]]:
    if isinstance(value, Mapping) and path.count(".") < 3:
        return [
            line for key, item in value.items() for line in _flat(item, f"{path}.{key}" if path else str(key))
        ]
    return [(path, value)] if path else []
