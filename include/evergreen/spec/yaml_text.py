"""A spec's YAML as plain values, with limits on what it may unfold to, and its mistakes in words.

Only what YAML has of its own is read (no tags that make objects). A key is a text and stands there once. Merge keys and
aliases work; what they unfold to is counted before anything is built, because a few lines can unfold to billions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

MOST_DEPTH = 20
MOST_VALUES = 50_000
_TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map", "merge")
}
# Fields that YAML reads as a boolean: of a column, of an entry of `alerts`.
_NAMES = ("true", "false", "on")
_MERGE = "tag:yaml.org,2002:merge"
_READ_AS = {
    "bool": "a boolean (true, false)",
    "int": "a number",
    "float": "a number",
    "null": "nothing",
    "timestamp": "a date",
}
# libyaml's parser takes a fifth of the time; a PyYAML that was built without it has none.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class NotUsable(Exception):
    """A text that is no usable YAML; the message says where, what is wrong and what to do."""


class _UniqueKeys(_Loader):  # type: ignore[misc]  # which class it is shows at run time
    """A safe loader to which a key written twice is a mistake: YAML would silently keep the last one."""


def parse(text: str) -> tuple[Any, yaml.Node | None]:
    """Read a text.

    Returns:
        The content (None for an empty text), and the tree of what is written, see `written`.

    Raises:
        NotUsable: it is no YAML, more than the limits, or holds what no spec can.
    """
    try:
        _within_limits(text)
        loader = _UniqueKeys(text)
        try:
            node = loader.get_single_node()
            content = loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise NotUsable(_in_words(error, text)) from error
    except yaml.YAMLError as error:
        raise NotUsable(" ".join(str(error).replace('in "<unicode string>", ', "").split())) from error
    for where, wrong in _unusable(content, ""):
        raise NotUsable(f"{where}: {wrong}" if where else wrong)
    return content, node


def written(node: yaml.Node | None, location: tuple[Any, ...]) -> tuple[str, str] | None:
    """How an unquoted value of a spec is written, and as what YAML reads it.

    Args:
        node: the tree of `parse`.
        location: the keys and positions that lead to the value.

    Returns:
        Such as `("NO", "a boolean (true, false)")`; None for a text, a section, or where there is nothing.
    """
    for part in location:
        if isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        else:
            return None
    if not isinstance(node, yaml.ScalarNode) or node.tag.rpartition(":")[2] not in _READ_AS:
        return None
    return node.value, _READ_AS[node.tag.rpartition(":")[2]]


def quoted(raw: str, read_as: str) -> str:
    """What to do about an unquoted value where a text must stand."""
    return f"must be a text, and YAML reads {raw or 'an empty value'} as {read_as}: put it in quotes, {raw!r}"


def _within_limits(text: str) -> None:
    """Refuse what unfolds to too much, before it is unfolded."""
    unfolding, documents = _Unfolding(), 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise NotUsable(
                    f"{_line(event)}holds a second document (after ---); one file holds one spec, make it two files"
                )
        if isinstance(event, (yaml.CollectionStartEvent, yaml.ScalarEvent)):
            _known_tag(event)
        if unfolding.values(event) > MOST_VALUES:
            raise NotUsable(
                f"{_line(event)}holds more than {MOST_VALUES:,} values, with what its aliases repeat; no spec does"
            )


class _Unfolding:
    """How many values a text holds with what its aliases repeat, told by its events in their order."""

    def __init__(self) -> None:
        # Anchor and values of each list or section that is not closed yet.
        self._open: list[tuple[str | None, int]] = []
        # By anchor; None: still open.
        self._anchored: dict[str, int | None] = {}

    def values(self, event: Any) -> int:
        """The values so far of the innermost list or section that is open after the event.

        Raises:
            NotUsable: lists and sections in each other without end, or an alias inside of what it repeats.
        """
        if isinstance(event, yaml.CollectionStartEvent):
            self._open.append((event.anchor, 1))
            if event.anchor:
                self._anchored[event.anchor] = None
            if len(self._open) > MOST_DEPTH:
                raise NotUsable(f"{_line(event)}is nested deeper than {MOST_DEPTH} levels; no spec is")
        size = self._closed(event)
        if not self._open:
            return size
        anchor, before = self._open[-1]
        self._open[-1] = (anchor, before + size)
        return before + size

    def _closed(self, event: Any) -> int:
        """How many values an event ends: a scalar, an alias, or a list or section with all that is in it; else 0."""
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = self._open.pop()
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        elif isinstance(event, yaml.AliasEvent):
            found = self._anchored.get(str(event.anchor), 1)
            if found is None:
                raise NotUsable(
                    f"{_line(event)}*{event.anchor} stands inside of what it repeats; write it out"
                )
            return found
        else:
            return 0
        if anchor:
            self._anchored[anchor] = size
        return size


def _known_tag(event: Any) -> None:
    if event.tag and event.tag not in _TAGS and event.tag != "!":
        name = event.tag.replace("tag:yaml.org,2002:", "!!")
        raise NotUsable(
            f"{_line(event)}the tag {name} is not read in a spec; remove it, and write a plain value"
        )


def _line(event: Any) -> str:
    return f"line {event.start_mark.line + 1}: "


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        line = f"line {key_node.start_mark.line + 1}: "
        if key_node.tag == _MERGE:
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            raise NotUsable(
                f"{line}a list or section stands where a name must ({{{{ … }}}} is a template that nobody filled in); "
                "put a text with braces or brackets in quotes"
            )
        if key_node.value in _NAMES:
            key_node.tag = yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG
        key = loader.construct_object(key_node)
        if not isinstance(key, str):
            read_as = _READ_AS.get(key_node.tag.rpartition(":")[2], "no text")
            raise NotUsable(f"{line}the name {key_node.value} {quoted(key_node.value, read_as)}")
        if key in seen:
            raise NotUsable(f"{line}{key!r} is written twice; remove one")
        seen.add(key)
    return dict(loader.construct_mapping(node, deep=True))


def _constructor(what: str) -> Any:
    """A constructor of one kind of scalar that says where, when Python refuses it: an impossible date, a huge number."""
    build = getattr(_UniqueKeys, f"construct_yaml_{what}")

    def construct(loader: _UniqueKeys, node: yaml.ScalarNode) -> Any:
        try:
            return build(loader, node)
        except (ValueError, OverflowError, KeyError, IndexError) as error:
            raw = node.value if len(node.value) <= 40 else f"{node.value[:40]}…"
            kind = "date" if what == "timestamp" else "number"
            raise NotUsable(
                f"line {node.start_mark.line + 1}: {raw} is no possible {kind} ({str(error)[:80]}); mend it, or put it in quotes "
                "if it is a text"
            ) from error

    return construct


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
for _what in ("timestamp", "int", "float", "bool"):
    _UniqueKeys.add_constructor(f"tag:yaml.org,2002:{_what}", _constructor(_what))
for _what in ("value", "merge"):  # a lone = or << is a text
    _UniqueKeys.add_constructor(f"tag:yaml.org,2002:{_what}", _UniqueKeys.construct_yaml_str)

_CONFLICT = re.compile(r"^(<<<<<<< |>>>>>>> )", re.MULTILINE)
_HINTS = (
    (re.compile(r"^\s*\t"), "indent with spaces, not with tabs"),
    (re.compile(r"[:\-,\[]\s*[*&]"), "a text that begins with * or & must be in quotes"),
    (re.compile(r"[:\-,\[]\s*[@`%!|>]"), "a text that begins with @, %, ! or ` must be in quotes"),
    (re.compile(r":\s+[^'\"\s].*:(\s|$)"), "a text that holds a colon and a space must be in quotes"),
)


def _in_words(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    what = " ".join(p for p in (error.problem, f"({error.context})" if error.context else "") if p)
    if mark is None:
        return f"not readable as YAML: {what}"
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    hint = next((f"; {hint}" for pattern, hint in _HINTS if pattern.search(line)), "")
    if _CONFLICT.search(text):
        hint = "; a merge conflict is not resolved: keep one side"
    return f"not readable as YAML: line {mark.line + 1}, column {mark.column + 1}: {what}{hint}"


def _unusable(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """What no database, no JSON and no library takes, wherever in a spec it stands."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _unusable(key, f"{where} (the name)".strip())
            yield from _unusable(item, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unusable(item, f"{where}.{index}")
    elif isinstance(value, str):
        if "\x00" in value or any("\ud800" <= c <= "\udfff" for c in value):
            yield where, "holds a NUL or half a character, which no text has; remove it"
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield where, f"{value} is no usable number; write a finite one, or leave the field out"
    elif isinstance(value, int) and abs(value) >= 2**63:
        yield where, "is larger than any number that is used here (2^63); write a smaller one"
