"""What MLflow shows of what became of versions: it follows the ledger, says nothing twice and stops nobody."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from mlflow import MlflowClient

from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.promotion.rollback import rollback
from evergreen.registry.version_tags import follow, tags_of

DAY = datetime(2025, 3, 1, 2, tzinfo=UTC)
PROMOTED, REJECTED, ROLLED_BACK = DecisionKind.PROMOTED, DecisionKind.REJECTED, DecisionKind.ROLLED_BACK


def decided(*rows):
    """Decisions of kind, version and day; newest first, as the ledger gives them."""
    return [
        Decision(
            as_of=DAY + timedelta(days=day), subject="model/rides", kind=kind, reason=reason, run_id="dag/run",
            dedupe_key=f"{kind}{version}{day}", version=version,
        )
        for kind, reason, version, day in reversed(rows)
    ]  # fmt: skip


def test_a_champion_has_no_end_and_the_one_before_it_has():
    found = tags_of(
        decided(
            (PROMOTED, "first_champion", "1", 0),
            (REJECTED, "worse_than_champion", "2", 1),
            (PROMOTED, "better_than_champion", "3", 2),
        )
    )
    assert found == {
        "1": {
            "decision": "promoted: first champion", "champion_since": "2025-03-01 02:00 UTC",
            "champion_until": "2025-03-03 02:00 UTC", "succeeded_by": "version 3, promoted",
        },
        "2": {"decision": "rejected: worse than champion"},
        "3": {"decision": "promoted: better than champion", "champion_since": "2025-03-03 02:00 UTC"},
    }  # fmt: skip


def test_a_rollback_ends_one_and_begins_the_other_anew():
    found = tags_of(
        decided(
            (PROMOTED, "first_champion", "1", 0),
            (PROMOTED, "better_than_champion", "2", 1),
            (ROLLED_BACK, "manual", "1", 2),
        )
    )
    assert found["1"] == {"decision": "promoted: first champion", "champion_since": "2025-03-03 02:00 UTC"}
    assert found["2"]["champion_until"] == "2025-03-03 02:00 UTC"
    assert found["2"]["succeeded_by"] == "version 1, rolled back"


@pytest.fixture
def landed(world, mlflow_url, start):
    world.land(start, 45)
    return world


def tags(version):
    client = MlflowClient()
    found = client.get_model_version("rides", version)
    names = ("decision", "champion_since", "champion_until", "succeeded_by")
    run = client.get_run(found.run_id).data.tags
    both = [{n: tags[n] for n in names if n in tags} for tags in (found.tags, run)]
    assert both[0] == both[1]
    return both[0]


def test_mlflow_follows_promotion_supersession_and_rollback(landed, start):
    landed.promote(start + timedelta(days=30), "train__rides/1")
    assert tags("1").keys() == {"decision", "champion_since"}
    landed.promote(start + timedelta(days=40), "train__rides/2")
    assert tags("1")["succeeded_by"] == "version 2, promoted"
    assert (
        tags("1")["champion_until"]
        == tags("2")["champion_since"]
        == f"{start + timedelta(days=40):%Y-%m-%d %H:%M} UTC"
    )
    rollback(landed.specs, landed.model, start + timedelta(days=41), "rollback__rides/1", reason="as a test")
    assert tags("1").keys() == {"decision", "champion_since"}
    assert tags("2")["succeeded_by"] == "version 1, rolled back"


def test_it_writes_nothing_where_nothing_is_new(landed, start, monkeypatch):
    landed.promote(start + timedelta(days=30), "train__rides/1")

    def refused(*args):
        raise AssertionError(f"written again: {args}")

    for name in ("set_tag", "set_model_version_tag", "delete_tag", "delete_model_version_tag"):
        monkeypatch.setattr(MlflowClient, name, refused)
    follow("rides")


def test_what_was_missed_is_written_the_next_time(landed, start, monkeypatch):
    landed.promote(start + timedelta(days=30), "train__rides/1")
    client = MlflowClient()
    client.delete_model_version_tag("rides", "1", "champion_since")
    client.delete_tag(client.get_model_version("rides", "1").run_id, "champion_since")
    follow("rides")
    assert "champion_since" in tags("1")


def test_a_server_that_is_down_costs_a_line_in_the_log(warehouse_url, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    follow("rides")
    assert "the tags of its versions in MLflow are not up to date" in caplog.text


def test_a_version_of_another_mlflow_is_left_alone(landed, start):
    """The number is one that the ledger decided on, the run is not."""
    landed.promote(start + timedelta(days=30), "train__rides/1")
    client = MlflowClient()
    client.delete_registered_model("rides")
    client.create_registered_model("rides")
    other = client.create_run(client.get_experiment_by_name("rides").experiment_id)
    client.create_model_version("rides", "somewhere", run_id=other.info.run_id)
    follow("rides")
    assert tags("1") == {}
