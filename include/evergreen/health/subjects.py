"""The health of one model, one dataset and the stack, as data: what a row of the overview says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from evergreen.alerting.content.history import JudgedWindow
from evergreen.alerting.content.online import Traffic, milliseconds, percent
from evergreen.ledger import words

BUSY = timedelta(minutes=5)
"""What was asked so shortly before the newest sign of life of the prediction service is still being asked."""
AWAY = "look whether it runs, and at the end of its log"


class Attention(IntEnum):
    """How much something needs a person; the smaller, the sooner. `words` is what people read."""

    ACT = 0
    LOOK = 1
    ANSWERED = 2
    SILENCED = 3
    NOT_YET = 4
    FINE = 5

    @property
    def words(self) -> str:
        """As a person reads it."""
        return {
            Attention.ACT: "needs you",
            Attention.LOOK: "look at it",
            Attention.ANSWERED: "being answered",
            Attention.SILENCED: "silenced",
            Attention.NOT_YET: "not yet known",
            Attention.FINE: "healthy",
        }[self]


@dataclass(frozen=True)
class Why:
    """What a person is needed for.

    Attributes:
        text: a short sentence.
        page: which of the pages tells more, as an address below the overview; empty: none.
    """

    text: str
    page: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class OpenIncident:
    """An incident that has not ended.

    Attributes:
        incident: its name, which never changes.
        kind: of alert, such as `drift`.
        words: what it is, as a person reads it.
        since: when it began.
        critical: something stands still or harms.
        gave_up: retraining did not help, so a person must look.
        number: of its page.
    """

    incident: str
    kind: str
    words: str
    since: datetime
    critical: bool
    gave_up: bool
    number: int


@dataclass(frozen=True)
class SilencedUntil:
    """A silence in force: until when (UTC), why, by whom, and how many alerts it holds."""

    until: datetime
    why: str
    by: str
    held: int


@dataclass(frozen=True)
class ServedError:
    """The newest served error of a champion that was measured.

    Attributes:
        metric: which.
        value, limit: None: could not be computed; no limit that alarms.
        promised: the champion's value on the holdout of its training, with which it was promoted.
        violated: beyond the limit, or unreadable.
        window_start, window_end: of the window.
    """

    metric: str
    value: float | None
    limit: float | None
    promised: float | None
    violated: bool
    window_start: datetime
    window_end: datetime


@dataclass(frozen=True)
class WorstColumn:
    """The column that is nearest to its limit or farthest beyond it, in the newest window; of those that count, not of those only shown.

    Attributes:
        column, kind, statistic: what was measured of it, see `ledger.words.statistic_name`.
        value, limit: of the statistic.
        violated: beyond the limit.
        drifting, columns: how many columns are beyond theirs, of how many that count.
    """

    column: str
    kind: str
    statistic: str
    value: float
    limit: float
    violated: bool
    drifting: int
    columns: int


@dataclass(frozen=True)
class NewestWindow:
    """The champion's newest window.

    Attributes:
        start, end: its range.
        status: how it came out.
        rows: in it.
        held_back: what kept it from being judged; empty: nothing.
        judged: when, by the clock, where nothing was judged for longer than two windows and a day; else None. Data that stops
            coming is judged too, as stale: so the monitor does not run.
    """

    start: datetime
    end: datetime
    status: str
    rows: int
    held_back: str
    judged: datetime | None = None


@dataclass(frozen=True)
class LastTraining:
    """The newest verdict on a challenger: kind and reason as codes, when (by the clock), its version, the id of its row."""

    kind: str
    reason: str
    decided: datetime
    version: str | None
    decision: int


@dataclass(frozen=True)
class OpenRequests:
    """Retrain requests that no training has answered: how many, since when, for which reasons (codes)."""

    count: int
    oldest: datetime
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class WaitingChallenger:
    """A challenger that waits for a person: its version, since when, and the id of the row by which it waits."""

    version: str
    since: datetime
    decision: int


@dataclass(frozen=True)
class Online:
    """How a model is asked online.

    Attributes:
        hour: what was asked in the last hour.
        lost: records of the last day that are not in the log.
        last: the newest minute in which it was asked.
    """

    hour: Traffic
    lost: int
    last: datetime

    @property
    def words(self) -> str:
        """The last hour in short, such as `12/s, p99 4 ms, 0.1% errors`; empty where nothing was asked in it."""
        if not self.hour.requests:
            return ""
        told = [rate(self.hour.records / 3600)] if self.hour.records else []
        told += [f"p99 {milliseconds(self.hour.p99_ms)}"] if self.hour.p99_ms is not None else []
        told.append(f"{percent(self.hour.error_share)} errors" if self.hour.errors else "no errors")
        return ", ".join(told)


@dataclass(frozen=True)
class Service:
    """The prediction service, as the warehouse knows it; its processes say about once a minute that they live.

    Attributes:
        heard: the newest sign of life of any of them.
        answers: whether that is no longer ago than it takes one to come.
        asked: the newest minute in which a model that is shown was asked; None: never.
    """

    heard: datetime
    answers: bool
    asked: datetime | None

    @property
    def words(self) -> str:
        """Whether it answers, or since when it is away: `answers, nothing asked since 2026-03-04 12:34 UTC`."""
        if not self.answers:
            return f"not heard of since {words.when(self.heard)}"
        if self.asked is None:
            return "answers, nothing asked yet"
        if self.heard - self.asked <= BUSY:
            return "answers, and is asked"
        return f"answers, nothing asked since {words.when(self.asked)}"

    @property
    def next(self) -> str:
        """What a person does where it is away; else empty."""
        return "" if self.answers else AWAY


def rate(per_second: float) -> str:
    """How many a second, a minute or an hour, whichever is a number that people say: `12/s`, `5/min`, `3/h`."""
    unit, length = next(((u, n) for u, n in (("s", 1), ("min", 60)) if per_second * n >= 1), ("h", 3600))
    return f"{words.num(per_second * length, 2)}/{unit}"


@dataclass(frozen=True)
class ModelHealth:
    """A model as the overview shows it. What is None or empty is not known, or there is none.

    Attributes:
        name: of the model.
        attention: how much it needs a person.
        why: what for, the most important first.
        owner: who answers for it.
        told: addresses and channels that get its alerts.
        schedule: when a challenger is trained (cron, UTC).
        datasets: that it reads.
        champion: its version.
        since: from when on it is in force, as of which time.
        share: of the keys that it answers for online, while the champion before it answers for the rest; None: for all.
        error: the newest served error.
        trend: the newest windows, oldest first, with their served error.
        worst: column of the newest window.
        window: the newest one.
        newest_rows: when the newest rows of its datasets came, by the clock.
        training: the newest verdict.
        requests: that are open.
        waiting: a challenger that waits for approval.
        incidents: that are open, the most important first.
        silence: in force.
        online: how it is asked online; None: it never was.
    """

    name: str
    attention: Attention
    why: tuple[Why, ...]
    owner: str
    told: tuple[str, ...]
    schedule: str | None
    datasets: tuple[str, ...]
    champion: str | None
    since: datetime | None
    share: float | None
    error: ServedError | None
    trend: tuple[JudgedWindow, ...]
    worst: WorstColumn | None
    window: NewestWindow | None
    newest_rows: datetime | None
    training: LastTraining | None
    requests: OpenRequests | None
    waiting: WaitingChallenger | None
    incidents: tuple[OpenIncident, ...]
    silence: SilencedUntil | None
    online: Online | None = None

    @property
    def takeover(self) -> str:
        """How the champion takes over online, such as `canary 20%`; empty where it answers for all."""
        return "" if self.share is None else f"canary {words.percent(self.share)}" if self.share else "shadow"


@dataclass(frozen=True)
class DatasetHealth:
    """A dataset as the overview shows it.

    Attributes:
        name, attention, why, incidents, silence, owner, told: as of a model.
        newest_rows: when it got its newest rows, by the clock.
        last_file: the newest batch's file.
        last_state: what became of it, such as `published`.
        last_decided: when, by the clock.
        batches, published_rows, held_rows: of the last 30 days: batches decided, rows new or changed, rows held back.
        held_batches: of which something is held back still, and nobody has mended or dismissed it.
        models: that read it.
    """

    name: str
    attention: Attention
    why: tuple[Why, ...]
    owner: str
    told: tuple[str, ...]
    newest_rows: datetime | None
    last_file: str | None
    last_state: str | None
    last_decided: datetime | None
    batches: int
    published_rows: int
    held_rows: int
    held_batches: int
    models: tuple[str, ...]
    incidents: tuple[OpenIncident, ...]
    silence: SilencedUntil | None


@dataclass(frozen=True)
class Disk:
    """A disk: the folder by which it was asked, and its bytes."""

    folder: str
    free: int
    total: int

    @property
    def scarce(self) -> bool:
        """Less than a tenth, and less than 10 GB, is free."""
        return self.free < min(self.total // 10, 10 * 1024**3)


@dataclass(frozen=True)
class StackHealth:
    """What all of them stand on.

    Attributes:
        attention, why: as of a model.
        mails_waiting, oldest_mail: mails that should have gone out, and since when; `mails_silenced` are kept back.
        mail_error: what the server of the mail that was tried most often said.
        disks: where files and artifacts lie.
        warehouse_bytes: the size of the database.
        mlflow: whether it answers; None: it has no address that can be asked.
        incidents: that concern all, such as specs that cannot be used.
        problems: mistakes in the specs, in sentences.
        service: the prediction service; None: there is none for long, or no model is shown.
    """

    attention: Attention
    why: tuple[Why, ...]
    mails_waiting: int
    oldest_mail: datetime | None
    mails_silenced: int
    mail_error: str | None
    disks: tuple[Disk, ...]
    warehouse_bytes: int
    mlflow: bool | None
    incidents: tuple[OpenIncident, ...]
    problems: tuple[str, ...]
    service: Service | None = None


@dataclass(frozen=True)
class Overview:
    """Everything, each list in the order in which a person is needed; times are UTC."""

    models: tuple[ModelHealth, ...]
    datasets: tuple[DatasetHealth, ...]
    stack: StackHealth
