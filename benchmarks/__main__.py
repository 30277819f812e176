"""Measures what Evergreen costs and writes the table: `make bench`, or `make bench-large` for ten million rows.

    python -m benchmarks [--large] [--minutes N] [--quick] [PART ...]

Parts: reading, landing, scoring, watch, parsing, cycle, night, serving, and by its name only knobs (what each training setting costs).
cycle and night run through the scheduler of a whole stack, serving with a PostgreSQL and an MLflow, each of the others in a fresh
process beside an empty PostgreSQL of its own and nothing else. Without --large the sizes are a million rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from benchmarks import cycle, night, serving
from benchmarks.kept import keep, section
from benchmarks.place import place, warehouse
from benchmarks.table import Row, commit, machine, markdown

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("RESULTS.md")
KEPT = Path(__file__).with_name("results.json")
MILLION = 1_000_000
LARGE_SUFFIX = " large"
ALONE = ("reading", "landing", "scoring", "watch", "parsing", "knobs")
LARGE = ("watch", "cycle")
PARTS = (*ALONE, "cycle", "night", "serving")
# Without a part's name; knobs compares Evergreen with itself, and has no limit to miss.
USUAL = tuple(part for part in PARTS if part != "knobs")
# What was tried where a row is missed; shown while it is.
WHY = {
    "serving": (
        "of some 11 µs of CPU a record in the server and its companion, some 4.5 are XGBoost's, as in the baseline. The rest is what the "
        "baseline does not do: reading ten fields of JSON by name, holding each against its type and the model's categories, the key as "
        "the warehouse writes it, a record's row of the log and of the answer (0.5 to 0.8 each), HTTP (1.3), and the companion, which "
        "shares the core (1.6 while the load lasts, 4.2 with what it brings to the warehouse afterwards). Tried, with what a record "
        "cost before and after: records encoded column by column (2.3, 0.8), a time written once (2, 0.7), the log encoded when a "
        "request is answered instead of twice a second (the objects that waited cost more than their text), what was answered sent to the "
        "warehouse once instead of twice (6.9, 4.2). Not tried: reading records into typed structs (0.4 less, and a second way to "
        "read a request), a log for a share of the requests."
    ),
    "scoring": (
        "the baseline writes by binary COPY in one piece; by CSV, as most people would, ours is 1.16 times as fast. Ours also reads the "
        "rows out of PostgreSQL and looks for keys that come twice before anything is written. Tried: that look by the keys' "
        "hashes (1.1 s a million instead of 3.1), and by parallel workers (0.3 s less, after this measurement)."
    ),
    "reading": (
        "bound by the CPU on both sides: of the 2 s for a million rows of 22 columns the server needs nearly all, and ADBC's "
        "decoder as long beside it. Tried: connectorx 0.4.6, no faster; psycopg2's COPY to CSV with Arrow's reader, slower."
    ),
    "cycle": (
        "Airflow's share is measured against steps that have the cores to themselves, since Airflow stands still meanwhile; it was "
        "0.22 to 0.37 in nine runs of a day. For 2 to 3 s no task runs; the rest is what the services compute on the two cores that "
        "the fit wants, and its threads wait for each other. Tried: imports that parsing repeated for each file are made once (the DAG "
        "processor's 5 CPU seconds a night became 2); a scheduler that sleeps longer than 0.1 s when idle (0.30 with 0.25 s, 0.37 with "
        "0.3 s, 0.22 with 0.5 s, where 0.1 s had 0.25 to 0.31: within the noise); asking the API server less often (the benchmark's own part of it)."
    ),
    "night": (
        "a task by itself costs 0.9 CPU seconds on two saturated cores (0.18 s its own process; the rest is the "
        "scheduler's, the API server's, the DAG processor's and their database's). A night has seven for each model, the bare loop none, "
        "and the bare loop has the cores to itself since Airflow stands still meanwhile (beside the idle services it took 292 s, and the "
        "ratio was 1.11). Tried: imports of the DAG processor made once (twelve models 126 s, then 118), yesterday's e-mails sent before (423 s, then "
        "412), a scheduler that sleeps 0.5 s instead of 0.1 when idle (406), objects hidden from the tasks' garbage collector (no difference)."
    ),
    "watch": (
        "what grows is the exact count of the window's rows and of its predictions, 0.2 to 0.3 s a million; the window of 100,000 became "
        "cheaper (0.4 s), which makes the ratio larger. Tried: see the ten millions."
    ),
    "watch large": (
        "what grows is the exact count of the rows that the feature query returns, which may be any SQL: 2 to 3 s of both cores "
        "for ten million rows. The sample and its judgement do not grow. Tried: two columns instead of all (done), a covering index "
        "(saves 0.5 s, and each landing pays for it), one window without date_bin (saves 0.7 s, and most runs have several windows). "
        "The predictions are estimated from an index of their keys' hash; rows that were never scored are not in it, and they are "
        "what the count is for. The small window takes half of what it took, which makes the ratio larger."
    ),
    "cycle large": (
        "nearly all of it is linear in the rows, and what was not (imports, small fits, waiting) is gone from the cycle of a "
        "million rows too, so that the ratio comes near ten; most of the time is XGBoost's own, which the table shows alone. Tried: "
        "predictions that the fit has already (22 s less), rows to XGBoost in one array or in batches (no difference)."
    ),
}


def main() -> int:
    """Run the parts that were asked for, print and write the table; 0 if every row is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument("--large", action="store_true", help="ten million rows, where that means something")
    parser.add_argument(
        "--minutes", type=float, help="of the serving's row of the memory (default: 6; 60 for an hour)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="serving alone: so short that it only shows that it works; nothing is written",
    )
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick and arguments.parts != ["serving"]:
        parser.error("--quick is for serving alone")
    if arguments.alone:
        return _alone(arguments.alone, arguments.large)
    parts = arguments.parts or (LARGE if arguments.large else USUAL)
    started = time.monotonic()
    found: dict[str, list[Row]] = {}
    for part in parts:
        began = time.monotonic()
        print(f"{part} ...", file=sys.stderr, flush=True)
        measured = (
            {part: serving.measure(arguments.minutes, quick=arguments.quick)}
            if part == "serving"
            else _measure(part, large=arguments.large)
        )
        seconds = time.monotonic() - began
        print(f"{part} took {seconds:.0f} s", file=sys.stderr, flush=True)
        print(markdown([row for rows in measured.values() for row in rows]), file=sys.stderr, flush=True)
        # At once: a later part that fails does not take it away.
        if not arguments.quick:
            _write(measured, f"make bench{'-large' if arguments.large else ''} PARTS={part}", seconds)
        found |= measured
    minutes = (time.monotonic() - started) / 60
    rows = [row for part in found.values() for row in part]
    print(f"{machine()} Commit {commit()}.\n")
    print(markdown(rows))
    held = [row for row in rows if row.limit]
    missed = [row.what for row in held if not row.met]
    written = "Nothing is written" if arguments.quick else f"Written to {RESULTS}"
    print(f"\n{len(held) - len(missed)} of {len(held)} rows are met; {minutes:.0f} minutes. {written}.")
    return 1 if missed else 0


def _measure(part: str, *, large: bool) -> dict[str, list[Row]]:
    """The rows by the name under which they are kept."""
    if part in ALONE:
        return {part + LARGE_SUFFIX * large: _in_a_process(part, large=large)}
    with place(night.write_specs if part == "night" else None) as here:
        if part == "night":
            return {part: night.measure(here)}
        usual, more = cycle.measure(here, MILLION, large=10 * MILLION if large else None)
    return {part: usual} | ({part + LARGE_SUFFIX: more} if large else {})


def _in_a_process(part: str, *, large: bool) -> list[Row]:
    command = [sys.executable, "-m", "benchmarks", "--alone", part, *(["--large"] if large else [])]
    with warehouse():
        home = Path(os.environ["EVERGREEN_HOME"])
        # Without a server MLflow keeps its models below the working directory.
        paths = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
        there = {"MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}", "PYTHONPATH": paths}
        done = subprocess.run(
            command, cwd=home, env={**os.environ, **there}, stdout=subprocess.PIPE, text=True
        )
    if done.returncode:
        raise SystemExit(f"{part} failed; see above")
    return [Row(**row) for row in json.loads(done.stdout.strip().splitlines()[-1])]


def _alone(part: str, large: bool) -> int:
    module = import_module(f"benchmarks.{part}")
    rows = module.measure() if part == "parsing" else module.measure(10 * MILLION if large else MILLION)
    print(json.dumps([asdict(row) for row in rows]))
    return 0


def _write(found: dict[str, list[Row]], command: str = "", seconds: float | None = None) -> None:
    """Keep the newest figures of each part and draw the file from all that are kept."""
    kept = keep(KEPT, found, command, seconds)
    lines = [
        "# What Evergreen costs",
        "",
        "Each figure of ours stands beside its baseline, measured in the same run. `make bench` writes this file, a command",
        "below a part of it. All of it takes an hour on two cores: a night of fifty models alone takes five minutes on",
        "either side. `make bench-large` does the rows of ten millions. *before* are the ratios of earlier runs, the newest first,",
        "most of them of earlier code: the machine is shared, and its speed moves by a fifth.",
    ]
    for suffix, title in (("", "One million rows"), (LARGE_SUFFIX, "Ten million rows")):
        body = section(kept, [part + suffix for part in PARTS])
        lines += ["", f"## {title}", "", *body] if body else []
        missed = [
            p + suffix
            for p in PARTS
            if any(not row["met"] for row in kept.get(p + suffix, {}).get("rows", ()))
        ]
        for part in missed:
            lines += ["", f"Missed in **{part}**: {WHY.get(part, 'not explained yet.')}"]
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
