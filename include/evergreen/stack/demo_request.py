"""The end of the demo's story: the prediction service is asked for a row, and the new champion answers as it did in batch."""

from __future__ import annotations

import json
import math
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from evergreen import registry, settings
from evergreen.client import Client, RefusedError
from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.spec import ModelSpec, Specs, load_specs
from evergreen.warehouse.connection import connect, fetch
from evergreen.warehouse.features import feature_query, views

FOLLOWS_WITHIN_S = 10.0
"""The service follows the ledger within seconds; on a busy machine it may take a few more."""


@dataclass(frozen=True)
class Row:
    """A row that the champion has predicted in batch.

    Attributes:
        version: the champion.
        event_time: of the row, aware.
        record: its features by name, as a request has them.
        prediction: of the batch.
    """

    version: str
    event_time: datetime
    record: dict[str, Any]
    prediction: float


def newest_row(specs: Specs, model: ModelSpec) -> Row:
    """The newest row that the champion of now has predicted in batch, with its features as they are known now.

    Raises:
        TerminalError: there is no champion, it has predicted nothing, or the row is gone (NO_CHAMPION, NO_ROWS).
        TransientError: the warehouse does not answer.
    """
    with connect() as conn:
        champion = registry.champion(conn, model.name, repair=False)
        if champion is None:
            raise TerminalError(f"{model.name} has no champion that could be asked", ErrorReason.NO_CHAMPION)
        found = fetch(
            conn,
            "SELECT key, event_time, prediction FROM evergreen.prediction WHERE model = %s AND version = %s"
            " AND run_id NOT LIKE 'online/%%' ORDER BY event_time DESC, key LIMIT 1",
            (model.name, champion.version),
        )
    if not found:
        raise TerminalError(
            f"version {champion.version} of {model.name} has predicted no row yet", ErrorReason.NO_ROWS
        )
    key, at, prediction = found[0]["key"], found[0]["event_time"], float(found[0]["prediction"])
    query = feature_query.feature_query(model, at, at + timedelta(microseconds=1))
    with views.reading(specs, model, datetime.now(UTC)) as reader:
        row = next((r for r in reader.rows(query) if r["_key"] == key), None)
    if row is None:
        raise TerminalError(f"the row {key} of {model.name} is gone", ErrorReason.NO_ROWS)
    names = (*model.features.numeric, *model.features.categorical)
    return Row(champion.version, at, {name: _json(row[name]) for name in names}, prediction)


def _json(value: Any) -> Any:
    """A feature as JSON has it: what is no number is missing."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def ask(client: Client, model: str, row: Row) -> dict[str, Any]:
    """Ask until the champion answers; returns the answer.

    Raises:
        TransientError: it does not answer within ten seconds.
        TerminalError: the service refuses the request (BAD_SPEC).
    """
    deadline = time.monotonic() + FOLLOWS_WITHIN_S
    while True:
        try:
            answer = client.ask(model, "predict", {"record": row.record})
            if answer["version"] == row.version:
                return answer
            said = f"version {answer['version']} answers"
        except RefusedError as error:
            if error.status not in (0, 404, 429, 503):
                raise TerminalError(
                    f"the prediction service refuses the request: {error}", ErrorReason.BAD_SPEC
                ) from error
            said = str(error)
        if time.monotonic() > deadline:
            raise TransientError(
                f"version {row.version} of {model} does not answer at {client.url} within {FOLLOWS_WITHIN_S:g} s of being asked: {said}"
            )
        time.sleep(0.2)


def curl(url: str, key: str, model: str, record: dict[str, Any]) -> str:
    """The request as a line for a shell.

    Args:
        url: of the service.
        key: what the shell makes a key of, such as `$KEY`.
        model: its name.
        record: the features.
    """
    body = shlex.quote(json.dumps({"record": record}, ensure_ascii=False))
    return f'curl -s {url}/models/{model}/predict -H "Authorization: Bearer {key}" -d {body}'


def key_in(file: Path) -> str:
    """What a shell makes the key of that lies in a file, named from this folder where it lies below it."""
    shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    return f"$(cat {shlex.quote(os.fspath(shown))})"


def tell(model: str, say: Callable[[str], None], *, url: str, key: str) -> list[str]:
    """Ask for the newest row, print the request as a line that can be typed, and the answer.

    Args:
        model: its name.
        say: is told what came out.
        url: the service's, as a person reaches it.
        key: what the person's shell makes a key of.

    Returns:
        What the story promised but did not happen: nothing, if online and batch are one.

    Raises:
        TerminalError, TransientError: as `newest_row` and `ask`.
    """
    specs = load_specs(settings.specs_folder())
    row = newest_row(specs, specs.models[model])
    answer = ask(Client(), model, row)
    same = answer["prediction"] == row.prediction
    say(
        f"asked the prediction service for the row of {row.event_time:%Y-%m-%d %H:%M}: {answer['prediction']:.2f} by version "
        f"{answer['version']}, {'as in batch' if same else f'and {row.prediction:.2f} in batch'}"
    )
    print(f"\n{curl(url, key, model, row.record)}\n{json.dumps(answer)}", flush=True)
    return (
        [] if same else ["the answer of the prediction service is not the batch prediction of the same row"]
    )
