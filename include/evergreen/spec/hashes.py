"""What of the specs shapes a model, as a hash: another one asks for a training."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from evergreen.spec import ModelSpec, Specs

# A string or a quoted name stays; a comment and any run of spaces is one space.
SQL_TOKEN = re.compile(r"""('(?:''|[^'])*'|"(?:""|[^"])*")|(?:--[^\n]*|/\*.*?\*/|\s)+""", re.DOTALL)


def spec_document(specs: Specs, model: ModelSpec) -> dict[str, Any]:
    """The model's spec with its SQL and the specs of its datasets, as JSON knows them."""
    return {
        "model": model.model_dump(mode="json"),
        "datasets": {d.name: d.model_dump(mode="json") for d in specs.datasets_of(model)},
    }


def spec_hash(document: dict[str, Any]) -> str:
    """SHA-256 of a spec document, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def training_hash(specs: Specs, model: ModelSpec) -> str:
    """SHA-256 of what of the specs shapes a trained model, and of nothing else.

    That is the task, key, event time, label, features, the training section, the query, and the datasets' names, keys
    and columns. Where a training runs (`engine`, `device`), schedule, gate (but a metric that
    changes what is fitted), scoring, monitoring, alerts, descriptions
    and the expectations of the data are left out, and so are comments and spacing of the SQL. Fields at their default
    are left out too: a release that adds one changes no hash.
    """
    spec = model.model_dump(
        mode="json",
        include={"task", "key", "event_time", "label", "features", "training"},
        exclude={"training": {"engine", "device"}},
        exclude_defaults=True,
    )
    datasets = {
        d.name: {
            "key": d.key,
            "event_time": d.event_time,
            "columns": {n: c.type for n, c in d.columns.items()},
        }
        for d in specs.datasets_of(model)
    }
    query = SQL_TOKEN.sub(lambda found: found[1] or " ", model.query).strip().rstrip(";").rstrip()
    # What the gate's metric changes of the fit; a model whose params say it all, as those of before did, has nothing of it.
    by_metric = {n: v for n, v in model.fitted_for.items() if n not in model.training.params}
    more = {"fitted_for": by_metric} if by_metric else {}
    return spec_hash({"model": spec, "datasets": datasets, "query": query, **more})
