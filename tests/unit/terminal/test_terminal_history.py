"""`evergreen history`: the ledger of a model or dataset as a table."""

from __future__ import annotations

import pytest
from terminal_scene import Terminal

KEYS = {"id", "decided_at", "as_of", "subject", "kind", "what", "reason", "version", "sentence", "run_id"}


def test_the_newest_decision_comes_first(decided: Terminal) -> None:
    lines = decided("history", "bike_demand").out.splitlines()
    assert lines[0].split() == ["AS", "OF", "(UTC)", "WHAT", "WHY"]
    assert lines[1].startswith("2026-03-02 00:00  challenger rejected v3")
    times = [line[:16] for line in lines if line.startswith("20")]
    assert times == sorted(times, reverse=True)
    assert len(times) == 9


@pytest.mark.parametrize(
    ("words", "versions"),
    [
        (["--kind", "promoted"], ["2", "1"]),
        (["--kind", "promoted", "--kind", "rejected"], ["3", "2", "1"]),
        (["--reason", "first_champion"], ["1"]),
        (["--since", "2026-03-01"], ["3", None]),
        (["--limit", "1"], ["3"]),
        (["--kind", "rolled_back"], []),
    ],
    ids=["kind", "two kinds", "reason", "since", "limit", "nothing like it"],
)
def test_a_person_chooses(decided: Terminal, words: list[str], versions: list[str | None]) -> None:
    told = decided("history", "bike_demand", *words, "--json").json
    assert [row["version"] for row in told["decisions"]] == versions
    assert told["more"] is (words[0] == "--limit")
    assert all(set(row) == KEYS for row in told["decisions"])
    assert decided("history", "bike_demand", *words).status == 0


def test_a_dataset_has_a_history_too(life: Terminal) -> None:
    told = life("history", "bike_hourly")
    assert "batch held back" in told.out
    assert "batch published" in told.out


def test_of_an_empty_ledger_it_is_said(terminal: Terminal, warehouse_url: str) -> None:
    told = terminal("history", "bike_demand")
    assert (told.status, told.out) == (0, "Nothing was decided about bike_demand yet.\n")


@pytest.mark.parametrize("words", [["--limit", "0"], ["--since", "soon"], ["--kind", "nope"]])
def test_a_wrong_choice_is_refused(terminal: Terminal, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        terminal("history", "bike_demand", *words)
    assert ended.value.code == 2
