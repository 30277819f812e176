"""Reads a folder of specs: what is good by name, and every mistake of the rest with file, field, value and remedy.

Whatever goes wrong while one file is read or checked is a problem of that file alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evergreen import settings
from evergreen.spec import folder as folders
from evergreen.spec import mistakes, yaml_text
from evergreen.spec.dataset import DatasetSpec
from evergreen.spec.folder import short
from evergreen.spec.model import ModelSpec
from evergreen.spec.problem import Problem, near, shown
from evergreen.spec.types import NAME

# In place of a query that cannot be read, which is told by itself, so that the rest of the spec is checked all the same.
_ANY_QUERY = "SELECT"
# How the tables and indexes of a dataset end, beside the one that has its name.
_OF_A_DATASET = ("__history", "_pkey", "_event_time")


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
    """Read every spec of a folder; never raises, and one odd file never changes what is said of another.

    Args:
        folder: holds `datasets/` and `models/`.
    """
    paths, odd = folders.files(folder / "datasets")
    datasets, wrong = _load_datasets(paths, {p.stem for p in paths})
    model_paths, odd_models = folders.files(folder / "models")
    models, problems = _load_models(model_paths)
    known = dict.fromkeys([p.stem for p in paths] + [Path(p.file).stem for p in odd])
    found = [*_missing(folder), *odd, *wrong, *odd_models, *problems]
    return _joined(datasets, models, found, known=known)


def load_model(folder: Path, name: str) -> Specs:
    """Read one model and the datasets that it names, and no other file.

    Args:
        folder: holds `datasets/` and `models/`.
        name: of the model; without a file of that name the result is empty.

    Returns:
        What `load_specs` says about them; the model is missing if it, or one of its datasets, has a problem.
    """
    paths, odd = folders.files(folder / "models", name)
    models, problems = _load_models(paths)
    known = [path.stem for path in folders.files(folder / "datasets")[0]]
    datasets: dict[str, DatasetSpec] = {}
    wrong: list[Problem] = []
    for dataset in sorted({dataset for _, model in models for dataset in model.datasets}):
        paths, strange = folders.files(folder / "datasets", dataset)
        loaded, found = _load_datasets(paths, known)
        datasets |= loaded
        wrong += [*strange, *found]
    return _joined(datasets, models, [*odd, *wrong, *problems], known=known)


def load_dataset(folder: Path, name: str) -> Specs:
    """Read one dataset and no other file; see `load_model`."""
    paths, odd = folders.files(folder / "datasets", name)
    datasets, problems = _load_datasets(paths, [p.stem for p in folders.files(folder / "datasets")[0]])
    return Specs(datasets, {}, (*odd, *problems))


def read_model(path: Path, query: str) -> ModelSpec | list[Problem]:
    """Read one model's YAML wherever it lies and whatever its file is named; returns its mistakes if it has any.

    Args:
        path: the YAML.
        query: the feature query, where none lies beside it (`.sql`).
    """
    found, model = _model(path, query, any_name=True)
    return found or model


def _missing(folder: Path) -> list[Problem]:
    if settings.holds_specs(folder):
        return []
    remedy = "holds neither datasets/ nor models/; EVERGREEN_SPECS names the folder of the specs, and `evergreen init` makes a first one"
    return [Problem(str(folder), "", "", remedy)]


def _load_datasets(
    paths: Iterable[Path], names: Collection[str]
) -> tuple[dict[str, DatasetSpec], list[Problem]]:
    datasets: dict[str, DatasetSpec] = {}
    problems: list[Problem] = []
    for path in paths:
        found, dataset = _load(path, DatasetSpec, {})
        problems += found
        taken = [s for s in _OF_A_DATASET if path.stem.endswith(s) and path.stem.removesuffix(s) in names]
        if taken:
            other = path.stem.removesuffix(taken[0])
            remedy = f"is what Evergreen calls a table or an index of the dataset {other}; rename this one"
            problems.append(Problem(short(path), "name", path.stem, remedy))
        elif isinstance(dataset, DatasetSpec):
            datasets[dataset.name] = dataset
    return datasets, problems


def _load_models(paths: Iterable[Path]) -> tuple[list[tuple[Path, ModelSpec]], list[Problem]]:
    models: list[tuple[Path, ModelSpec]] = []
    problems: list[Problem] = []
    for path in paths:
        found, model = _model(path, "")
        problems += found
        if isinstance(model, ModelSpec):
            models.append((path, model))
    return models, problems


def _model(path: Path, query: str, *, any_name: bool = False) -> tuple[list[Problem], Any]:
    sql, unreadable = path.with_suffix(".sql"), []
    try:
        query = folders.text(sql, folders.MOST_SQL_BYTES)
    except FileNotFoundError:
        pass
    except folders.Unreadable as error:
        unreadable = [Problem(short(sql), "", "", str(error))]
        query = _ANY_QUERY
    found, model = _load(path, ModelSpec, {"query": query}, any_name=any_name)
    return [*found, *unreadable], None if unreadable else model


def _joined(
    datasets: dict[str, DatasetSpec],
    models: Iterable[tuple[Path, ModelSpec]],
    problems: list[Problem],
    *,
    known: Iterable[str],
) -> Specs:
    """The specs, less the models whose datasets are not all usable."""
    whole: dict[str, ModelSpec] = {}
    causes = {Path(p.file).stem: p.file for p in reversed(problems) if p.file.startswith("datasets/")}
    for path, model in models:
        missing = [n for n in dict.fromkeys(model.datasets) if n not in datasets]
        problems += [
            Problem(short(path), "datasets", n, _unknown_dataset(n, known), causes.get(n, ""))
            for n in missing
        ]
        if not missing:
            whole[model.name] = model
    return Specs(datasets, whole, tuple(problems))


def _load(
    path: Path, kind: type[DatasetSpec] | type[ModelSpec], extra: dict[str, Any], *, any_name: bool = False
) -> tuple[list[Problem], Any]:
    """One file as its model, or its problems; neither, if it is gone."""
    try:
        return _checked(path, kind, extra, any_name=any_name)
    except FileNotFoundError:
        return [], None
    except (folders.Unreadable, yaml_text.NotUsable) as error:
        return [Problem(short(path), "", "", str(error))], None
    except Exception as error:
        # Whatever a value makes the checks or a library under them do, the others are read on.
        said = f"cannot be checked ({type(error).__name__}: {error}); simplify it until it can"
        return [Problem(short(path), "", "", said)], None


def _checked(
    path: Path, kind: type[DatasetSpec] | type[ModelSpec], extra: dict[str, Any], *, any_name: bool
) -> tuple[list[Problem], Any]:
    name = short(path)
    if not any_name and not NAME.match(path.stem):
        remedy = "is no usable name for a spec: small letters, digits and _, a letter first, at most 48; rename the file"
        return [Problem(name, "", "", remedy)], None
    content, node = yaml_text.parse(folders.text(path))
    if not isinstance(content, dict):
        remedy = "is empty or no mapping; start from the example in docs/your-own-table.md"
        return [Problem(name, "", "", remedy)], None
    if "query" in content:
        remedy = f"goes into {path.with_suffix('.sql').name}, not into the YAML; move it"
        return [Problem(name, "query", "", remedy)], None
    if not any_name and content.get("name") != path.stem:
        remedy = f"must be the file's name; write name: {path.stem}"
        return [Problem(name, "name", shown(content.get("name")), remedy)], None
    try:
        return [], kind.model_validate({**content, **extra})
    except ValidationError as error:
        return mistakes.problems(name, error, kind, node), None


def _unknown_dataset(name: str, known: Iterable[str]) -> str:
    close = near(name, [n for n in known if n != name])
    hint = close if close.startswith("did") else f"add or mend datasets/{name}.yaml"
    return f"no usable dataset of that name; {hint}"


def load_subject(folder: Path, subject: str) -> Specs:
    """The specs that a subject needs, as the files are now: of `model/NAME` or `dataset/NAME` its own, of any other one all."""
    kind, _, name = subject.partition("/")
    if kind == "model":
        return load_model(folder, name)
    return load_dataset(folder, name) if kind == "dataset" else load_specs(folder)


def json_schema(kind: type[DatasetSpec] | type[ModelSpec]) -> dict[str, Any]:
    """JSON Schema of a spec file, for editors that complete and check YAML while it is written."""
    schema = kind.model_json_schema()
    schema.get("properties", {}).pop("query", None)
    return schema
