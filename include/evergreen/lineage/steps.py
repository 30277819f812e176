"""What each step read and wrote, as OpenLineage's datasets and facets, made of the evidence that the step leaves anyway.

Of a step that failed, or has not come to its end, the names are told that follow from the specs alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.facet_v2 import (
    DatasetFacet,
    InputDatasetFacet,
    JobFacet,
    OutputDatasetFacet,
    data_quality_assertions_dataset,
    dataset_type_dataset,
    dataset_version_dataset,
    input_statistics_input_dataset,
    output_statistics_output_dataset,
    schema_dataset,
    sql_job,
)
from psycopg2 import sql

from evergreen.lineage import names
from evergreen.spec import DatasetSpec, ModelSpec, Specs
from evergreen.validation import suite
from evergreen.validation.outcome import BatchOutcome
from evergreen.warehouse.migrate import TYPES

if TYPE_CHECKING:  # each is loaded by its own step, and takes the others seconds
    from evergreen.monitoring.monitor import Run
    from evergreen.scoring.score import ScoreResult
    from evergreen.training.record.outcome import TrainingOutcome
    from evergreen.warehouse.features.snapshot import Snapshot

log = logging.getLogger(__name__)

MOST_FILES = 500
"""Files that one event names; of a run with more, those that were held back come first."""
ASK_S = 5


@dataclass(frozen=True)
class StepFacts:
    """Inputs and outputs of a step, and facets of its job."""

    inputs: list[InputDataset] = field(default_factory=list)
    outputs: list[OutputDataset] = field(default_factory=list)
    job: dict[str, JobFacet] = field(default_factory=dict)


def ingested(dataset: DatasetSpec, as_of: datetime, outcomes: Sequence[BatchOutcome] | None) -> StepFacts:
    """Landed files → the dataset's table; each file with its rows and with what its expectations came to.

    Args:
        dataset: the spec.
        as_of: of the run, aware.
        outcomes: of `ingest`; None: it failed.
    """
    decided = sorted(
        (o for o in outcomes or () if o.state != "waiting"), key=lambda o: (o.state != "quarantined", o.file)
    )
    if len(decided) > MOST_FILES:
        log.warning("%s: the lineage event names %d of the %d files", dataset.name, MOST_FILES, len(decided))
    written = None if outcomes is None else sum(o.rows_new + o.rows_changed for o in decided)
    shape = schema_dataset.SchemaDatasetFacet(
        fields=[
            schema_dataset.SchemaDatasetFacetFields(name, TYPES[c.type], c.description or None)
            for name, c in dataset.columns.items()
        ]
    )
    return StepFacts(
        [_file(dataset, as_of, outcome) for outcome in decided[:MOST_FILES]],
        [_output(names.table("data", dataset.name), written, schema=shape)],
    )


def trained(
    specs: Specs, model: ModelSpec, as_of: datetime, snapshot: Snapshot, outcome: TrainingOutcome | None
) -> StepFacts:
    """The tables that the feature query reads and the snapshot of them → the model and its new version.

    Args:
        specs: all specs.
        model: what was trained.
        as_of: the cut-off, aware.
        snapshot: what it was fitted on; its fingerprint is the version of the model's snapshots.
        outcome: of `train`; None: it failed. A dry run registers nothing, so it has no output.
    """
    rows = _input(
        names.path(snapshot.path.rpartition("/")[0]),
        {"inputStatistics": input_statistics_input_dataset.InputStatisticsInputDatasetFacet(snapshot.rows)},
        version=dataset_version_dataset.DatasetVersionDatasetFacet(snapshot.fingerprint),
    )
    made = _model(model.name, outcome.version if outcome else None)
    return StepFacts(
        [*_tables(specs, model, as_of), rows],
        [] if outcome and outcome.dry_run else [OutputDataset(*n, facets=f) for n, f in made],
        _query(model),
    )


def scored(specs: Specs, model: ModelSpec, as_of: datetime, result: ScoreResult | None) -> StepFacts:
    """The champion and the tables that the feature query reads → the model's predictions, and those in the shadow.

    Args:
        specs: all specs.
        model: whose champion scored.
        as_of: the cut-off, aware.
        result: of `score`; None: it failed.
    """
    read = _model(model.name, result.version if result else None)
    outputs = [_predictions(model, "prediction", result.rows if result else None)]
    if result and result.shadow and result.shadow.version:
        read += _model(model.name, result.shadow.version)[1:]
        outputs.append(_predictions(model, "shadow_prediction", result.shadow.rows))
    return StepFacts(
        [*_tables(specs, model, as_of), *(InputDataset(*n, facets=f) for n, f in read)],
        outputs,
        _query(model),
    )


def monitored(specs: Specs, model: ModelSpec, as_of: datetime, done: Run | None) -> StepFacts:
    """The model's predictions and the tables that the feature query reads → its judged windows.

    Args:
        specs: all specs.
        model: whose champion is watched.
        as_of: the cut-off, aware.
        done: of `monitor`; None: it failed, or there is no champion.
    """
    return StepFacts(
        [*_tables(specs, model, as_of), InputDataset(*names.table("evergreen", "prediction", model.name))],
        [
            _output(
                names.table("evergreen", "window_judgement", model.name), len(done.judged) if done else None
            )
        ],
        _query(model),
    )


def _tables(specs: Specs, model: ModelSpec, as_of: datetime) -> list[InputDataset]:
    """The tables of the datasets that the feature query reads, as PostgreSQL understands it."""
    from evergreen.warehouse.features import (
        views,  # brings pandas, which the first event of a step need not wait for
    )

    read = views.read_by(specs, model, as_of, timeout_s=ASK_S)
    return [InputDataset(*names.table("data", name)) for name in read]


def _query(model: ModelSpec) -> dict[str, JobFacet]:
    return {"sql": sql_job.SQLJobFacet(query=model.query, dialect="postgres")}


def _model(name: str, version: str | None) -> list[tuple[names.Named, dict[str, DatasetFacet]]]:
    """The model, which stays, and the version, each with its facets; without a version the model alone."""
    kind = {"datasetType": dataset_type_dataset.DatasetTypeDatasetFacet("MODEL")}
    if version is None:
        return [(names.model(name), {**kind})]
    this = {**kind, "version": dataset_version_dataset.DatasetVersionDatasetFacet(version)}
    return [(names.model(name), {**this}), (names.model(name, version), {**this})]


def _predictions(model: ModelSpec, table: str, rows: int | None) -> OutputDataset:
    return _output(names.table("evergreen", table, model.name), rows)


def _input(name: names.Named, found: dict[str, InputDatasetFacet], **facets: DatasetFacet) -> InputDataset:
    return InputDataset(*name, inputFacets=found, facets=facets)


def _output(name: names.Named, rows: int | None, **facets: DatasetFacet) -> OutputDataset:
    """A table with the rows that were written; None: not known."""
    counted: dict[str, OutputDatasetFacet] = {}
    if rows is not None:
        statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows)
        counted["outputStatistics"] = statistics
    return OutputDataset(*name, outputFacets=counted, facets=facets)


def _file(dataset: DatasetSpec, as_of: datetime, outcome: BatchOutcome) -> InputDataset:
    found = list(_assertions(dataset, as_of, outcome))
    return _input(
        names.landed(dataset, outcome.file),
        {
            "inputStatistics": input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
                outcome.rows_read, fileCount=1
            ),
            "dataQualityAssertions": data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(found),
        },
        version=dataset_version_dataset.DatasetVersionDatasetFacet(outcome.checksum),
    )


def _assertions(
    dataset: DatasetSpec, as_of: datetime, outcome: BatchOutcome
) -> Iterator[data_quality_assertions_dataset.Assertion]:
    """What failed, with what was found, which may quote a value; and the expectations that passed, where they were asked.

    They were asked where the file was published, or where one of them failed: a file that cannot be read, or has no row that
    could be typed, is held back before.
    """
    held = outcome.state == "quarantined"
    for failure in outcome.failures:
        yield data_quality_assertions_dataset.Assertion(
            assertion=failure.expectation,
            success=False,
            column=failure.column if failure.column in dataset.columns else None,
            severity="error" if held else "warn",
            expected=failure.limit,
            actual=failure.observed,
        )
    rules = dict.fromkeys(
        (rule.type, rule.column, rule.limit) for rule in suite.rules(dataset, as_of, sql.SQL("typed"))
    )
    failed = {(f.expectation, f.column, f.limit) for f in outcome.failures}
    if held and not failed & rules.keys():
        return
    for kind, column, limit in (rule for rule in rules if rule not in failed):
        yield data_quality_assertions_dataset.Assertion(
            assertion=kind,
            success=True,
            column=column if column in dataset.columns else None,
            expected=limit,
        )
