"""A replay that one worker began another one ends, out of the bucket alone."""

from __future__ import annotations

import json

import pytest
from replays import DAY

from evergreen import settings
from evergreen.errors import TransientError
from evergreen.replay.loop import Loop
from evergreen.replay.run import replay
from evergreen.warehouse.storage import progress_store
from evergreen.warehouse.storage.bucket import Store


@pytest.fixture
def run(small, start, tmp_path, monkeypatch):
    """Replay five windows on a worker that has nothing; each step is sent at once."""
    monkeypatch.setattr(progress_store, "EVERY_S", 0.0)

    def run(worker, **more):
        monkeypatch.setenv(settings.HOME.name, str(tmp_path / worker))
        names = ["every:4d"]
        return replay(
            small.specs, small.model, start + 20 * DAY, start + 30 * DAY, names, workers=0, say=print, **more
        )

    return run


def result_of(text):
    content = json.loads(text)
    for policy in content["policies"]:
        policy.pop("fit_seconds")
    return content


def test_it_goes_on_where_another_worker_ended(run, bucket, monkeypatch, tmp_path):
    whole = run("alone")
    monkeypatch.setenv(settings.PROGRESS.name, f"{bucket.url}/progress")
    steps, step = [], Loop.step

    def taken_away(self, number):
        if len(steps) == 3:
            raise SystemExit("the worker is taken away")
        steps.append(number)
        return step(self, number)

    monkeypatch.setattr(Loop, "step", taken_away)
    sent, put = [], Store.put
    monkeypatch.setattr(Store, "put", lambda self, source, key: sent.append(key) or put(self, source, key))
    with pytest.raises(SystemExit):
        run("first")
    monkeypatch.setattr(Loop, "step", lambda self, number: steps.append(number) or step(self, number))
    done = run("second")
    assert steps == list(range(5)), "no step was done twice"
    url = progress_store.where(done.files["result"])
    assert url.startswith(f"{bucket.url}/progress/replays/rides/")
    assert result_of(bucket.get(url.removeprefix(f"{bucket.url}/"))) == result_of(
        whole.files["result"].read_text()
    )
    assert progress_store.where(tmp_path / "elsewhere") == str(tmp_path / "elsewhere")
    names = bucket.names()
    assert not [n for n in names if "/fits/" in n or "/ahead/" in n or n.endswith(("lock", ".log"))]
    # A step is there after all that it tells of.
    where = {key.rpartition("policies/")[2].partition("/")[2]: number for number, key in enumerate(sent)}
    assert where["versions/1/model.ubj"] < where["steps/000000.json"]
    for number in range(5):
        assert where[f"steps/{number:06d}.parquet"] < where[f"steps/{number:06d}.json"]


def test_a_bucket_that_is_away_does_not_stop_it_but_its_end_does(run, bucket, monkeypatch, caplog):
    monkeypatch.setenv(settings.PROGRESS.name, f"{bucket.url}/progress")

    def away(self, source, key):
        raise TransientError("away")

    monkeypatch.setattr(Store, "put", away)
    with pytest.raises(TransientError, match="away"):
        run("first")
    assert "on this worker alone for now" in caplog.text
