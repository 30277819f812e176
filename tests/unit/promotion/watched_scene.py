"""Promotions and predictions as a watch finds them, without any model behind them."""

from __future__ import annotations

from datetime import timedelta

from evergreen import ledger
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.promotion import canary
from evergreen.promotion.live_watch import watch
from evergreen.warehouse.connection import connect

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def promote(version, as_of, model=None):
    """Make a version champion; with a model as its spec has it begin online."""
    evidence = {"mlflow_run": "none", "trained_until": (as_of - 2 * HOUR).isoformat()}
    with connect() as conn:
        made = ledger.append(
            conn, Decision(as_of, "model/rides", DecisionKind.PROMOTED, "x", "train", f"promote:{version}", evidence, version)
        )  # fmt: skip
        if model is not None:
            canary.begin(conn, model, made)
    return made


def predicted(version, error, start, end, *, as_of=None, table=None, keys="true", run="score"):
    """Predictions of a range that are wrong by `error`, too high and too low by turns of three hours."""
    table = table or ("shadow_prediction" if version == "1" else "prediction")
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO evergreen.{table} (model, version, key, event_time, prediction, as_of, run_id)"
            " SELECT 'rides', %s, json_build_array(ts)::text, ts,"
            " demand + %s * (CASE WHEN extract(hour FROM ts)::int %% 6 < 3 THEN 1 ELSE -1 END),"
            f" coalesce(%s, ts + interval '1 hour'), %s FROM data.rides_hourly WHERE ts >= %s AND ts < %s AND {keys}",
            (version, error, as_of, run, start, end),
        )


def both(start, new, old, *, days=14):
    """Both champions predict everything since the new one's promotion, each hour as of an hour later."""
    predicted("2", new, start + 31 * DAY, start + (31 + days) * DAY)
    predicted("1", old, start + 31 * DAY, start + (31 + days) * DAY)


def look(world, as_of, run_id="monitor"):
    return watch(world.specs, world.model, as_of, run_id)


def rows(*kinds):
    with connect() as conn:
        return ledger.find(
            conn,
            "model/rides",
            kinds or (DecisionKind.WATCHED, DecisionKind.WATCH_ENDED, DecisionKind.ROLLED_BACK),
        )
