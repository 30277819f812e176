"""The ways on which a letter goes out: e-mail, and by apprise every other one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from email.message import EmailMessage
from typing import Any, Protocol, TypeVar

from evergreen import settings
from evergreen.alert_kinds import Severity
from evergreen.alerting import services
from evergreen.alerting.content.notice import Notice
from evergreen.incidents.outbox import one_line
from evergreen.incidents.recipients import EMAIL, fleet_channels
from evergreen.spec import Specs
from evergreen.spec.alerts import PREFIX
from evergreen.warehouse.connection import Connection

log = logging.getLogger(__name__)

Row = Mapping[str, Any]
"""Of `evergreen.mail`, with what its delivery on the channel adds."""


Message = TypeVar("Message")


class Channel(Protocol[Message]):
    """A way on which letters go out."""

    joins: bool
    """Whether several alerts may be one letter."""

    def laid_out(self, conn: Connection, specs: Specs, rows: Sequence[Row]) -> Message:
        """The letter of some rows."""

    def raw(self, specs: Specs, rows: Sequence[Row], error: str) -> Message:
        """Their raw facts, for when they could not be laid out; needs no database."""

    def send(self, message: Message, rows: Sequence[Row]) -> str | None:
        """Hand a letter over; returns the identity by which later ones answer it, where there is one.

        Raises:
            Exception: of any kind: it was not taken. SMTPRecipientsRefused: it was, but for those whom it names.
        """


class Email:
    """One mail to all addresses of an alert, sent by what is given."""

    joins = True

    def __init__(self, send: Callable[[EmailMessage], None]) -> None:
        """See `evergreen.alerting.delivery.deliver`."""
        self._send = send

    def laid_out(self, conn: Connection, specs: Specs, rows: Sequence[Row]) -> EmailMessage:
        """See `Channel`."""
        from evergreen.alerting import compose  # draws

        return compose.letter(conn, specs, rows)

    def raw(self, specs: Specs, rows: Sequence[Row], error: str) -> EmailMessage:
        """See `Channel`."""
        from evergreen.alerting import compose

        return compose.plain(specs, rows, error)

    def send(self, message: EmailMessage, rows: Sequence[Row]) -> str | None:
        """See `Channel`."""
        if message["To"]:
            self._send(message)
        elif not rows[0]["taken_by"]:  # else the rest are no recipients any more
            raise ValueError(
                "there is nobody to send it to; EVERGREEN_MAIL_TO or `alerts` must name an address or a channel"
            )
        return str(message["Message-ID"])


class Service:
    """A service that apprise knows. One that closes what it has opened gets each incident as an alert of its own."""

    def __init__(self, name: str) -> None:
        """A channel by its name, without `channel:`."""
        self.name = name
        self.joins = not services.closes(name)

    def laid_out(self, conn: Connection, specs: Specs, rows: Sequence[Row]) -> Notice:
        """See `Channel`."""
        from evergreen.alerting import compose

        return compose.notice(conn, specs, rows)

    def raw(self, specs: Specs, rows: Sequence[Row], error: str) -> Notice:
        """See `Channel`."""
        from evergreen.alerting import compose

        return compose.plain_notice(rows, error)

    def send(self, message: Notice, rows: Sequence[Row] = ()) -> str | None:
        """See `Channel`.

        Raises:
            EvergreenError: there is no URL, or none that apprise can use.
            ConnectionError: the service did not take it.
        """
        service = services.service(self.name, message.key)
        import apprise
        from apprise.attachment.memory import AttachMemory

        attached = apprise.AppriseAttachment()
        for number, picture in enumerate(message.pictures if service.attachment_support else (), start=1):
            name = f"evergreen-{number}.png"
            attached.add(AttachMemory(content=picture.png, name=name, mimetype="image/png"))
        kind = {
            Severity.INFO: apprise.NotifyType.INFO,
            Severity.WARNING: apprise.NotifyType.WARNING,
            Severity.CRITICAL: apprise.NotifyType.FAILURE,
        }[message.severity]
        with services.warnings() as said:
            taken = service.notify(
                title=message.title,
                body=message.text,
                notify_type=apprise.NotifyType.SUCCESS if message.over else kind,
                body_format=apprise.NotifyFormat.TEXT,
                attach=attached if len(attached) else None,
            )
            if not taken:
                url = settings.channel(self.name).read()
                why = services.without_secret("; ".join(said), url) if said else "it does not say why"
                raise ConnectionError(f"{PREFIX}{self.name} did not take it: {why}")
        return None


def channel(name: str, send: Callable[[EmailMessage], None]) -> Channel[Any]:
    """A channel by what `evergreen.delivery` calls it: `email`, or `channel:NAME`."""
    return Email(send) if name == EMAIL else Service(name.removeprefix(PREFIX))


def tell_fleet(message: EmailMessage, send: Callable[[EmailMessage], None]) -> None:
    """Send a mail that is in no outbox to its recipients, and its text to the channels of the fleet.

    Raises:
        Exception: of the last that did not take it, when all have been tried.
    """
    failed: Exception | None = None
    if message["To"]:
        try:
            send(message)
        except Exception as error:
            failed = error
    title, text = str(message["Subject"]), message.get_content()
    for name in fleet_channels():
        try:
            Service(name.removeprefix(PREFIX)).send(
                Notice(title, text, Severity.CRITICAL, over=False, key="")
            )
        except Exception as error:
            log.warning("%s was not told: %s", name, one_line(error))
            failed = error
    if failed is not None:
        raise failed
