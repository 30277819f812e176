"""The roles as which the steps of the loop log in to the warehouse; `roles.sql` says what each may do."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from psycopg2 import sql

from evergreen.warehouse.connection import Connection

INGEST = "evergreen_ingest"
MODEL = "evergreen_model"
SERVING = "evergreen_serving"
EXPORTER = "evergreen_exporter"


def grant(administrator: Connection, passwords: Mapping[str, str]) -> None:
    """Make the roles, give each its rights in this database, and let it log in; again, it changes nothing.

    Tables of datasets that an earlier release made get evergreen_ingest as their owner.

    Args:
        administrator: an open transaction in the warehouse, whose tables `migrate` has made, of a login that may make roles
            and give away tables.
        passwords: by role; a role without one cannot log in.
    """
    with administrator.cursor() as cursor:
        cursor.execute(
            resources.files("evergreen.warehouse").joinpath("roles.sql").read_text(encoding="utf-8")
        )
        for role, password in passwords.items():
            cursor.execute(
                sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
            )
