from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from evergreen.stack.layout import PREFERRED_PORTS, Layout, StackError


def test_secrets_are_kept_private_and_differ_between_homes(tmp_path: Path) -> None:
    first, second = Layout.of(tmp_path / "a"), Layout.of(tmp_path / "b")
    assert not set(first.secrets.values()) & set(second.secrets.values())
    assert len(set(first.secrets.values())) == len(first.secrets)
    assert first.secrets_file.stat().st_mode & 0o777 == 0o600
    assert first.home.stat().st_mode & 0o777 == 0o700


def test_secrets_stay_the_same(layout: Layout) -> None:
    assert layout.secrets == Layout.of(layout.home).secrets


def test_lost_secrets_are_not_replaced_while_the_database_needs_them(layout: Layout) -> None:
    layout.pgdata.mkdir()
    (layout.pgdata / "PG_VERSION").write_text("18\n")
    with pytest.raises(StackError, match="its passwords are lost"):
        _ = layout.secrets


def test_ports_are_those_of_the_last_start(layout: Layout) -> None:
    assert layout.ports() == PREFERRED_PORTS
    layout.ports_file.write_text(json.dumps({"mlflow": 5007}))
    assert layout.ports() == {**PREFERRED_PORTS, "mlflow": 5007}


def test_the_ports_of_the_first_start_are_kept(layout: Layout) -> None:
    assert layout.first_ports() == {}
    layout.keep_ports({**PREFERRED_PORTS, "mlflow": 5001})
    layout.keep_ports({**PREFERRED_PORTS, "mlflow": 5009})
    assert layout.ports()["mlflow"] == 5009
    assert layout.first_ports()["mlflow"] == 5001


def test_the_ports_that_an_earlier_release_kept_are_the_first(layout: Layout) -> None:
    layout.ports_file.write_text(json.dumps({"mlflow": 5007}))
    assert layout.first_ports() == {"mlflow": 5007}


@pytest.mark.parametrize("text", ["{", "[]"], ids=["half", "no-object"])
def test_a_damaged_file_is_named(layout: Layout, text: str) -> None:
    layout.ports_file.write_text(text)
    with pytest.raises(StackError, match=r"ports\.json is damaged"):
        layout.ports()


def test_a_folder_with_other_files_does_not_become_a_home(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StackError, match="holds other files"):
        Layout.of(tmp_path).create()


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StackError, match=r"Cannot write to .*EVERGREEN_HOME"):
        Layout.of(tmp_path / "home").create()


def test_a_home_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match=r"Cannot write to .*EVERGREEN_HOME"):
        Layout.of(tmp_path / "file" / "home").create()
