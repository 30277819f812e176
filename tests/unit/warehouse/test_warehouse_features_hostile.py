"""A feature query reads its model's datasets as they were known and nothing else, writes nothing, and is one statement.

Each query of the tables is refused by the check, and again where it is to be run without one. What PostgreSQL's role and
read-only transaction refuse they refuse also where nothing has judged the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

import pytest

from evergreen.errors import ErrorReason, TerminalError
from evergreen.spec import DatasetSpec, ModelSpec, Specs
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.features import feature_query, views
from evergreen.warehouse.features.lookup import Lookup
from evergreen.warehouse.migrate import ensure_dataset

AS_OF = datetime(2024, 2, 1, tzinfo=UTC)
PLAIN = "SELECT ts, x, kind, demand FROM rides_hourly"


def x(expression: str) -> str:
    """A query in which the feature x is an expression."""
    return f"SELECT ts, ({expression})::float8 AS x, kind, demand FROM rides_hourly"


READS = {
    "table": "SELECT ts, x, kind, demand FROM data.rides_hourly",
    "quoted table": 'SELECT ts, x, kind, demand FROM "data" . "rides_hourly"',
    "history": "SELECT ts, x, kind, demand FROM data.rides_hourly__history",
    "in a subquery": x("SELECT max(demand) FROM data.rides_hourly"),
    "in a with": f"WITH d AS (SELECT * FROM data.rides_hourly) {x('SELECT max(demand) FROM d')}",
    "dataset not named": "SELECT ts, x, kind, demand FROM weather",
    "predictions": x("SELECT count(*) FROM evergreen.prediction"),
    "predictions of the reader": x("SELECT count(*) FROM _prediction"),
    "itself": x("SELECT count(*) FROM _features"),
    "ledger": x("SELECT count(*) FROM evergreen.decision"),
    "foreign table": x("SELECT count(*) FROM public.lookup"),
    "by a function of one's own": x("cheat()"),
    "by its owner's rights": x("cheat_as_owner()"),
    "by text": x("SELECT length(query_to_xml('SELECT * FROM data.rides_hourly', true, true, '')::text)"),
    "by a name": x("length(table_to_xml('data.rides_hourly', true, true, '')::text)"),
}
CATALOGUE = {
    "catalogue": x("SELECT max(reltuples) FROM pg_class"),
    "catalogue by its schema": x("SELECT max(reltuples) FROM pg_catalog.pg_class"),
    "information schema": x("SELECT count(*) FROM information_schema.tables"),
    "sessions": x("SELECT count(*) FROM pg_stat_activity"),
    "files": x("length(pg_read_file('PG_VERSION'))"),
    "folders": x("SELECT count(*) FROM pg_ls_dir('.')"),
    "settings": x("length(current_setting('data_directory'))"),
}
WRITES = {
    "second statement": f"{PLAIN}; DELETE FROM evergreen.decision",
    "after an escaped quote": x(r"length(E'\'')") + "; DELETE FROM evergreen.decision --'",
    "after a dollar quote": x("length($$'$$)") + "; DELETE FROM evergreen.decision --'",
    "trigger": x("length($$'$$)")
    + "; ALTER TABLE evergreen.decision DISABLE TRIGGER ALL; DELETE FROM evergreen.decision --'",
    "out of the parentheses": f"{PLAIN}) AS q; DROP TABLE data.rides_hourly; --",
    "delete": "DELETE FROM data.rides_hourly RETURNING ts, x, kind, demand",
    "delete in a with": "WITH d AS (DELETE FROM data.rides_hourly RETURNING *) SELECT ts, x, kind, demand FROM d",
    "update of the view": "UPDATE rides_hourly SET x = 0 RETURNING ts, x, kind, demand",
    "into": "SELECT ts, x, kind, demand INTO stolen FROM rides_hourly",
    "table": "CREATE TABLE stolen AS SELECT * FROM rides_hourly",
    "block": "DO $$ BEGIN DELETE FROM evergreen.decision; END $$",
    "copy": "COPY (SELECT 1) TO PROGRAM 'true'",
    "role": "SET ROLE NONE",
    "role by a function": x("length(set_config('role', 'none', false))"),
    "explained": "EXPLAIN ANALYZE DELETE FROM evergreen.decision",
    "large object": x("lo_create(4711)::int"),
    "sequence": x("nextval('evergreen.decision_id_seq')"),
    "function of one's own": x("scrub()"),
    "lock": f"{PLAIN} FOR UPDATE",
    "lock in a subquery": "SELECT ts, x, kind, demand FROM (SELECT * FROM rides_hourly FOR SHARE) AS q",
    "advisory lock": x("length(pg_advisory_lock(1)::text)"),
    "other sessions": x("pg_terminate_backend(0)::int"),
}
CHANCE = {
    "now": x("extract(epoch FROM now() - ts)"),
    "current date": x("current_date - ts::date"),
    "local time": x("extract(epoch FROM localtimestamp)"),
    "clock": x("extract(epoch FROM clock_timestamp())"),
    "age until today": x("extract(epoch FROM age(ts))"),
    "written now": x("extract(epoch FROM 'now'::timestamptz - ts)"),
    "written now, rounded": x("extract(epoch FROM timestamptz(0) 'now' - ts)"),
    "escaped now": x(r"extract(epoch FROM E'n\x6fw'::timestamptz - ts)"),
    "now on two lines": x("extract(epoch FROM 'no'\n'w'::timestamptz - ts)"),
    "now out of parts": x("extract(epoch FROM ('no' || 'w')::timestamptz - ts)"),
    "now out of a row": x("kind::date - ts::date"),
    "now out of JSON": x(
        """SELECT extract(epoch FROM t) FROM json_to_record('{"t":"now"}') AS r (t timestamptz)"""
    ),
    "today": f"{PLAIN} WHERE ts < 'today'",
    "yesterday in a zone": f"{PLAIN} WHERE ts < 'yesterday 10:00+00'",
    "from today on": f"{PLAIN} WHERE ts::date <@ '[today,)'::daterange",
    "array of now": f"{PLAIN} WHERE ts = ANY ('{{now}}')",
    "random": x("random()"),
    "uuid": x("length(gen_random_uuid()::text)"),
    "user": x("length(current_user)"),
    "version": x("length(version())"),
    "process": x("pg_backend_pid()"),
    "sample": f"{PLAIN} TABLESAMPLE SYSTEM (10)",
    "row's place": x("length(ctid::text)"),
    "limit": f"{PLAIN} LIMIT 10",
    "offset": f"{PLAIN} OFFSET 10",
    "row number": x("row_number() OVER (PARTITION BY kind)"),
    "array": x("SELECT (array_agg(x))[1] FROM rides_hourly"),
    "distinct on": "SELECT DISTINCT ON (kind) ts, x, kind, demand FROM rides_hourly",
}
FINE = {
    "plain": PLAIN,
    "comment after the end": f"{PLAIN}; -- done; really",
    "comment after the last line": f"{PLAIN} -- no end",
    "nested comment": f"/* a /* b; */ ; c */ {PLAIN};",
    "dollar quote": x("length($q$ ; '$q$)") + ";",
    "escaped quote": x(r"length(E'\';')"),
    "two names alike": "SELECT h.*, p.* FROM rides_hourly AS h LEFT JOIN rides_hourly AS p ON p.ts = h.ts - interval '1h'"
    " WHERE h.x > 0".replace("SELECT h.*", "SELECT h.ts, h.x, h.kind, h.demand, h._arrived_at").replace("p.*", "p._arrived_at"),
    "calendar": x("extract(hour FROM ts AT TIME ZONE 'Europe/Berlin') + length(to_char(ts, 'Dy')) + (ts::date - date '2024-01-01')"),
    "times as written": f"{PLAIN} WHERE ts >= '2024-01-01' AND ts < '2024-02-01 00:00+02' AND ts < 'infinity'",
    "times in lists": f"{PLAIN} WHERE ts = ANY ('{{2024-01-01}}') OR ts IN ('2024-01-02', '2024-01-03')"
    " OR ts <@ '[2024-01-04,2024-01-05)'::tstzrange",
    "words": f"{PLAIN} WHERE kind NOT IN ('now', 'today')",
    "per cent": f"{PLAIN} WHERE x::int % 2 = 0 OR kind LIKE '%{{}}%'",
    "window": x("avg(x) OVER (PARTITION BY kind ORDER BY ts RANGE BETWEEN '7 days' PRECEDING AND '1h' PRECEDING)"),
    "ordered": f"SELECT * FROM ({PLAIN} ORDER BY ts LIMIT 5) AS q OFFSET 0",
    "latest before": "SELECT r.ts, l.x, r.kind, r.demand FROM rides_hourly AS r LEFT JOIN LATERAL"
    " (SELECT p.x FROM rides_hourly AS p WHERE p.ts < r.ts ORDER BY p.ts DESC LIMIT 1) AS l ON true",
    "aggregate": x("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x) + count(DISTINCT kind) FROM rides_hourly LIMIT 1"),
    "values": "SELECT ts, v.y AS x, kind, demand FROM rides_hourly JOIN (VALUES ('dry', 1.0), ('wet', 2)) AS v (k, y) ON v.k = kind",
    "text as number": x("x::text::numeric"),
    "JSON": x("json_build_object('a', x) ->> 'a'"),
}  # fmt: skip


@pytest.fixture
def specs() -> Specs:
    columns = {
        "ts": {"type": "timestamp"},
        "kind": {"type": "category"},
        "x": {"type": "float"},
        "demand": {"type": "float"},
    }
    rides, weather = (
        DatasetSpec.model_validate({"name": name, "key": ["ts"], "event_time": "ts", "columns": columns})
        for name in ("rides_hourly", "weather")
    )
    model = ModelSpec.model_validate({
        "name": "rides", "task": "regression", "datasets": ["rides_hourly"], "key": ["ts"], "event_time": "ts",
        "label": {"column": "demand"}, "features": {"numeric": ["x"], "categorical": ["kind"]}, "query": PLAIN,
    })  # fmt: skip
    return Specs({d.name: d for d in (rides, weather)}, {model.name: model})


@pytest.fixture
def kept(conn: Connection, specs: Specs) -> Iterator[Callable[[], object]]:
    """Something to steal and to destroy, and what is there of it now."""
    for dataset in specs.datasets.values():
        ensure_dataset(conn, dataset)
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO data.rides_hourly SELECT t, 'dry', 1, 2, t, 1"
            " FROM generate_series('2024-01-01'::timestamptz, '2024-01-10', '1h') AS t"
        )
        cursor.execute(
            "INSERT INTO evergreen.decision (as_of, subject, kind, reason, run_id, dedupe_key)"
            " VALUES (now(), 'model/rides', 'promoted', 'passed', 'r', 'k')"
        )
        cursor.execute("CREATE TABLE public.lookup (kind text)")
        body = "SELECT max(demand) FROM data.rides_hourly"
        cursor.execute(f"CREATE FUNCTION cheat() RETURNS float8 IMMUTABLE LANGUAGE sql AS '{body}'")
        cursor.execute(
            f"CREATE FUNCTION cheat_as_owner() RETURNS float8 IMMUTABLE SECURITY DEFINER LANGUAGE sql AS '{body}'"
        )
        cursor.execute(
            "CREATE FUNCTION scrub() RETURNS int IMMUTABLE LANGUAGE plpgsql AS"
            " 'BEGIN DELETE FROM evergreen.decision; RETURN 1; END'"
        )
    conn.commit()

    def now() -> object:
        with connect() as other:
            return (
                fetch(other, "SELECT * FROM evergreen.decision"),
                fetch(other, "SELECT count(*), sum(x) FROM data.rides_hourly"),
                fetch(other, "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal"),
                fetch(other, "SELECT last_value, is_called FROM evergreen.decision_id_seq"),
                fetch(other, "SELECT oid FROM pg_largeobject_metadata"),
                fetch(other, "SELECT oid::regclass FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'v') ORDER BY 1"),
            )  # fmt: skip

    before = now()
    yield now
    assert now() == before


def of(specs: Specs, query: str) -> ModelSpec:
    """The model with another query, whatever its spec would say to it."""
    return specs.models["rides"].model_copy(update={"query": query})


def run(specs: Specs, query: str) -> list[dict[str, object]]:
    """The rows of the query as training and scoring read them, without a check before."""
    model = of(specs, query)
    with views.reading(specs, model, AS_OF) as reader:
        return reader.rows(feature_query.feature_query(model, None, None))


def got_through(specs: Specs, queries: Mapping[str, str]) -> list[str]:
    """The queries that the check lets pass, that run, or that are refused without a sentence for their file."""
    wrong = []
    for name, query in queries.items():
        try:
            run(specs, query)
            wrong.append(f"{name}: runs")
        except TerminalError as error:
            if error.reason is not ErrorReason.BAD_QUERY:
                wrong.append(f"{name}: {error}")
        problems = feature_query.check(specs, of(specs, query))
        # A function of one's own says that it always gives the same; PostgreSQL's role is what stops it.
        if name not in ("by a function of one's own", "function of one's own") and not problems:
            wrong.append(f"{name}: passes the check")
        wrong += [f"{name}: {p}" for p in problems if p.file != "models/rides.sql"]
    return wrong


@pytest.mark.parametrize(
    "queries", [READS, CATALOGUE, WRITES, CHANCE], ids=["reads", "catalogue", "writes", "chance"]
)
def test_a_query_that_may_not_be_is_refused(
    kept: Callable[[], object], specs: Specs, queries: Mapping[str, str]
) -> None:
    assert got_through(specs, queries) == []


@pytest.mark.parametrize("queries", [READS, WRITES], ids=["reads", "writes"])
def test_the_role_and_the_transaction_refuse_it_by_themselves(
    kept: Callable[[], object], specs: Specs, queries: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "_judge", lambda *given: None)
    judged_only = {"by its owner's rights", "role by a function", "advisory lock", "other sessions"}
    wrong = []
    for name, query in queries.items():
        if name not in judged_only:
            with pytest.raises(TerminalError) as caught:
                wrong.append((name, run(specs, query)[:1]))
            assert caught.value.reason is ErrorReason.BAD_QUERY
    assert wrong == []


def test_what_people_write_is_taken(kept: Callable[[], object], specs: Specs) -> None:
    wrong = {}
    for name, query in FINE.items():
        model = of(specs, query)
        assert ModelSpec.model_validate({**specs.models["rides"].model_dump(), "query": query}).query == query
        if problems := feature_query.check(specs, model):
            wrong[name] = [str(p) for p in problems]
        else:
            run(specs, query)
    assert wrong == {}


def test_the_reader_is_the_role_and_cannot_become_another(kept: Callable[[], object], specs: Specs) -> None:
    from psycopg2 import sql

    with views.reading(specs, specs.models["rides"], AS_OF) as reader:
        assert reader.rows(sql.SQL("SELECT current_user::text AS who")) == [{"who": "evergreen_features"}]
        with pytest.raises(TerminalError, match="permission denied"):
            reader.rows(sql.SQL("SELECT count(*) AS rows FROM data.rides_hourly"))


MISTAKES = {
    "column": ("SELECT ts,\n x,\n knd AS kind, demand\nFROM rides_hourly", "line 3", "did you mean kind?"),
    "table": ("SELECT ts, x, kind, demand\nFROM ride_hourly", "line 2", "did you mean rides_hourly?"),
    "dataset that the model does not name": ("SELECT ts, x, kind, demand FROM\n\nweather", "line 3", "datasets in models/rides.yaml"),
    "dataset in its schema": ("SELECT ts, x, kind, demand FROM -- data.rides_hourly\ndata.rides_hourly", "line 2", "write rides_hourly for"),
    "syntax": ("SELECT ts,\nFROM rides_hourly", "line 2", "syntax error"),
    "function": ("-- now()\n" + x("extract(epoch FROM\nnow() - ts)"), "line 3", "calls now()"),
    "two statements": (f"{PLAIN};\n{PLAIN}", "", "more than one statement"),
}  # fmt: skip


def test_a_mistake_is_told_with_its_line_and_what_is_near(kept: Callable[[], object], specs: Specs) -> None:
    for name, (query, line, told) in MISTAKES.items():
        problems = feature_query.check(specs, of(specs, query))
        assert [p.file for p in problems] == ["models/rides.sql"], (name, problems)
        assert line in problems[0].remedy, (name, problems)
        assert told in problems[0].remedy, (name, problems)


def by_key(specs: Specs, query: str) -> list[object]:
    """What is answered by key for a query, as the prediction service asks it."""
    lookup = Lookup(specs, of(specs, query), connections=1)
    try:
        return [f and (f.key, f.features) for f in lookup.rows([{"ts": "2024-01-03T07:00Z"}], timeout_s=20)]
    finally:
        lookup.close()


BY_KEY = {
    True: ("now", "role by a function", "by its owner's rights", "limit"),
    False: (
        "table", "predictions", "predictions of the reader", "itself", "by a function of one's own", "function of one's own",
        "second statement", "after an escaped quote", "out of the parentheses", "update of the view", "role",
    ),
}  # fmt: skip


@pytest.mark.parametrize("judged", [True, False], ids=["judged", "by the role alone"])
def test_what_may_not_be_is_refused_by_key_too(
    kept: Callable[[], object], specs: Specs, monkeypatch: pytest.MonkeyPatch, judged: bool
) -> None:
    if not judged:
        monkeypatch.setattr(views, "_judge", lambda *given: None)
    wrong = []
    for name in BY_KEY[judged]:
        with pytest.raises(TerminalError) as caught:
            wrong.append((name, by_key(specs, (READS | WRITES | CHANCE)[name])))
        assert caught.value.reason is ErrorReason.BAD_QUERY, name
    assert wrong == []


def test_what_people_write_is_answered_by_key_as_it_is_read(kept: Callable[[], object], specs: Specs) -> None:
    names = (
        "comment after the end",
        "comment after the last line",
        "two names alike",
        "per cent",
        "window",
        "ordered",
        "latest before",
    )
    for name, query in ((n, FINE[n]) for n in names):
        rows = [r for r in run(specs, query) if r["_time"] == datetime(2024, 1, 3, 7, tzinfo=UTC)]
        wanted = [(r["_key"], {"x": r["x"], "kind": r["kind"]}) for r in rows] or [None]
        assert by_key(specs, query) == wanted, name
