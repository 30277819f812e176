"""Clients of the prediction service: made, listed, revoked. A key is told once, and only its hash is kept."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from psycopg2 import errors

from evergreen.errors import ErrorReason, TerminalError
from evergreen.serving import kept
from evergreen.serving.clients import sha256
from evergreen.warehouse.connection import Connection, fetch

NAME = re.compile(r"[a-z][a-z0-9_-]{0,47}")
LOCAL = "local"
LOCAL_RATE = 10_000.0


@dataclass(frozen=True)
class Grant:
    """A client: whose key may ask which models (`*`: all), how many requests a second; times are aware."""

    name: str
    models: tuple[str, ...]
    rate: float
    made_at: datetime
    revoked_at: datetime | None


def add(conn: Connection, name: str, models: Sequence[str], rate: float) -> str:
    """Make a client and return its key, which nobody can tell a second time.

    Raises:
        TerminalError: the name is taken, or is none (BAD_SPEC).
    """
    if not NAME.fullmatch(name):
        raise TerminalError(
            f"{name!r} is no name of a client; write lower-case letters, digits, - and _, such as web-shop",
            ErrorReason.BAD_SPEC,
        )
    key = secrets.token_urlsafe(32)
    try:
        with conn.cursor() as cursor:
            cursor.execute(
                "INSERT INTO evergreen.client (name, key_sha256, models, rate) VALUES (%s, %s, %s, %s)",
                (name, sha256(key.encode()), list(models), rate),
            )
    except errors.UniqueViolation:
        raise TerminalError(
            f"there is a client {name} already; revoke it, or choose another name. A new key for the same client is a new client",
            ErrorReason.BAD_SPEC,
        ) from None
    return key


def listed(conn: Connection) -> list[Grant]:
    """All clients, those that were revoked, too."""
    rows = fetch(conn, "SELECT name, models, rate, made_at, revoked_at FROM evergreen.client ORDER BY name")
    return [
        Grant(r["name"], tuple(r["models"]), float(r["rate"]), r["made_at"], r["revoked_at"]) for r in rows
    ]


def revoke(conn: Connection, name: str) -> None:
    """Take a client's right away; again, it changes nothing.

    Raises:
        TerminalError: there is no such client (BAD_SPEC).
    """
    with conn.cursor() as cursor:
        cursor.execute(
            "UPDATE evergreen.client SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE name = %s",
            (name,),
        )
        if not cursor.rowcount:
            names = ", ".join(grant.name for grant in listed(conn)) or "none"
            raise TerminalError(f"there is no client {name}; there is {names}", ErrorReason.BAD_SPEC)


def local_key_file() -> Path:
    """Where the key of this machine's own client lies; only its owner can read it."""
    return kept.folder() / "local.key"


def ensure_local(conn: Connection) -> None:
    """See that the client `local` has the key that lies on this disk; makes both where they are missing."""
    path = local_key_file()
    try:
        key = path.read_text().strip()
    except FileNotFoundError:
        key = secrets.token_urlsafe(32)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_suffix(".draft")
        draft.touch(mode=0o600)
        draft.write_text(key)
        draft.rename(path)
    hashed = sha256(key.encode())
    if fetch(conn, "SELECT 1 FROM evergreen.client WHERE name = %s AND key_sha256 = %s", (LOCAL, hashed)):
        return
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.client (name, key_sha256, models, rate) VALUES (%s, %s, '{*}', %s)"
            " ON CONFLICT (name) DO UPDATE SET key_sha256 = excluded.key_sha256, revoked_at = NULL",
            (LOCAL, hashed, LOCAL_RATE),
        )
    conn.commit()
