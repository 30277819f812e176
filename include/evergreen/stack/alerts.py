"""What `make status`, `make mail` and `make silence` say and do about alerts; reads the stack's warehouse."""

from __future__ import annotations

import getpass
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

from evergreen.alert_kinds import AlertKind
from evergreen.alerting.content import answered_drifts
from evergreen.alerting.content.answered_drifts import Waiting
from evergreen.errors import EvergreenError
from evergreen.incidents import silences
from evergreen.incidents.silences import Silence
from evergreen.incidents.unsent import Unsent, unsent
from evergreen.ledger.reasons import SilenceReason
from evergreen.program import typed
from evergreen.spec import Specs, load_specs
from evergreen.spec.environment import environment_problems
from evergreen.stack.layout import StackError
from evergreen.stack.variables import environment, specs_folder
from evergreen.warehouse.connection import Connection, connect

MOST_LINES = 20


def lines(conn: Connection, *, without_silences_of: Collection[str] = ()) -> list[str]:
    """The silences in force, the drifts that wait for a person and the mails that wait to be sent, as lines for a terminal.

    Args:
        conn: the warehouse.
        without_silences_of: subjects whose silence is told elsewhere.
    """
    found, mails, drifts = silences.active(conn), unsent(conn), answered_drifts.waiting(conn)
    return [
        *_silenced([s for s in found if s.subject not in without_silences_of]),
        *_given_up(drifts),
        *_waiting([m for m in mails if not m.silenced]),
    ]


def specs(found: Specs) -> list[str]:
    """The mistakes of the specs and the environment as lines for a terminal: what they describe is switched off."""
    problems = (*environment_problems(), *found.problems)
    if not problems:
        return []
    said = [
        f"{len(problems)} mistake(s) in the specs and the environment; what these files describe is switched off:"
    ]
    said += [f"  {problem}" for problem in problems[:MOST_LINES]]
    if len(problems) > MOST_LINES:
        said.append(f"  and {len(problems) - MOST_LINES} more, see {typed('check')}")
    return said


def silence(
    home: Path | str | None = None, *, model: str = "", dataset: str = "", until: str = "", reason: str = ""
) -> str:
    """Silence a model, a dataset or both; `until` and `reason` as `evergreen.incidents.silences.silence` takes them.

    Returns:
        What was done, in words.

    Raises:
        StackError: nothing to silence is named, there is no such model or dataset, or the silence is refused.
    """
    variables = environment(home)
    specs = load_specs(specs_folder(variables))
    subjects = []
    for kind, name, known in (("model", model, specs.models), ("dataset", dataset, specs.datasets)):
        if name and name not in known:
            raise StackError(f"There is no {kind} {name!r}; there are: {', '.join(sorted(known)) or 'none'}.")
        subjects += [f"{kind}/{name}"] if name else []
    if not subjects or not until:
        raise StackError(
            "Say what and until when: "
            + typed(
                'silence --model bike_demand --until 3d --reason "why"',
                'silence MODEL=bike_demand UNTIL=3d REASON="why"',
            )
            + " (or a dataset; until now ends it)."
        )
    if until.strip().lower() == "now" and not reason.strip():
        reason = "ended by hand"
    now = datetime.now(UTC)
    try:
        with connect(variables["EVERGREEN_WAREHOUSE_URL"]) as conn:
            made = [
                silences.silence(
                    conn, s, until, reason, getpass.getuser(), now, f"make silence/{now.isoformat()}"
                )
                for s in subjects
            ]
    except EvergreenError as error:
        raise StackError(f"{error}.") from error
    return "\n".join(
        f"{d.subject.partition('/')[2]}: "
        + (
            "the silence is ended; what it held goes out with the next run, the DAG mail runs every 15 minutes."
            if d.reason == SilenceReason.SILENCE_ENDED.value
            else f"silenced until {_time(silences.until(d))}; what it holds is sent then, as one letter."
        )
        for d in made
    )


def _silenced(found: Sequence[Silence]) -> list[str]:
    return [
        f"Silenced: {s.subject.partition('/')[2]} until {_time(s.until)} by {s.by} ({s.why}); {s.held} alert(s) held."
        for s in found
    ]


def _given_up(drifts: Sequence[Waiting]) -> list[str]:
    return [
        f"Needs a person: {d.model}, a drift since {_time(d.since)} that retraining did not help"
        + (f"; {d.later}." if d.later else ".")
        for d in drifts[:MOST_LINES]
    ]


def _waiting(mails: Sequence[Unsent]) -> list[str]:
    if not mails:
        return []
    said = [f"{len(mails)} alert(s) wait to be sent, the oldest since {_time(mails[0].created)}:"]
    for mail in mails[:MOST_LINES]:
        tries = f"{mail.attempts} tries, last error: {mail.error}" if mail.attempts else "not tried yet"
        kind = AlertKind.of(mail.kind)
        what = kind.traits.words if kind else mail.kind.replace("_", " ")
        said.append(f"  {_time(mail.created)} {mail.subject.partition('/')[2]}, {what}: {tries}")
    if len(mails) > MOST_LINES:
        said.append(f"  and {len(mails) - MOST_LINES} more in evergreen.mail")
    return said


def _time(value: datetime) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
