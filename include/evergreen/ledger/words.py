"""Codes and numbers in the words of the reader: what a reason means, and a value as people write it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from evergreen.ledger.evidence import Evidence

MISSING = "not recorded"

REASONS = {
    "schedule": "the nightly run",
    "manual": "started by hand",
    "data_drift": "the input data drifted",
    "prediction_drift": "the predictions drifted",
    "performance": "the served predictions became worse than their limit",
    "estimated_performance": "an estimate without labels puts the served predictions beyond their limit",
    "decay": "the served predictions became worse, within what chance does",
    "staleness": "the model is old",
    "new_data": "enough new data arrived",
    "code_change": "the spec changed",
    "first_champion": "there was no champion yet",
    "better_than_champion": "it beat the champion on the same rows",
    "worse_than_champion": "it is worse than the champion on the same rows",
    "not_better_than_champion": "it did not beat the champion on the same rows",
    "not_worse_than_champion": "nothing says that it is worse than the champion on the same rows",
    "perhaps_worse_than_champion": "it may be worse than the champion: the rows cannot exclude it",
    "not_comparable": "there are too few moments to compare it with the champion",
    "not_enough_fresh_rows": "too few rows are new to the champion to compare it fairly",
    "leaked_holdout": "it has learnt rows on which it is judged",
    "predictions_not_finite": "some of its predictions are no numbers",
    "predictions_out_of_range": "its predictions leave the label's range",
    "metric_mismatch": "its metrics do not follow from its predictions",
    "slice_absent": "a slice that the spec names is not in the holdout",
    "slice_too_small": "a slice that the spec names has too few rows",
    "slice_worse": "it is worse than the champion on a part of the rows",
    "calibration_worse": "its probabilities are less true than the champion's",
    "too_slow": "it predicts more slowly than the spec allows",
    "too_large": "its file is larger than the spec allows",
    "unstable": "another seed gives another model",
    "worse_than_baseline": "it did not beat the naive baseline",
    "worse_than_previous": "it is worse than the champion before it on the same new rows",
    "blocked_after_rollback": "the same challenger was rolled back before",
    "watch_continues": "it is not surely worse than the champion before it so far",
    "watch_passed": "it was not surely worse than the champion before it",
    "watch_inconclusive": "the rows do not say whether it is worse than the champion before it",
    "cannot_compare": "it cannot be compared with the champion before it",
    "canary_started": "the champion before it goes on answering online at first",
    "canary_grown": "a look of the watch did not find it worse",
    "canary_ended": "it answers for all keys online",
    "served_as_batch": "online predictions are those that a batch makes",
    "other_features": "online requests have other features than the warehouse",
    "other_numbers": "the same features gave another prediction online than in a batch",
    "other_predictions": "online predictions differ from those that a batch makes",
    "champion_changed_meanwhile": "the champion changed while it was trained",
    "approved": "a person approved it",
    "refused": "a person refused it",
    "approval_timed_out": "nobody approved it in time",
    "superseded": "a newer one took its place",
    "alias_moved": "the alias in MLflow named another version than the ledger",
    "alias_removed": "the alias in MLflow was gone",
    "older_than_champion": "its data ends before the champion's",
    "champion_cannot_be_evaluated": "the champion cannot be evaluated on the same rows; it beats the baseline, and a person decides",
    "champion_unavailable": "the champion could not be evaluated on the same rows",
    "champion_metric_missing": "the champion has no value of the deciding metric",
    "challenger_metric_missing": "it has no value of the deciding metric",
    "baseline_metric_missing": "the naive baseline has no value of the deciding metric",
    "too_few_rows": "there were too few rows to judge it",
    "different_rows": "the candidates were not measured on the same rows",
    "stale_evaluation": "an evaluation is from another run",
    "snapshot_mismatch": "an evaluation is from another snapshot",
    "bad_batch": "expectations failed",
    "too_many_bad_rows": "more bad rows than the spec allows",
    "unpublishable": "the database refuses its rows",
    "task_failed": "a task failed",
    "already_open": "a request is open already",
    "already_answered": "a training has answered this drift already",
    "cooldown": "the cool-down is in force",
    "budget_spent": "the budget of requests is spent",
    "too_few_violations": "too few of its newest windows are in violation",
    "too_little_new_data": "too few labelled rows are new since the champion's training",
    "windows_ok": "its windows are healthy again",
    "new_champion": "a new champion took over, and its windows are healthy",
    "data_back": "its windows can be judged again",
    "columns_back": "its columns can be read again",
    "works_again": "the task that had failed succeeded",
    "judged_again": "a person had it judged again",
    "withdrawn": "a person withdrew it",
    "keys_deleted": "a person deleted the keys of a file",
    "dismissed": "a person dismissed it",
    "published_again": "a batch was published whole again",
    "spec_unusable": "its spec cannot be used",
    "spec_usable": "its file is good, or gone",
    "alike_again": "its online predictions are those that a batch makes again",
    "not_compared": "its online predictions are no longer compared",
    "silenced": "a person silenced it",
    "silence_ended": "a person ended the silence",
    "registry_mismatch": "MLflow does not have the model as it was registered",
    "probe_failed": "the model predicts otherwise than when it was trained",
    "bad_query": "the feature query does not run as the spec needs it",
    "no_role": "a role is missing in PostgreSQL",
    "damaged_ledger": "a row of the ledger was changed by hand",
    "unreachable": "a server did not answer",
    "busy": "a server was busy for too long",
    "no_space": "a disk was full",
    "no_access": "a bucket may not be read or written",
}
KINDS = {
    "batch_published": "batch published",
    "batch_quarantined": "batch held back",
    "batch_corrected": "batch judged again",
    "batch_withdrawn": "batch withdrawn",
    "batch_dismissed": "held batch dismissed",
    "keys_deleted": "keys deleted",
    "retrain_requested": "retraining asked for",
    "retrain_suppressed": "retraining held back",
    "awaiting_approval": "challenger waits for approval",
    "approval_asked": "approval asked for",
    "promoted": "new champion",
    "rejected": "challenger rejected",
    "rolled_back": "rolled back",
    "alias_repaired": "alias put right",
    "watched": "new champion compared",
    "watch_ended": "watch of a new champion ended",
    "canary": "new champion's share of the keys online",
    "serving_compared": "online predictions compared with batch ones",
    "run_failed": "task failed",
    "mail_failed": "mail not sent",
    "recovered": "recovered",
    "silenced": "silence",
    "spec_unusable": "spec cannot be used",
}
STATISTICS = {
    "wasserstein": "Wasserstein distance from reference",
    "jensenshannon": "Jensen-Shannon distance from reference",
}


OWN_COLUMNS = {"_prediction": "predictions", "_label": "labels", "": "all rows", "None": "all rows"}


def reason(code: Any) -> str:
    """A reason code in plain words; an unknown code with spaces for underscores, a task's name as it is."""
    if not code or not isinstance(code, str):
        return MISSING
    return REASONS.get(code, code if "." in code else code.replace("_", " "))


def kind(code: Any) -> str:
    """What was decided, in plain words; an unknown kind with spaces for underscores."""
    return KINDS.get(str(code), str(code).replace("_", " "))


def statistic_name(kind: str, statistic: str) -> str:
    """What a judged number of a column measures, such as `rise of missing values`."""
    if kind == "missing":
        return "rise of missing values"
    if kind == "new_category":
        return "share of rows with an unknown category"
    if kind == "unreadable":
        return "could not be judged"
    return STATISTICS.get(statistic.lower().replace("-", "").replace("_", ""), statistic.replace("_", " "))


def sentence(kind: str, code: str, evidence: Evidence) -> str:
    """Why a decision was taken, in one line, from its reason code and evidence."""
    text, told = reason(code), message(code, evidence)
    return f"{text}: {told}" if told and told != text else text


def message(code: str, evidence: Evidence) -> str:
    """What a decision says in words: its own sentence without the reason code, else what drifted or failed.

    It goes by the JSON, so that people are told what stands in a row that cannot be read.
    """
    known = evidence.to_json()
    told = known.get("message") or known.get("why") or known.get("note")
    if isinstance(told, str):
        return told.removeprefix(f"{code.replace('_', ' ')}: ").strip()
    causes = known.get("drifted")
    if isinstance(causes, (list, tuple)):
        columns = (
            str(cause).partition(":")[2] for cause in causes if not str(cause).startswith("performance:")
        )
        return ", ".join(dict.fromkeys(map(column_name, columns)))
    failures = known.get("failures")
    if isinstance(failures, (list, tuple)) and failures and isinstance(failures[0], Mapping):
        first = failures[0]
        where = f"{first['column']}: " if first.get("column") else ""
        more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
        return f"{where}{num(first.get('observed'))}, expected {num(first.get('limit'))}{more}"
    return str(known["error"])[:200] if known.get("error") else ""


def column_name(name: Any) -> str:
    """A judged column as the reader knows it; what is no column of the table by what it is."""
    return OWN_COLUMNS.get(str(name), str(name))


def num(value: Any, digits: int = 4) -> str:
    """A number with at most `digits` significant digits and thousands apart; anything else as it is."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if math.isnan(value):
            return MISSING
        if abs(value) >= 10**digits:
            return f"{value:,.0f}"
        return f"{value:.{digits}g}"
    return str(value)


def percent(share: float) -> str:
    """A share in a sentence, such as `10%`."""
    return f"{100 * share:.3g}%"


def yes_no(value: bool | None) -> str:
    """yes, no, or nothing where that is no question."""
    return "" if value is None else "yes" if value else "no"


def when(value: Any) -> str:
    """A time in UTC, to the minute; a text that is no time as it is."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            return value or MISSING
    if not isinstance(value, datetime):
        return MISSING if value is None else str(value)
    if value.tzinfo is not None:
        value = value.astimezone(UTC)
    return f"{value:%Y-%m-%d %H:%M} UTC"
