"""`evergreen predict MODEL FILE.csv`: the file with a column of predictions, asked of the prediction service."""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from evergreen import client
from evergreen.client import Client, RefusedError
from evergreen.errors import ErrorReason, TerminalError
from evergreen.terminal import place

COLUMN = "prediction"


def main(argv: list[str] | None = None) -> int:
    """Predict; 1 with what is wrong, by line and column."""
    parser = place.parser(
        "predict",
        "Predict each line of a CSV file, whose columns are named as the model's features (or as its key, with --by-key), with the "
        f"prediction service ({client.URL}, {client.KEY}; this machine's own where they are not set).",
        "predict bike_demand hours.csv --output predicted.csv",
    )
    parser.add_argument("model", help="its name")
    parser.add_argument("file", help="a CSV file with a header; - reads the standard input")
    parser.add_argument(
        "--output", help="where the file goes with its predictions (default: standard output)"
    )
    parser.add_argument(
        "--by-key", action="store_true", help="the columns are the key; the warehouse has the features"
    )
    options = parser.parse_args(argv)
    return place.told(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    place.find(options.home)
    asked = Client()
    with ExitStack() as stack:
        source = _open(stack, options.file)
        reader = csv.DictReader(source)
        names = [name for name in reader.fieldnames or () if name]
        if not names:
            raise TerminalError(f"{options.file} has no header", ErrorReason.BAD_SPEC)
        try:
            texts = _texts(asked, options.model)
            parts = [(rows, _ask(asked, options, rows, texts, first)) for first, rows in _parts(reader)]
        except RefusedError as error:
            raise TerminalError(str(error), ErrorReason.BAD_SPEC) from error
        _write(stack, options, names, parts)
    return 0


def _open(stack: ExitStack, name: str) -> TextIO:
    if name == "-":
        return sys.stdin
    try:
        return stack.enter_context(Path(name).open(newline="", encoding="utf-8-sig"))
    except OSError as error:
        raise TerminalError(f"{name} cannot be read: {error.strerror}", ErrorReason.BAD_SPEC) from error


def _target(stack: ExitStack, name: str | None) -> TextIO:
    if not name:
        return sys.stdout
    try:
        return stack.enter_context(Path(name).open("w", newline="", encoding="utf-8"))
    except OSError as error:
        raise TerminalError(f"{name} cannot be written: {error.strerror}", ErrorReason.BAD_SPEC) from error


def _parts(reader: csv.DictReader[str]) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """The lines in parts that are asked at once, each with the number of its first line."""
    rows: list[dict[str, str]] = []
    first = 2
    for row in reader:
        rows.append({n: v for n, v in row.items() if n and v is not None})
        if len(rows) == client.MOST_RECORDS:
            yield first, rows
            first, rows = first + len(rows), []
    if rows:
        yield first, rows


def _texts(asked: Client, model: str) -> frozenset[str]:
    """The columns that are texts; any other is a number."""
    properties = asked.about(model)["record"]["properties"]
    return frozenset(name for name, schema in properties.items() if "string" in schema.get("type", ()))


def _ask(
    asked: Client,
    options: argparse.Namespace,
    rows: Sequence[dict[str, str]],
    texts: frozenset[str],
    first: int,
) -> list[float]:
    records = [{n: _value(n, v, texts) for n, v in row.items()} for row in rows]
    try:
        found: list[float] = (asked.predict_keys if options.by_key else asked.predict)(options.model, records)
    except RefusedError as error:
        told = "".join(
            f"\n  line {p['record'] + first}, {p['field']}: {p['problem']}" for p in error.problems[:20]
        )
        raise TerminalError(f"{str(error).partition(chr(10))[0]}{told}", ErrorReason.BAD_SPEC) from error
    return found


def _value(name: str, text: str, texts: frozenset[str]) -> Any:
    """What a cell says: nothing is missing, a number is one where the model wants it."""
    if text == "":
        return None
    if name in texts:
        return text
    try:
        if text.strip().lstrip("-").isdigit():
            return int(text)
        number = float(text)
    except ValueError:
        return text
    # JSON has no number for the others.
    return number if math.isfinite(number) else text


def _write(
    stack: ExitStack,
    options: argparse.Namespace,
    names: list[str],
    parts: Sequence[tuple[list[dict[str, str]], list[float]]],
) -> None:
    target = _target(stack, options.output)
    if options.json:
        json.dump([value for _, found in parts for value in found], target)
        target.write("\n")
        return
    writer = csv.writer(target)
    writer.writerow([*names, COLUMN])
    for rows, found in parts:
        writer.writerows(
            [*(row.get(n, "") for n in names), repr(value)] for row, value in zip(rows, found, strict=True)
        )
