"""What the benchmark of the prediction service measures with: a late answer, a wrong version and a growing process must be seen."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from benchmarks import rate, serving_memory, serving_swap
from benchmarks.serving_load import Seen
from benchmarks.serving_place import World

STALL_S = 0.3
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def stalling() -> Iterator[int]:
    """The port of a server that answers at once, but for its tenth answer, which takes `STALL_S`."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                for number in range(10_000):
                    text = b""
                    while not text.endswith(b"{}"):
                        found = connection.recv(4096)
                        if not found:
                            return
                        text += found
                    time.sleep(STALL_S if number == 10 else 0)
                    connection.sendall(ANSWER)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]


def test_who_was_due_while_the_server_stood_still_has_waited(stalling: int) -> None:
    run = rate.Run(stalling, rate.requests(stalling, "/", {}, [b"{}"]), 1, 200, read=False)
    run.constant(200, 1)
    seen = Seen({"due": run.due, "ended": run.ended, "status": run.status})
    assert seen.errors == 0
    assert len(seen.took_ms) == 200
    waited = seen.took_ms > 0.2 * STALL_S * 1e3
    # One answer was slow; those that were due in the first four fifths of that time had to wait, and must not look fast.
    assert waited.sum() >= 0.6 * STALL_S * 200
    assert seen.took_ms.max() >= STALL_S * 1e3


def test_an_answer_is_read_when_it_is_all_there() -> None:
    text = b"HTTP/1.1 429 Too Many\r\ncontent-length: 5\r\nx: y\r\n\r\nhello"
    assert rate.whole(text) == (429, b"hello")
    assert rate.whole(text[:-1]) is None
    assert rate.whole(text[:20]) is None
    with pytest.raises(ValueError, match="without a length"):
        rate.whole(b"HTTP/1.1 200 OK\r\n\r\n")


def _seen(**changes: Any) -> Seen:
    """Ten seconds of a hundred requests a second; the second version answers from the sixth second on."""
    due = np.arange(1000) / 100
    version = np.where(due < 6, "1", "2")
    prediction = np.where(version == "1", 10.0, 20.0)
    found = {
        "due": due, "ended": due + 0.002, "status": np.full(1000, 200), "version": version, "number": np.arange(1000),
        "prediction": prediction,
    }  # fmt: skip
    for name, (position, value) in changes.items():
        found[name][position] = value
    return Seen(found)


WORLD = cast(
    World,
    SimpleNamespace(
        versions=("1", "2"), records=[{}] * 7, said={"1": np.full(7, 10.0), "2": np.full(7, 20.0)}
    ),
)


def test_a_clean_swap() -> None:
    found = serving_swap.read(WORLD, _seen(), committed=5.5)
    assert (found.unanswered, found.mixed, found.wrong) == (0, 0, 0)
    assert (found.old, found.new) == (600, 400)
    assert found.took_s == pytest.approx(0.502)
    assert found.during_ms == pytest.approx(found.before_ms)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"status": (700, 503)}, (1, 0, 0)),
        (
            {"version": (700, "1")},
            (0, 1, 1),
        ),  # the prediction is the new one's, so it is wrong for the version named
        ({"prediction": (700, 10.0)}, (0, 0, 1)),
        ({"version": (700, "3")}, (0, 0, 1)),
    ],
)
def test_what_is_wrong_in_a_swap_is_counted(changes: dict[str, Any], what: tuple[int, int, int]) -> None:
    found = serving_swap.read(WORLD, _seen(**changes), committed=5.5)
    assert (found.unanswered, found.mixed, found.wrong) == what


def test_a_slow_second_of_a_swap_is_seen() -> None:
    seen = _seen()
    seen.ended[590:610] += 0.05
    found = serving_swap.read(WORLD, seen, committed=5.5)
    assert found.during_ms == pytest.approx(52)
    assert found.before_ms == pytest.approx(2)


@pytest.mark.parametrize(
    ("mb", "flat"),
    [
        (lambda at: 200 + 0 * at, True),
        (lambda at: 200 + 30 * (at < 10), True),  # the warm-up does not count
        (lambda at: 200 + at / 2, False),
        (lambda at: 200 + 60 * ((at > 30) & (at < 35)), False),  # a peak in the middle
    ],
)
def test_memory_is_flat_or_not(mb: Any, flat: bool) -> None:
    at = np.arange(60.0)
    samples = list(zip(at.tolist(), mb(at).tolist(), strict=True))
    assert serving_memory.sizes(samples, 60.0).flat is flat
