"""What is said when an earlier champion came back, and when somebody moved the alias in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from evergreen.alerting.content import amounts, online
from evergreen.alerting.content.history import JudgedWindow, Tenure, number, tenures, windows
from evergreen.alerting.content.letter import (
    KnownIncident,
    Letter,
    Table,
    facts,
    known_links,
    numbers,
    recorded,
    show,
)
from evergreen.alerting.letters import takeover
from evergreen.alerting.letters.challenger_tables import gate_metric
from evergreen.alerting.letters.challengers import links, previous_version
from evergreen.alerting.pictures.judged_windows import beyond
from evergreen.ledger import Decision, champions, promotion, words
from evergreen.ledger.evidence import RollbackEvidence, SettledEvidence
from evergreen.links import airflow_dag_url
from evergreen.spec import metric_name
from evergreen.warehouse.connection import Connection


@dataclass(frozen=True)
class _Version:
    """A champion with what it was promised to do and what it did.

    `promised`: the deciding metric (named `metric`) on the holdout of its promotion. `served`: its judged windows with a measured error,
    oldest first, of the metric `watched`. `times`: when it was champion, oldest first.
    """

    name: str
    metric: str | None
    promised: float | None
    watched: str | None
    served: tuple[JudgedWindow, ...]
    times: tuple[Tenure, ...]

    @classmethod
    def of(cls, conn: Connection, known: KnownIncident, version: str) -> _Version:
        changes = champions(conn, known.name)
        made = promotion(version, changes)
        found = SettledEvidence.shown(made) if made else SettledEvidence()
        metric = found.metric or gate_metric(known)
        watched = known.model.performance_metric if known.model else metric
        judged = windows(conn, known.name, watched, until=known.as_of) if watched else []
        return cls(
            version,
            metric,
            number(found.metrics.get("challenger"), metric or ""),
            watched,
            tuple(w for w in judged if w.version == version and w.value is not None and not w.estimated),
            tuple(t for t in tenures(conn, known.name) if t.version == version),
        )

    def was_promised(self) -> str:
        """The metric at its promotion."""
        return "" if self.promised is None else f"{metric_name(self.metric)} {words.num(self.promised)}"

    def has_served(self) -> str:
        """Its newest error."""
        return f"{metric_name(self.watched)} {words.num(self.served[-1].value)}" if self.served else ""

    def usually(self) -> str:
        """The middle of its errors."""
        values = [w.value for w in self.served if w.value is not None]
        return words.num(float(median(values))) if len(values) > 1 else ""

    def too_bad(self) -> str:
        """How many of its windows were beyond their limit."""
        wrong = sum(beyond(self.watched or "", w) for w in self.served)
        return f"{words.num(wrong)} of {amounts.count(len(self.served), 'window')}" if self.served else ""

    def since(self) -> str:
        """When it was champion."""
        return ", again ".join(
            f"from {words.when(t.start)}" + (f" to {words.when(t.end)}" if t.end else "") for t in self.times
        )

    def short(self) -> str:
        """The two numbers that count."""
        told = (("promised", self.was_promised()), ("served", self.has_served()))
        return ", ".join(f"{verb} {value}" for verb, value in told if value)


def rolled_back(conn: Connection, known: KnownIncident) -> Letter:
    """An earlier champion is back: both versions with what they were promised, what they served, and since when."""
    source, target = previous_version(conn, known), known.version
    why = known.get("message", "reason")
    code = known.decision.reason if known.decision else None
    watch = known.mapping("watch")
    known.told |= {"message", "reason", "watch", "blocked"}
    gained = number(watch, "improvement")
    rows = known.get("probe_rows")
    apart = number({"apart": known.get("probe_difference")}, "apart")
    off, back = (_Version.of(conn, known, v) if v else None for v in (source, target))
    short = f", {amounts.change(gained)} on the same rows" if gained is not None else ""
    what = (
        f"{known.name}: rolled back to version {target or '?'}"
        + (f" from version {source}" if source else "")
        + short
    )
    return Letter(
        headline=what,
        summary=what,
        lead=(
            f"Version {target or '?'} of {known.name} is champion again"
            + (f"; version {source} was taken out of service." if source else "."),
            *takeover.answered(conn, known),
        ),
        tone="bad",
        numbers=numbers(
            (f"Version {source}, taken out", off.short() if off else None),
            (f"Version {target}, back again", back.short() if back else None),
            ("On the same new rows", _watched(watch) if gained is not None else None),
            ("As of", words.when(known.as_of)),
        ),
        facts=facts(
            ("From", f"version {source}" if source else words.MISSING),
            ("To", f"version {target}" if target else words.MISSING),
            ("Why", show(why) if why else words.reason(code)),
            *((("Test of the one that is back", _probe(rows, apart)),) if isinstance(rows, int) else ()),
            *online.line(conn, known.name, known.as_of),
        ),
        tables=(*_versions(off, back), *_watch_table(watch)),
        steps=(
            f"Version {target or '?'} scores from the next run on; predictions already made keep their version.",
            *_blocked(known.decision),
            f"A later training may promote a new version; pause train__{known.name} if that must not happen.",
            f"To undo the rollback, start rollback__{known.name} with the version to return to.",
        ),
        links=links(known, str(target) if target else None, rollback=True),
        small=recorded(("Airflow run", known.run_id)),
    )


def alias_repaired(conn: Connection, known: KnownIncident) -> Letter:
    """Somebody moved the alias in MLflow, and the monitor put it right."""
    found = known.get("found_version")
    was = f"named version {found}" if found else "was gone"
    known.told |= {"message", "alias", "champion_decision"}
    what = f"{known.name}: the alias champion in MLflow {was}, it is version {known.version or '?'} again"
    return Letter(
        headline=what,
        summary=what,
        lead=(
            f"The alias champion of {known.name} in MLflow {was}; the champion by the ledger is "
            f"version {known.version or '?'}. The alias was put right. Nothing was scored by it: scoring, "
            "monitoring and rollback follow the ledger.",
        ),
        numbers=numbers(
            ("Found", f"version {found}" if found else "no alias"),
            ("Champion", f"version {known.version}" if known.version else None),
            ("As of", words.when(known.as_of)),
        ),
        steps=(
            "Find out who or what moves it: whoever reads the alias took the wrong version for the champion.",
            f"To make an earlier champion champion again, start rollback__{known.name}; a new one comes from train__{known.name}.",
        ),
        links=(
            *links(known, known.version, rollback=True),
            *known_links(("Training DAG", airflow_dag_url(f"train__{known.name}"))),
        ),
        small=recorded(("Airflow run", known.run_id)),
    )


def _versions(off: _Version | None, back: _Version | None) -> tuple[Table, ...]:
    if off is None or back is None:
        return ()
    lines = (
        ("Promised at its promotion", off.was_promised(), back.was_promised()),
        ("Served last", off.has_served(), back.has_served()),
        ("In the middle of its windows", off.usually(), back.usually()),
        ("Beyond the limit", off.too_bad(), back.too_bad()),
        ("Champion", off.since(), back.since()),
    )
    rows = tuple(
        (label, one or words.MISSING, other or words.MISSING) for label, one, other in lines if one or other
    )
    columns = ("", f"version {off.name}, taken out", f"version {back.name}, back again")
    return (Table("The two versions", columns, rows),) if rows else ()


def _probe(rows: int, apart: float | None) -> str:
    told = f"predicted {amounts.count(rows, 'row')}"
    if apart is None:
        return told
    return f"{told} as before" if apart == 0 else f"{told}, at most {words.num(apart)} apart from before"


def _watched(told: Mapping[str, Any]) -> str:
    """What the watch saw, in short."""
    gained, margin, rows = (number(dict(told), name) for name in ("improvement", "margin", "rows"))
    said = f"version {told.get('version') or '?'} is {amounts.change(gained or 0.0)}"
    said += f" on {amounts.count(round(rows), 'row')}" if rows else ""
    return said + (f"; {amounts.share(margin)} worse is allowed" if margin else "")


def _watch_table(told: Mapping[str, Any]) -> tuple[Table, ...]:
    """What the watch after a promotion measured, where it asked for the rollback."""
    if not told:
        return ()
    metric = told.get("metric")
    rows = tuple(
        (f"version {told.get(version) or words.MISSING}", words.num(told.get(value)))
        for version, value in (("version", "value"), ("previous", "previous_value"))
    )
    at_most, confidence = number(dict(told), "at_most"), number(dict(told), "confidence")
    note = (
        f"{words.num(told.get('rows'))} rows since {words.when(told.get('since'))}: {_watched(told)}"
        + (f", surely {amounts.change(at_most)}" if at_most is not None and at_most < 0 else "")
        + (f" ({confidence:.0%} confidence)" if confidence else "")
        + f". Look {words.num(told.get('look'))} of {words.num(told.get('looks'))}."
    )
    return (Table("On the same new rows", ("Champion", metric_name(metric)), rows, (True, False), note),)


def _blocked(decision: Decision | None) -> tuple[str, ...]:
    if (
        decision is None
        or not isinstance(decision.evidence, RollbackEvidence)
        or not decision.evidence.blocked
    ):
        return ()
    return (
        "A training on the same rows is not promoted again, unless the spec changes what is trained; one on newer rows may be.",
    )
