"""Returns to an earlier champion: by hand, or when the watch after a promotion found it worse than the one before.

The way back is the ledger's line of champions, never "version minus one": a rejected challenger has a number too.
A second rollback goes one further back.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from evergreen import ledger
from evergreen.alert_kinds import AlertKind
from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.incidents.outbox import raise_incident
from evergreen.ledger import Decision
from evergreen.ledger.evidence import RollbackEvidence
from evergreen.ledger.reasons import DecisionKind, TriggerReason, WatchReason
from evergreen.ledger.succession import succession
from evergreen.progress import counted
from evergreen.registry import version_tags
from evergreen.registry.champions import champion
from evergreen.registry.models import LoadedModel, load, probe
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import connect
from evergreen.warehouse.features import feature_query, views

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RollbackCause:
    """Why a rollback is done without a person.

    Attributes:
        code: the reason code.
        promotion: id of the decision that made the champion which is left; if it is not the newest change of champion
            any more, nothing is done.
        key: names the decision itself, see `ledger.Decision`.
        evidence: the numbers; they join the decision's.
    """

    code: WatchReason
    promotion: int
    key: str
    evidence: RollbackEvidence = field(default_factory=RollbackEvidence)


def rollback(  # noqa: PLR0913  # the fields of the DAG's form, by name
    specs: Specs,
    model: ModelSpec,
    as_of: datetime,
    run_id: str,
    *,
    to_version: str | None = None,
    reason: str,
    dry_run: bool = False,
    finding: RollbackCause | None = None,
) -> Decision:
    """Make an earlier champion the champion again, after it was loaded and gave its own predictions again.

    Called again with the same `run_id` it returns the decision that stands; with a finding, with the same one.

    Args:
        specs: all specs.
        model: the model.
        as_of: the run's as-of time.
        run_id: the DAG run, the same in all its tries.
        to_version: a version that was champion once; default: the one before the present one.
        reason: why, in the words of the person or of the finding; kept in the ledger and told in the e-mail.
        dry_run: load and probe, decide nothing.
        finding: what made it necessary, where no person asks. Then it also answers the open retrain requests about the
            version that is left: what they ask for is another model than that one.

    Returns:
        The ledger's row; for a dry run the row that would be written, without an id.

    Raises:
        TerminalError: there is none to return to (NO_PREVIOUS_CHAMPION), it is not in MLflow as it was
            registered, or needs features that the query does not give any more (REGISTRY_MISMATCH), or it predicts otherwise than it did (PROBE_FAILED).
        TransientError: warehouse or MLflow do not answer, or the champion changed since the finding (BUSY).
    """
    key = finding.key if finding else f"rollback:{model.name}:{run_id}"
    with connect() as conn:
        ledger.lock(conn, model.name)
        standing = ledger.find(conn, dedupe_key=key)
        if standing:
            decision = standing[0]
        else:
            changes = ledger.champions(conn, model.name)
            present = changes[0].version if changes else None
            if finding and (not changes or changes[0].id != finding.promotion):
                raise TransientError(
                    f"{model.name}: the champion changed while it was compared with the one before, it is version {present} "
                    "now; try again, it is compared with that one then",
                    ErrorReason.BUSY,
                )
            target = _target(model, changes, to_version)
            loaded = load(model, target)
            tried = probe(loaded)
            log.info(
                "%s: version %s gives its own predictions of %s again, the largest difference is %.3g",
                model.name, target, counted(int(tried["rows"]), "row"), tried["largest_difference"],
            )  # fmt: skip
            _require_readable(specs, model, loaded, as_of)
            decision = Decision(
                as_of=as_of,
                subject=ledger.model_subject(model.name),
                kind=DecisionKind.ROLLED_BACK,
                reason=(finding.code if finding else TriggerReason.MANUAL).value,
                run_id=run_id,
                dedupe_key=key,
                version=target,
                answers=about(ledger.open_requests(conn, model.name), present, as_of) if finding else (),
                evidence=RollbackEvidence(message=reason)
                .joined(finding.evidence if finding else RollbackEvidence())
                .joined(
                    RollbackEvidence(
                        previous_version=present,
                        asked_version=to_version,
                        probe_rows=int(tried["rows"]),
                        probe_difference=tried["largest_difference"],
                    )
                ),
            )
            if dry_run:
                log.info(
                    "%s: dry run: would return from version %s to version %s", model.name, present, target
                )
                return decision
            decision = ledger.append(conn, decision)
            raise_incident(
                conn,
                f"rolled_back:{model.name}:{decision.id}",
                decision.subject,
                AlertKind.ROLLED_BACK,
                decision.id,
                {"previous_version": present, "reason": reason},
            )
    with connect() as conn:
        champion(conn, model.name)
    version_tags.follow(model.name)
    log.info(
        "%s: version %s is champion again, instead of version %s: %s",
        model.name, decision.version, RollbackEvidence.of(decision).previous_version, reason,
    )  # fmt: skip
    return decision


def about(waiting: Sequence[Decision], version: str | None, as_of: datetime) -> tuple[int, ...]:
    """Ids of those of the open retrain requests that windows of a version opened: a rollback from it answers them."""
    return tuple(d.id for d in waiting if d.id is not None and d.version == version and d.as_of <= as_of)


def _require_readable(specs: Specs, model: ModelSpec, loaded: LoadedModel, as_of: datetime) -> None:
    """See that the feature query gives what a version was trained on; without it nothing could be scored."""
    seen, version = loaded.seen_by(model), loaded.version
    try:
        with views.reading(specs, seen, as_of) as reader:
            lacks = feature_query.lacking(seen, feature_query.types(reader), loaded.categories)
    except TerminalError as error:
        log.warning(
            "%s: what version %s could read of today's features is not known: %s", seen.name, version, error
        )
        return
    if lacks:
        told = "; ".join(f"{name}: {why}" for name, why in lacks.items())
        raise TerminalError(
            f"{seen.name}: version {version} needs the features {', '.join(lacks)} ({told}), so it could score nothing. Put them "
            f"back into models/{seen.name}.sql first, or name another version",
            ErrorReason.REGISTRY_MISMATCH,
        )


def _target(model: ModelSpec, changes: list[Decision], to_version: str | None) -> str:
    line = succession(changes)
    if to_version is not None:
        once = {c.version for c in changes}
        if to_version not in once:
            raise TerminalError(
                f"{model.name}: version {to_version} was never champion; these were: "
                f"{', '.join(sorted((v for v in once if v), key=_number)) or 'none'}",
                ErrorReason.NO_PREVIOUS_CHAMPION,
            )
        if line and line[-1] == to_version:
            raise TerminalError(
                f"{model.name}: version {to_version} is champion now; nothing to return from",
                ErrorReason.NO_PREVIOUS_CHAMPION,
            )
        return to_version
    if len(line) < 2:
        raise TerminalError(
            f"{model.name}: no champion before {'version ' + line[-1] if line else 'the first one'}; name a version that was champion "
            f"once, or run train__{model.name}: a challenger that passes the gate takes its place, and where this one cannot be "
            f"evaluated any more, one that a person approves in promote__{model.name}",
            ErrorReason.NO_PREVIOUS_CHAMPION,
        )
    return line[-2]


def _number(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdigit() else (1 << 62, version)
