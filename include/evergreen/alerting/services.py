"""The services of channels, as apprise knows them: from the URL that the environment or Airflow has to what one can send to.

apprise is asked only where a channel is named. Its own log is kept from the handlers of this process, because some of its warnings
show what they refuse, and that is a secret; what it warns of is in the error that is raised, with the secret blotted out.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote

from evergreen import settings
from evergreen.errors import ErrorReason, EvergreenError, TerminalError

if TYPE_CHECKING:
    from apprise import NotifyBase

# Services that close an alert when they are told so with the key with which it was opened, and what their URL calls the key.
CLOSING = {
    "pagerduty": "dedup", "pagertree": "dedup", "signl4": "dedup", "firehydrant": "dedup", "splunk": "entity_id", "victorops": "entity_id",
}  # fmt: skip
_SHORTEST_SECRET = 4
_said = threading.local()


class _Kept(logging.Handler):
    """Keeps what apprise warns of, for the thread that has asked."""

    def emit(self, record: logging.LogRecord) -> None:
        getattr(_said, "lines", []).append(record.getMessage())


_log = logging.getLogger("apprise")
_http = logging.getLogger("urllib3.connectionpool")
_log.addHandler(_Kept(logging.WARNING))


@contextmanager
def warnings() -> Iterator[list[str]]:
    """What apprise warns of meanwhile, in this thread."""
    _log.propagate = False  # each time: whoever configures logging later may have set it back
    level = _http.level
    _http.setLevel(
        logging.INFO
    )  # at DEBUG it shows the path of each request, which is the secret of a webhook
    _said.lines = []
    try:
        yield _said.lines
    finally:
        _said.lines = []
        _http.setLevel(level)


def closes(name: str) -> bool:
    """Whether the service of a channel closes what it has opened, so that each incident is an alert of its own there."""
    try:
        return _scheme(settings.channel(name).read()) in CLOSING
    except EvergreenError:
        return False


def service(name: str, key: str = "") -> NotifyBase:
    """What apprise makes of the URL of a channel.

    Args:
        name: without `channel:`.
        key: of the incident; given to a service that closes by it, unless the URL names its own way.

    Raises:
        TerminalError: there is no URL, none that apprise takes, or apprise is not installed.
        TransientError: Airflow gave no connection.
    """
    variable = settings.channel(name)
    url = variable.read().strip()
    try:
        import apprise
    except ImportError as error:
        raise TerminalError(
            f"channel:{name} is sent to by the package apprise, which is not installed; install it where tasks run",
            ErrorReason.BAD_SPEC,
        ) from error
    parameter = CLOSING.get(_scheme(url))
    if parameter and key:
        asked = "" if re.search(r"[?&]action=", url) else "action=map&"
        url += f"{'&' if '?' in url else '?'}{asked}{parameter}={key}"
    with warnings() as said:
        # No picture of apprise's own is fetched or named.
        asset = apprise.AppriseAsset(
            app_id="Evergreen", app_desc="Evergreen", app_url="", image_url_mask="", image_url_logo=""
        )
        found = apprise.Apprise.instantiate(url, asset=asset)
        if not isinstance(found, apprise.NotifyBase):
            why = without_secret("; ".join(said), url) if said else "it knows no such service"
            raise TerminalError(
                f"{variable.name} is no URL that apprise can use ({why}); mend it in the environment of the Airflow services, or in "
                f"the Airflow connection {variable.connection}",
                ErrorReason.BAD_SPEC,
            )
    if "overflow=" not in url:
        # A message in several parts of which one is refused would be sent again as a whole.
        found.overflow_mode = apprise.OverflowMode.TRUNCATE
    return found


def unusable(name: str) -> str:
    """Why nothing can be sent to a channel; empty where it can be tried."""
    try:
        service(name)
    except EvergreenError as error:
        return str(error)
    return ""


def without_secret(text: str, url: str) -> str:
    """A text without the parts of a URL that may be a secret: all but its scheme, since of many services the host is a key."""
    address = url.partition("://")[2] or url
    words = {part for word in re.split(r"[/@:?&=#,+]", address) for part in (word, unquote(word))}
    for word in sorted(words, key=len, reverse=True):
        if len(word) >= _SHORTEST_SECRET:
            text = re.sub(re.escape(word), "***", text, flags=re.IGNORECASE)
    return text


def _scheme(url: str) -> str:
    return url.strip().partition("://")[0].lower()
