"""The embedded stack, started once for all end-to-end tests, with a home and specs of its own."""

from __future__ import annotations

import email
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e_wait import FAR

from evergreen import ledger
from evergreen.errors import TerminalError
from evergreen.feeds import catalogue, real_file
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.stack import control
from evergreen.stack.airflow_api import AirflowApi
from evergreen.stack.demo import DATASET, dag_ids, tell_story
from evergreen.stack.layout import Layout
from evergreen.stack.variables import environment
from evergreen.warehouse.connection import connect, fetch

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Stack:
    """A running stack and what the tests need of it."""

    layout: Layout
    specs: Path
    api: AirflowApi

    @property
    def landing(self) -> Path:
        return self.layout.home / "landing" / DATASET

    def mails(self, incident: str) -> list[Path]:
        """The caught mails of the incidents that begin so; a letter can tell of several."""
        found = []
        for path in sorted(self.layout.mail.glob("*.eml")):
            message = email.message_from_bytes(path.read_bytes())
            told = message.get_all("X-Evergreen-Incident") or ()
            if any(str(name).startswith(incident) for name in told):
                found.append(path)
        return found

    def decisions(self, subject: str, *kinds: DecisionKind) -> list[Decision]:
        with connect() as conn:
            return ledger.find(conn, subject, kinds)

    def rows(self, query: str) -> list[dict[str, Any]]:
        with connect() as conn:
            return fetch(conn, query)

    def run(self, dag_id: str, conf: dict[str, Any] | None = None, expect: str = "success") -> str:
        """Trigger a DAG, wait for its end, and return the run id."""
        run = self.api.trigger(dag_id, conf)
        state = self.api.wait(dag_id, run)
        assert state == expect, f"{dag_id} {run}: {state}, tasks {self.api.tasks(dag_id, run)}"
        return run

    def edit(self, file: str, old: str, new: str) -> None:
        """Change a spec file as a person would."""
        path = self.specs / file
        text = path.read_text()
        assert old in text, f"{file} does not hold {old!r}"
        path.write_text(text.replace(old, new))


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The stack with the shipped specs, of which no cron ticks meanwhile: the story sets the time.

    Where a test failed its logs and mails stay, and their place is printed.
    """
    base = Path(tempfile.mkdtemp(prefix="evergreen-e2e-"))
    base.chmod(0o755)
    for folder in ("datasets", "models"):
        shutil.copytree(REPOSITORY / "include" / folder, base / "specs" / folder)
    for path in (base / "specs" / "models").glob("*.yaml"):
        text = path.read_text().replace("monitoring:\n", "monitoring:\n  schedule: null\n")
        text, crons = re.subn(r'^schedule: ".*"$', f'schedule: "{FAR}"', text, flags=re.MULTILINE)
        assert crons == 1, f"{path.name} has {crons} crons"
        path.write_text(text + "scoring: {schedule: null}\n")
    for path in (base / "specs" / "datasets").glob("*.yaml"):
        path.write_text(path.read_text() + "schedule: null\n")
    before = dict(os.environ)
    os.environ["EVERGREEN_HOME"] = str(base / "home")
    os.environ["EVERGREEN_SPECS"] = str(base / "specs")
    layout = Layout.of()
    try:
        login = control.up(layout.home)
        os.environ.update(environment(layout.home))
        api = AirflowApi(login.airflow_url, login.user, login.airflow_password)
        api.wait_for_dags(set(dag_ids()))
        yield Stack(layout, base / "specs", api)
    finally:
        control.down(layout.home)
        os.environ.clear()
        os.environ.update(before)
        if request.session.testsfailed:
            print(f"\nThe stack of the failed tests is stopped; its logs: {layout.logs}")
        else:
            shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="session")
def told(stack: Stack) -> Any:
    """The story, told through the scheduler: on the real bike data where it is, else on the simulated feed."""
    try:
        real_file.find()
        name = "bike_sharing"
    except TerminalError:
        name = "simulated"
    story = catalogue.get(name)
    tell_story(stack.api, story, stack.landing, print)
    return story
