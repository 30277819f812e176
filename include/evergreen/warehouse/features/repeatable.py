"""Is a query a function of the tables that it may read, the same at each run?

Asked is PostgreSQL itself: it keeps the query of a view as it understood it, with every table, function and type by its
number, and its catalogue knows which functions always give the same answer (IMMUTABLE) and which may change their mind.
Of those that depend on settings (STABLE) the ones in `SETTLED` depend only on what every reader sets alike.
"""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Rows = Callable[[str, Sequence[int]], list[dict[str, Any]]]
"""Runs a query on the catalogue; {} in it stands for an array of the numbers."""

SHIFT_H = 36
"""Hours between UTC and the other time zone: none of `today`, `now` and a fixed time moves by the same there."""

SETTLED = frozenset(
    ["anytextcat", "array_to_json", "array_to_string", "concat", "concat_ws", "convert", "convert_from", "convert_to", "date", "date_add", "date_part", "date_subtract", "date_trunc", "extract", "format", "generate_series", "in_range", "interval_pl_timestamptz", "json_agg", "json_agg_strict", "json_build_array", "json_build_object", "json_object_agg", "json_object_agg_strict", "json_object_agg_unique", "json_object_agg_unique_strict", "jsonb_agg", "jsonb_agg_strict", "jsonb_build_array", "jsonb_build_object", "jsonb_object_agg", "jsonb_object_agg_strict", "jsonb_object_agg_unique", "jsonb_object_agg_unique_strict", "length", "make_timestamptz", "money", "numeric", "overlaps", "pg_typeof", "quote_literal", "quote_nullable", "row_to_json", "textanycat", "time", "timestamp", "timestamptz", "timestamptz_mi_interval", "timestamptz_pl_interval", "timezone", "to_char", "to_date", "to_json", "to_jsonb", "to_number", "to_timestamp"]
)  # fmt: skip
_COMPARES = re.compile(r"(date|timestamp|timestamptz)_(cmp|eq|ge|gt|le|lt|ne)_(date|timestamp|timestamptz)")
_SETTLED_TYPES = frozenset({"interval"})  # their texts mean the same under the settings of a reader

# What these give follows the order in which rows come, which no query has but by ORDER BY.
_BY_ORDER = frozenset(
    [
        "array_agg",
        "string_agg",
        "json_agg",
        "json_agg_strict",
        "json_object_agg",
        "json_object_agg_strict",
        "jsonb_agg",
        "jsonb_agg_strict",
        "xmlagg",
        "row_number",
        "ntile",
        "lag",
        "lead",
        "first_value",
        "last_value",
        "nth_value",
    ]
)
_ANY_ROW = frozenset({"any_value"})
_CALLED = ("funcid", "opfuncid", "aggfnoid", "winfnoid")
_SQL_VALUES = [
    "current_date",
    "current_time",
    "current_time",
    "current_timestamp",
    "current_timestamp",
    "localtime",
    "localtime",
    "localtimestamp",
    "localtimestamp",
    "current_role",
    "current_user",
    "user",
    "session_user",
    "current_catalog",
    "current_schema",
]
_PART = re.compile(r"[(){}]|(?:\\.|[^\s(){}\\])+", re.DOTALL)
_NONE = "<>"


@dataclass(frozen=True)
class Objection:
    """Why a query may not be used: the word of its text that it is about, and what to write instead."""

    word: str
    text: str


@dataclass
class Node:
    """A node of the query as PostgreSQL keeps it; `query` is the number of the SELECT that it stands in."""

    name: str
    query: int
    fields: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    def one(self, name: str) -> str:
        """A field of one value; of a node or nothing, too."""
        found = self.fields.get(name) or [_NONE]
        return found[0] if isinstance(found[0], str) else "{}"

    def given(self, name: str) -> bool:
        """Whether a field has anything in it."""
        return self.one(name) != _NONE

    def number(self, name: str) -> int:
        """A field that is a number; 0 where there is none."""
        found = self.one(name)
        return int(found) if re.fullmatch(r"-?\d+", found) else 0


def objections(tree: str, elsewhere: str, now: int, allowed: Collection[int], rows: Rows) -> list[Objection]:
    """Everything in a query that makes it read, do or give something else than its tables say.

    Args:
        tree: the query as PostgreSQL keeps it (`pg_rewrite.ev_action`), made with TimeZone UTC.
        elsewhere: the same, made in the same transaction with a time zone `SHIFT_H` hours ahead of UTC.
        now: the time of that transaction, in microseconds since 2000.
        allowed: the tables and views that it may read, by their numbers.
        rows: reads the catalogue.
    """
    nodes = list(_nodes(tree))
    found = [
        *_tables(nodes, allowed, rows),
        *_functions(nodes, rows),
        *_texts_as_types(nodes, rows),
        *_clauses(nodes),
        *_written_times(nodes, list(_nodes(elsewhere)), now),
    ]
    return sorted(set(found), key=lambda o: (o.word, o.text))


def _nodes(tree: str) -> Iterator[Node]:
    """The nodes of a tree, inner ones first. The format is PostgreSQL's own (nodes/outfuncs.c)."""
    opened: list[tuple[Node, str]] = []
    queries, count, name = [0], 0, ""
    fresh = False
    for part in _PART.findall(tree):
        if part == "{":
            fresh = True
        elif fresh:
            if part == "QUERY":
                count += 1
                queries.append(count)
            opened.append((Node(part, queries[-1]), name))
            fresh = False
        elif part == "}":
            node, name = opened.pop()
            if node.name == "QUERY":
                queries.pop()
            yield node
            if opened:
                opened[-1][0].fields[name].append(node)
        elif part.startswith(":"):
            name = part[1:]
        elif part not in "()" and opened:
            opened[-1][0].fields[name].append(part)


def _tables(nodes: list[Node], allowed: Collection[int], rows: Rows) -> Iterator[Objection]:
    read = {n.number("relid") for n in nodes if n.name == "RANGETBLENTRY"} - {0}
    for row in rows(
        "SELECT c.oid, n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE c.oid = ANY ({})",
        sorted(read - set(allowed)),
    ):
        name = f"{row['nspname']}.{row['relname']}"
        yield Objection(
            row["relname"], f"reads {name}, which is no dataset of the model; add a dataset for it"
        )


def _functions(nodes: list[Node], rows: Rows) -> Iterator[Objection]:
    called: dict[int, list[Node]] = defaultdict(list)
    for node in nodes:
        for name in _CALLED:
            if number := node.number(name):
                called[number].append(node)
    unordered = {
        (n.query, n.number("winref"))
        for n in nodes
        if n.name == "WINDOWCLAUSE" and not n.given("orderClause")
    }
    # An aggregate of one's own is as good as the functions that it is made of.
    known = rows(
        "WITH called AS (SELECT unnest({}) AS oid), parts AS (SELECT oid, oid AS part FROM called UNION"
        " SELECT c.oid, unnest(ARRAY[aggtransfn, aggfinalfn, aggcombinefn, aggmtransfn, aggminvtransfn, aggmfinalfn]::oid[])"
        " FROM called AS c JOIN pg_aggregate AS a ON a.aggfnoid = c.oid AND c.oid >= 16384)"
        " SELECT parts.oid, p.proname, f.proname AS part, f.provolatile::text AS volatile, f.prosecdef AS definer,"
        " f.pronamespace = 'pg_catalog'::regnamespace AS own"
        " FROM parts JOIN pg_proc AS p ON p.oid = parts.oid JOIN pg_proc AS f ON f.oid = parts.part",
        sorted(called),
    )
    for row in known:
        by_chance = any(_by_chance(n, unordered) for n in called[row["oid"]])
        if wrong := _not_repeatable(row, by_chance):
            yield Objection(row["proname"], f"calls {row['proname']}(){wrong}")
    for number in called.keys() - {row["oid"] for row in known}:
        yield Objection("", f"calls function {number}, which PostgreSQL's catalogue does not have")


def _not_repeatable(row: Mapping[str, Any], by_chance: bool) -> str:
    """Why a function may give something else at each run; empty where it may not.

    Args:
        row: of it in PostgreSQL's catalogue.
        by_chance: it gets rows in no order.
    """
    name, own = row["proname"], row["own"]
    if row["definer"]:
        return ", which has the rights of its owner (SECURITY DEFINER)"
    if row["volatile"] == "v":
        return ", which may do or give something else at each run (VOLATILE)"
    if row["volatile"] == "s" and not (own and (row["part"] in SETTLED or _COMPARES.fullmatch(row["part"]))):
        return ", which depends on the time or the session (STABLE); compute from the row's own event time"
    if name in _ANY_ROW and own:
        return ", which takes whichever row comes; write min() or max()"
    if name in _BY_ORDER and own and by_chance:
        return " on rows in no order; give it an ORDER BY"
    return ""


def _by_chance(node: Node, unordered: Collection[tuple[int, int]]) -> bool:
    """Whether a function of many rows gets them in no order."""
    if node.name == "WINDOWFUNC":
        return (node.query, node.number("winref")) in unordered
    return not node.given("aggorder") and not node.given("aggdistinct")


def _texts_as_types(nodes: list[Node], rows: Rows) -> Iterator[Objection]:
    """Texts of rows that become another type: `now` in a text column would be a time of the run."""
    made = {n.number("resulttype") for n in nodes if n.name == "COERCEVIAIO"}
    made |= {n.number("typid") for n in nodes if n.name == "JSONRETURNING"}
    made |= {int(t) for n in nodes if n.name == "TABLEFUNC" for t in n.fields["coltypes"] if str(t).isdigit()}
    for row in rows(
        "SELECT t.typname, format_type(t.oid, NULL) AS shown FROM pg_type AS t"
        " LEFT JOIN pg_type AS e ON e.oid = t.typelem AND t.typlen = -1 AND t.typcategory = 'A'"
        " JOIN pg_proc AS p ON p.oid = coalesce(e.typinput, t.typinput)"
        " WHERE t.oid = ANY ({}) AND p.provolatile <> 'i' AND coalesce(e.typtype, t.typtype) <> 'e'",
        sorted(made - {0}),
    ):
        if row["typname"].lstrip("_") not in _SETTLED_TYPES:
            yield Objection(
                row["typname"].lstrip("_"),
                f"reads a text as {row['shown']}: a text such as 'now' would be another one at each run; write "
                "to_date(…, 'YYYY-MM-DD') or to_timestamp(…, 'YYYY-MM-DD HH24:MI:SS'), or let the dataset's spec give "
                "the column its type",
            )


def _clauses(nodes: list[Node]) -> Iterator[Objection]:
    for node in nodes:
        if node.name == "SQLVALUEFUNCTION":
            name = _SQL_VALUES[min(node.number("op"), len(_SQL_VALUES) - 1)]
            yield Objection(
                name,
                f"uses {name}, which depends on the time or the session; compute from the row's own event time",
            )
        elif node.name == "RANGETBLENTRY" and node.given("tablesample"):
            yield Objection(
                "tablesample", "has a TABLESAMPLE, which takes other rows from a table that was changed"
            )
        elif node.name == "QUERY":
            yield from _selects(node)


def _selects(query: Node) -> Iterator[Objection]:
    if query.one("hasForUpdate") == "true" or query.given("rowMarks"):
        yield Objection("for", "locks rows (FOR UPDATE or FOR SHARE); leave that out")
    if query.number("commandType") != 1:
        yield Objection("", "is no SELECT")
    if query.given("sortClause"):
        return
    if query.one("hasDistinctOn") == "true":
        yield Objection("distinct", "has a DISTINCT ON of rows in no order; give it an ORDER BY")
    one_row = query.one("hasAggs") == "true" and not query.given("groupClause")
    offset = query.fields["limitOffset"][0] if query.given("limitOffset") else None
    if (query.given("limitCount") or (offset is not None and not _is_zero(offset))) and not one_row:
        yield Objection("limit", "has a LIMIT or OFFSET of rows in no order; give it an ORDER BY")


def _is_zero(node: Node) -> bool:
    """Whether an expression is the number 0, as in the OFFSET 0 that keeps PostgreSQL from rewriting a query."""
    while node.name == "FUNCEXPR" and len(node.fields["args"]) == 1:
        node = node.fields["args"][0]
    return node.name == "CONST" and not any(_bytes(node))


def _written_times(nodes: list[Node], elsewhere: list[Node], now: int) -> Iterator[Objection]:
    """Times such as 'now' and 'today', which PostgreSQL makes constants of when it reads the query.

    Under another time zone `today` is another day, and a time that is written without a zone is earlier by the hours
    between the two. What moves otherwise, or is this very moment, was not written as it stands.
    """
    here, there = ([n for n in tree if n.name == "CONST"] for tree in (nodes, elsewhere))
    moved = -SHIFT_H * 3600 * 1_000_000
    for one, other in zip(here, there, strict=True):
        a_words, b_words = _words(_bytes(one)), _words(_bytes(other))
        pairs = zip(a_words, b_words, strict=False)
        if len(a_words) != len(b_words) or any(
            b - a not in (0, moved) or abs(a - now) < 1_000_000 for a, b in pairs
        ):
            yield Objection(
                "",
                "has a time such as 'now' or 'today', which is another one at each run; write the time itself, with its "
                "zone, or compute from the row's own event time",
            )


def _bytes(node: Node) -> bytes:
    """The value of a constant; empty for NULL. It is kept as its length and then its bytes, in brackets."""
    numbers = [int(b) for b in node.fields["constvalue"] if re.fullmatch(r"-?\d+", str(b))]
    return bytes(b % 256 for b in numbers[1:])


def _words(value: bytes) -> list[int]:
    value += bytes(-len(value) % 8)
    return [word for (word,) in struct.iter_unpack("=q", value)]
