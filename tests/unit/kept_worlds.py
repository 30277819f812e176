"""What takes seconds to make, made once: its warehouse, its MLflow and its files are copied for each further test that asks."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from psycopg2 import sql

from evergreen.warehouse.connection import Connection

MLFLOW = "mlflow.db"
FOLDERS = ("artifacts", "home", "snapshots")


@dataclass
class KeptWorlds:
    """Worlds by the function that makes them.

    Attributes:
        administrator: makes and drops databases.
        folder: where the copies lie.
    """

    administrator: Connection
    folder: Path
    _places: dict[str, Path] = field(default_factory=dict)

    def made(self, make: Callable[[], object], warehouse: str, place: Path) -> None:
        """Make a world, or bring back what the same function made for an earlier test.

        Args:
            make: leaves the same in each test: it depends on nothing that a parameter changes.
            warehouse: the test's own database, to which nobody is connected.
            place: the test's own folder, with its MLflow and all files.
        """
        name = f"{make.__module__}.{make.__qualname__}"
        kept = self.folder / name
        database = f"kept_{list(self._places).index(name) if name in self._places else len(self._places)}"
        if name not in self._places:
            make()
            self._database(database, warehouse)
            _copy(place, kept)
            self._places[name] = place
            return
        with self.administrator.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(warehouse)))
        self._database(warehouse, database)
        _copy(kept, place)
        _moved(place / MLFLOW, str(self._places[name]), str(place))

    def _database(self, name: str, template: str) -> None:
        with self.administrator.cursor() as cursor:
            cursor.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )


def _copy(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for name in FOLDERS:
        if (source / name).exists():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
    # Into the file that is there: MLflow may have it open.
    with closing(sqlite3.connect(source / MLFLOW)) as old, closing(sqlite3.connect(target / MLFLOW)) as new:
        new.execute("PRAGMA synchronous = OFF")
        old.backup(new)


def _moved(database: Path, old: str, new: str) -> None:
    """Let MLflow find its files in another folder."""
    with closing(sqlite3.connect(database)) as conn:
        conn.execute("PRAGMA synchronous = OFF")
        for (table,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for _, column, *_ in conn.execute(f'PRAGMA table_info("{table}")').fetchall():
                conn.execute(
                    f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)',
                    (f"{old}/", f"{new}/", f"{old}/"),
                )
        conn.commit()
