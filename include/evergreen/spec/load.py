"""Reads a folder of specs: what is good by name, and every mistake of the rest with file, field, value and remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from evergreen.spec.dataset import DatasetSpec
from evergreen.spec.model import ModelSpec


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
    datasets, wrong = _load_datasets(_files(folder / "datasets"))
    models, problems = _load_models(_files(folder / "models"))
    return _joined(datasets, models, [*wrong, *problems], known=datasets)


def load_model(folder: Path, name: str) -> Specs:
    """Read one model and the datasets that it names, and no other file.

    Args:
        folder: holds `datasets/` and `models/`.
        name: of the model; without a file of that name the result is empty.

    Returns:
        What `load_specs` says about them; the model is missing if it, or one of its datasets, has a problem.
    """
    models, problems = _load_models(_files(folder / "models", name))
    named = sorted({dataset for _, model in models for dataset in model.datasets})
    datasets, wrong = _load_datasets([path for n in named for path in _files(folder / "datasets", n)])
    known = [path.stem for path in _files(folder / "datasets")]
    return _joined(datasets, models, [*wrong, *problems], known=known)


def load_dataset(folder: Path, name: str) -> Specs:
    """Read one dataset and no other file; see `load_model`."""
    datasets, problems = _load_datasets(_files(folder / "datasets", name))
    return Specs(datasets, {}, tuple(problems))


def read_model(path: Path, query: str) -> ModelSpec | list[Problem]:
    """Read one model's YAML wherever it lies and whatever its file is named; returns its mistakes if it has any.

    Args:
        path: the YAML.
        query: the feature query, where none lies beside it (`.sql`).
    """
    sql = path.with_suffix(".sql")
    query = sql.read_text(encoding="utf-8") if sql.is_file() else query
    found, model = _load(path, ModelSpec, {"query": query}, any_name=True)
    return found or model


def _files(folder: Path, name: str | None = None) -> list[Path]:
    return sorted(path for path in folder.glob("*.y*ml") if name in (None, path.stem))


def _load_datasets(paths: Iterable[Path]) -> tuple[dict[str, DatasetSpec], list[Problem]]:
    datasets: dict[str, DatasetSpec] = {}
    problems: list[Problem] = []
    for path in paths:
        found, dataset = _load(path, DatasetSpec, {})
        problems += found
        if isinstance(dataset, DatasetSpec):
            datasets[dataset.name] = dataset
    return datasets, problems


def _load_models(paths: Iterable[Path]) -> tuple[list[tuple[Path, ModelSpec]], list[Problem]]:
    models: list[tuple[Path, ModelSpec]] = []
    problems: list[Problem] = []
    for path in paths:
        sql = path.with_suffix(".sql")
        query = sql.read_text(encoding="utf-8") if sql.is_file() else ""
        found, model = _load(path, ModelSpec, {"query": query})
        problems += found
        if isinstance(model, ModelSpec):
            models.append((path, model))
    return models, problems


def _joined(
    datasets: dict[str, DatasetSpec],
    models: Iterable[tuple[Path, ModelSpec]],
    problems: list[Problem],
    *,
    known: Iterable[str],
) -> Specs:
    """The specs, less the models whose datasets are not all usable."""
    whole: dict[str, ModelSpec] = {}
    for path, model in models:
        missing = [n for n in model.datasets if n not in datasets]
        problems += [Problem(_short(path), "datasets", n, _unknown_dataset(n, known)) for n in missing]
        if not missing:
            whole[model.name] = model
    return Specs(datasets, whole, tuple(problems))


def _load(
    path: Path, kind: type[DatasetSpec] | type[ModelSpec], extra: dict[str, Any], *, any_name: bool = False
) -> tuple[list[Problem], Any]:
    short = _short(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return [Problem(short, "", "", f"not readable as YAML: {' '.join(str(error).split())}")], None
    if not isinstance(content, dict):
        return [
            Problem(short, "", "", "is empty or no mapping; start from the example in docs/your-own-table.md")
        ], None
    if "query" in content:
        return [
            Problem(
                short, "query", "", f"goes into {path.with_suffix('.sql').name}, not into the YAML; move it"
            )
        ], None
    if not any_name and content.get("name") != path.stem:
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


def _unknown_dataset(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, [n for n in known if n != name], n=1)
    return f"no usable dataset of that name; {f'did you mean {close[0]}?' if close else 'add or mend datasets/' + name + '.yaml'}"


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


# libyaml's parser takes a fifth of the time; a PyYAML that was built without it has none.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _UniqueKeys(_Loader):  # type: ignore[misc]
    """A safe loader to which a key written twice is a mistake: YAML would silently keep the last one."""


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
