"""A snapshot in a bucket is whole or none, is what was written, and reaches a worker that shares nothing with the one that took it."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import clean_fork
from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.warehouse.features import snapshot_store
from evergreen.warehouse.features.snapshot import Snapshot, fingerprint_of
from evergreen.warehouse.storage import full_disk
from evergreen.warehouse.storage.bucket import Store


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Of the first worker."""
    monkeypatch.setenv(settings.HOME.name, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Go to a worker that has nothing yet."""

    def go(name="elsewhere"):
        monkeypatch.setenv(settings.HOME.name, str(tmp_path / name))
        return tmp_path / name

    return go


@pytest.fixture
def rides(world, start):
    """A world of some days, of which the last rows have no label."""
    world.land(
        start,
        20,
        edit=lambda row: row.update(demand=None) if row["ts"] > start + timedelta(days=19) else None,
    )
    return world


@pytest.fixture
def take(rides, bucket, start):
    """Take the snapshot into the bucket."""
    return lambda days=20: snapshot_store.take(
        rides.specs, rides.model, start + timedelta(days=days), Store.at(f"{bucket.url}/snapshots")
    )


def in_a_process(work, end=0):
    process = clean_fork.start(work)
    process.join(120)
    assert process.exitcode == end


def entries(home):
    return [p for p in (home / "cache" / "snapshots").iterdir() if not p.name.startswith(".")]


def test_it_reaches_a_worker_that_shares_nothing(rides, take, bucket, start, elsewhere, tmp_path):
    here = rides.snapshot(start + timedelta(days=20))
    taken = take()
    assert replace(taken, path="") == replace(here, path="")
    assert taken.path == f"{bucket.url}/snapshots/rides/20240121T000000Z-{taken.fingerprint[:16]}.json"
    assert len(bucket.names()) == 3
    there = elsewhere()
    with snapshot_store.local(Snapshot(**json.loads(json.dumps(asdict(taken))))) as found:
        assert Path(found.path).is_relative_to(there)
        assert fingerprint_of(rides.model, Path(found.path)) == taken.fingerprint
        assert pq.read_table(found.path).equals(pq.read_table(here.path))
        assert pq.read_table(found.beside).equals(pq.read_table(here.beside))
        assert found.unlabelled == here.unlabelled > 0


def test_one_in_a_folder_is_as_it_was(rides, start):
    taken = snapshot_store.take(rides.specs, rides.model, start + timedelta(days=20), rides.folder)
    assert taken == rides.snapshot(start + timedelta(days=20))
    with snapshot_store.local(taken) as found:
        assert found is taken


def test_the_worker_that_took_it_and_one_that_has_it_fetch_nothing(take, elsewhere, bucket, home):
    def read():
        with snapshot_store.local(taken) as found:
            return Path(found.path).parent

    taken = take()
    files = [k for k in bucket.names() if k.endswith(".parquet")]
    assert read().parent == home / "cache" / "snapshots"
    there = elsewhere()
    assert read().is_relative_to(there)
    for key in files:
        bucket.delete(key)
    assert read().is_relative_to(there)
    elsewhere("a third one")
    with pytest.raises(
        TerminalError, match=r"lacks s3://.*parquet; run the training from its first task"
    ) as raised:
        read()
    assert raised.value.reason is ErrorReason.NO_ROWS


def test_a_cache_that_went_bad_is_filled_again(take, elsewhere, rides):
    taken = take()
    there = elsewhere()
    with snapshot_store.local(taken) as found:
        path = Path(found.path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + b"x" + whole[-8:])
    with snapshot_store.local(taken) as found:
        assert Path(found.path).read_bytes() == whole
    path.unlink()
    with snapshot_store.local(taken) as found:
        assert Path(found.path).read_bytes() == whole
    assert len(entries(there)) == 1


def test_a_worker_killed_in_mid_upload_leaves_no_snapshot(take, rides, bucket, start):
    specs, model, place = rides.specs, rides.model, Store.at(f"{bucket.url}/snapshots")

    def killed():
        def part(self, source, key):
            stream = self._fs.open_output_stream(self._path_of(key))
            stream.write(source.read_bytes()[:1000])
            os.kill(os.getpid(), signal.SIGKILL)

        Store.put = part
        snapshot_store.take(specs, model, start + timedelta(days=20), place)

    in_a_process(killed, -signal.SIGKILL)
    assert bucket.names() == []
    with snapshot_store.local(take()) as found:
        assert found.rows


def test_an_upload_that_was_given_up_is_done_again(take, bucket, elsewhere, monkeypatch):
    """Closed before its end, an upload becomes an object under the name of the whole one: without a manifest, and too small."""
    put = Store.put

    def cut_off(self, source, key):
        with self._fs.open_output_stream(self._path_of(key)) as stream:
            stream.write(source.read_bytes()[:1000])
            raise TimeoutError("the task took too long")

    monkeypatch.setattr(Store, "put", cut_off)
    with pytest.raises(TimeoutError):
        take()
    (key,) = bucket.names()
    assert len(bucket.get(key)) == 1000
    monkeypatch.setattr(Store, "put", put)
    taken = take()
    elsewhere()
    with snapshot_store.local(taken) as found:
        assert found.rows == taken.rows
    assert key in bucket.names()


def test_files_that_somebody_wrote_over_are_refused(take, bucket, elsewhere):
    taken = take()
    for key in bucket.names():
        if key.endswith(".parquet"):
            bucket.put(key, bucket.get(key)[:-1] + b"x")
    there = elsewhere()
    with pytest.raises(TerminalError, match="not the one of its name"), snapshot_store.local(taken):
        pass
    assert entries(there) == []


@pytest.mark.parametrize("content", ["", "{}", '{"fingerprint": "other", "rows": 1, "files": {}}'])
def test_a_manifest_that_is_none_is_refused(take, bucket, content, elsewhere):
    taken = take()
    bucket.put(taken.path.removeprefix(f"{bucket.url}/"), content)
    with pytest.raises(TerminalError, match="is not the manifest"), snapshot_store.local(taken):
        pass
    bucket.delete(taken.path.removeprefix(f"{bucket.url}/"))
    with pytest.raises(TerminalError, match="is gone; run the training from its first task"):
        snapshot_store.local(taken).__enter__()


def test_two_that_fetch_it_at_once_both_have_it(take, elsewhere, tmp_path):
    taken, there = take(), elsewhere()
    ready = tmp_path / "ready"
    ready.mkdir()

    def fetch():
        fetch_one = Store.fetch

        def slow(self, key, target):
            digest = fetch_one(self, key, target)
            (ready / f"{os.getpid()}").touch()
            while len(list(ready.iterdir())) < 2:  # both have fetched before either has a place for it
                time.sleep(0.01)
            return digest

        Store.fetch = slow
        with snapshot_store.local(taken) as found:
            assert pq.read_metadata(found.path).num_rows == taken.rows

    both = [clean_fork.start(fetch) for _ in range(2)]
    for process in both:
        process.join(120)
    assert [p.exitcode for p in both] == [0, 0]
    assert len(entries(there)) == 1
    assert not list((there / "cache" / "snapshots").glob(".work-*"))


def test_the_cache_keeps_to_its_limit_and_what_is_used(take, elsewhere, monkeypatch):
    every = [take(days) for days in (12, 13, 14)]
    there = elsewhere()
    monkeypatch.setenv(settings.CACHE_MB.name, "0")
    with ExitStack() as held:
        first = held.enter_context(snapshot_store.local(every[0]))
        for taken in every[1:]:
            with snapshot_store.local(taken) as found:
                assert Path(found.path).is_file()
        assert Path(first.path).is_file()
        assert len(entries(there)) == 2
    with snapshot_store.local(every[1]):
        assert len(entries(there)) == 1
    monkeypatch.setenv(settings.CACHE_MB.name, "1")
    for taken in every:
        with snapshot_store.local(taken):
            pass
    assert len(entries(there)) == 3


def test_a_full_disk_under_the_cache_is_told(take, elsewhere, monkeypatch):
    taken = take()
    elsewhere()

    def full(self, key, target):
        raise OSError(full_disk.FULL[0], "No space left on device")

    monkeypatch.setattr(Store, "fetch", full)
    with pytest.raises(
        TransientError, match=r"fetching the snapshot s3://.*no space left.*needs about"
    ) as raised:
        snapshot_store.local(taken).__enter__()
    assert raised.value.reason is ErrorReason.NO_SPACE


def test_what_the_disk_does_not_hold_is_not_kept(take, bucket, monkeypatch):
    monkeypatch.setattr(snapshot_store.snapshot, "fingerprint_of", lambda *_: "another")
    with pytest.raises(TransientError, match="does not hold what was written"):
        take()
    assert bucket.names() == []
