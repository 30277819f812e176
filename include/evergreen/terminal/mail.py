"""`evergreen mail`: the e-mails that the embedded stack has caught, as a list, one of them as text, or all in a browser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evergreen.errors import EvergreenError
from evergreen.program import typed
from evergreen.stack import alerts
from evergreen.stack.layout import Layout, StackError
from evergreen.stack.mailcatcher import Mail
from evergreen.terminal import as_json, inbox, place
from evergreen.terminal.inbox import recipients_of, subject_of, text_of
from evergreen.terminal.page import Page
from evergreen.terminal.text import clean

PORT = 8025


def main(argv: list[str] | None = None) -> int:
    """Print or serve them; 1 where there is none of the number."""
    parser = place.parser(
        "mail",
        "List the e-mails that the embedded stack has caught, print one, or show them in a browser.",
        "mail --web",
    )
    parser.add_argument("number", type=int, nargs="?", help="print the text of this one")
    parser.add_argument(
        "--web", action="store_true", help="an inbox for a browser on 127.0.0.1, until Ctrl-C: letters with pictures, by thread"
    )  # fmt: skip
    parser.add_argument(
        "--port", type=place.count, default=None, help=f"of --web (default {PORT}, else a free one)"
    )
    options = parser.parse_args(argv)
    return place.told(lambda: _run(options.number, options.web, options.port, options.home, options.json))


def _run(number: int | None, web: bool, port: int | None, home: Path | None, as_text: bool) -> int:
    layout = place.find(home) or Layout.of(home)
    if web:
        return _serve(layout.mail, port)
    mails = inbox.read(layout.mail)
    if number is None:
        _list(layout, mails, as_text)
        return 0
    if not 1 <= number <= len(mails):
        raise StackError(f"There is no e-mail {number}; there are {len(mails)} in {layout.mail}.")
    mail = mails[number - 1]
    if as_text:
        print(as_json.text({**_json(number, mail), "text": text_of(mail)}))
        return 0
    page = Page()
    page.pair("Date:", f"{mail.received:%Y-%m-%d %H:%M:%S} UTC", space=9)
    page.pair("To:", recipients_of(mail), space=9)
    page.pair("Subject:", subject_of(mail), space=9, style="bold")
    page.gap()
    for line in text_of(mail).splitlines():
        page.verbatim(line)
    return 0


def _list(layout: Layout, mails: Sequence[Mail], as_text: bool) -> None:
    waits = _waiting()
    if as_text:
        first = {n: thread.mails[0][0] for thread in inbox.threads(mails) for n, _ in thread.mails}
        told = [{**_json(n, mail), "thread": first[n]} for n, mail in enumerate(mails, start=1)]
        print(as_json.text({"folder": layout.mail, "mails": told, "waiting": waits}))
        return
    page = Page()
    if not mails:
        page.line(f"No e-mail in {layout.mail}.")
    for number, mail in enumerate(mails, start=1):
        page.indented(f"{number:4}  {mail.received:%Y-%m-%d %H:%M:%S} UTC  to {recipients_of(mail)}")
        page.line(subject_of(mail), 6, style="bold")
    if mails:
        page.gap()
        page.line(
            f"{typed('mail N', 'mail N=...')} prints one, {typed('mail --web', 'mail WEB=1')} shows them in a browser; the files are in {layout.mail}."
        )
    for line in waits:
        page.indented(line)


def _waiting() -> list[str]:
    """Silences, drifts that wait for a person and mails that wait; nothing where the warehouse does not answer."""
    try:
        with place.reading() as conn:
            return alerts.lines(conn)
    except EvergreenError:
        return []


def _json(number: int, mail: Mail) -> dict[str, object]:
    return {
        "number": number,
        "received": mail.received,
        "to": recipients_of(mail),
        "subject": subject_of(mail),
        "file": mail.path,
    }


def _serve(folder: Path, port: int | None) -> int:
    from evergreen.terminal.web_inbox import Inbox

    try:
        server = Inbox(folder, port or PORT)
    except OSError as error:
        if port is not None:
            raise StackError(
                f"Port {port} cannot be used: {error.strerror}; name another with --port."
            ) from error
        server = Inbox(folder)
    with server:
        page = Page()
        page.line("The inbox is open to this machine, to who knows this address; Ctrl-C closes it.")
        print(clean(server.address), flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            page.line("Closed.")
    return 0
