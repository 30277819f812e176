"""Alert rules and dashboard ask for metrics and labels that exist, and say what a person needs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from scraped import REPOSITORY
from statsd_mapping import in_prometheus, mapped

from evergreen.exporter.families import FAMILIES
from evergreen.serving.traffic import Traffic

FOLDER = REPOSITORY / "deploy" / "metrics"
PAGE = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
RULES = [
    rule
    for file in sorted((FOLDER / "rules").glob("*.yml"))
    for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((FOLDER / "grafana" / "dashboards" / "evergreen.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [("rule", rule["expr"]) for rule in RULES] + [
    (panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]
]


def serving() -> dict[str, set[str]]:
    """Names and labels of what the prediction service tells, as its own registry has them."""
    found = {}
    for metric in vars(Traffic()).values():
        if isinstance(metric, MetricWrapperBase):
            labels, (described,) = set(metric._labelnames), metric.describe()
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(
                described.type, ("",)
            )
            for suffix in suffixes:
                found[described.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


EVERGREEN = {
    name: {*labels, "job", "instance"}
    for name, labels in [*((family.name, family.labels) for family in FAMILIES), *serving().items()]
}
# What Airflow gives as tags to the metrics that are asked for by a label.
TAGS = {
    "airflow_ti_finish_total": {"dag_id", "task_id", "state"},
    "airflow_task_duration_seconds_sum": {"dag_id", "task_id"},
    "airflow_task_duration_seconds_count": {"dag_id", "task_id"},
    "airflow_dagrun_duration_success_seconds_sum": {"dag_id", "run_type"},
    "airflow_dagrun_duration_success_seconds_count": {"dag_id", "run_type"},
    "airflow_dagrun_duration_failed_seconds_count": {"dag_id", "run_type"},
}


def parts(expression: Any) -> Iterator[Any]:
    """An expression and all that are in it."""
    yield expression
    for name in ("lhs", "rhs", "expr", "vector_selector"):
        inner = getattr(expression, name, None)
        if inner is not None:
            yield from parts(inner)
    for inner in getattr(expression, "args", None) or ():
        yield from parts(inner)


def selectors(text: str) -> dict[str, set[str]]:
    """The metrics that a query asks for, each with the labels that it selects by."""
    text = text.replace("$model", "some_model")
    return {
        part.name: {matcher.name for matcher in part.matchers.matchers}
        for part in parts(promql_parser.parse(text))
        if isinstance(part, promql_parser.VectorSelector)
    }


def labels_of(text: str) -> set[str]:
    """The labels that a query's metrics have."""
    return set().union(*({**EVERGREEN, **TAGS}.get(name, set()) for name in selectors(text)))


@pytest.mark.parametrize(("where", "text"), EXPRESSIONS)
def test_a_query_parses_and_names_what_there_is(where: str, text: str) -> None:
    asked = selectors(text)
    assert asked
    known = in_prometheus()
    for name, labels in asked.items():
        assert name in EVERGREEN or name in known, f"{where}: nothing is named {name}"
        assert labels <= EVERGREEN.get(name, TAGS.get(name, set())), (
            f"{where}: {name} has no label of {labels}"
        )
    for part in parts(promql_parser.parse(text.replace("$model", "some_model"))):
        grouped = getattr(getattr(part, "modifier", None), "labels", None) or ()
        assert set(grouped) <= labels_of(text), f"{where}: {text}"


@pytest.mark.parametrize(
    "text",
    [
        "evergreen_nothing",
        "evergreen_serving_requests",
        "evergreen_serving_share{result='ok'}",
        "sum by (owner) (evergreen_spec_mistakes)",
        'airflow_ti_queued{owner="x"}',
    ],
)
def test_the_test_before_finds_what_is_not_there(text: str) -> None:
    with pytest.raises(AssertionError):
        test_a_query_parses_and_names_what_there_is("here", text)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["for"]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "next_step"}
    for text in rule["annotations"].values():
        assert re.search(r"[.%]$|\}\}\.$", text), text
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels_of(rule["expr"]), text
    assert f"| `{rule['alert']}` |" in PAGE


def test_the_page_names_no_alert_that_is_gone() -> None:
    assert set(re.findall(r"^\| `((?:Evergreen|Airflow)\w+)` \|", PAGE, re.MULTILINE)) == {
        r["alert"] for r in RULES
    }


def test_not_to_be_there_and_not_to_answer_are_alerts() -> None:
    found = {rule["expr"] for rule in RULES}
    assert {"absent(evergreen_warehouse_up)", "evergreen_warehouse_up == 0"} <= found


def test_a_panel_has_an_id_of_its_own_a_title_a_unit_and_a_place() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels_of(target["expr"]), (
                panel["title"]
            )
    (model,) = (v for v in DASHBOARD["templating"]["list"] if v["name"] == "model")
    name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", model["definition"]).groups()  # type: ignore[union-attr]
    assert label in EVERGREEN[name]


@pytest.mark.parametrize(
    ("sent", "kind", "name"),
    [
        # As the scheduler of Airflow 3.3.2 sends them, without their tags.
        ("airflow.scheduler_heartbeat", "counter", "airflow_scheduler_heartbeat_total"),
        (
            "airflow.scheduler.scheduler_loop_duration",
            "observer",
            "airflow_scheduler_scheduler_loop_duration_seconds",
        ),
        ("airflow.pool.open_slots", "gauge", "airflow_pool_open_slots"),
        ("airflow.dagrun.dependency-check", "observer", "airflow_dagrun_dependency_check_seconds"),
        (
            "airflow.dagrun.first_task_scheduling_delay",
            "observer",
            "airflow_dagrun_first_task_scheduling_delay_seconds",
        ),
        ("airflow.dagrun.train__bike_demand.first_task_scheduling_delay", "observer", None),
    ],
)
def test_what_airflow_sends_gets_a_name_with_its_unit(sent: str, kind: str, name: str | None) -> None:
    assert mapped(sent, kind) == name


@pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is not on this machine (Debian: apt install prometheus)"
)
@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "deploy/metrics/prometheus.yml"],
        [
            "test",
            "rules",
            "tests/unit/exporter/alerts.yml",
            "tests/unit/exporter/alerts_of_days.yml",
            "tests/unit/exporter/alerts_of_serving.yml",
        ],
    ],
    ids=["files", "alerts"],
)
def test_promtool_takes_the_files_and_the_alerts_fire(command: list[str]) -> None:
    done = subprocess.run(["promtool", *command], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
