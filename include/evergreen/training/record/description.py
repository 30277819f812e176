"""What MLflow shows above a run and a version: the verdict in a sentence, why it was trained, and the way back."""

from __future__ import annotations

from evergreen.ledger import words
from evergreen.links import airflow_pages, mlflow_artifact_page
from evergreen.metrics.paired_bootstrap import Improvement
from evergreen.training.record.markdown import escaped, link
from evergreen.training.record.outcome import TrainingOutcome

CARD_FILE = "model_card.html"


def run_name(model_name: str, as_of: str, trigger: str, dry_run: bool) -> str:
    """A training's name in MLflow's lists: model, as-of time, why it ran."""
    return f"{model_name} {as_of}, {trigger.replace('_', ' ')}{', dry run' if dry_run else ''}"


def verdict(outcome: TrainingOutcome) -> str:
    """The gate's answer as a tag: `passed: first champion`."""
    return f"{'passed' if outcome.passed else 'rejected'}: {outcome.verdict.reason.value.replace('_', ' ')}"


def description(outcome: TrainingOutcome, over_champion: Improvement | None, experiment: str) -> str:
    """Markdown for a run and its version.

    Args:
        outcome: of the training; its version need not be known.
        over_champion: by how much it is better; None without a champion.
        experiment: MLflow's id, for the link to the model card.
    """
    said = "Passed the gate" if outcome.passed else "Did not pass the gate"
    parts = [f"**{said}**: {escaped(outcome.sentence())}."]
    if over_champion is not None and over_champion.point is not None:
        low, high = over_champion.low, over_champion.high
        bounds = f", at least {low:+.1%}, at most {high:+.1%}" if low is not None and high is not None else ""
        parts.append(
            f"Improvement over version {outcome.champion_version}: {over_champion.point:+.1%}{bounds}."
        )
    parts.append(
        f"Trained as of {words.when(outcome.as_of)}, because {escaped(words.reason(outcome.trigger))}: "
        f"{outcome.rows.get('all', 0):,} rows, {outcome.rounds:,} rounds."
    )
    if outcome.dry_run:
        parts.append("A dry run: nothing was registered, nothing is decided.")
    card = mlflow_artifact_page(experiment, outcome.mlflow_run, CARD_FILE)
    links = [("Model card", card), *airflow_pages(outcome.model, outcome.run_id)]
    return "\n\n".join([*parts, " · ".join(link(label, url) for label, url in links)])
