"""`make compose-demo`: the story of `make demo`, told through the compose stack; the same table, picture and e-mails at its end."""

from __future__ import annotations

import sys

from evergreen import settings
from evergreen.command import no_arguments
from evergreen.deployment import variables
from evergreen.errors import ErrorReason, EvergreenError, TerminalError
from evergreen.feeds import catalogue
from evergreen.stack import demo_request
from evergreen.stack.airflow_api import AirflowApi
from evergreen.stack.demo import DATASET, MODEL, DemoProgress, dag_ids, outcome, tell_story
from evergreen.warehouse.connection import connect, fetch
from evergreen.warehouse.storage.bucket import place

URL = "http://airflow-apiserver:8080"
PUBLISHED = "http://127.0.0.1:8088"
"""Where the prediction service is on the server itself, unless SERVING_PORT says otherwise."""
ADVICE = "`make compose-status` shows whether airflow-apiserver is up, `docker compose logs airflow-apiserver` why not"
START_OVER = "`make compose-down VOLUMES=1` removes this stack's data, after a question; then `make compose-demo` again"


def main(argv: list[str] | None = None) -> int:
    """Tell the story and show what came of it; 1 with the reason where it stops."""
    no_arguments("compose-demo", __doc__, argv)
    say = DemoProgress()
    try:
        story = catalogue.get("simulated")
        _require_empty()
        api = AirflowApi(URL, variables.USER, variables.AIRFLOW_PASSWORD.read(), ADVICE)
        api.wait_for_dags(set(dag_ids()))
        tell_story(api, story, place(settings.LANDING, DATASET), say)
        missing = outcome(story, settings.HOME.path() / "demo", say, mails="the mail catcher shows them")
        missing += _request(say)
    except EvergreenError as error:
        print(f"\nThe demo stopped: {error}", file=sys.stderr)
        return 1
    if missing:
        print(f"\nThe story did not go as promised: {'; '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


def _request(say: DemoProgress) -> list[str]:
    """Ask the prediction service, as a client whose key `make compose-demo` has made."""
    if not settings.SERVING_KEY.given():
        say(f"the prediction service was not asked: {settings.SERVING_KEY.name} is not set")
        return []
    return demo_request.tell(MODEL, say, url=PUBLISHED, key="$KEY")


def _require_empty() -> None:
    if settings.SCHEDULES.read() != "off":
        raise TerminalError(
            "the demo's data ended in the past, and this stack's schedules are on; start it by `make compose-demo`, which turns them off",
            ErrorReason.BUSY,
        )
    with connect() as conn:
        subjects = [
            row["subject"]
            for row in fetch(conn, "SELECT DISTINCT subject FROM evergreen.decision ORDER BY 1")
        ]
    if subjects:
        raise TerminalError(
            f"the warehouse of this stack is not empty ({', '.join(subjects[:5])}), and the demo wants an empty one; {START_OVER}",
            ErrorReason.BUSY,
        )
