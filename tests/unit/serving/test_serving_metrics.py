"""What the service tells Prometheus is on the page of metrics, each with its labels and its meaning, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from evergreen.serving.traffic import Traffic

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_the_page_has_every_metric_and_none_that_is_gone() -> None:
    rows = set()
    for metric in vars(Traffic()).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            rows.add(f"| `{name}` | {labels} | {family.documentation} |")
    assert len(rows) > 8
    assert set(re.findall(r"^\| `evergreen_serving_.*$", PAGE, re.MULTILINE)) == rows
