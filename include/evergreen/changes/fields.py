"""Which fields of a spec differ, from what to what, and what each of them decides."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evergreen.spec import DatasetSpec, ModelSpec
from evergreen.spec.problem import printable

LONGEST = 200
NOT_SET = "not set"


@dataclass(frozen=True)
class Field:
    """A field that differs: its name with dots, and its values as the spec's JSON has them; None where it is not set."""

    name: str
    before: Any
    after: Any

    @property
    def change(self) -> str:
        """From what to what; of a list what came and what went."""
        if isinstance(self.before, list) and isinstance(self.after, list):
            old, new = (Counter(map(_one, items)) for items in (self.before, self.after))
            moved = [f"+{item}" for item in (new - old).elements()] + [
                f"-{item}" for item in (old - new).elements()
            ]
            if moved:
                return printable(", ".join(moved), LONGEST)
        return f"{_one(self.before)} → {_one(self.after)}"


# By the beginning of the field's name, the longest that fits; what is trained is told by its hash, tables by their columns.
_OF_A_MODEL = {
    "training.engine": "where fits run changes, not what they learn",
    "training.device": "where fits run changes, not what they learn",
    "gate": "the next challenger is judged by other rules",
    "monitoring": "the champion is watched by other rules from the next run of the monitor on; its reference stays",
    "watch": "a new champion is compared with the previous one by other rules",
    "scoring": "rows are scored at other times, or in portions of another size; predictions that were made stay",
    "schedule": "challengers are trained at other times",
    "alerts": "mails go to others",
    "owner": "another owner is shown in Airflow and in mails",
    "description": "another description is shown in Airflow and MLflow",
}
_READ = "files are read in another way from the next one on; those that were taken are not read again"
_HELD = "other rows or files are held back from the next file on; what was published stays"
_OF_A_DATASET = {
    "source": _READ,
    **dict.fromkeys(("expectations", "quarantine", "max_bad_rows", "future_tolerance", "earliest", "duplicates"), _HELD),
    "arrival": "rows count as known from other times on, from the next file on",
    "deleted": "another column says which rows are deleted, of those that were published, too",
    "schedule": "new files are looked for at other times",
    "alerts": "mails go to others",
    "owner": "another owner is shown in Airflow and in mails",
    "description": "another description is shown in Airflow",
}  # fmt: skip
_OF_A_COLUMN = {
    **dict.fromkeys(("from", "format", "missing", "decimal", "thousands", "true", "false"), _READ),
    **dict.fromkeys(("required", "null_share_max", "min", "max", "values"), _HELD),
}


def differing(before: DatasetSpec | ModelSpec, after: DatasetSpec | ModelSpec) -> tuple[Field, ...]:
    """The fields that differ, in the order of the spec; a default that is written out is no difference, SQL is left out."""
    old, new = _flat(before), _flat(after)
    whole: list[Field] = []
    if isinstance(before, DatasetSpec) and isinstance(after, DatasetSpec):
        whole = list(_whole_columns(before, after))
    # Of a column that came or went its type says enough.
    told = tuple(f"{field.name}." for field in whole)
    names = [n for n in dict.fromkeys([*old, *new]) if not (told and n.startswith(told))]
    parts = [Field(n, old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)]
    return (*whole, *parts)


def effects(fields: tuple[Field, ...], kind: str) -> Iterator[str]:
    """What the fields decide, a sentence each, without those that training and tables are told of."""
    known = _OF_A_MODEL if kind == "model" else _OF_A_DATASET
    seen: dict[str, list[str]] = {}
    for field in fields:
        head, _, rest = field.name.partition(".")
        if kind == "dataset" and head == "columns":
            said = _OF_A_COLUMN.get(rest.rpartition(".")[2], "")
        else:
            said = known.get(".".join(field.name.split(".")[:2])) or known.get(head, "")
        if said:
            seen.setdefault(said, []).append(head)
    for said, heads in seen.items():
        yield f"{', '.join(dict.fromkeys(heads))}: {said}"


def tables(before: DatasetSpec, after: DatasetSpec) -> Iterator[str]:
    """What becomes of the dataset's tables; see `warehouse.migrate.ensure_dataset` and `warehouse.publish.prepare`."""
    name, old, new = after.name, before.columns, after.columns
    both = f"data.{name} and data.{name}__history"
    if added := [f"{n} ({c.type})" for n, c in new.items() if n not in old]:
        yield f"{both} get {', '.join(added)} with the next file; rows of before have no value there"
    if gone := [n for n in old if n not in new]:
        yield f"{', '.join(gone)} stays in {both} with its values, and no query sees it any more"
    refused = [
        f"columns.{n}.type ({old[n].type} → {c.type})" for n, c in new.items() if n in old and old[n].type != c.type
    ]  # fmt: skip
    if sorted(before.key) != sorted(after.key):
        refused.append(f"key ({', '.join(before.key)} → {', '.join(after.key)})")
    if refused:
        yield (
            f"published rows keep their shape: where {name} has any, the next file is refused for {', '.join(refused)}. "
            "Publish under a new dataset name, or undo it"
        )


def _flat(spec: DatasetSpec | ModelSpec) -> dict[str, Any]:
    content = spec.model_dump(mode="json", by_alias=True, exclude={"name", "query"})
    # What says nothing is as if it were not there.
    return {name: value for name, value in _leaves(content, "") if value not in (None, "", [])}


def _leaves(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _whole_columns(before: DatasetSpec, after: DatasetSpec) -> Iterator[Field]:
    old, new = before.columns, after.columns
    yield from (Field(f"columns.{n}", None, c.type) for n, c in new.items() if n not in old)
    yield from (Field(f"columns.{n}", c.type, None) for n, c in old.items() if n not in new)


def _one(value: Any) -> str:
    if value is None:
        return NOT_SET
    if isinstance(value, list):
        return printable(", ".join(_one(v) for v in value), LONGEST)
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), LONGEST)
