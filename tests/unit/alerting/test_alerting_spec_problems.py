"""A spec that cannot be used is mailed once to those who answer for the fleet, and once when it is good again."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest

from evergreen.alerting.delivery import deliver
from evergreen.alerting.letters import spec_problems
from evergreen.ledger import find
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import load_specs
from evergreen.warehouse.connection import connect

REPOSITORY = Path(__file__).resolve().parents[3]
START = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path, warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("datasets", "models"):
        shutil.copytree(REPOSITORY / "include" / name, tmp_path / name)
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "fleet@example.org")
    return tmp_path


class Look:
    """Looks at the specs every quarter of an hour, as the DAG `mail` does, and returns the mails."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def __call__(self, later: timedelta = timedelta(minutes=15)) -> list[EmailMessage]:
        self.count += 1
        self.now = getattr(self, "now", START) + later
        specs = load_specs(self.folder)
        spec_problems.tell(specs, self.now, f"mail/scheduled__{self.count}")
        sent: list[EmailMessage] = []
        assert deliver(specs, sent.append).failed == 0
        return sent


def body(message: EmailMessage) -> str:
    part = message.get_body(("plain",))
    assert part is not None
    return " ".join(part.get_content().split())


def test_a_broken_file_is_told_once_and_its_end_once(folder: Path) -> None:
    look, path = Look(folder), folder / "models" / "bike_rush.yaml"
    good = path.read_text()
    assert look() == []
    path.write_text(good.replace("training:", "trainig:"))
    (mail,) = look()
    assert mail["To"] == "fleet@example.org"
    assert mail["Subject"] == "[Evergreen] specs: models/bike_rush.yaml cannot be used"
    assert "unknown field; did you mean training?" in body(mail)
    assert [look() for _ in range(5)] == [[]] * 5, "one mail, not one for each look"
    path.write_text(good)
    (over,) = look()
    assert "recovered, models/bike_rush.yaml can be used again" in over["Subject"]
    assert over["In-Reply-To"] == mail["Message-ID"]
    assert look() == []
    with connect() as conn:
        found = [(d.subject, d.kind, d.reason) for d in reversed(find(conn))]
    assert found == [
        ("fleet/specs", DecisionKind.SPEC_UNUSABLE, "spec_unusable"),
        ("fleet/specs", DecisionKind.RECOVERED, "spec_usable"),
    ]


def test_other_mistakes_of_a_file_that_is_open_are_told_once_more_at_most(folder: Path) -> None:
    look, path = Look(folder), folder / "models" / "bike_rush.yaml"
    good = path.read_text()
    told = []
    for mistake in ("name: [", "trainig: 1", "name: bike_rash", "gaet: 1", "name: {"):
        path.write_text(f"{good}\n{mistake}\n")
        told.append(len(look()))
    assert told == [1, 1, 0, 0, 0]
    path.write_text(good)
    assert len(look()) == 1


def test_a_second_file_is_told_though_the_first_is_still_broken(folder: Path) -> None:
    look = Look(folder)
    (folder / "models" / "one.yaml").write_text("name: [")
    assert len(look()) == 1
    (folder / "models" / "two.yaml").symlink_to("nowhere")
    (mail,) = look()
    assert mail["Subject"] == "[Evergreen] specs: models/two.yaml cannot be used"
    (folder / "models" / "two.yaml").unlink()
    (mail,) = look()
    assert "models/two.yaml can be used again, or is gone" in mail["Subject"]
    assert look(timedelta(days=30)) == []


def test_what_is_broken_together_is_one_letter(folder: Path) -> None:
    look = Look(folder)
    for name in ("one", "two", "three"):
        (folder / "models" / f"{name}.yaml").write_text("name: [")
    (mail,) = look()
    assert mail["Subject"].startswith("[Evergreen] specs: models/one.yaml cannot be used; ")
    for name in ("one", "two", "three"):
        assert f"models/{name}.yaml" in body(mail)


def test_a_broken_dataset_names_the_models_that_go_with_it_in_its_own_mail(folder: Path) -> None:
    look = Look(folder)
    (folder / "datasets" / "bike_hourly.yaml").write_bytes(b"description: caf\xe9")
    (mail,) = look()
    assert (
        mail["Subject"]
        == "[Evergreen] specs: datasets/bike_hourly.yaml cannot be used, 2 files switched off with it"
    )
    assert "and with it models/bike_demand.yaml, models/bike_rush.yaml" in body(mail)


def test_a_file_that_breaks_again_at_once_is_told_when_it_stays_so(folder: Path) -> None:
    look, path = Look(folder), folder / "models" / "one.yaml"
    path.write_text("name: [")
    assert len(look()) == 1
    path.unlink()
    assert len(look()) == 1
    path.write_text("name: [")
    assert look() == [], "somebody works on it"
    assert len(look(timedelta(hours=1))) == 1
    path.unlink()
    assert len(look()) == 1


def test_a_folder_that_cannot_be_read_mends_nothing(folder: Path) -> None:
    look, path = Look(folder), folder / "models" / "one.yaml"
    path.write_text("name: [")
    assert len(look()) == 1
    folder.rename(folder.with_name("away"))
    (mail,) = look()
    assert "holds neither datasets/ nor models/" in body(mail)
    folder.with_name("away").rename(folder)
    (mail,) = look()
    assert "recovered" in mail["Subject"]
    assert "one.yaml" not in mail["Subject"], "which is broken as it was"


def test_a_name_of_any_bytes_can_be_told(folder: Path) -> None:
    (folder / "models" / "a\n\x07.yaml").write_text("name: x")
    (mail,) = Look(folder)()
    assert mail["Subject"] == "[Evergreen] specs: models/a\\n\\x07.yaml cannot be used"
