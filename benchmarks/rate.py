"""Asks at a constant rate, whatever the answers take: each request has the time at which it is due, and its latency counts from there.

A generator that waits for an answer before it asks again asks less while the server is slow, and hides most of what a client would have
waited. wrk is such a one, so constant rates are asked for here. One thread, plain sockets kept open: a request that is due while all of
them wait for an answer is sent when the first is free, and its wait counts. Without a rate it asks as fast as the answers come, for a
comparison with wrk.

    python -m benchmarks.rate '{"port": …, "path": …, "bodies": FILE, "headers": {…}, "rate": … or null, "seconds": …,
                                "connections": …, "out": FILE.npz}'

It prints the times of the first and the last request; the file has for each request, in the order in which they were due: `due`,
`ended` (seconds of CLOCK_MONOTONIC, NaN: never), `status` (of HTTP, 0: none came), and with `"read": true` the answer's `version`, `number` (the
last part of its request id, by which the server counts) and `prediction`.
"""

from __future__ import annotations

import ctypes
import gc
import json
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

GRACE_S = 5.0
"""So long answers are waited for after the last request."""
_PR_SET_TIMERSLACK = 29
_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Answer(msgspec.Struct):
    """What is read of an answer."""

    version: str
    prediction: float
    request_id: str


class Connection:
    """A socket that is kept open, and the request that it waits for."""

    __slots__ = ("asked", "left", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.left = b""
        self.asked = -1

    def fileno(self) -> int:
        """For select."""
        return self.socket.fileno()


def whole(text: bytes) -> tuple[int, bytes] | None:
    """Status and body of an answer; None: it is not all there.

    Raises:
        ValueError: it is no answer of HTTP/1.1 that tells its length.
    """
    end = text.find(_HEAD)
    if end < 0:
        return None
    at = text[:end].lower().find(_LENGTH)
    if at < 0:
        raise ValueError(f"an answer without a length: {text[:end]!r}")
    length = int(text[at + len(_LENGTH) : end].split(b"\r\n", 1)[0])
    begin = end + len(_HEAD)
    return None if len(text) < begin + length else (int(text[9:12]), text[begin : begin + length])


def requests(port: int, path: str, headers: dict[str, str], bodies: list[bytes]) -> list[bytes]:
    """Whole requests."""
    told = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    begin = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{told}"
    return [f"{begin}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]


class Run:
    """One run; see the module."""

    def __init__(self, port: int, texts: list[bytes], connections: int, most: int, *, read: bool) -> None:
        """Connect; `most` requests at most are sent."""
        self._port, self._texts = port, texts
        self.due = np.full(most, np.nan)
        self.ended = np.full(most, np.nan)
        self.status = np.zeros(most, np.int16)
        self.bodies: list[bytes] | None = [b""] * most if read else None
        self._free = deque(Connection(port) for _ in range(connections))
        self._busy: dict[int, Connection] = {}
        self.sent = 0

    def constant(self, rate: float, seconds: float) -> None:
        """Ask `rate` times a second."""
        count = int(rate * seconds)
        self.due[:count] = time.monotonic() + 0.01 + np.arange(count) / rate
        due = self.due.tolist()
        while self.sent < count:
            now = time.monotonic()
            while self.sent < count and due[self.sent] <= now and self._free:
                self._send(self.sent)
            if self.sent < count and self._free:
                self._receive(max(0.0, due[self.sent] - time.monotonic()))
            else:
                self._receive(1.0)
        self._rest()

    def saturated(self, seconds: float) -> None:
        """Ask again on each connection as soon as it has its answer."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until and self.sent < len(self.due):
            while self._free and self.sent < len(self.due):
                self.due[self.sent] = now
                self._send(self.sent)
            self._receive(1.0)
        self._rest()

    def _rest(self) -> None:
        until = time.monotonic() + GRACE_S
        while self._busy and time.monotonic() < until:
            self._receive(0.1)

    def _send(self, number: int) -> None:
        connection = self._free.popleft()
        connection.asked = number
        self.sent += 1
        try:
            # Far below what a socket takes at once.
            connection.socket.sendall(self._texts[number % len(self._texts)])
        except OSError:
            self._again(connection)
        else:
            self._busy[connection.fileno()] = connection

    def _receive(self, wait_s: float) -> None:
        ready, _, _ = select.select(list(self._busy), [], [], wait_s)
        for number in ready:
            connection = self._busy[number]
            try:
                found = connection.socket.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                found = b""
            if not found:
                del self._busy[number]
                self._again(connection)
                continue
            text = connection.left + found if connection.left else found
            answer = whole(text)
            if answer is None:
                connection.left = text
                continue
            self._took(connection, *answer)
            del self._busy[number]
            self._free.append(connection)

    def _took(self, connection: Connection, status: int, body: bytes) -> None:
        asked = connection.asked
        self.ended[asked] = time.monotonic()
        self.status[asked] = status
        if self.bodies is not None:
            self.bodies[asked] = body
        connection.left = b""

    def _again(self, connection: Connection) -> None:
        """Another connection for one that the server closed; what it waited for stays unanswered."""
        connection.socket.close()
        self._free.append(Connection(self._port))


def main(told: str) -> None:
    """Run once."""
    wanted: dict[str, Any] = json.loads(told)
    # select wakes up to the microsecond, if the kernel may not wait for company.
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    bodies = Path(wanted["bodies"]).read_bytes().splitlines()
    texts = requests(wanted["port"], wanted["path"], wanted["headers"], bodies)
    rate, seconds = wanted["rate"], wanted["seconds"]
    most = int(rate * seconds) if rate else int(50_000 * seconds)
    run = Run(wanted["port"], texts, wanted["connections"], most, read=bool(wanted.get("read")))
    gc.collect()
    gc.freeze()
    gc.disable()
    print("ready", flush=True)
    if rate:
        run.constant(rate, seconds)
    else:
        run.saturated(seconds)
    sent = run.sent
    kept: dict[str, Any] = {"due": run.due[:sent], "ended": run.ended[:sent], "status": run.status[:sent]}
    if run.bodies is not None:
        kept |= _read(run.bodies[:sent], run.status[:sent])
    np.savez(wanted["out"], **kept)


def _read(bodies: list[bytes], status: np.ndarray) -> dict[str, np.ndarray]:
    versions, numbers, predictions = [], [], []
    for body, ok in zip(bodies, status == 200, strict=True):
        answer = msgspec.json.decode(body, type=Answer) if ok else Answer("", float("nan"), "-0")
        versions.append(answer.version)
        numbers.append(int(answer.request_id.rpartition("-")[2]))
        predictions.append(answer.prediction)
    return {
        "version": np.array(versions), "number": np.array(numbers, np.int64), "prediction": np.array(predictions),
    }  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
