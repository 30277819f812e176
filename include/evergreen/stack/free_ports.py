"""Which port each server gets: the one of the first start, else the preferred one, else the next that is free.

Links in mails name the port, so a start that had to evade another program does not change it for good.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from evergreen.stack.layout import PREFERRED_PORTS, StackError

SPAN = 100
"""How many ports above the preferred one are tried."""


class Ports:
    """Ports chosen and reserved for as long as this object lives.

    A server listens seconds after its port was chosen. Until then another checkout that starts at the same
    moment sees the reservation: an abstract Unix socket named after the port, which needs no clean-up.
    """

    def __init__(self) -> None:
        self._reservations: dict[int, socket.socket] = {}

    def choose(self, remembered: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
        """Return a free port for each server, and a sentence for each that is not the one expected.

        Raises:
            StackError: none is free in the range.
        """
        chosen: dict[str, int] = {}
        notes = []
        for name, preferred in PREFERRED_PORTS.items():
            wanted = remembered.get(name, preferred)
            candidates = [wanted, *range(preferred, preferred + SPAN)]
            port = next((port for port in candidates if self._take(port)), None)
            if port is None:
                raise StackError(
                    f"No free port for {name} between {preferred} and {preferred + SPAN - 1} on 127.0.0.1; "
                    "stop a program that listens there."
                )
            if port != wanted:
                sent = (
                    "; links in mails that were sent lead there again once it is free"
                    if name in remembered
                    else ""
                )
                notes.append(f"Port {wanted} is taken, so {name} listens on {port}{sent}.")
            chosen[name] = port
        return chosen, notes

    def _take(self, port: int) -> bool:
        if port in self._reservations or not is_free(port):
            return False
        reservation = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            reservation.bind(f"\0evergreen-port-{port}")
        except OSError:
            reservation.close()
            return False
        self._reservations[port] = reservation
        return True


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port of the loopback address now."""
    with socket.socket() as probe:
        # As the servers do; without it a port is refused for a minute after its last connection.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True
