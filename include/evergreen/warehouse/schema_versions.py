"""Which migrations this release has, and which of them a warehouse still needs.

`migrations/NNNN_NAME.sql` are numbered from 1 without a gap and applied in that order, each once. A file that is in a release is never
edited: what has to change is a file of its own, with the next number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from evergreen.errors import ErrorReason, TerminalError
from evergreen.warehouse.connection import Connection, fetch


@dataclass(frozen=True)
class Migration:
    """One file: its number, its name without the ending, and its statements, which run in one transaction."""

    number: int
    name: str
    statements: str

    @property
    def sha256(self) -> str:
        """Of the statements, with the line ends of Unix, whatever those of the file are."""
        return hashlib.sha256(self.statements.encode()).hexdigest()


@cache
def known() -> tuple[Migration, ...]:
    """The migrations of this release, in their order."""
    files = resources.files("evergreen.warehouse").joinpath("migrations").iterdir()
    return tuple(
        Migration(int(file.name[:4]), file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
        for file in sorted(files, key=lambda file: file.name)
        if file.name.endswith(".sql")
    )


def pending(conn: Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """Those of the migrations that the warehouse has not had, in their order; all of them for an empty database.

    Raises:
        TerminalError: a newer release has migrated the warehouse (NEWER_SCHEMA), or one that it has had was another file
            (BAD_MIGRATION).
    """
    if not fetch(conn, "SELECT to_regclass('evergreen.schema_version') AS there")[0]["there"]:
        return list(migrations)
    # As JSON: a release before there were files had no columns for them.
    rows = fetch(conn, "SELECT version, to_jsonb(applied) AS file FROM evergreen.schema_version AS applied")
    applied = {row["version"]: row["file"] for row in rows}
    latest = migrations[-1].number
    if max(applied, default=0) > latest:
        raise TerminalError(
            f"the warehouse was migrated by a newer release (its tables are of version {max(applied)}, this release knows {latest}); "
            "start that release again, or restore the backup of before the upgrade",
            ErrorReason.NEWER_SCHEMA,
        )
    left = []
    for migration in migrations:
        had = applied.get(migration.number)
        if had is None or not had.get("sha256"):
            left.append(migration)
        elif had["sha256"] != migration.sha256:
            raise TerminalError(
                f"the warehouse had {had['name']} with other statements than {migration.name} has here (sha256 {had['sha256'][:12]}, here "
                f"{migration.sha256[:12]}), so its tables may be others than this release expects. A released migration is never edited: "
                "bring the file of the release back, and put the change into a file with the next number",
                ErrorReason.BAD_MIGRATION,
            )
    return left
