"""Who may ask: a key for each client, of which only the hash is known here, for some models, so often a second."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable

from evergreen.serving.kept import Client

BURST_S = 2.0
"""So many seconds of its rate a client may ask at once."""
PREFIX = b"Bearer "
MOST_HEADERS = 10_000


class Known:
    """A client with what is left of its rate."""

    __slots__ = ("_left", "_since", "client", "every", "models")

    def __init__(self, client: Client) -> None:
        """Full at first."""
        self.client = client
        self.models = frozenset(client.models)
        self.every = "*" in self.models
        self._left = client.rate * BURST_S
        self._since = time.monotonic()

    def may_ask(self, model: str) -> bool:
        """Whether the key is for this model."""
        return self.every or model in self.models

    def waits(self) -> float:
        """Take one request from the rate: 0, or how many seconds it takes until one is left."""
        now, rate = time.monotonic(), self.client.rate
        self._left = min(self._left + (now - self._since) * rate, max(1.0, rate * BURST_S))
        self._since = now
        if self._left < 1:
            return (1 - self._left) / rate
        self._left -= 1
        return 0.0


class Clients:
    """All clients, found by their key."""

    def __init__(self) -> None:
        """Nobody."""
        self._known: dict[str, Known] = {}
        self._by_header: dict[bytes, Known] = {}
        """Those that have asked, by their whole header: a hash less for each request."""

    def renew(self, clients: Iterable[Client]) -> None:
        """Take what the companion knows now; who is known already keeps what is left of its rate."""
        before, self._by_header = self._known, {}
        self._known = {
            client.key_sha256: found
            if (found := before.get(client.key_sha256)) is not None and found.client == client
            else Known(client)
            for client in clients
        }

    def find(self, authorization: bytes | None) -> Known | None:
        """Whose key it is; None: nobody's, or there is none."""
        if authorization is None or not authorization.startswith(PREFIX):
            return None
        found = self._by_header.get(authorization)
        if found is None:
            found = self._known.get(sha256(authorization[len(PREFIX) :].strip()))
            if found is not None and len(self._by_header) < MOST_HEADERS:
                self._by_header[authorization] = found
        return found


def sha256(key: bytes) -> str:
    """What is kept of a key. It is 32 random bytes, so a plain hash is enough: there is nothing to guess."""
    return hashlib.sha256(key).hexdigest()
