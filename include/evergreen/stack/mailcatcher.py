"""A mail server for one machine: it delivers nothing and keeps every message as a readable .eml file.

`make mail` lists them. A real SMTP server is one Airflow connection (`smtp_default`) away.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import itertools
import os
import signal
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

MAX_BYTES = 50 * 1024 * 1024


@dataclass(frozen=True)
class Mail:
    """One caught e-mail.

    Args:
        path: its file.
        message: what is in it.
    """

    path: Path
    message: EmailMessage

    @property
    def subject(self) -> str:
        """Its subject, on one line."""
        return " ".join(str(self.message["Subject"] or "").split())

    @property
    def to(self) -> str:
        """Whom it was for."""
        return " ".join(str(self.message["X-Envelope-To"] or self.message["To"] or "").split())

    @property
    def received(self) -> datetime:
        """When it arrived here."""
        return datetime.fromtimestamp(self.path.stat().st_mtime, UTC)

    @property
    def text(self) -> str:
        """The plain-text part; the HTML part if there is no other."""
        body = self.message.get_body(("plain", "html"))
        return body.get_content() if body else ""


def messages(folder: Path) -> list[Mail]:
    """Return the caught e-mails of a folder, oldest first."""
    found = []
    for path in sorted(folder.glob("*.eml")):
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        found.append(Mail(path, message))
    return found


class Keeper:
    """Writes what the server receives into a folder, each message whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep one message; the sender hears success only once it is on disk."""
        content = envelope.content or b""
        content = content.encode() if isinstance(content, str) else content
        recipients = ", ".join(envelope.rcpt_tos)
        now = datetime.now(UTC)
        name = f"{now:%Y%m%dT%H%M%S.%f}-{os.getpid()}-{next(self._numbers):04}.eml"
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".incoming.", delete=False) as file:
                file.write(f"X-Envelope-From: {envelope.mail_from}\nX-Envelope-To: {recipients}\n".encode())
                file.write(content.replace(b"\r\n", b"\n"))
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(self._folder / name)
        except OSError as error:
            return f"451 could not be kept: {error.strerror}"
        return "250 kept"


async def serve(port: int, folder: Path) -> None:
    """Take mail on the loopback address until asked to stop."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, stopped.set)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    keeper = Keeper(folder)

    def session() -> SMTP:
        return SMTP(keeper, data_size_limit=MAX_BYTES, enable_SMTPUTF8=True, hostname="localhost")

    server = await loop.create_server(session, "127.0.0.1", port)
    print(f"keeping mail from 127.0.0.1:{port} in {folder}", flush=True)
    await stopped.wait()
    server.close()
