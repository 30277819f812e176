"""Online and batch are one: the same numbers of the same values, the same prediction to the last bit, the same key."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg2 import sql
from serving_scene import CATEGORIES, ENCODING, NUMERIC, fitted, keep_version

from evergreen.registry.encoding import encode
from evergreen.serving import kept
from evergreen.serving.booster import FastBooster
from evergreen.serving.identity import NoValue, iso, key_writer, moment
from evergreen.serving.kept import Version
from evergreen.serving.records import MANY, BadRecordsError, Encoder, Identifier
from evergreen.serving.served import Loaded
from evergreen.warehouse.connection import Connection, fetch

VERSION = Version("1", "run", "folder", NUMERIC, CATEGORIES, {}, {}, {}, {})
NUMBERS = (
    st.none()
    | st.floats(width=64)
    | st.integers(-(2**53), 2**53)
    | st.sampled_from([3.4028235e38, 3.4028236e38, -1e39, 1e-46])
)
TEXTS = st.none() | st.sampled_from(["dry", "snow", "wet", "Dry", "", "fog"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS, TEXTS), min_size=1, max_size=2 * MANY))
def test_a_record_becomes_the_numbers_that_a_row_of_the_query_becomes(
    rows: list[tuple[Any, Any, Any]],
) -> None:
    table = pa.table({
        "hour": pa.array([r[0] if r[0] is None else float(r[0]) for r in rows], pa.float64()),
        "x": pa.array([r[1] if r[1] is None else float(r[1]) for r in rows], pa.float64()),
        "kind": pa.array([r[2] for r in rows], pa.string()),
    })  # fmt: skip
    batch = encode(ENCODING, table)
    online = Encoder(VERSION).encode([dict(zip(("hour", "x", "kind"), row, strict=True)) for row in rows])
    matrix = np.empty((len(rows), 3), np.float32)
    with np.errstate(over="ignore"):
        matrix[:] = online.rows
    # NaN is missing, whichever NaN it is.
    np.testing.assert_array_equal(matrix, batch.matrix)
    assert matrix[~np.isnan(matrix)].tobytes() == batch.matrix[~np.isnan(batch.matrix)].tobytes()
    told = [p.field for p in online.missing]
    assert {n: told.count(n) for n in set(told)} == {
        n: c for n, c in {**batch.infinite, **batch.unseen}.items() if c
    }


FIELDS = st.dictionaries(
    st.sampled_from(["hour", "x", "kind", "ts", "hours"]),
    NUMBERS | TEXTS | st.booleans() | st.just([1]) | st.integers(-(2**70), 2**70) | st.just(10**400),
)
USUAL = st.fixed_dictionaries(
    {"hour": NUMBERS, "x": NUMBERS, "kind": TEXTS}, optional={"ts": st.just("2025-06-02")}
)


@settings(max_examples=300, deadline=None)
@given(st.lists(USUAL, min_size=MANY, max_size=MANY + 4), st.lists(FIELDS, max_size=2))
def test_many_records_are_read_as_each_of_them_is_alone(usual, odd):
    encoder, allowed = Encoder(VERSION), frozenset(("hour", "x", "kind", "ts"))
    records = [*usual, *odd]

    def read(part, begin=0):
        try:
            found = encoder.encode(part, allowed)
        except BadRecordsError as error:
            return None, [(p.record + begin, p.field, p.problem) for p in error.problems]
        return found.rows.tobytes(), [(p.record + begin, p.field, p.problem) for p in found.missing]

    rows, told = read(records)
    alone = [read([record], position) for position, record in enumerate(records)]
    if rows is None:
        # What is wrong is told of all; a field that is none counts also where it alone would not have been looked for.
        refused = {p for r, problems in alone if r is None for p in problems}
        assert refused
        assert refused <= set(told)
    else:
        assert rows == b"".join(r for r, _ in alone)
        assert told == [p for _, problems in alone for p in problems]


@pytest.mark.parametrize("rounds", [1, 20, 300])
def test_the_fast_way_predicts_what_inplace_predict_does_to_the_last_bit(rounds, tmp_path):
    rng = np.random.default_rng(rounds)
    booster = fitted(3, rounds)
    booster.save_model(tmp_path / "model.ubj")
    rows = np.column_stack(
        [rng.integers(0, 24, 1000), rng.normal(size=1000), rng.integers(0, 3, 1000)]
    ).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    wanted = booster.inplace_predict(rows, validate_features=False)
    fast = FastBooster(tmp_path / "model.ubj", 3, 500)
    for count in (1, 2, 100, 129, 500):
        fast.rows[:count] = rows[:count]
        assert np.array(fast.predict(count), np.float32).tobytes() == wanted[:count].tobytes()
    fast.close()


def test_a_version_that_predicts_otherwise_than_where_it_was_fetched_is_not_served(home, kept_scene):
    version = keep_version("2", fitted(2))
    file = kept.versions_folder() / version.folder / kept.PROBE_FILE
    with np.load(file) as content:
        rows, predictions = content["rows"], content["predictions"]
    np.savez(file, rows=rows, predictions=np.nextafter(predictions, math.inf))
    with pytest.raises(Exception, match="does not predict here what it predicted"):
        Loaded(kept_scene.model(), version)


KEYS = {
    "timestamp with time zone": ["2025-06-02T13:00:00Z", "2025-06-02T13:00:00.25+02:00", "1999-12-31", "2025-06-02 13:00:00.000001", "2025-06-02T13:00:00+00:00", "20250602T130000.50Z"],
    "timestamp without time zone": ["2025-06-02T13:00:00", "2025-06-02T13:00:00.120000"],
    "date": ["2025-06-02"], "integer": [5, -7, 3.0], "bigint": [2**53 + 1],
    "double precision": [1.5, 3, 0.1, -2.25, 1e-7, 1e300, 123456789.125], "boolean": [True, False],
    "text": ["plain", 'with "quotes" and \\', "über\t☃\n", "\u001f\u007f", ""], "character varying": ["x/y"],
}  # fmt: skip


@pytest.mark.parametrize("type_", KEYS)
def test_a_key_is_written_as_postgresql_writes_it(conn: Connection, type_):
    write = key_writer({"k": type_, "n": "integer"})
    for value in KEYS[type_]:
        query = sql.SQL("SELECT json_build_array({}::{}, 1)::text AS key").format(
            sql.Literal(str(value) if isinstance(value, (str, bool)) else value), sql.SQL(type_)
        )
        assert write({"k": value, "n": 1}) == fetch(conn, query)[0]["key"], value


FORMS = [
    "2025-W23-1T13:00:00Z", "2025-06-02T130000.5Z", "2025-06-02T130000,5Z", "2025-W23-1T130000.5Z", "2025-06-02T130000.123456Z",
    "2025-06-02 13:00:00Z", "2025-06-02T13:00:00+00:00", "2025-06-02T13:00:00-00:00", "2025-06-02T13:00:00+01:00", "20250602T130000Z",
    "2025-06-02T13:00Z", "2025-06-02", "2025-06-02T23:59:59Z", "2025-06-02T13:00:00.000000Z",
]  # fmt: skip


@pytest.mark.parametrize("told", FORMS)
def test_a_time_that_looks_like_the_usual_form_means_what_it_says(told):
    assert iso(told) == moment(told).isoformat() == datetime.fromisoformat(iso(told)).isoformat()


@pytest.mark.parametrize(
    "told", ["2025-02-30T13:00:00Z", "2025-13-01T13:00:00Z", "2025-06-02T13:00:61Z", "२०२५-06-02T13:00:00Z"]
)
def test_what_looks_like_a_time_and_is_none_is_refused_each_time(told):
    for _ in range(2):
        with pytest.raises(NoValue):
            iso(told)


@settings(max_examples=100, deadline=None)
@given(at=st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)), offset=st.integers(-14 * 60, 14 * 60))
def test_a_time_means_the_same_in_whatever_zone_it_is_told(at, offset):
    aware = at.replace(tzinfo=UTC)
    write = key_writer({"k": "timestamp with time zone"})
    elsewhere = aware.astimezone(timezone(timedelta(minutes=offset)))
    assert write({"k": elsewhere.isoformat()}) == write({"k": aware.isoformat()})
    assert moment(elsewhere.isoformat()) == aware
    for told in (elsewhere.isoformat(), aware.isoformat(), f"{aware.isoformat()[:-6]}Z"):
        assert iso(told) == aware.isoformat()


@pytest.mark.parametrize(("type_", "value"), [
    ("timestamp with time zone", "soon"), ("timestamp with time zone", 5), ("date", "2025-13-01"), ("integer", 1.5), ("integer", "5"),
    ("integer", True), ("boolean", 1), ("text", 5), ("text", "a\0b"), ("double precision", "1"), ("timestamp with time zone", "0001-01-01T00:00+14:00"),
])  # fmt: skip
def test_a_key_that_its_column_cannot_hold_is_a_mistake(type_, value):
    with pytest.raises(NoValue):
        key_writer({"k": type_})({"k": value})


def identifier_of(scene, key):
    return Identifier(scene.model(key=key))


def refused(identifier, record):
    with pytest.raises(BadRecordsError) as caught:
        identifier.identify([record])
    return caught.value.problems


def test_all_that_is_wrong_with_the_name_of_a_row_is_told_at_once(home, kept_scene):
    kept_scene.add("1")
    good = {"station": 5, "day": "2025-06-02", "ts": "2025-06-02T13:00:00Z"}
    identifier = identifier_of(kept_scene, {"station": "integer", "day": "date"})
    assert identifier.identify([good, {"hour": 8}]) == [
        ('[5, "2025-06-02"]', "2025-06-02T13:00:00+00:00"),
        None,
    ]
    with pytest.raises(BadRecordsError) as caught:
        identifier.identify([good, {"station": 1.5, "day": "never"}, {**good, "ts": "24"}])
    assert [(p.record, p.field) for p in caught.value.problems] == [
        (1, "ts"),
        (1, "station"),
        (1, "day"),
        (2, "ts"),
    ]
    (long,) = refused(
        identifier_of(kept_scene, {"station": "text"}), {"station": "ü" * 1001, "ts": good["ts"]}
    )
    assert (long.field, long.problem) == ("station", "is longer than the 2,000 bytes that a key may have")
    (large,) = refused(identifier, {**good, "station": 10**400})
    assert (large.field, large.problem.endswith("is no whole number")) == ("station", True)
    assert "names its whole key and its event time" in caught.value.problems[0].problem
    assert [p.problem.partition(";")[0] for p in caught.value.problems[1:]] == [
        "1.5 is no whole number", '"never" is no date', '"24" is no time'
    ]  # fmt: skip
