from __future__ import annotations

import socket

import pytest

from evergreen.stack import free_ports
from evergreen.stack.free_ports import Ports
from evergreen.stack.layout import PREFERRED_PORTS, StackError


@pytest.fixture
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers in a range that nothing else uses."""
    monkeypatch.setattr(free_ports, "PREFERRED_PORTS", {"a": 27310, "b": 27310})
    monkeypatch.setattr(free_ports, "SPAN", 3)


@pytest.mark.usefixtures("_narrow")
def test_two_servers_never_share_a_port_and_the_change_is_said() -> None:
    chosen, notes = Ports().choose({})
    assert chosen == {"a": 27310, "b": 27311}
    assert notes == ["Port 27310 is taken, so b listens on 27311."]


@pytest.mark.usefixtures("_narrow")
def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 27310))
        other.listen()
        assert Ports().choose({})[0] == {"a": 27311, "b": 27312}


@pytest.mark.usefixtures("_narrow")
def test_the_remembered_port_is_preferred() -> None:
    chosen, notes = Ports().choose({"a": 27312})
    assert (chosen["a"], notes) == (27312, [])


@pytest.mark.usefixtures("_narrow")
def test_a_first_port_that_is_taken_is_told_with_what_becomes_of_links() -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 27312))
        other.listen()
        chosen, notes = Ports().choose({"a": 27312})
    assert chosen["a"] == 27310
    assert (
        notes[0]
        == "Port 27312 is taken, so a listens on 27310; links in mails that were sent lead there again once it is free."
    )


@pytest.mark.usefixtures("_narrow")
def test_another_stack_sees_the_choice_before_anything_listens() -> None:
    first = Ports()
    first.choose({})
    with pytest.raises(StackError, match=r"No free port for b between 27310 and 27312"):
        Ports().choose({})


def test_preferred_ports_differ() -> None:
    assert len(set(PREFERRED_PORTS.values())) == len(PREFERRED_PORTS)
