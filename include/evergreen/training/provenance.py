"""What made a model: the spec it was trained from, the code's commit, the versions of the libraries."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from evergreen import settings
from evergreen.spec import ModelSpec, Specs

# A string or a quoted name stays; a comment and any run of spaces is one space.
SQL_TOKEN = re.compile(r"""('(?:''|[^'])*'|"(?:""|[^"])*")|(?:--[^\n]*|/\*.*?\*/|\s)+""", re.DOTALL)

LIBRARIES = (
    "xgboost-cpu",
    "xgboost",
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "optuna",
    "evergreen",
)


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


def git_commit(folder: Path = settings.REPOSITORY) -> str | None:
    """The commit that is checked out, read from `.git` without git, or `EVERGREEN_COMMIT`; None where there is neither.

    Changes that were not committed do not show.
    """
    return _checked_out(folder) or settings.COMMIT.read() or None


def _checked_out(folder: Path) -> str | None:
    try:
        place = folder / ".git"
        if place.is_file():
            place = (folder / place.read_text(encoding="utf-8").partition("gitdir:")[2].strip()).resolve()
        head = (place / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref:"):
            return head or None
        name = head.partition(":")[2].strip()
        common = place / "commondir"
        homes = [place] + (
            [(place / common.read_text(encoding="utf-8").strip()).resolve()] if common.is_file() else []
        )
        for home in homes:
            if (home / name).is_file():
                return (home / name).read_text(encoding="utf-8").strip() or None
        for home in homes:
            packed = home / "packed-refs"
            for line in packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else ():
                commit, _, ref = line.partition(" ")
                if ref == name:
                    return commit
    except (OSError, UnicodeDecodeError):
        return None
    return None


def library_versions() -> dict[str, str]:
    """Versions of Python and of the installed libraries that shape a model."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def requirements() -> list[str]:
    """What a server of the model must install, pinned. MLflow would take ten seconds to find out by itself."""
    versions = library_versions()
    name = "xgboost-cpu" if "xgboost-cpu" in versions else "xgboost"
    return [f"{n}=={versions[n]}" for n in (name, "numpy", "pandas", "scikit-learn") if n in versions]
