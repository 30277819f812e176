"""The trigger policy as a pure function of spec, judged windows, earlier decisions and facts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from evergreen.ledger import Decision
from evergreen.monitoring.trigger.champion_facts import ChampionFacts
from evergreen.monitoring.trigger.drift_rule import drift
from evergreen.monitoring.trigger.upkeep_rule import upkeep
from evergreen.monitoring.trigger.verdict import Action, TriggerVerdict
from evergreen.monitoring.windows.judgement import Judgement
from evergreen.spec import ModelSpec

NOTHING_KNOWN = ChampionFacts()


def decide(
    model: ModelSpec,
    judgements: Sequence[Judgement],
    requests: Sequence[Decision],
    as_of: datetime,
    facts: ChampionFacts = NOTHING_KNOWN,
) -> TriggerVerdict:
    """Decide on a retraining: first because of a drift, then because of the spec, new data, decay or age.

    Suppressed are, in this order: a newest window in violation while too few of the last n are (`too_few_violations`);
    anything while a request is open (`already_open`); a drift that trainings have answered (`already_answered`); anything
    within `trigger.cooldown` of the last request (`cooldown`), or after `trigger.budget` requests within 7 days
    (`budget_spent`); a drift, a decay or an old model while there are too few new rows (`too_little_new_data`; another spec and
    enough new rows ask all the same). What asks without a drift is not suppressed by a drift that is. Where both are
    suppressed, the drift's hold is told; but what asks without a drift is told rather than `too_few_violations`.

    A drift is a set of causes, kind and column, and a request was about it when every cause of the newest window was
    among the request's, for this champion version, in the same unbroken episode. A cause more makes it a new drift.
    Fewer causes do not: part of a drift is no news. A window judged `ok` (where only the served error tells: with its
    labels in) between the request's newest window and the first one of now makes it a new drift. A promotion makes a
    new version, for which everything counts afresh. A drift that comes and goes is one all the same, across versions, as
    long as it never stays away for n windows.

    A request is answered when a challenger was promoted for it (and later taken back), or judged and rejected: by the
    gate, such as worse than the champion or too large, because one of the same rows and spec was rolled back, or by a person, who may
    have been silent. A challenger that could not be judged (`reasons.INCONCLUSIVE`) closes the request, but the drift may
    be asked for again after the cool-down. So may a drift that was answered once, when
    windows newer than the request's are in violation: they may hold enough of the new world, of which the first
    challenger had seen little. Answered twice it stays suppressed, and a person is told once (`gave_up`), until much time
    has passed or many new rows have come, see `reopen_rule`.

    Args:
        model: the trigger's settings.
        judgements: the newest revision of each window of the present champion, oldest first.
        requests: retrain requests, suppressions, promotions, rejections and rollbacks of the model, in any order;
            those with a later as-of time than `as_of` do not count.
        as_of: the time for which the decision is taken; ages are measured between as-of times.
        facts: about the champion's training and the rows since; what is not known neither asks nor suppresses.
    """
    known = [d for d in requests if d.as_of <= as_of]
    drifted = drift(model, judgements, known, as_of, facts)
    if drifted.action is Action.REQUEST:
        return drifted
    kept = upkeep(model, judgements, known, as_of, facts)
    if kept is not None and (kept.action is Action.REQUEST or not drifted.hits):
        return kept
    return drifted
