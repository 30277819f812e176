"""The model card of a version: what it is for, what it was made of, how it was chosen, how good it is, and where it is weak.

It is written once, when the training ends, and says what was known then; the ledger, the terminal and the page of the model
tell what came later. After "Model Cards for Model Reporting" (Mitchell et al. 2019, FAT*).
"""

from __future__ import annotations

from datetime import datetime

from evergreen import ledger
from evergreen.ledger import Decision, words
from evergreen.ledger.reasons import DecisionKind
from evergreen.links import airflow_pages
from evergreen.microseconds import moment
from evergreen.spec import format_duration, metric_name
from evergreen.training.card.columns import column_ranges
from evergreen.training.card.content import Card, Section, Table
from evergreen.training.card.evaluation import evaluation, slices
from evergreen.training.card.made import Made
from evergreen.training.card.weaknesses import weaknesses
from evergreen.training.search.leaderboard import params_text
from evergreen.warehouse.connection import Connection

MOST_COLUMNS = 200
MOST_DECISIONS = 12
KINDS = (
    DecisionKind.RETRAIN_REQUESTED, DecisionKind.AWAITING_APPROVAL, DecisionKind.PROMOTED, DecisionKind.REJECTED, DecisionKind.ROLLED_BACK,
)  # fmt: skip
NO_LICENCE = "the specs name none"


def card(made: Made) -> Card:
    """Write the card of a training's version; a dry run's has no number."""
    outcome, model = made.outcome, made.model
    version = f"version {outcome.version}" if outcome.version else "dry run, no version"
    facts = [
        (
            "Predicts",
            f"{model.label.column} ({'probability of 1' if model.task == 'binary' else 'a number'})",
        ),
        ("Owner", model.owner),
        ("Trained as of", words.when(outcome.as_of)),
        ("Because", words.reason(outcome.trigger)),
        (
            "Compared with",
            f"version {outcome.champion_version}" if outcome.champion_version else "no champion",
        ),
        ("Knows labels until", words.when(outcome.trained_until)),
    ]
    return Card(
        title=f"{model.name}, {version}",
        verdict=outcome.sentence(),
        passed=outcome.passed,
        facts=facts,
        links=airflow_pages(model.name, outcome.run_id),
        sections=[
            s
            for s in (
                _purpose(made), _weak(made), evaluation(made), slices(made), _chosen(made), _data(made), _limits(made), _decisions(made),
            )
            if s is not None
        ],
        marks=_marks(made),
    )  # fmt: skip


def known_decisions(conn: Connection, model_name: str, as_of: datetime) -> list[Decision]:
    """The newest decisions on a model that its card tells of, newest first."""
    return ledger.find(conn, ledger.model_subject(model_name), KINDS, limit=MOST_DECISIONS, as_of=as_of)


def _purpose(made: Made) -> Section:
    return Section("What it is for", paragraphs=[made.model.description or "The spec has no description."])


def _weak(made: Made) -> Section:
    found = weaknesses(made)
    return Section(
        "Known weaknesses", points=found or ["No rule finds one in the evidence of this training."]
    )


def _chosen(made: Made) -> Section:
    outcome, judged, spec = made.outcome, made.judged, made.model.training
    told = judged.choice.sentence or "Window and parameters are the spec's; nothing was open to choice."
    stopping = (
        f"{outcome.rounds} rounds, of at most {spec.max_rounds}, by early stopping on {metric_name(judged.fitted.stopping_metric)} "
        f"of the newest 15 % of the training part"
        if judged.fitted.stopping_metric
        else f"{outcome.rounds} rounds, as the spec says"
    )
    facts = [
        ("Learner", f"XGBoost, {judged.machine.engine}, {judged.machine.device}"),
        ("Window", judged.choice.window),
        ("Rounds", stopping),
        ("Parameters", params_text(judged.choice.model.training.params) or "XGBoost's own"),
        ("Fitted again on all rows", "yes" if outcome.refitted else "no"),
        ("Seed", str(spec.seed)),
    ]
    return Section(
        "How it was chosen",
        paragraphs=[told],
        facts=facts,
        figures=("leaderboard", "learning_curve", "importance"),
    )


def _data(made: Made) -> Section:
    rows, snapshot = made.outcome.rows, made.snapshot
    begin, end = (words.when(datetime.fromisoformat(t)) for t in (snapshot.start, snapshot.end))
    facts = [
        ("Range", f"{begin} to {end}"),
        ("Rows", f"{snapshot.rows:,} with a label, {snapshot.unlabelled:,} without"),
        (
            "Parts",
            f"{rows['training']:,} to learn from, {rows['purged']:,} left out before the holdout, {rows['holdout']:,} in the holdout",
        ),
        ("Fingerprint", snapshot.fingerprint),
    ]
    sources = [
        [d.name, d.license or NO_LICENCE, d.owner, " ".join(d.description.split()) or "not described"]
        for d in made.datasets
    ]
    ranges = column_ranges(made.model, made.encoding, made.judged.split.rows.path)
    columns = [
        [c.name, c.role, c.values, "not known" if c.missing is None else f"{c.missing:.1%}"]
        for c in ranges[:MOST_COLUMNS]
    ]
    more = len(ranges) - MOST_COLUMNS
    return Section(
        "Data",
        facts=facts,
        tables=[
            Table(["dataset", "licence", "owner", "what it is"], sources),
            Table(
                ["column", "is a", "values", "missing"],
                columns,
                note=f"{more:,} more columns are left out." if more > 0 else "",
            ),
        ],
    )


def _limits(made: Made) -> Section:
    model, evidence = made.model, made.judged.evidence
    points = [
        "A category that it has not seen counts as missing; so does a number that is not finite.",
        f"A label counts as known {format_duration(model.label.delay)} after its event time; younger rows were not learnt.",
        f"It is trained and judged by {metric_name(made.outcome.metric)}; what that does not measure nobody has looked at.",
        f"It is watched in windows of {format_duration(model.monitoring.window)} while it serves; without that watch it is not meant to be used.",
    ]
    if model.task == "regression":
        low, high = evidence.learnt_labels
        points.insert(
            0, f"Trees do not reach beyond what they learnt: labels of {words.num(low)} to {words.num(high)}."
        )
    if not made.outcome.refitted:
        first = moment(int(made.judged.split.holdout.times[0]))
        points.insert(0, f"It has not learnt the rows since {words.when(first)}, by which it was judged.")
    return Section("Limits", points=points)


def _decisions(made: Made) -> Section:
    rows = [
        [
            words.when(d.as_of),
            d.kind.value.replace("_", " "),
            d.version or "",
            words.sentence(d.kind.value, d.reason, d.evidence),
        ]
        for d in made.decisions
    ]
    told = "As of this training; the ledger and the model's page tell what was decided since."
    tables = [Table(["as of", "decision", "version", "why"], rows)] if rows else []
    return Section(
        "Decisions so far",
        paragraphs=[told if rows else "There was none before this training."],
        tables=tables,
    )


def _marks(made: Made) -> list[tuple[str, str]]:
    outcome = made.outcome
    return [
        ("Run in Airflow", outcome.run_id),
        ("Run in MLflow", outcome.mlflow_run),
        ("Digest of the version's files", outcome.digest),
        ("Hash of the spec", outcome.spec_hash),
        ("Commit", made.commit),
    ]
