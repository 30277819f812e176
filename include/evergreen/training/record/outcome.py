"""What a training came to, small enough for XCom: enough to settle it, the rest is in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from evergreen.ledger.reasons import COMPARED, NEEDS_A_PERSON
from evergreen.spec import LARGER_IS_BETTER, metric_name
from evergreen.training.gate.verdict import GateVerdict

_TIMES = ("as_of", "trained_until")
_COMPARED = frozenset(reason.value for reason in COMPARED)


@dataclass(frozen=True)
class TrainingOutcome:
    """One training of one model.

    `version` is the registered version (None for a dry run), `mlflow_run` MLflow's run. `champion_decision` is the
    ledger row that made the champion which the gate compared with (None: there was none), so that a change of
    champion meanwhile is seen. `metrics` holds challenger, baseline and champion on the judged rows; `holdout` the
    challenger on the whole holdout. `trained_until`: the final model saw labels of event times before it (UTC).
    `digest`: over all files that are loaded with the version, see `registry.identity`; empty: an earlier release trained it.
    `training_hash`: of what of the spec shapes a model, see `provenance`.
    `choice`: window and parameters that the validation chose, see `choose.Choice`; None where nothing was open.
    `error_limit`: a sentence where the watch on the served error can hardly alarm on the usual number of rows; mostly empty.
    `note`: what the spec asked for and the machine could not give, a sentence; mostly empty.
    """

    model: str
    run_id: str
    as_of: datetime
    trigger: str
    requests: tuple[int, ...]
    dry_run: bool
    mlflow_run: str
    version: str | None
    verdict: GateVerdict
    metric: str
    metrics: dict[str, dict[str, float]]
    holdout: dict[str, float]
    rows: dict[str, int]
    rounds: int
    refitted: bool
    trained_until: datetime
    fingerprint: str
    spec_hash: str
    champion_version: str | None
    champion_decision: int | None
    note: str = ""
    training_hash: str = ""
    choice: dict[str, Any] | None = None
    digest: str = ""
    error_limit: str = ""

    @property
    def passed(self) -> bool:
        """Whether the gate lets the challenger through."""
        return self.verdict.passed

    def to_dict(self) -> dict[str, Any]:
        """As JSON: for XCom and for the run's artifacts."""
        content = dict(self.__dict__)
        content.update({name: content[name].isoformat() for name in _TIMES})
        return {**content, "requests": list(self.requests), "verdict": self.verdict.to_dict()}

    @staticmethod
    def from_dict(content: dict[str, Any]) -> TrainingOutcome:
        """What `to_dict` gave.

        Raises:
            TypeError, KeyError, ValueError: it is something else.
        """
        times = {name: datetime.fromisoformat(content[name]) for name in _TIMES}
        return TrainingOutcome(
            **{
                **content,
                **times,
                "requests": tuple(content["requests"]),
                "verdict": GateVerdict.from_dict(content["verdict"]),
            }
        )

    def sentence(self) -> str:
        """The gate's answer in one line, for the ledger and the e-mail."""

        def of(who: str) -> str:
            value = self.metrics.get(who, {}).get(self.metric)
            return "unknown" if value is None else f"{value:.4g}"

        against = (
            f"champion (version {self.champion_version}) {of('champion')}, " if self.champion_version else ""
        )
        if self.verdict.reason in NEEDS_A_PERSON:
            told = (c.sentence for c in self.verdict.checks if c.code == self.verdict.reason.value)
            return (
                f"{'; '.join(told)}; baseline {of('baseline')}, on {self.rows.get('judged', 0)} holdout rows"
            )
        reason = self.verdict.reason.value.replace("_", " ")
        lost = next((c.sentence for c in self.verdict.checks if not c.passed and c.code in _COMPARED), "")
        lost = f"; {lost}" if lost and not self.passed else ""
        below = "" if self.passed else worse_than_naive(self.metric, self.metrics, self.champion_version)
        learnt = self.rows.get("champion_learnt", 0)
        favoured = f", {learnt} of which the champion had learnt" if learnt else ""
        return (
            f"{reason}: {metric_name(self.metric)} of the challenger {of('challenger')}, {against}baseline {of('baseline')}, "
            f"on {self.rows.get('judged', 0)} holdout rows{favoured}{lost}{below}"
        )


def worse_than_naive(
    metric: str, metrics: Mapping[str, Mapping[str, float]], champion: str | None = None
) -> str:
    """What is to be said of a champion that stays and that the naive baseline beats on the judged rows; empty where it does not.

    Args:
        metric: that decides.
        metrics: of champion and baseline, by who and name.
        champion: its version.
    """
    value, bar = (metrics.get(who, {}).get(metric) for who in ("champion", "baseline"))
    if value is None or bar is None or (value >= bar if metric in LARGER_IS_BETTER else value <= bar):
        return ""
    named = f"version {champion}" if champion else "the champion"
    return (
        f"; {named}, which stays champion, is worse than the naive baseline now: {metric_name(metric)} {value:.4g}, the baseline's is "
        f"{bar:.4g} on the same rows"
    )
