"""Files of specs that cannot be used: who is told, when, and what the mail says.

Each file is an incident of its own: told once, to those who answer for the whole fleet (EVERGREEN_MAIL_TO), because a
file that cannot be read names nobody; told again when its mistakes have changed, once; and over when the file is good or
gone. Those that are found together go out as one letter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from evergreen.alert_kinds import AlertKind
from evergreen.alerting.content.amounts import count
from evergreen.alerting.content.letter import KnownIncident, Letter, Table, known_links, numbers
from evergreen.incidents import threads
from evergreen.ledger import Decision, append, words
from evergreen.ledger.evidence import Mistake, RecoveredEvidence, SpecEvidence
from evergreen.ledger.reasons import DecisionKind, EndReason
from evergreen.links import airflow_run_url
from evergreen.program import typed
from evergreen.spec import Problem, Specs
from evergreen.spec.environment import is_variable
from evergreen.warehouse.connection import Connection, connect

SUBJECT = "fleet/specs"
# A file that breaks again so soon is still being worked on.
RELAPSE = timedelta(hours=1)
_SPECS = (".yaml", ".yml", ".sql")


def tell(specs: Specs, as_of: datetime, run_id: str) -> bool:
    """Record what is wrong with the files of specs, and what is mended; owe the mails, in one transaction.

    Args:
        specs: all that are there, as the files are now.
        as_of, run_id: of the run that looks.

    Returns:
        Whether a mail is owed now that was not before.

    Raises:
        TransientError: the warehouse does not answer.
    """
    found: dict[str, list[Problem]] = {}
    for problem in specs.problems:
        found.setdefault(problem.because or problem.file, []).append(problem)
    owed = False
    with connect() as conn:
        for file, problems in found.items():
            owed |= _tell(conn, file, problems, as_of, run_id)
        # While a whole folder cannot be read, nobody can say that the files in it are mended.
        if all(file.lower().endswith(_SPECS) or is_variable(file) for file in found):
            for thread in threads.open_ones(conn, SUBJECT, AlertKind.SPEC_UNUSABLE):
                if not thread.classes & found.keys():
                    evidence = RecoveredEvidence(files=tuple(sorted(thread.classes)))
                    owed |= threads.end(
                        conn, thread, threads.Ending(EndReason.SPEC_USABLE, evidence), as_of, run_id
                    )
    return owed


def _tell(conn: Connection, file: str, problems: Sequence[Problem], as_of: datetime, run_id: str) -> bool:
    signature = hashlib.sha256("\n".join(map(str, problems)).encode()).hexdigest()[:12]
    prefix = f"spec:{file}:"
    known = threads.newest(conn, SUBJECT, AlertKind.SPEC_UNUSABLE, prefix=prefix)
    is_open = known is not None and known.end is None
    first = known.incident if known and is_open else f"{prefix}{known.end.id if known and known.end else 0}"
    incident = f"{first}:{signature}" if is_open else first
    own = [p for p in problems if not p.because]
    off = sorted({p.file for p in problems if p.because})
    decision = append(
        conn,
        Decision(
            as_of=as_of,
            subject=SUBJECT,
            kind=DecisionKind.SPEC_UNUSABLE,
            reason=DecisionKind.SPEC_UNUSABLE.value,
            run_id=run_id,
            dedupe_key=f"{first}:{signature}",
            evidence=SpecEvidence(
                file=file,
                problems=tuple(Mistake(field=p.field, value=p.value, remedy=p.remedy) for p in own),
                message=str(own[0]) if own else "",
                switched_off=tuple(off),
            ),
        ),
    )
    news = threads.News(
        incident,
        SUBJECT,
        AlertKind.SPEC_UNUSABLE,
        decision.id,
        {},
        as_of,
        frozenset({file}),
        frozenset({signature}),
    )
    return threads.tell(conn, news, known, RELAPSE)


def unusable(conn: Connection, known: KnownIncident) -> Letter:
    """What is said about a file of specs that cannot be used."""
    file, off = known.text("file"), [str(f) for f in known.items("switched_off")]
    problems = [p for p in known.items("problems") if isinstance(p, dict)]
    known.told |= {"message", "classes", "details"}
    others = f", and with it {', '.join(off)}" if off else ""
    variable = is_variable(file)
    wrong = f", {count(len(problems), 'mistake')}" if len(problems) > 1 else ""
    wrong += f", {count(len(off), 'file')} switched off with it" if off else ""
    return Letter(
        headline=f"{file} cannot be used{wrong}",
        summary=f"specs: {file} cannot be used{wrong}",
        lead=(
            f"The environment variable {file} of the Airflow services has a value that cannot be used. All DAGs run on; what it "
            "sets is as if it were not set, or fails when it is needed, as the table says.",
        )
        if variable
        else (
            f"{file} has mistakes, so what it describes is switched off{others}: its DAGs are gone from Airflow, no data is "
            "taken in, nothing is trained, scored or watched. All other models and datasets run on.",
        ),
        tone="bad",
        numbers=numbers(
            ("Variable" if variable else "File", file),
            ("Mistakes", len(problems) or None),
            ("Switched off with it", ", ".join(off)),
            ("As of", words.when(known.as_of)),
        ),
        tables=(
            Table(
                "What is wrong",
                ("Field", "What to do", "Value"),
                tuple(
                    (
                        str(p.get("field") or ("the variable" if variable else "the file")),
                        str(p.get("remedy") or words.MISSING),
                        str(p.get("value") or "–"),
                    )
                    for p in problems
                ),
            ),
        )
        if problems
        else (),
        next_title="What to do",
        steps=(
            "Mend its value where the Airflow services get their environment, and start them again."
            if variable
            else f"Mend the file; {typed('check')} tells whether it is good, and what is still wrong.",
            "You get one mail when it is good."
            if variable
            else "Airflow builds its DAGs again by itself within a few minutes. You get one mail when it is good.",
        ),
        links=known_links(("Airflow run", airflow_run_url(known.run_id))),
    )
