"""What all evidence has in common: how its JSON is written, how it is read, and what becomes of what cannot be read.

A row of the ledger is read for ever, by releases that know more or less than the one that wrote it. So reading bears with:

- a field that the row does not have: it has its default;
- a field that this release does not know: it stays in the JSON, and nothing else is done with it;
- a field of another kind than it should have, in a row that somebody changed: it has its default and is named in `damaged`.
  Decisions go by `of`, which refuses such a row; letters go by `shown` and by the JSON, so that people see what is there.

Writing is strict: a field that a type does not have is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
)

from evergreen.errors import ErrorReason, TerminalError

VERSION_KEY = "evidence_version"
Time = Annotated[AwareDatetime, PlainSerializer(datetime.isoformat, return_type=str, when_used="json")]
_T = TypeVar("_T")


def rare(default: _T) -> _T:
    """A field that is written only where it says something: it is another value than the default."""
    return Field(default, exclude_if=lambda value: value == default)


class Part(BaseModel):
    """What evidence holds inside, such as a window."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


class Decided(Protocol):
    """What is asked of a decision here."""

    @property
    def id(self) -> int | None: ...
    @property
    def kind(self) -> Any: ...
    @property
    def evidence(self) -> Evidence: ...


class Evidence(Part):
    """What a decision rests on; a type for each family of kinds, see `evergreen.ledger.evidence.TYPES`.

    VERSION counts the changes of what a type's JSON means; it stands in the JSON as `evidence_version`. Rows of before there
    was one have none. A field that comes to mean something else, or to be of another kind, raises it, and the type reads both.
    """

    VERSION: ClassVar[int] = 1

    _row: dict[str, Any] | None = PrivateAttr(None)
    _damaged: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def damaged(self) -> Mapping[str, str]:
        """The fields of the row that are not what they should be, and why; empty for what this release wrote."""
        return self._damaged

    @classmethod
    def read(cls, row: Any) -> Self:
        """The evidence of a row, from its JSON as PostgreSQL gives it; see the module for what it bears with."""
        known = row if isinstance(row, dict) else {}
        damaged = {} if isinstance(row, dict) else {"evidence": "is no object"}
        try:
            read = cls._valid(known)
        except ValidationError as error:
            for found in error.errors(include_url=False, include_input=False):
                field, *inside = found["loc"]
                where = f" in {'.'.join(map(str, inside))}" if inside else ""
                damaged.setdefault(str(field), f"{found['msg']}{where}")
            read = cls._valid({name: value for name, value in known.items() if name not in damaged})
        read._row, read._damaged = dict(known), damaged
        return read

    @classmethod
    def of(cls, decision: Decided) -> Self:
        """The evidence of a decision that another decision rests on.

        Raises:
            TypeError: decisions of this kind have other evidence.
            TerminalError: the row is damaged (DAMAGED_LEDGER).
        """
        found = cls.shown(decision)
        if found.damaged:
            told = "; ".join(f"{name}: {why}" for name, why in found.damaged.items())
            raise TerminalError(
                f"decision {decision.id} of the ledger ({decision.kind.value}) has evidence that cannot be read ({told}), and nothing "
                "is decided by it. The row was changed by hand; restore it from a backup of the warehouse",
                ErrorReason.DAMAGED_LEDGER,
            )
        return found

    @classmethod
    def shown(cls, decision: Decided) -> Self:
        """The same for people, where a damaged field is as if it were absent.

        Raises:
            TypeError: decisions of this kind have other evidence.
        """
        if not isinstance(decision.evidence, cls):
            raise TypeError(f"a decision of kind {decision.kind.value} has no {cls.__name__}")
        return decision.evidence

    def __eq__(self, other: object) -> bool:
        """The same fields of the same type, whether one was read and the other is to be written."""
        return type(other) is type(self) and self.__dict__ == other.__dict__ and self.damaged == other.damaged

    def sentence(self) -> str:
        """What was decided, in the row's own words; empty where it has none."""
        return str(self.to_json().get("message") or "")

    def joined(self, more: Self) -> Self:
        """This with the fields that are set in other evidence; where both have one, with the other's."""
        return type(self)(**{**self._set(), **more._set()})

    def _set(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}

    def to_json(self) -> dict[str, Any]:
        """The evidence as JSON; of a row, what the row has."""
        if self._row is not None:
            return dict(self._row)
        told = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return {VERSION_KEY: self.VERSION, **told}

    @classmethod
    def _valid(cls, known: dict[str, Any]) -> Self:
        return cls.model_validate_json(json.dumps(known), strict=True, extra="ignore")
