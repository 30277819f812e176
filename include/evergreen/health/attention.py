"""How much a model, a dataset or the stack needs a person, and what for: pure rules on what was read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
)
from evergreen.ledger import words
from evergreen.spec import LARGER_IS_BETTER, metric_name

COULD_NOT_TELL = ("stale", "insufficient")
Found = tuple[Attention, str]


def judged(found: Iterable[Found], silence: SilencedUntil | None) -> tuple[Attention, tuple[str, ...]]:
    """The most urgent attention with every sentence, the most urgent first; a silence says that a person knows."""
    ordered = sorted(found, key=lambda one: one[0])
    worst = ordered[0][0] if ordered else Attention.FINE
    said = [text for _, text in ordered]
    if silence is not None:
        said.insert(0, f"silenced until {words.when(silence.until)}: {silence.why}")
        worst = max(worst, Attention.SILENCED)
    return worst, tuple(said)


def of_incidents(incidents: Sequence[OpenIncident]) -> list[Found]:
    """What open incidents ask for. A drift that a retraining answers needs nobody; one that it did not help does."""
    found = []
    for one in incidents:
        since = f"{one.words} since {words.when(one.since)}"
        if one.gave_up:
            found.append((Attention.ACT, f"{since}; retraining did not help"))
        elif one.critical or one.kind == "batch_quarantined":
            found.append((Attention.ACT, since))
        else:
            found.append((Attention.LOOK, since))
    return found


def of_model(
    champion: str | None,
    error: ServedError | None,
    window: NewestWindow | None,
    requests: OpenRequests | None,
    waiting: WaitingChallenger | None,
    incidents: Sequence[OpenIncident],
) -> list[Found]:
    """What of a model needs a person."""
    found = of_incidents(incidents)
    if requests is not None:
        reasons = ", and ".join(map(words.reason, requests.reasons))
        found = [
            (max(level, Attention.ANSWERED) if level is Attention.LOOK else level, text)
            for level, text in found
        ]
        found.append((Attention.ANSWERED, f"a retraining is asked for: {reasons}"))
    if waiting is not None:
        found.append(
            (Attention.ACT, f"v{waiting.version} waits for approval since {words.when(waiting.since)}")
        )
    if champion is None:
        found.append((Attention.NOT_YET, "there is no champion yet"))
        return found
    if error is not None and error.violated and requests is None:
        side = "below" if error.metric in LARGER_IS_BETTER else "above"
        told = "could not be computed" if error.value is None else (
            f"{words.num(error.value)} is {side} its limit {words.num(error.limit)}"
        )  # fmt: skip
        found.append((Attention.LOOK, f"served {metric_name(error.metric)} {told}"))
    if window is None:
        found.append((Attention.NOT_YET, "no window of the champion is judged yet"))
    elif window.judged is not None:
        found.append(
            (Attention.ACT, f"nothing was judged since {words.when(window.judged)}: does its monitor run?")
        )
    elif window.status in COULD_NOT_TELL and not any(one.kind == "data_problem" for one in incidents):
        found.append(
            (Attention.LOOK, f"the newest window could not be judged: {window.held_back or window.status}")
        )
    return found


def of_dataset(held: int, incidents: Sequence[OpenIncident], last_decided: object) -> list[Found]:
    """What of a dataset needs a person."""
    found = [
        (level, f"{held} {'file' if held == 1 else 'files'} quarantined" if one.kind == "batch_quarantined" and held else text)
        for one, (level, text) in zip(incidents, of_incidents(incidents), strict=True)
    ]  # fmt: skip
    if last_decided is None:
        found.append((Attention.NOT_YET, "nothing has landed yet"))
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
        found.append((Attention.ACT, "MLflow does not answer"))
    if stack.mail_error:
        found.append((Attention.ACT, f"mail cannot be sent: {stack.mail_error}"))
    found += [
        (Attention.ACT, f"{disk.free / 1024**3:.1f} GB are free at {disk.folder}")
        for disk in stack.disks
        if disk.scarce
    ]
    found += [(Attention.ACT, text) for text in stack.problems]
    return found


def _since(incidents: Sequence[OpenIncident]) -> float:
    return min((one.since.timestamp() for one in incidents), default=0.0)
