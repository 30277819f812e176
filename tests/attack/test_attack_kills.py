"""Each step of the loop is killed before each call that changes something outside, then run again, as Airflow would.

The oracle is the same step undisturbed: the end must be the same, in the warehouse, in MLflow and on the disk.
"""

from __future__ import annotations

import math
import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from ends import close_gaps, differences, end, leftovers, server
from killing import Ended, in_fork
from story import Place, steps

from evergreen.warehouse.connection import connect
from evergreen.warehouse.migrate import migrate

TRIES = 5
# In `make test`: so many calls of these steps, and nothing after them.
# Of the calls of each step; another seed takes others. All of them would take an hour.
SHARE = 0.65
SAMPLE = {"ingest": 2, "train": 1, "settle": 2}


class Theatre:
    """Warehouse, MLflow and folder of a story, which can be put back to how they were before a step."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder, self.saved = folder / "place", folder / "saved"
        self.admin = server(url)
        self.url = url.removesuffix("/postgres") + "/story"
        self.place = Place(self.folder)

    def statement(self, text: str) -> None:
        """Run a statement about databases."""
        with self.admin.cursor() as cursor:
            cursor.execute(text)

    def save(self) -> None:
        """Remember how everything is."""
        self.statement("DROP DATABASE IF EXISTS story_saved WITH (FORCE)")
        self.statement("CREATE DATABASE story_saved TEMPLATE story")
        shutil.rmtree(self.saved, ignore_errors=True)
        shutil.copytree(self.folder, self.saved)

    def restore(self) -> None:
        """Put everything back to how it was remembered."""
        self.statement("DROP DATABASE IF EXISTS story WITH (FORCE)")
        self.statement("CREATE DATABASE story TEMPLATE story_saved")
        shutil.rmtree(self.folder)
        shutil.copytree(self.saved, self.folder)

    def run(self, step: Callable[[Place], None], kill_at: int | None = None) -> Ended:
        """Run a step in a fork, to its end or to a call."""
        return in_fork(partial(step, self.place), [self.folder], kill_at)

    def again(self, step: Callable[[Place], None]) -> Ended:
        """Run a step as Airflow tries it again: a server may need a moment to notice that its client is gone."""
        for _ in range(TRIES):
            ended = self.run(step)
            if "TransientError" not in ended.error:
                break
            time.sleep(0.5)
        return ended

    def end(self) -> dict[str, list[str]]:
        """How everything is now."""
        with closing(server(self.url)) as conn:
            conn.autocommit = False
            return end(conn, self.folder)

    def close_gaps(self) -> None:
        """See `ends.close_gaps`."""
        with closing(server(self.url)) as conn:
            conn.autocommit = False
            close_gaps(conn)


@pytest.fixture
def theatre(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Theatre]:
    """An empty warehouse and an empty MLflow."""
    theatre = Theatre(postgres_url, tmp_path)
    theatre.folder.mkdir()
    theatre.statement("DROP DATABASE IF EXISTS story WITH (FORCE)")
    theatre.statement("CREATE DATABASE story")
    store = f"sqlite:///{theatre.folder / 'mlflow.db'}"
    for name, value in {
        "EVERGREEN_WAREHOUSE_URL": theatre.url,
        "MLFLOW_TRACKING_URI": store,
        "EVERGREEN_HOME": str(theatre.folder / "home"),
        "EVERGREEN_SNAPSHOTS": str(theatre.place.snapshots),
        "EVERGREEN_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with connect(theatre.url) as conn:
        migrate(conn)

    artifacts = (theatre.folder / "artifacts").as_uri()

    def experiment() -> None:
        from mlflow import MlflowClient

        MlflowClient(store).create_experiment("load", artifact_location=artifacts)

    assert not in_fork(experiment, []).error
    yield theatre
    for name in ("story", "story_saved"):
        theatre.statement(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    theatre.admin.close()


def attacked(
    theatre: Theatre,
    name: str,
    step: Callable[[Place], None],
    points: Callable[[int], Iterable[int]],
    wrong: list[str],
) -> tuple[int, int]:
    """Kill a step at some of its calls; returns at how many it was killed, and how many it has."""
    theatre.save()
    undisturbed = theatre.run(step)
    assert not undisturbed.error, f"{name}: {undisturbed.error}"
    should, calls = theatre.end(), undisturbed.calls
    killed = 0
    for at in points(len(calls)):
        theatre.restore()
        ended = theatre.run(step, kill_at=at)
        if not ended.killed:
            wrong.append(f"{name}: call {at} ({calls[at - 1]}) was not reached: {ended.error[-300:]}")
            continue
        killed += 1
        theatre.close_gaps()
        again = theatre.again(step)
        where = f"{name}, killed before call {at} of {len(calls)} ({ended.calls[-1]})"
        if again.error:
            wrong.append(f"{where}: run again it failed: {again.error[-600:]}")
            continue
        wrong += [f"{where}: {d}" for d in differences(theatre.end(), should)]
        wrong += [f"{where}: {d}" for d in leftovers(theatre.folder)]
    if killed:
        theatre.restore()
        assert not theatre.again(step).error
    return killed, len(calls)


def test_killed_step_that_runs_again_ends_as_if_nothing_had_happened(attack, theatre: Theatre) -> None:  # type: ignore[no-untyped-def]
    rng = random.Random(attack.seed)
    wrong: list[str] = []
    killed = calls = 0
    for name, before, step in steps():
        if before:
            before(theatre.place)

        def points(of: int, name: str = name) -> list[int]:
            most = attack.count(sample=SAMPLE.get(name, 0), whole=math.ceil(SHARE * of))
            return sorted(rng.sample(range(1, of + 1), min(most, of)))

        started = time.monotonic()
        done, of = attacked(theatre, name, step, points, wrong)
        killed, calls = killed + done, calls + of
        print(f"{name}: killed at {done} of {of} calls, {time.monotonic() - started:.1f} s", flush=True)
        for line in wrong:
            print("   ", line[:500])
        if not attack.whole and killed == sum(SAMPLE.values()):
            break
    attack.record(
        "kills",
        killed,
        wrong,
        f"killed at {killed} of the {calls} calls of {len(steps())} steps; each run again: the same end",
    )
