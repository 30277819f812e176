"""What the mapping of the StatsD exporter makes of the metrics that Airflow lists, by the exporter's own rules of matching.

The exporter itself is a program in Go and not in the tests: globs first, in which a star stands for one part between dots; then the
regular expressions in their order; a metric without a match keeps its name. What is no letter, digit or _ becomes _.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from scraped import REPOSITORY

TYPES = {"counter": "counter", "gauge": "gauge", "timer": "observer"}
SUFFIXES = {"counter": ("",), "gauge": ("",), "observer": ("_bucket", "_sum", "_count")}


@cache
def airflows() -> list[dict[str, Any]]:
    """The metrics of the Airflow that is installed, as it lists them itself."""
    package = find_spec("airflow")  # importing it takes seconds
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "_shared" / "observability" / "metrics" / "metrics_template.yaml"
    found: list[dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))["metrics"]
    return found


def mapped(name: str, kind: str) -> str | None:
    """The name of a metric in Prometheus, without the suffixes of a histogram; None: it is dropped."""
    mappings = _mappings()
    globs = [m for m in mappings if m.get("match_type") != "regex"]
    for mapping in [*globs, *(m for m in mappings if m not in globs)]:
        pattern = (
            mapping["match"]
            if mapping not in globs
            else re.escape(mapping["match"]).replace(r"\*", "([^.]*)") + "$"
        )
        found = re.match(pattern, name)
        if found is None or mapping.get("match_metric_type", kind) != kind:
            continue
        if mapping.get("action") == "drop":
            return None
        return escaped(
            re.sub(r"\$\{(\d+)\}", lambda number, found=found: found[int(number[1])], mapping["name"])
        )
    return escaped(name)


@cache
def _mappings() -> list[dict[str, Any]]:
    file = REPOSITORY / "deploy" / "metrics" / "statsd.yml"
    found: list[dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))["mappings"]
    return found


def escaped(name: str) -> str:
    """As the exporter writes a name."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


@cache
def in_prometheus() -> set[str]:
    """All names under which Prometheus finds what Airflow sends."""
    found = set()
    for metric in airflows():
        kind = TYPES[metric["type"]]
        name = mapped("airflow." + re.sub(r"\{\w+\}", "x", metric["name"]), kind)
        if name is not None:
            found |= {name + suffix for suffix in SUFFIXES[kind]}
    return found
