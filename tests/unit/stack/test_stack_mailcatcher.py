from __future__ import annotations

import os
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from email.message import EmailMessage

import pytest

from evergreen.cli import main
from evergreen.stack import health
from evergreen.stack.free_ports import is_free
from evergreen.stack.layout import Layout, write_private
from evergreen.stack.mailcatcher import messages


@pytest.fixture
def port(layout: Layout) -> Iterator[int]:
    """The port of a mail catcher that runs as the stack runs it."""
    port = next(number for number in range(47400, 47500) if is_free(number))
    write_private(layout.ports_file, f'{{"mail": {port}}}')
    command = [sys.executable, "-m", "evergreen", "catch-mail", "--home", str(layout.home)]
    catcher = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": "include"}, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 20
    while not health.mail(port):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield port
    catcher.send_signal(signal.SIGTERM)
    assert catcher.wait(10) == 0


def test_a_message_is_kept_listed_and_shown(
    layout: Layout, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = (
        "Drift in bike_demand: größer",
        "a@localhost",
        "b@localhost",
    )
    message.set_content("The sensor's unit changed.\nSee the report.")
    message.add_alternative("<p>The sensor's unit changed.</p>", subtype="html")
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.send_message(message, to_addrs=["b@localhost", "hidden@localhost"])

    (mail,) = messages(layout.mail)
    assert mail.subject == "Drift in bike_demand: größer"
    assert mail.to == "b@localhost, hidden@localhost"
    assert "See the report." in mail.text
    assert [path.suffix for path in layout.mail.iterdir()] == [".eml"]

    assert main(["mail", "--home", str(layout.home)]) == 0
    assert "Drift in bike_demand: größer" in capsys.readouterr().out
    assert main(["mail", "--home", str(layout.home), "1"]) == 0
    assert "The sensor's unit changed." in capsys.readouterr().out
    assert main(["mail", "--home", str(layout.home), "2"]) == 1
    assert "There is no e-mail 2; there are 1" in capsys.readouterr().err
