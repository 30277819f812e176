"""A web inbox on the loopback address: letters as a mail program shows them, and nothing of them is obeyed.

Who may read it knows its address, which holds a secret that is made at each start: the mails' own folder is closed to other
users of the machine, and a port is not. A letter's HTML is shown in a sandboxed frame whose policy lets nothing load, run or
be sent; its pictures are inside it. A mail is found by its number in the list, so no address names a file.
"""

from __future__ import annotations

import re
import secrets
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jinja2

from evergreen.ledger import words
from evergreen.stack.mailcatcher import Mail
from evergreen.templates import templates
from evergreen.terminal import inbox

HOST = "127.0.0.1"
PATIENCE_S = 10
_HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)
_OWN = "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# The page of a letter: no script, no address but the pictures inside it; links open a page of their own.
_LETTER = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


class Inbox(ThreadingHTTPServer):
    """The server.

    Args:
        folder: of the caught mails, read anew for each page.
        port: 0 for a free one.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.secret = secrets.token_urlsafe(16)
        super().__init__((HOST, port), _Handler)

    @property
    def address(self) -> str:
        """The address for a browser."""
        return f"http://{HOST}:{self.server_port}/{self.secret}/"


class _Handler(BaseHTTPRequestHandler):
    server: Inbox
    timeout = PATIENCE_S
    server_version = "evergreen"
    sys_version = ""

    def do_GET(self) -> None:
        # Another name than the loopback's is a page elsewhere that has made a name of its own point here.
        hosts = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        if self.headers.get("Host") not in hosts:
            return self._say(HTTPStatus.MISDIRECTED_REQUEST, "This inbox answers on the loopback address.")
        secret, slash, rest = urlsplit(self.path).path.lstrip("/").partition("/")
        if not slash or not secrets.compare_digest(secret.encode(), self.server.secret.encode()):
            return self._say(HTTPStatus.NOT_FOUND, "Open the address that `evergreen mail --web` printed.")
        mails = inbox.read(self.server.folder)
        if not rest:
            return self._send(_page(mails, None), _OWN)
        number, slash, what = rest.partition("/")
        known = number.isascii() and number.isdigit() and 1 <= int(number[:9]) <= len(mails)
        if known and slash and not what:
            return self._send(_page(mails, int(number)), _OWN)
        html = inbox.page_of(mails[int(number) - 1]) if known and what == "letter" else None
        if html is None:
            return self._say(HTTPStatus.NOT_FOUND, "There is no such mail.")
        return self._send(_opening_elsewhere(html), _LETTER)

    def _say(self, status: HTTPStatus, text: str) -> None:
        self._send(text, _OWN, status, "text/plain")

    def _send(
        self, text: str, policy: str, status: HTTPStatus = HTTPStatus.OK, kind: str = "text/html"
    ) -> None:
        content = text.encode("utf-8", "replace")
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(content))),
            ("Content-Security-Policy", policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is written of what a person looks at."""


def _opening_elsewhere(html: str) -> str:
    """A letter whose links open a page of their own; in the frame they would lead nowhere."""
    base = '<base target="_blank">'
    changed, found = _HEAD.subn(lambda head: head[0] + base, html, count=1)
    return changed if found else f"<!doctype html>{base}{html}"


def _page(mails: list[Mail], shown: int | None) -> str:
    found, below = inbox.threads(mails), shown is not None
    if shown is None and found:
        shown = found[0].mails[-1][0]
    mail = mails[shown - 1] if shown else None
    return _template().render(
        threads=found,
        shown=shown,
        mail=mail,
        up="../" if below else "",
        here="" if below else f"{shown}/",
        has_page=mail is not None and inbox.page_of(mail) is not None,
        text=inbox.text_of(mail) if mail else "",
        inbox=inbox,
        when=words.when,
    )


@cache
def _template() -> jinja2.Template:
    return templates("evergreen.terminal").get_template("inbox.html")
