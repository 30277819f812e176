"""`evergreen mail`: the list, one letter as text, and the inbox for a browser, which obeys nothing of what a letter holds."""

from __future__ import annotations

import base64
import http.client
import os
import re
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from terminal_scene import DEMAND, HOSTILE, Terminal, decide

from evergreen.alert_kinds import AlertKind
from evergreen.alerting.delivery import deliver
from evergreen.incidents import threads as incidents
from evergreen.incidents.threads import News
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import load_specs
from evergreen.terminal import inbox
from evergreen.terminal.web_inbox import Inbox
from evergreen.warehouse.connection import connect

REPOSITORY = Path(__file__).resolve().parents[3]
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")  # fmt: skip


@pytest.fixture
def folder(terminal: Terminal, tmp_path: Path) -> Path:
    """Of the caught mails."""
    made = tmp_path / "home" / "mail"
    made.mkdir(parents=True)
    return made


def catch(folder: Path, number: int, message: EmailMessage | bytes) -> None:
    """Keep a message as the mail catcher does."""
    content = message if isinstance(message, bytes) else message.as_bytes()
    (folder / f"{number:04}.eml").write_bytes(b"X-Envelope-To: team@example.org\n" + content)


def letter(subject: str, name: str, answers: str = "", html: str = "") -> EmailMessage:
    """A mail with a picture inside."""
    made = EmailMessage()
    made["Subject"], made["From"], made["To"], made["Message-ID"] = subject, "e@localhost", "t@localhost", f"<{name}@e>"  # fmt: skip
    if answers:
        made["In-Reply-To"] = made["References"] = f"<{answers}@e>"
    made.set_content(f"Plain text of {name}.")
    made.add_alternative(html or f'<html><head></head><body>{name} <img src="cid:p@e"></body></html>', subtype="html")  # fmt: skip
    page = made.get_body(("html",))
    assert isinstance(page, EmailMessage)
    page.add_related(PNG, "image", "png", cid="<p@e>", disposition="inline")
    return made


class Browser:
    """Asks an inbox as a browser does."""

    def __init__(self, served: Inbox) -> None:
        self.served = served

    def get(
        self, path: str, *, host: str | None = None, secret: str | None = None, method: str = "GET"
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and text; `path` is below the address that was printed."""
        client = http.client.HTTPConnection("127.0.0.1", self.served.server_port, timeout=10)
        named = self.served.secret if secret is None else secret
        headers = {"Host": host or f"127.0.0.1:{self.served.server_port}"}
        client.putrequest(method, f"/{named}/{path}", skip_host=True)
        for name, value in headers.items():
            client.putheader(name, value)
        client.endheaders()
        answer = client.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()


@pytest.fixture
def browser(folder: Path) -> Iterator[Browser]:
    """A browser before the inbox of the folder."""
    with Inbox(folder) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.05,))
        thread.start()
        yield Browser(served)
        served.shutdown()
        thread.join()


# ------------------------------------------------------------------ in the terminal


def test_the_list_and_one_of_it(terminal: Terminal, folder: Path) -> None:
    catch(folder, 1, letter("bike_demand: drift", "a"))
    catch(folder, 2, letter("Re: bike_demand: drift, and a subject that is much longer than a line of a terminal is wide", "b", "a"))  # fmt: skip
    told = terminal("mail")
    assert told.status == 0
    assert "   1 20" in told.out
    assert "to team@example.org" in told.out
    assert "bike_demand: drift" in told.out
    assert "Plain text of b." in terminal("mail", "2").out
    assert "There is no e-mail 3; there are 2" in terminal("mail", "3").err
    listed = terminal("mail", "--json").json
    assert sorted(listed) == ["folder", "mails", "waiting"]
    assert sorted(listed["mails"][0]) == ["file", "number", "received", "subject", "thread", "to"]
    assert [mail["thread"] for mail in listed["mails"]] == [1, 1]
    assert listed["mails"][0]["received"].endswith("Z")
    assert terminal("mail", "1", "--json").json["text"].strip() == "Plain text of a."


def test_without_a_mail_it_is_said(terminal: Terminal) -> None:
    told = terminal("mail")
    assert told.status == 0
    assert told.out.startswith("No e-mail in")


def test_what_a_mail_holds_moves_no_cursor(terminal: Terminal, folder: Path) -> None:
    odd = f"Subject: {HOSTILE}\nFrom: x\nContent-Type: text/plain; charset=no-such\n\n\x1b[2J{'漢' * 100}\n\tx \x0b\n"
    catch(folder, 1, odd.encode())
    catch(folder, 2, b"\xff\xfe\x00")
    catch(folder, 3, b"")
    assert "\\x1b[2J" in terminal("mail").out
    assert "\\x1b[2J漢" in terminal("mail", "1").out
    assert terminal("mail", "2").status == 0
    assert "(no subject)" in terminal("mail", "3").out


# ------------------------------------------------------------------ in a browser


def test_a_letter_is_shown_with_its_picture_and_its_plain_text(folder: Path, browser: Browser) -> None:
    catch(folder, 1, letter("bike_demand: drift", "a"))
    status, headers, page = browser.get("")
    assert status == 200
    assert '<iframe src="1/letter"' in page
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in page
    assert "Plain text of a." in page
    assert "script" not in page
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    status, headers, shown = browser.get("1/letter")
    assert status == 200
    assert f'<img src="data:image/png;base64,{base64.b64encode(PNG).decode()}">' in shown
    assert '<head><base target="_blank">' in shown
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("sandbox ")
    assert "default-src 'none'; img-src data:;" in policy
    assert "allow-scripts" not in policy + page
    assert (headers["Referrer-Policy"], headers["Cache-Control"]) == ("no-referrer", "no-store")


def test_mails_that_answer_each_other_are_one_thread(folder: Path, browser: Browser) -> None:
    for number, (name, answers) in enumerate((("a", ""), ("b", "a"), ("c", "gone"), ("d", "b"), ("e", "gone"), ("f", "")), start=1):  # fmt: skip
        catch(folder, number, letter(f"subject {name}", name, answers))
    found = inbox.threads(inbox.read(folder))
    assert sorted([number for number, _ in thread.mails] for thread in found) == [[1, 2, 4], [3, 5], [6]]
    page = browser.get("2/")[2]
    assert "3 threads" in page
    assert re.search(r'aria-current="page">\s*<a href="\.\./2/">subject b', page)


def test_the_thread_of_the_newest_mail_comes_first(folder: Path) -> None:
    for number, name in enumerate("abc", start=1):
        catch(folder, number, letter(name, name, "a" if name == "c" else ""))
        os.utime(folder / f"{number:04}.eml", (1000 * number, 1000 * number))
    assert [[n for n, _ in thread.mails] for thread in inbox.threads(inbox.read(folder))] == [[1, 3], [2]]


def test_what_evergreen_sends_is_one_thread_with_its_pictures(
    terminal: Terminal, warehouse_url: str, folder: Path, browser: Browser
) -> None:
    specs = load_specs(REPOSITORY / "include")
    for number, kind in enumerate(("data_drift", "performance"), start=1):
        with connect() as conn:
            asked = decide(conn, DEMAND, DecisionKind.RETRAIN_REQUESTED, kind)
            news = News(f"drift:{number}", DEMAND, AlertKind.DRIFT, asked.id, {}, asked.as_of, frozenset({kind}), urgent=True)  # fmt: skip
            incidents.tell(conn, news, incidents.newest(conn, DEMAND, AlertKind.DRIFT), asked.as_of - asked.as_of)  # fmt: skip
        deliver(specs, lambda message, number=number: catch(folder, number, message))
    (thread,) = inbox.threads(inbox.read(folder))
    assert len(thread.mails) == 2
    shown = browser.get("2/letter")[2]
    assert "cid:" not in shown
    assert terminal("mail", "2").status == 0


HOSTILE_PAGE = """<html><HEAD lang=x><script>fetch('http://evil.example/')</script><meta http-equiv=refresh content="0;url=http://evil.example/">
<base href="http://evil.example/"></head><body><img src="http://evil.example/a.png"><img src="cid:../../secrets.json"><form action=http://evil.example/>
<style>@import url(http://evil.example/x.css)</style><iframe src="http://evil.example/"></iframe></body></html>"""


def test_a_hostile_letter_stands_in_a_frame_that_lets_nothing_out(folder: Path, browser: Browser) -> None:
    catch(folder, 1, letter("</title><script>alert(1)</script>", "<b>x</b>".strip("<>"), html=HOSTILE_PAGE))
    page = browser.get("1/")[2]
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    status, headers, shown = browser.get("1/letter")
    assert status == 200
    policy = headers["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "img-src data:" in policy
    assert "base-uri 'none'" in policy
    assert "form-action 'none'" in policy
    assert not [part for part in policy if "script" in part or "http" in part or ("'self'" in part and "ancestors" not in part)]  # fmt: skip
    assert "data:," in shown
    assert "secrets.json" not in shown


@pytest.mark.parametrize(
    "path",
    ["../../../etc/passwd", "..%2f..%2fsecrets.json", "0001.eml", "2/", "0/", "-1/", "1/other", "1/letter/..", "1", "99999999999999999999/", "%31/", "１/"],
)  # fmt: skip
def test_no_address_names_a_file(folder: Path, browser: Browser, path: str) -> None:
    catch(folder, 1, letter("s", "a"))
    (folder.parent / "secrets.json").write_text("hunter2")
    path = path if path.isascii() else "%EF%BC%91/"
    status, headers, text = browser.get(path)
    assert status == 404
    assert "hunter2" not in text
    assert headers["Content-Type"].startswith("text/plain")


def test_who_does_not_know_the_address_sees_nothing(folder: Path, browser: Browser) -> None:
    catch(folder, 1, letter("private", "a"))
    assert browser.get("", secret="other")[0] == 404
    assert browser.get("1/letter", secret="")[0] == 404
    assert "private" not in browser.get("", secret="")[2]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "[::1]"])
def test_another_name_that_points_here_is_not_answered(folder: Path, browser: Browser, host: str) -> None:
    catch(folder, 1, letter("private", "a"))
    status, _, text = browser.get("", host=host)
    assert status == 421
    assert "private" not in text


def test_it_listens_on_the_loopback_address_alone(browser: Browser) -> None:
    assert browser.served.server_address[0] == "127.0.0.1"
    assert browser.get("", method="POST")[0] == 501


def test_a_mail_that_is_no_mail_is_shown_all_the_same(folder: Path, browser: Browser) -> None:
    catch(folder, 1, b"\xff\xfe\x00")
    catch(folder, 2, b"Content-Type: multipart/alternative\n\nx")
    catch(folder, 3, "Subject: =?no-such?q?x?=\nContent-Type: text/html; charset=no-such\n\n<p>größer</p>".encode())  # fmt: skip
    for number in (1, 2, 3):
        assert browser.get(f"{number}/")[0] == 200
    assert "größer" in browser.get("3/letter")[2]


def test_an_empty_folder_is_an_empty_inbox(browser: Browser) -> None:
    status, _, page = browser.get("")
    assert (status, "No mail yet" in page) == (200, True)
