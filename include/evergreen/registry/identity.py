"""Which model a version is: the MLflow run that made it, and one digest over every file that is loaded with it.

A version number alone names nothing. MLflow begins at 1 again once a registered model was deleted, and gives numbers out a
second time after its database was restored from a backup. Predictions, judged windows, decisions and mails carry the
number, so a number that the ledger has seen is never used again: a training takes the next one that is free (`highest`).
Whether a number still means the model that the ledger decided on is told by run and digest, each time it is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evergreen import ledger
from evergreen.errors import ErrorReason, TerminalError
from evergreen.ledger.reasons import DecisionKind
from evergreen.registry.client import WAY_ON
from evergreen.warehouse.connection import Connection, fetch

# On version and run: the SHA-256 of each file by its path, and the digest over all of them.
FILES_TAG = "evergreen.files"
IDENTITY_TAG = "evergreen.digest"
# The decisions on a version that keep its run and digest.
DECIDED = (DecisionKind.PROMOTED, DecisionKind.REJECTED, DecisionKind.AWAITING_APPROVAL)


@dataclass(frozen=True)
class Identity:
    """What the ledger knows of a version: its MLflow run, and its digest (empty: an earlier release decided on it)."""

    run_id: str
    digest: str


def sums(files: Mapping[str, Path]) -> dict[str, str]:
    """The SHA-256 of each file, by the name that it has in MLflow."""
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(files.items())}


def digest_of(files: Mapping[str, str]) -> str:
    """One digest over the sums of all files."""
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()


def known(conn: Connection, model_name: str, version: str) -> Identity | None:
    """What the ledger knows of a version; None where it decided on none of that number, or did not keep the run."""
    return _known(conn, model_name, version=version)


def known_run(conn: Connection, model_name: str, run_id: str) -> Identity | None:
    """What the ledger knows of the version that an MLflow run made."""
    return _known(conn, model_name, run_id=run_id)


def _known(
    conn: Connection, model_name: str, *, version: str | None = None, run_id: str | None = None
) -> Identity | None:
    rows = fetch(
        conn,
        "SELECT evidence->>'mlflow_run' AS run, evidence->>'digest' AS digest FROM evergreen.decision"
        " WHERE subject = %(subject)s AND kind = ANY(%(kinds)s) AND evidence->>'mlflow_run' IS NOT NULL"
        " AND (%(version)s IS NULL OR version = %(version)s) AND (%(run)s IS NULL OR evidence->>'mlflow_run' = %(run)s)"
        " ORDER BY id DESC LIMIT 1",
        {
            "subject": ledger.model_subject(model_name),
            "kinds": [kind.value for kind in DECIDED],
            "version": version,
            "run": run_id,
        },
    )
    return Identity(rows[0]["run"], rows[0]["digest"] or "") if rows else None


def highest(conn: Connection, model_name: str) -> int:
    """The largest version number that any decision on a model names; 0 where none does."""
    rows = fetch(
        conn,
        "SELECT coalesce(max(version::bigint), 0) AS highest FROM evergreen.decision"
        " WHERE subject = %s AND version ~ '^[0-9]{1,18}$'",
        (ledger.model_subject(model_name),),
    )
    return int(rows[0]["highest"])


def expected(what: str, tags: Mapping[str, str], ledgers: Identity | None) -> dict[str, str] | None:
    """The sums that the files of a version must have, by their paths; None where an earlier release kept none.

    Args:
        what: names it in messages: `rides version 3`.
        tags: of the version or its run in MLflow.
        ledgers: what the ledger knows of it.

    Raises:
        TerminalError: the tags are not those that were registered (REGISTRY_MISMATCH).
    """
    told, digest = tags.get(FILES_TAG), ledgers.digest if ledgers else ""
    if told is None and not digest:
        return None
    try:
        files = {str(name): str(value) for name, value in json.loads(told or "").items()}
    except (ValueError, AttributeError):
        files = {}
    found = digest_of(files)
    for who, wanted in (("the ledger", digest), ("MLflow", tags.get(IDENTITY_TAG) or "none")):
        if wanted and wanted != found:
            raise TerminalError(
                f"{what}: the sums of its files in MLflow have the digest {found[:16]}, {who} keeps {wanted[:16]}: the tags were "
                f"changed after registration. {WAY_ON}",
                ErrorReason.REGISTRY_MISMATCH,
            )
    return files


def verify(what: str, folder: Path, places: Mapping[str, Path], files: Mapping[str, str]) -> None:
    """Hold files against the sums that were registered.

    Args:
        what: names them in messages.
        folder: of the copy on this machine, which may be what is damaged.
        places: where the files lie, by the name that they have in `files`.
        files: see `expected`.

    Raises:
        TerminalError: one is missing, changed, or was never registered (REGISTRY_MISMATCH).
    """
    for name, path in places.items():
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
        if found != files.get(name):
            raise changed(what, name, found, files.get(name), folder)


def changed(what: str, name: str, found: str, registered: str | None, folder: Path) -> TerminalError:
    """A file that is not what was registered."""
    return TerminalError(
        f"{what}: {name} has SHA-256 {found[:16]}, registered was {str(registered)[:16]}; the file was changed or damaged after "
        f"training. Delete {folder} in case only the copy on this machine is damaged. {WAY_ON}",
        ErrorReason.REGISTRY_MISMATCH,
    )


def require_run(model_name: str, version: str, run_id: str, ledgers: Identity | None) -> None:
    """See that a version in MLflow is of the run that the ledger knows for that number.

    Raises:
        TerminalError: it is another one (REGISTRY_MISMATCH).
    """
    if ledgers is not None and ledgers.run_id != run_id:
        raise TerminalError(
            f"{model_name}: version {version} in MLflow is of run {run_id}, the version {version} that the ledger decided on was of "
            f"run {ledgers.run_id}: another MLflow server, a restored database, or a registered model that was deleted. "
            f"This one was never judged and is not used. {WAY_ON}",
            ErrorReason.REGISTRY_MISMATCH,
        )
