"""How much a model, a dataset or the stack needs a person, and what for: pure rules on what was read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote

from evergreen.health.subjects import (
    Attention,
    DatasetHealth,
    ModelHealth,
    NewestWindow,
    OpenIncident,
    OpenRequests,
    ServedError,
    SilencedUntil,
    StackHealth,
    WaitingChallenger,
    Why,
)
from evergreen.ledger import words
from evergreen.links import window_name
from evergreen.spec import LARGER_IS_BETTER, metric_name

COULD_NOT_TELL = ("stale", "insufficient")


class Found(NamedTuple):
    """One thing for which a person is, or is not, needed; `page` as in `Why`."""

    level: Attention
    text: str
    page: str = ""


def judged(found: Iterable[Found], silence: SilencedUntil | None) -> tuple[Attention, tuple[Why, ...]]:
    """The most urgent attention with all that is found, the most urgent first; a silence says that a person knows."""
    ordered = sorted(found, key=lambda one: one.level)
    worst = ordered[0].level if ordered else Attention.FINE
    said = [Why(one.text, one.page) for one in ordered]
    if silence is not None:
        said.insert(0, Why(f"silenced until {words.when(silence.until)}: {silence.why}"))
        worst = max(worst, Attention.SILENCED)
    return worst, tuple(said)


def of_incidents(incidents: Sequence[OpenIncident]) -> list[Found]:
    """What open incidents ask for. A drift that a retraining answers needs nobody; one that it did not help does."""
    found = []
    for one in incidents:
        since, page = f"{one.words} since {words.when(one.since)}", f"incident/{one.number}"
        if one.gave_up:
            found.append(Found(Attention.ACT, f"{since}; retraining did not help", page))
        elif one.critical or one.kind == "batch_quarantined":
            found.append(Found(Attention.ACT, since, page))
        else:
            found.append(Found(Attention.LOOK, since, page))
    return found


def of_model(
    name: str,
    champion: str | None,
    error: ServedError | None,
    window: NewestWindow | None,
    requests: OpenRequests | None,
    waiting: WaitingChallenger | None,
    incidents: Sequence[OpenIncident],
) -> list[Found]:
    """What of a model needs a person."""
    found, page = of_incidents(incidents), f"model/{quote(name, safe='')}"
    if requests is not None:
        reasons = ", and ".join(map(words.reason, requests.reasons))
        found = [
            one._replace(level=max(one.level, Attention.ANSWERED)) if one.level is Attention.LOOK else one
            for one in found
        ]
        found.append(Found(Attention.ANSWERED, f"a retraining is asked for: {reasons}", f"{page}#requests"))
    if waiting is not None:
        since = words.when(waiting.since)
        found.append(
            Found(Attention.ACT, f"v{waiting.version} waits for approval since {since}", f"{page}/approval")
        )
    if champion is None:
        found.append(Found(Attention.NOT_YET, "there is no champion yet"))
        return found
    if error is not None and error.violated and requests is None:
        side = "below" if error.metric in LARGER_IS_BETTER else "above"
        told = "could not be computed" if error.value is None else (
            f"{words.num(error.value)} is {side} its limit {words.num(error.limit)}"
        )  # fmt: skip
        shown = f"{page}/window/{window_name(error.window_start)}"
        found.append(Found(Attention.LOOK, f"served {metric_name(error.metric)} {told}", shown))
    return [*found, *_of_window(page, window, incidents)]


def _of_window(page: str, window: NewestWindow | None, incidents: Sequence[OpenIncident]) -> list[Found]:
    if window is None:
        return [Found(Attention.NOT_YET, "no window of the champion is judged yet")]
    shown = f"{page}/window/{window_name(window.start)}"
    if window.judged is not None:
        since = words.when(window.judged)
        return [Found(Attention.ACT, f"nothing was judged since {since}: does its monitor run?", shown)]
    if window.status in COULD_NOT_TELL and not any(one.kind == "data_problem" for one in incidents):
        why = window.held_back or window.status
        return [Found(Attention.LOOK, f"the newest window could not be judged: {why}", shown)]
    return []


def of_dataset(name: str, held: int, incidents: Sequence[OpenIncident], last_decided: object) -> list[Found]:
    """What of a dataset needs a person."""
    rows = f"dataset/{quote(name, safe='')}#held"
    found = [
        Found(told.level, f"{held} {'file' if held == 1 else 'files'} quarantined", rows) if one.kind == "batch_quarantined" and held else told
        for one, told in zip(incidents, of_incidents(incidents), strict=True)
    ]  # fmt: skip
    if last_decided is None:
        found.append(Found(Attention.NOT_YET, "nothing has landed yet"))
    return found


def by_need(rows: Iterable[ModelHealth]) -> tuple[ModelHealth, ...]:
    """Models in the order in which a person is needed; alike ones by how long they have been so, then by name."""
    return tuple(sorted(rows, key=lambda row: (row.attention, _since(row.incidents), row.name)))


def datasets_by_need(rows: Iterable[DatasetHealth]) -> tuple[DatasetHealth, ...]:
    """The same of datasets."""
    return tuple(sorted(rows, key=lambda row: (row.attention, _since(row.incidents), row.name)))


def of_stack(stack: StackHealth) -> list[Found]:
    """What of the stack needs a person."""
    found = of_incidents(stack.incidents)
    if stack.mlflow is False:
        found.append(Found(Attention.ACT, "MLflow does not answer"))
    if stack.mail_error:
        found.append(Found(Attention.ACT, f"mail cannot be sent: {stack.mail_error}"))
    found += [
        Found(Attention.ACT, f"{disk.free / 1024**3:.1f} GB are free at {disk.folder}")
        for disk in stack.disks
        if disk.scarce
    ]
    found += [Found(Attention.ACT, text) for text in stack.problems]
    return found


def _since(incidents: Sequence[OpenIncident]) -> float:
    return min((one.since.timestamp() for one in incidents), default=0.0)
