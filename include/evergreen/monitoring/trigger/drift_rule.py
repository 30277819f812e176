"""When violations ask for a training: the rule of a drift. What is then done about it says `drift_request`.

The rule: m of the last n windows in violation, and the newest. It is asked twice, since labels come late:

- of the last n windows that could be judged at all, by any effect (input drift, missing values, unknown
  categories, prediction drift, served error);
- of the last n windows whose served error could be judged, by the served error alone. Without this a drift of the
  concept would never count where labels take longer than a window: the newest window never has them.

A newest window in violation without enough others is written to the ledger (`too_few_violations`) and not mailed.

m violations suffice where there are fewer than n windows yet: waiting for the n-th could not undo them. Only
values beyond a limit count, in windows with at least `monitoring.min_rows` rows. A column that could not be read has
no value and opens no request; neither does a window that is stale or insufficient. Those are data problems,
not drift: training again on broken data does not help, a person is told. They are not taken for healthy
either: they do not stand among the n windows, and while the newest window is one of them nothing is requested.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from evergreen.ledger import Decision
from evergreen.ledger.evidence import RetrainEvidence
from evergreen.ledger.reasons import Hold
from evergreen.monitoring.trigger import episode
from evergreen.monitoring.trigger.champion_facts import ChampionFacts
from evergreen.monitoring.trigger.drift_request import Drift, answer, asking_window
from evergreen.monitoring.trigger.verdict import Action, Quiet, TriggerVerdict
from evergreen.monitoring.windows.effects import REASONS, causes, effects, m_of_n
from evergreen.monitoring.windows.judgement import Judgement, Status, What
from evergreen.spec import ModelSpec

SHORTEST = 3


def drift(
    model: ModelSpec,
    judgements: Sequence[Judgement],
    decisions: Sequence[Decision],
    as_of: datetime,
    facts: ChampionFacts,
) -> TriggerVerdict:
    """Decide on a retraining because of a drift; see `decide.decide`.

    Args:
        model: the trigger's settings.
        judgements: the newest revision of each window of the present champion, oldest first.
        decisions: of the model as of this time or earlier.
        as_of: the time for which the decision is taken.
        facts: the new rows.
    """
    if not judgements:
        return TriggerVerdict(Action.NONE, Quiet.NO_WINDOWS)
    if judgements[-1].status in (Status.STALE, Status.INSUFFICIENT):
        return TriggerVerdict(Action.NONE, Quiet.NEWEST_NOT_JUDGED)
    n = model.monitoring.trigger.n
    judged = [j for j in judgements if j.status in (Status.OK, Status.VIOLATION)]
    with_labels = [j for j in judgements if episode.error_judged(j)]
    any_effect = _fulfilled(model, judged, tuple(REASONS))
    error = _fulfilled(model, with_labels, (What.PERFORMANCE,))
    hits = {j.window_start: j for j in (*any_effect, *error)}
    if not hits:
        return (
            _too_few(model, judged[-n:], tuple(REASONS))
            or _too_few(model, with_labels[-n:], (What.PERFORMANCE,))
            or TriggerVerdict(Action.NONE, Quiet.NEWEST_WITHOUT_EFFECT)
        )
    alternates = bool(any_effect and _alternates(model, judged, tuple(REASONS))) or bool(
        error and _alternates(model, with_labels, (What.PERFORMANCE,))
    )
    found = Drift(
        tuple(hits[start] for start in sorted(hits)),
        causes(model, any_effect[-1:]) | causes(model, error[-1:], (What.PERFORMANCE,)),
        _together(model) * model.monitoring.window if alternates else None,
    )
    return answer(model, judgements, found, decisions, as_of, facts)


def _fulfilled(model: ModelSpec, judged: Sequence[Judgement], kinds: Sequence[What]) -> list[Judgement]:
    return m_of_n(model, judged, lambda one: effects(model, one, kinds))


def _too_few(model: ModelSpec, last: Sequence[Judgement], kinds: Sequence[What]) -> TriggerVerdict | None:
    """That the newest window is in violation, and too few of the last n are; None if it is not.

    No hits: nobody is mailed, and the windows are no part of a drift that is told, answered or ended.
    """
    if not last or not effects(model, last[-1], kinds):
        return None
    trigger, newest = model.monitoring.trigger, last[-1]
    seen = [j for j in last if effects(model, j, kinds)]
    found = causes(model, seen[-1:], kinds)
    return TriggerVerdict(
        Action.SUPPRESS,
        Hold.TOO_FEW_VIOLATIONS,
        RetrainEvidence(
            message=f"{', '.join(sorted(found))}: {len(seen)} of the last {len(last)} windows in violation, "
            f"{trigger.m} of {trigger.n} are needed; one window alone may be chance",
            causes=tuple(sorted(found)),
            judgements=tuple(j.id for j in seen if j.id is not None),
            window=asking_window(model, newest),
        ),
        f"{Hold.TOO_FEW_VIOLATIONS.value}:{newest.window_start.isoformat()}:{newest.revision}",
    )


def _alternates(model: ModelSpec, judged: Sequence[Judgement], kinds: Sequence[What]) -> bool:
    """Whether a healthy window lies between those in violation, of the last n or the last three."""
    last = judged[-_together(model) :]
    first = next(i for i, j in enumerate(last) if effects(model, j, kinds))
    return any(j.status is Status.OK for j in last[first:])


def _together(model: ModelSpec) -> int:
    """How many windows may lie between two that belong to a drift that comes and goes; less than three show none."""
    return max(model.monitoring.trigger.n, SHORTEST)
