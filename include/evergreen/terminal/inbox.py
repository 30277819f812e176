"""The caught e-mails as a mail program has them: threads by References and In-Reply-To, the page of each with its pictures inside."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import unquote

from evergreen.stack.mailcatcher import Mail, messages

_ID = re.compile(r"<[^<>\s]+>")
_CID = re.compile(r"cid:([^\"'\s)>]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Thread:
    """Mails that answer each other, oldest first; each with its number in the list of all."""

    mails: tuple[tuple[int, Mail], ...]

    @property
    def subject(self) -> str:
        """That of the newest mail, which says the state of now."""
        return subject_of(self.mails[-1][1])

    @property
    def newest(self) -> datetime:
        """When the newest mail came."""
        return self.mails[-1][1].received


def read(folder: Path) -> list[Mail]:
    """The mails of a folder, oldest first; nothing where there is no folder."""
    return messages(folder) if folder.is_dir() else []


def threads(mails: Sequence[Mail]) -> list[Thread]:
    """The mails by thread, the one with the newest mail first. Answers to the same mail belong together also where that one is gone."""
    root: dict[str, str] = {}

    def top(name: str) -> str:
        while root.setdefault(name, name) != name:
            name = root[name]
        return name

    own = []
    for number, mail in enumerate(mails):
        mine = next(iter(_ids(mail, "Message-ID")), f"mail {number}")
        own.append(mine)
        for other in (*_ids(mail, "References"), *_ids(mail, "In-Reply-To")):
            root[top(mine)] = top(other)
    found: dict[str, list[tuple[int, Mail]]] = {}
    for number, (mail, name) in enumerate(zip(mails, own, strict=True), start=1):
        found.setdefault(top(name), []).append((number, mail))
    return sorted((Thread(tuple(those)) for those in found.values()), key=lambda t: t.newest, reverse=True)


def _ids(mail: Mail, header: str) -> list[str]:
    return _ID.findall(_header(mail, header))


def _header(mail: Mail, name: str) -> str:
    try:
        return " ".join(str(mail.message[name] or "").split())
    except (ValueError, LookupError, AttributeError, TypeError, IndexError):
        return ""  # the parser of the standard library fails at some headers that are none


def subject_of(mail: Mail) -> str:
    """The subject, whatever the header holds."""
    return _header(mail, "Subject") or "(no subject)"


def recipients_of(mail: Mail) -> str:
    """Whom it was for."""
    return _header(mail, "X-Envelope-To") or _header(mail, "To")


def sender_of(mail: Mail) -> str:
    """Whom it is from."""
    return _header(mail, "From")


def text_of(mail: Mail) -> str:
    """The plain text; the HTML where there is no other, and empty where there is neither."""
    body = mail.message.get_body(("plain", "html"))
    return _content(body) if isinstance(body, EmailMessage) else ""


def page_of(mail: Mail) -> str | None:
    """The HTML with its pictures inside, as `data:` addresses; None where the mail has none."""
    body = mail.message.get_body(("html",))
    if not isinstance(body, EmailMessage):
        return None
    pictures = {
        str(part["Content-ID"] or "").strip().strip("<>"): part
        for part in mail.message.walk()
        if part.get_content_maintype() == "image" and part["Content-ID"]
    }

    def inside(found: re.Match[str]) -> str:
        part = pictures.get(unquote(found[1])) or pictures.get(found[1])
        content = part.get_payload(decode=True) if part is not None else None
        if part is None or not isinstance(content, bytes):
            return "data:,"
        return f"data:{part.get_content_type()};base64,{base64.b64encode(content).decode()}"

    return _CID.sub(inside, _content(body))


def _content(part: EmailMessage) -> str:
    try:
        return str(part.get_content())
    except (LookupError, ValueError, AttributeError):  # an unknown character set, or one that does not fit
        content = part.get_payload(decode=True)
        return content.decode("utf-8", "replace") if isinstance(content, bytes) else ""
