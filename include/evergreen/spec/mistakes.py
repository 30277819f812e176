"""What the typed models refuse, as problems of a file: field, value and remedy in the words of the one who writes it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from evergreen.spec.problem import Problem, near, shown
from evergreen.spec.yaml_text import quoted, written

MOST = 40
# What other tools call it.
SYNONYMS = {
    "int": "integer", "bigint": "integer", "long": "integer", "whole": "integer", "double": "float", "number": "float",
    "numeric": "float", "decimal": "float", "real": "float", "str": "text", "string": "text", "varchar": "text", "bool": "boolean",
    "datetime": "timestamp", "timestamptz": "timestamp", "time": "timestamp", "enum": "category", "categorical": "category",
    "classification": "binary", "classifier": "binary", "binary_classification": "binary", "regressor": "regression",
    "auc": "roc_auc", "auroc": "roc_auc", "average_precision": "pr_auc", "logloss": "log_loss", "mse": "rmse",
    "acc": "accuracy", "f1_score": "f1", "fscore": "f1", "wmape": "wape", "quantile_loss": "pinball", "quantile": "pinball",
    "gpu": "cuda", "none": "null", "automatic": "auto", "hand": "manual", "person": "manual",
}  # fmt: skip


def problems(
    short: str, error: ValidationError, kind: type[BaseModel], node: yaml.Node | None
) -> list[Problem]:
    """The mistakes of a file, all at once, at most MOST of them.

    Args:
        short: the file.
        error: what the model said.
        kind: the model.
        node: what is written, see `evergreen.spec.yaml_text.written`.
    """
    items = error.errors(include_url=False)
    found: list[Problem] = []
    for item in items:
        if len(found) >= MOST:
            break
        if not _said_elsewhere(item, items):
            found += _of(short, item, kind, node)
    more = max(len(items), len(found)) - MOST
    if more > 0:
        found = [*found[:MOST], Problem(short, "", "", f"has {more} more mistakes; mend these first")]
    return found


def _of(short: str, item: Any, kind: type[BaseModel], node: yaml.Node | None) -> Iterator[Problem]:
    location = tuple(part for part in item["loc"] if not _internal(part))
    where, value = ".".join(str(part) for part in location), shown(item["input"])
    code, context = item["type"], item.get("ctx") or {}
    if code == "extra_forbidden":
        yield Problem(short, where, value, _misspelt(location, kind))
    elif code == "missing":
        yield Problem(short, where, "", "is missing; add it")
    elif code == "value_error":
        yield from _own(short, where, value, item["msg"].removeprefix("Value error, "))
    elif code == "literal_error":
        yield Problem(
            short, where, value, _none_of(item["input"], re.findall(r"'([^']*)'", context["expected"]))
        )
    elif code in ("model_type", "model_attributes_type"):
        fields = [n for n in _fields(location, kind) if n != "query"]
        yield Problem(
            short,
            where,
            value,
            f"is a section of its own, with the fields {', '.join(fields)}; write them below its name",
        )
    elif code == "dict_type":
        yield Problem(short, where, value, "is a section of its own; write NAME: VALUE lines below its name")
    elif code == "tuple_type":
        yield Problem(short, where, value, "must be a list, such as [a, b]")
    elif code == "string_type":
        raw = written(node, location)
        said = quoted(*raw) if raw else "must be a text"
        yield Problem(short, where, value, said)
    else:
        yield Problem(short, where, value, item["msg"][0].lower() + item["msg"][1:])


def _own(short: str, where: str, value: str, message: str) -> Iterator[Problem]:
    """What the specs' own validators say: a line a problem, most begin with the field."""
    prefix = f"{where}." if where else ""
    for line in message.split("\n"):
        head, separator, rest = line.partition(": ")
        if separator and re.match(r"^[a-z_.0-9A-Z]+$", head):
            yield Problem(short, prefix + head, "", rest)
        else:
            yield Problem(short, where, value, line)


def _internal(part: Any) -> bool:
    """Whether a part of a location is pydantic's own: a validator, or one of several kinds that a value may be of."""
    return str(part).startswith(("function-", "literal[", "entry-"))


def _said_elsewhere(item: Any, items: Iterable[Any]) -> bool:
    """Whether a value that may be of several kinds is told by what another of them says of it."""
    loc = item["loc"]
    return (
        bool(loc)
        and str(loc[-1]).startswith("literal[")
        and any(other is not item and other["loc"][: len(loc) - 1] == loc[:-1] for other in items)
    )


def _none_of(value: Any, options: list[str]) -> str:
    name = str(value).lower() if isinstance(value, (str, bool)) else ""
    # Of varchar(20), int64, datetime64[ns] and timestamp with time zone the first word counts.
    word = re.match(r"[a-z_]*", name)
    listed = f"must be one of {', '.join(options)}"
    for given in (name, word[0] if word else ""):
        meant = SYNONYMS.get(given, given)
        if meant in options:
            return f"{listed}; did you mean {meant}?"
    hint = near(name, [*options, *(s for s, meant in SYNONYMS.items() if meant in options)])
    if not hint.startswith("did"):
        return listed
    meant = hint.removeprefix("did you mean ").removesuffix("?")
    return f"{listed}; did you mean {SYNONYMS.get(meant, meant)}?"


def _misspelt(location: tuple[Any, ...], kind: type[BaseModel]) -> str:
    hint = near(str(location[-1]), [f for f in _fields(location[:-1], kind) if f != "query"])
    return f"unknown field; {hint.replace('known:', 'known here:') if not hint.startswith('did') else hint}"


def _fields(location: tuple[Any, ...], kind: type[BaseModel]) -> list[str]:
    """The fields of the section at a location."""
    current = kind
    for part in location:
        field = current.model_fields.get(part) if isinstance(part, str) else None
        inner = _models(field.annotation) if field else []
        current = inner[0] if inner else current
    return [field.alias or name for name, field in current.model_fields.items()]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in getattr(annotation, "__args__", ()) for m in _models(a)]
