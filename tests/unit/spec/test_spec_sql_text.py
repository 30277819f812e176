"""What of an SQL text is no SQL, where PostgreSQL is not there to be asked."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from evergreen.spec import ModelSpec, sql_text

ONE = {
    "plain": "SELECT 1",
    "ends with a semicolon": "SELECT 1;\n",
    "several semicolons at the end": "SELECT 1 ; ;\n",
    "comment after the last semicolon": "SELECT 1; -- done; really",
    "nested comment after it": "SELECT 1; /* a /* b; */ c; */",
    "in a text": "SELECT 'a;b'",
    "in a text with a doubled quote": "SELECT 'it''s;'",
    "in a text with a backslash": r"SELECT 'C:\' || ';'",
    "in an escaped text": r"SELECT E'\'; DROP TABLE x; '",
    "in dollar quotes": "SELECT $$a;b$$",
    "in tagged dollar quotes": "SELECT $t$a;$$;b$t$",
    "in a name": 'SELECT "a;b" FROM t',
    "tablesample": "SELECT * FROM t TABLESAMPLE SYSTEM (1) REPEATABLE (7)",
}
SEVERAL = {
    "two": "SELECT 1; SELECT 2",
    "after a text that ends with a backslash": r"SELECT '\'; DROP TABLE x",
    "after an escaped text": r"SELECT E'\''; DROP TABLE x",
    "after dollar quotes": "SELECT $$'$$; DROP TABLE x --'",
    "after a comment in a comment": "SELECT 1 /* a /* b */ c */; DROP TABLE x",
    "after a name that ends with e": "SELECT 1 AS age'\\'; DROP TABLE x",
    "a dollar inside a name": "SELECT a$b FROM t; SELECT $1",
}


@pytest.mark.parametrize("text", ONE.values(), ids=ONE.keys())
def test_one_statement(text: str) -> None:
    assert not sql_text.several(text)


@pytest.mark.parametrize("text", SEVERAL.values(), ids=SEVERAL.keys())
def test_several_statements(text: str) -> None:
    assert sql_text.several(text)


@pytest.mark.parametrize(
    ("text", "texts", "left"),
    [
        pytest.param("a -- b\nc", False, "a     \nc", id="comment"),
        pytest.param("a /* b\n/* c */ d */ e", False, "a     \n             e", id="nested comment"),
        pytest.param("a '--b' c", False, "a '--b' c", id="text that looks like a comment"),
        pytest.param("a '--b' c", True, "a       c", id="text taken out too"),
        pytest.param('a "--b" c', True, 'a "--b" c', id="name stays"),
        pytest.param("a $x$ b\n$x$ c", True, "a      \n    c", id="dollar quotes"),
        pytest.param("a /* b", False, "a     ", id="comment without end"),
        pytest.param("a 'b", True, "a   ", id="text without end"),
    ],
)
def test_places_and_lines_stay_where_they_are(text: str, texts: bool, left: str) -> None:
    found = sql_text.blank(text, texts=texts)
    assert found == left
    assert len(found) == len(text)


def test_zones_are_those_that_the_query_names_in_quotes():
    query = """
        SELECT at AT TIME ZONE 'UTC+2' AS a, timezone('CET', at) AS b, at at  time
            zone /* of the shop */ 'Europe/Berlin' AS c, 'AT TIME ZONE ''UTC+3''' AS d,
            at AT TIME ZONE INTERVAL '+02:00' AS e, at AT TIME ZONE zone AS f -- AT TIME ZONE 'UTC+9'
        FROM rides"""
    assert sql_text.zones(query) == ["UTC+2", "CET", "Europe/Berlin"]


@pytest.mark.parametrize("zone", ["UTC+2", "gmt-5", "+02:00", "-3", "Berlin2", "<+02>-2", "CET-1CEST"])
def test_a_zone_with_posix_sign_is_refused_in_a_query(zone):
    query = f"SELECT id, at AT TIME ZONE '{zone}' AS local, at, x, y FROM rides"
    with pytest.raises(ValidationError, match=r"models/rides\.sql: the time zone .*(write|or) "):
        ModelSpec.model_validate(spec(query))


@pytest.mark.parametrize(
    "zone", ["UTC", "utc", "UTC+0", "CET", "EST5EDT", "Europe/Berlin", "europe/berlin", "Etc/GMT-2"]
)
def test_a_zone_that_means_what_it_says_is_taken(zone):
    assert ModelSpec.model_validate(
        spec(f"SELECT id, at AT TIME ZONE '{zone}' AS local, at, x, y FROM rides")
    )


def spec(query: str) -> dict[str, object]:
    return {
        "name": "rides", "task": "regression", "datasets": ["rides"], "key": ["id"], "event_time": "at", "query": query,
        "label": {"column": "y"}, "features": {"numeric": ["x"]},
    }  # fmt: skip
