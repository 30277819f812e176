"""The two YAML files that a team writes, as typed models.

`load_specs` reads a folder (`datasets/*.yaml`, `models/*.yaml`, `models/*.sql`) and returns what is good and
what is not: a bad file disables itself, never its neighbours. Every mistake of a file is reported at once,
each with file, field, value and remedy. What only the database can tell (a column that the feature query does
not return, SQL that does not run) is checked by `evergreen.warehouse.features.check`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

NAME = re.compile(r"^[a-z][a-z0-9_]{0,47}$")
CRON = re.compile(r"^\s*(\S+\s+){4}\S+\s*$")
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(min|m|h|d|w)\s*$")
_UNITS = {"m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SQL_NOISE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:''|[^'])*'", re.DOTALL)
RESERVED_COLUMNS = (
    "_arrived_at", "_superseded_at", "_batch", "_row", "_key",
    "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid",
)  # fmt: skip


def parse_duration(value: Any) -> timedelta:
    """Turn `90m`, `36h`, `14d` or `2w` into a timedelta.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.match(str(value))
    if not match:
        raise ValueError(
            f"{value!r} is not a duration; write a number and a unit, such as 90m, 36h, 14d or 2w"
        )
    return timedelta(**{_UNITS[match[2]]: float(match[1])})


def format_duration(value: timedelta) -> str:
    """Write a timedelta as people write it in a spec: `14d`, `36h`, `90m`."""
    seconds = int(value.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds // 60}m"


def _check_name(value: Any) -> Any:
    if not isinstance(value, str) or not NAME.match(value):
        raise ValueError(
            f"{value!r} is not a usable name; use small letters, digits and _, start with a letter, at most 48"
        )
    return value


def _check_cron(value: Any) -> Any:
    if value is None or (isinstance(value, str) and CRON.match(value)):
        return value
    raise ValueError(f"{value!r} is not a cron expression of five fields, such as '0 2 * * *'")


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str),
]
Name = Annotated[str, BeforeValidator(_check_name, json_schema_input_type=str)]
Cron = Annotated[str | None, BeforeValidator(_check_cron, json_schema_input_type=str | None)]


class Strict(BaseModel):
    """A model in which an unknown field is a mistake: a misspelt one must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --------------------------------------------------------------------------- datasets

ColumnType = Literal["float", "integer", "boolean", "text", "category", "timestamp", "date"]


class Column(Strict):
    """One column of a dataset: its type and what a valid value is."""

    type: ColumnType
    required: bool = Field(True, description="a missing value in a row is a failed expectation")
    null_share_max: float | None = Field(
        None, ge=0, le=1, description="largest share of missing values in a batch"
    )
    min: float | None = Field(None, description="smallest valid value (numbers)")
    max: float | None = Field(None, description="largest valid value (numbers)")
    values: tuple[str, ...] | None = Field(None, description="the valid values (text, category)")
    description: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Column:
        if self.type in ("text", "category", "boolean", "timestamp", "date") and (
            self.min is not None or self.max is not None
        ):
            raise ValueError(f"min and max are for numbers, not for {self.type}; remove them")
        if self.type not in ("text", "category") and self.values is not None:
            raise ValueError(f"values is for text and category, not for {self.type}; remove it")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is larger than max {self.max}; swap them")
        return self


class Source(Strict):
    """Where the files of a dataset land."""

    folder: str | None = Field(
        None, description="folder of the files; relative to EVERGREEN_LANDING; default: name"
    )
    pattern: str = Field(
        "*", description="which files count; .csv and .parquet are read, the ending tells which"
    )
    encoding: str = Field("utf-8", description="encoding of CSV files")
    delimiter: str = Field(",", min_length=1, max_length=1)
    timezone: str = Field("UTC", description="time zone of timestamps that come without one")


class Arrival(Strict):
    """When the warehouse is taken to have learnt a row; without either, the ingest run's as-of time.

    For history loaded in bulk: a column that tells, or event time plus a delay. A correction of a row
    that is already there arrives with the run that brings it.
    """

    column: str | None = None
    delay: Duration | None = None

    @model_validator(mode="after")
    def _one(self) -> Arrival:
        if self.column is not None and self.delay is not None:
            raise ValueError("give column or delay, not both")
        return self


class Expectation(Strict):
    """One Great Expectations expectation, as its documentation names it."""

    type: str = Field(description="such as expect_column_values_to_be_between")
    kwargs: dict[str, Any] = Field(default_factory=dict)
    rows: bool = Field(False, description="a failing row can be quarantined by itself")


class DatasetSpec(Strict):
    """A table that lands as files: columns, key, times, expectations."""

    name: Name
    description: str = ""
    owner: str = "ml-team"
    schedule: Cron = "30 1 * * *"
    source: Source = Source()
    key: tuple[str, ...] = Field(min_length=1)
    event_time: str
    arrival: Arrival = Arrival()
    columns: dict[str, Column] = Field(min_length=1)
    expectations: tuple[Expectation, ...] = ()
    quarantine: Literal["batch", "rows"] = Field("batch", description="what a failed expectation holds back")
    max_bad_rows: float = Field(
        0.05, ge=0, le=1, description="with quarantine: rows, above this share: whole batch"
    )
    future_tolerance: Duration = Field(
        timedelta(hours=24), description="how far past as-of an event time may lie"
    )
    alerts: tuple[str, ...] = Field((), description="recipients; default: EVERGREEN_MAIL_TO")

    @model_validator(mode="after")
    def _consistent(self) -> DatasetSpec:
        problems: list[str] = []
        for what, names in (("key", self.key), ("event_time", (self.event_time,))):
            problems += [_unknown(what, n, self.columns) for n in names if n not in self.columns]
        if self.arrival.column and self.arrival.column not in self.columns:
            problems.append(_unknown("arrival.column", self.arrival.column, self.columns))
        elif self.arrival.column and self.columns[self.arrival.column].type not in ("timestamp", "date"):
            problems.append(f"arrival.column: {self.arrival.column} is no timestamp; make its type timestamp")
        if self.event_time in self.columns and self.columns[self.event_time].type not in (
            "timestamp",
            "date",
        ):
            problems.append(
                f"event_time: {self.event_time} has type {self.columns[self.event_time].type}; make it timestamp"
            )
        for name in self.columns:
            if name in RESERVED_COLUMNS:
                problems.append(f"columns.{name}: the name is Evergreen's own; rename the column")
            elif not re.match(r"^[A-Za-z_][A-Za-z0-9_]{0,62}$", name):
                problems.append(
                    f"columns.{name}: not a usable column name; letters, digits and _, at most 63"
                )
        for index, item in enumerate(self.expectations):
            column = item.kwargs.get("column")
            if column is not None and column not in self.columns:
                problems.append(_unknown(f"expectations.{index}.kwargs.column", column, self.columns))
        if problems:
            raise ValueError("\n".join(problems))
        return self


# --------------------------------------------------------------------------- models

Metric = Literal["rmse", "mae", "r2", "roc_auc", "pr_auc", "log_loss", "brier"]
METRICS: dict[str, tuple[str, ...]] = {
    "regression": ("rmse", "mae", "r2"),
    "binary": ("roc_auc", "pr_auc", "log_loss", "brier"),
}
LARGER_IS_BETTER = frozenset({"r2", "roc_auc", "pr_auc"})


class Label(Strict):
    """What is predicted, and when it is known."""

    column: str
    delay: Duration = Field(timedelta(0), description="how long after event time a label is mature")
    min: float | None = None
    max: float | None = None


class Features(Strict):
    """Columns of the feature query that the model sees."""

    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every feature, numeric first: the column order of the model."""
        return self.numeric + self.categorical


class Training(Strict):
    """How a challenger is made."""

    window: Duration | Literal["all"] = Field("all", description="how much history before as-of is used")
    holdout: Duration = Field(
        timedelta(days=14), description="the newest mature part, kept for the judgement"
    )
    min_rows: int = Field(500, ge=10, description="fewer rows in the training part stop the run")
    min_holdout_rows: int = Field(50, ge=5)
    params: dict[str, Any] = Field(default_factory=dict, description="XGBoost parameters")
    max_rounds: int = Field(500, ge=1, le=20000)
    early_stopping_rounds: int = Field(30, ge=1)
    refit: bool = Field(True, description="fit again on the whole window once the gate has passed")
    baseline: Literal["seasonal", "last_value", "class_prior"] | None = None
    season: Duration = Field(timedelta(days=7), description="lag of the seasonal baseline")
    seed: int = 7


class Gate(Strict):
    """What a challenger must show before it becomes champion."""

    metric: Metric | None = Field(None, description="primary metric; default rmse or roc_auc")
    margin: float = Field(0.0, ge=0, lt=1, description="share by which the champion's metric must be beaten")
    beat_baseline: bool = True


class Volume(Strict):
    """How many rows a window must have, as shares of the reference's usual number."""

    min: float = Field(0.5, ge=0)
    max: float = Field(3.0, gt=0)


class Drift(Strict):
    """Limits of the drift statistics (effect sizes, not p-values).

    A column's limit is the larger of `numeric`/`categorical` here and `factor` times the largest value
    that the statistic took between past windows and the champion's own reference.
    """

    numeric: float = Field(0.1, gt=0, description="normalised Wasserstein distance")
    categorical: float = Field(0.1, gt=0, description="Jensen-Shannon distance")
    missing: float = Field(0.05, gt=0, description="rise of the share of missing values")
    factor: float = Field(1.25, ge=1)
    ignore: tuple[str, ...] = ()


class Performance(Strict):
    """When the served error counts as worse."""

    metric: Metric | None = None
    max_worse: float = Field(
        0.3, gt=0, description="share by which the metric may be worse than on the holdout"
    )
    min_labels: float = Field(0.8, gt=0, le=1, description="share of rows whose label must be in")


class Trigger(Strict):
    """When violations become a retrain request: m of the last n windows and the newest."""

    m: int = Field(2, ge=1)
    n: int = Field(3, ge=1)
    cooldown: Duration = Field(timedelta(days=7), description="least time between two requests")

    @model_validator(mode="after")
    def _consistent(self) -> Trigger:
        if self.m > self.n:
            raise ValueError(
                f"m {self.m} is larger than n {self.n}; {self.m} of {self.n} windows cannot be reached"
            )
        return self


class Monitoring(Strict):
    """How the champion is watched."""

    schedule: Cron = "0 * * * *"
    window: Duration = timedelta(days=1)
    min_rows: int = Field(100, ge=1)
    sample_rows: int = Field(20000, ge=100, description="most rows a side that go into one report")
    freshness: Duration = Field(timedelta(hours=36), description="oldest that the newest row may be")
    volume: Volume = Volume()
    drift: Drift = Drift()
    performance: Performance = Performance()
    trigger: Trigger = Trigger()


class Scoring(Strict):
    """How batch predictions are made."""

    chunk_rows: int = Field(100_000, ge=1)


class ModelSpec(Strict):
    """A model: features, label, windows, gate, monitoring, alerts."""

    name: Name
    description: str = ""
    owner: str = "ml-team"
    task: Literal["regression", "binary"]
    datasets: tuple[Name, ...] = Field(min_length=1)
    key: tuple[str, ...] = Field(min_length=1)
    event_time: str
    label: Label
    features: Features
    schedule: Cron = "0 2 * * *"
    training: Training = Training()
    gate: Gate = Gate()
    scoring: Scoring = Scoring()
    monitoring: Monitoring = Monitoring()
    alerts: tuple[str, ...] = Field((), description="recipients; default: EVERGREEN_MAIL_TO")
    query: str = Field("", description="the feature query: filled from models/NAME.sql, not written here")

    @property
    def gate_metric(self) -> str:
        """The primary metric of the gate."""
        return self.gate.metric or METRICS[self.task][0]

    @property
    def performance_metric(self) -> str:
        """The metric of the served predictions that is watched."""
        return self.monitoring.performance.metric or self.gate_metric

    @property
    def baseline(self) -> str:
        """The naive prediction that every challenger must beat."""
        return self.training.baseline or ("seasonal" if self.task == "regression" else "class_prior")

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        problems: list[str] = []
        features = self.features.all
        if not features:
            problems.append("features: there are none; name at least one under numeric or categorical")
        problems += [
            f"features: {n} is named twice; remove one"
            for n in sorted({f for f in features if features.count(f) > 1})
        ]
        if self.label.column in features:
            problems.append(
                f"features: {self.label.column} is the label; a model that sees its label learns nothing else. Remove it"
            )
        if self.event_time in features:
            problems.append(
                f"features: {self.event_time} is the event time; derive features from it in the SQL (hour, weekday)"
            )
        if self.label.column in self.key:
            problems.append(f"key: {self.label.column} is the label; a key must be known before it")
        window = self.training.window
        if window != "all" and self.training.holdout >= window:
            problems.append(
                f"training.holdout: {format_duration(self.training.holdout)} leaves nothing of the window of "
                f"{format_duration(window)} to train on; make it shorter"
            )
        for where, metric in (
            ("gate.metric", self.gate.metric),
            ("monitoring.performance.metric", self.monitoring.performance.metric),
        ):
            if metric is not None and metric not in METRICS[self.task]:
                problems.append(
                    f"{where}: {metric} is not a metric of {self.task}; use one of {', '.join(METRICS[self.task])}"
                )
        if (self.training.baseline == "class_prior") != (
            self.task == "binary"
        ) and self.training.baseline is not None:
            problems.append(
                f"training.baseline: {self.training.baseline} does not fit {self.task}; "
                f"use {'class_prior' if self.task == 'binary' else 'seasonal or last_value'}"
            )
        known = {*features, self.label.column}
        problems += [
            _unknown("monitoring.drift.ignore", n, known)
            for n in self.monitoring.drift.ignore
            if n not in known
        ]
        if not self.query.strip():
            problems.append(
                f"query: models/{self.name}.sql is missing or empty; write the feature query there"
            )
        if ";" in _SQL_NOISE.sub("", self.query).rstrip().rstrip(";"):
            problems.append(f"query: models/{self.name}.sql has more than one statement; keep one SELECT")
        if problems:
            raise ValueError("\n".join(problems))
        return self


# --------------------------------------------------------------------------- loading


@dataclass(frozen=True)
class Problem:
    """One mistake in one file."""

    file: str
    field: str
    value: str
    remedy: str

    def __str__(self) -> str:
        shown = f" (value: {self.value})" if self.value else ""
        return (
            f"{self.file}: {self.field}: {self.remedy}{shown}"
            if self.field
            else f"{self.file}: {self.remedy}{shown}"
        )


@dataclass(frozen=True)
class Specs:
    """All specs of a folder: the good ones by name, and the problems of the others."""

    datasets: dict[str, DatasetSpec] = field(default_factory=dict)
    models: dict[str, ModelSpec] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def datasets_of(self, model: ModelSpec) -> tuple[DatasetSpec, ...]:
        """The datasets that a model's feature query reads, in the order the spec names them."""
        return tuple(self.datasets[name] for name in model.datasets)


def load_specs(folder: Path) -> Specs:
    """Read every spec of a folder; never raises for a bad file.

    Args:
        folder: holds `datasets/` and `models/`.
    """
    problems: list[Problem] = []
    datasets: dict[str, DatasetSpec] = {}
    for path in sorted((folder / "datasets").glob("*.y*ml")):
        found, dataset = _load(path, DatasetSpec, {})
        problems += found
        if isinstance(dataset, DatasetSpec):
            datasets[dataset.name] = dataset
    models: dict[str, ModelSpec] = {}
    for path in sorted((folder / "models").glob("*.y*ml")):
        sql = path.with_suffix(".sql")
        found, model = _load(
            path, ModelSpec, {"query": sql.read_text(encoding="utf-8") if sql.is_file() else ""}
        )
        problems += found
        if not isinstance(model, ModelSpec):
            continue
        missing = [n for n in model.datasets if n not in datasets]
        problems += [Problem(_short(path), "datasets", n, _unknown_dataset(n, datasets)) for n in missing]
        if not missing:
            models[model.name] = model
    return Specs(datasets, models, tuple(problems))


def _load(
    path: Path, kind: type[DatasetSpec] | type[ModelSpec], extra: dict[str, Any]
) -> tuple[list[Problem], Any]:
    short = _short(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return [Problem(short, "", "", f"not readable as YAML: {' '.join(str(error).split())}")], None
    if not isinstance(content, dict):
        return [
            Problem(short, "", "", "is empty or no mapping; start from the example in docs/specs.md")
        ], None
    if "query" in content:
        return [
            Problem(
                short, "query", "", f"goes into {path.with_suffix('.sql').name}, not into the YAML; move it"
            )
        ], None
    if content.get("name") != path.stem:
        return [
            Problem(
                short, "name", repr(content.get("name")), f"must be the file's name; write name: {path.stem}"
            )
        ], None
    try:
        return [], kind.model_validate({**content, **extra})
    except ValidationError as error:
        return list(_problems(short, error, kind)), None


def _problems(short: str, error: ValidationError, kind: type[BaseModel]) -> Iterable[Problem]:
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"] if not str(part).startswith("function-"))
        value = "" if isinstance(item["input"], dict) else repr(item["input"])
        if item["type"] == "extra_forbidden":
            yield Problem(short, where, value, _misspelt(item["loc"], kind))
        elif item["type"] == "missing":
            yield Problem(short, where, "", "is missing; add it")
        elif item["type"] == "value_error":
            prefix = f"{where}." if where else ""
            for line in item["msg"].removeprefix("Value error, ").split("\n"):
                head, separator, rest = line.partition(": ")
                if separator and re.match(r"^[a-z_.0-9A-Z]+$", head):
                    yield Problem(short, prefix + head, "", rest)
                else:
                    yield Problem(short, where, value, line)
        else:
            yield Problem(short, where, value, item["msg"][0].lower() + item["msg"][1:])


def _misspelt(location: tuple[Any, ...], kind: type[BaseModel]) -> str:
    fields: list[str] = list(kind.model_fields)
    current: type[BaseModel] = kind
    for part in location[:-1]:
        annotation = (
            current.model_fields[part].annotation
            if isinstance(current, type) and part in current.model_fields
            else None
        )
        inner = [
            a
            for a in (annotation, *getattr(annotation, "__args__", ()))
            if isinstance(a, type) and issubclass(a, BaseModel)
        ]
        if inner:
            current = inner[0]
            fields = list(current.model_fields)
    close = difflib.get_close_matches(str(location[-1]), fields, n=1)
    hint = (
        f"did you mean {close[0]}?"
        if close
        else f"known here: {', '.join(f for f in fields if f != 'query')}"
    )
    return f"unknown field; {hint}"


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    return f"{what}: no column {name!r}; {hint}"


def _unknown_dataset(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"no usable dataset of that name; {f'did you mean {close[0]}?' if close else 'add or mend datasets/' + name + '.yaml'}"


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


class _UniqueKeys(yaml.SafeLoader):
    """A SafeLoader to which a key written twice is a mistake: YAML would silently keep the last one."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"{key!r} is written twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def json_schema(kind: type[DatasetSpec] | type[ModelSpec]) -> dict[str, Any]:
    """JSON Schema of a spec file, for editors that complete and check YAML while it is written."""
    schema = kind.model_json_schema()
    schema.get("properties", {}).pop("query", None)
    return schema
