"""The two YAML files that a team writes, as typed models.

`load_specs` reads a folder (`datasets/*.yaml`, `models/*.yaml`, `models/*.sql`) and returns what is good and
what is not: a bad file disables itself, never its neighbours. Every mistake of a file is reported at once,
each with file, field, value and remedy. `load_model` and `load_dataset` read only the files of one. What only the
database can tell (a column that the feature query does not return, SQL that does not run) is checked by
`evergreen.warehouse.features.feature_query.check`.
"""

from evergreen.spec.column import Column, ColumnType
from evergreen.spec.dataset import DatasetSpec, Expectation
from evergreen.spec.load import Specs, json_schema, load_dataset, load_model, load_specs, load_subject
from evergreen.spec.metrics import (
    BY_CUT,
    IN_LABEL_UNITS,
    LARGER_IS_BETTER,
    METRICS,
    THRESHOLD,
    metric_name,
    passable,
    worse,
)
from evergreen.spec.model import ModelSpec
from evergreen.spec.monitoring import Drift, Monitoring
from evergreen.spec.problem import Problem
from evergreen.spec.types import RESERVED_COLUMNS, format_duration, parse_duration

__all__ = [
    "BY_CUT", "IN_LABEL_UNITS", "LARGER_IS_BETTER", "METRICS", "RESERVED_COLUMNS", "THRESHOLD", "Column", "ColumnType", "DatasetSpec", "Drift", "Expectation", "ModelSpec",
    "Monitoring",
    "Problem", "Specs", "format_duration", "json_schema", "load_dataset", "load_model", "load_specs", "load_subject",
    "metric_name", "parse_duration", "passable", "worse",
]  # fmt: skip
