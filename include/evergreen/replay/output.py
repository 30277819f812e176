"""What a replay writes: CSV, JSON, a PNG and an HTML page that holds the picture; and the table as text."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from evergreen.replay.checkpoint import replace_whole, write_json
from evergreen.replay.picture import draw
from evergreen.replay.request import ReplayRequest
from evergreen.replay.result import PolicyOutcome
from evergreen.spec import LARGER_IS_BETTER, format_duration, metric_name

HEADS = {
    "policy": "policy",
    "error": "error",
    "relative": "against the first",
    "retrains": "retrains",
    "promoted": "promoted",
    "rejected": "rejected",
    "failed": "failed",
    "rolled_back": "rolled back",
    "alarms": "alarms",
    "requests": "requests",
    "suppressed": "suppressed",
    "fit_seconds": "fit s",
}
READING = (
    ("error", "the watched metric of all served predictions, with every label that had arrived by TO"),
    ("against the first", "the error as a share of the first policy's, less 100 %"),
    (
        "retrains",
        "trainings after the first champion's: promoted, rejected by the gate, or failed for want of rows",
    ),
    ("rolled back", "by the watch after a promotion, because the new champion was surely worse"),
    (
        "alarms",
        "windows in violation: drift of any column, or an error beyond its limit, at their last judgement",
    ),
    (
        "requests, suppressed",
        "what the trigger policy asked for and suppressed; only policies on drift ask it",
    ),
    (
        "fit s",
        "seconds of the fits, those of validation and tuning too; of two policies that fit the same rows each counts them",
    ),
)
STYLE = """body{font:16px/1.5 system-ui,sans-serif;color:#1f2933;max-width:1100px;margin:2em auto;padding:0 1em}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.3em .7em;border-bottom:1px solid #e4e7eb;text-align:right}
td:first-child,th:first-child{text-align:left}img{max-width:100%}dt{font-weight:600}dd{margin:0 0 .5em 1.5em}"""


def write(asked: ReplayRequest, outcomes: Sequence[PolicyOutcome]) -> dict[str, Path]:
    """Write `table.csv`, `windows.csv`, `result.json`, `error.png` and `index.html` into the replay's folder."""
    metric = asked.model.performance_metric
    title = f"{asked.model.name}: served {metric_name(metric)} under {len(outcomes)} policies"
    picture = draw(title, metric, outcomes)
    files = {
        "table": asked.folder / "table.csv",
        "windows": asked.folder / "windows.csv",
        "result": asked.folder / "result.json",
        "picture": asked.folder / "error.png",
        "page": asked.folder / "index.html",
    }
    texts = {
        "table": _csv([o.totals() for o in outcomes]),
        "windows": _csv([{"policy": o.policy, **_point(p)} for o in outcomes for p in o.points]),
        "page": _page(asked, title, outcomes, picture),
    }
    for name, text in texts.items():
        replace_whole(files[name], lambda part, text=text: part.write_text(text, encoding="utf-8"))
    replace_whole(files["picture"], lambda part: part.write_bytes(picture))
    content = {
        "settings": _settings(asked),
        "metric": metric,
        "policies": [{**o.totals(), "windows": [_point(p) for p in o.points]} for o in outcomes],
    }
    write_json(files["result"], content)
    return files


def table(outcomes: Sequence[PolicyOutcome], metric: str) -> str:
    """The table as text, for a terminal."""
    rows = [[*_heads(metric)], *([*_cells(o, outcomes[0])] for o in outcomes)]
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, wide, strict=True)))
        for row in rows
    ]  # fmt: skip
    return "\n".join([*lines, *_failed(outcomes)])


def _failed(outcomes: Sequence[PolicyOutcome]) -> list[str]:
    return [f"{o.policy}: {o.failed} failed: {o.why_failed}" for o in outcomes if o.failed]


def _heads(metric: str) -> list[str]:
    return [metric if name == "error" else head for name, head in HEADS.items()]


def _cells(outcome: PolicyOutcome, first: PolicyOutcome) -> list[str]:
    found = outcome.totals()
    found["relative"] = outcome.error / first.error - 1 if outcome.error is not None and first.error else None
    shown = {
        "error": lambda v: "unknown" if v is None else f"{v:.4g}",
        "relative": lambda v: "" if v is None else f"{v:+.1%}",
        "fit_seconds": lambda v: f"{v:.1f}",
    }
    return [shown.get(name, str)(found[name]) for name in HEADS]


def _settings(asked: ReplayRequest) -> dict[str, Any]:
    model = asked.model
    trigger = model.monitoring.trigger
    return {
        "model": model.name,
        "from": asked.begin.isoformat(),
        "to": asked.end.isoformat(),
        "windows": len(asked.windows),
        "window": format_duration(model.monitoring.window),
        "training.window": "all"
        if model.training.window == "all"
        else format_duration(model.training.window),
        "training.holdout": format_duration(model.training.holdout),
        "trigger": f"{trigger.m} of {trigger.n}, cool-down {format_duration(trigger.cooldown)}",
        "performance.max_worse": model.monitoring.performance.max_worse,
        "gate": f"{model.gate.on_drift} on drift, else {model.gate.otherwise}, {model.gate.confidence:.0%} sure",
        "policies": [p.name for p, _ in asked.policies],
        **asked.provenance,
    }


def _page(asked: ReplayRequest, title: str, outcomes: Sequence[PolicyOutcome], picture: bytes) -> str:
    metric = asked.model.performance_metric
    better = "larger" if metric in LARGER_IS_BETTER else "smaller"
    heads = "".join(f"<th>{escape(h)}</th>" for h in _heads(metric))
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in _cells(o, outcomes[0])) + "</tr>" for o in outcomes
    )
    reading = "".join(f"<dt>{escape(w)}</dt><dd>{escape(m)}.</dd>" for w, m in READING)
    told = "".join(
        f"<tr><td>{escape(str(k))}</td><td>{escape(str(v))}</td></tr>" for k, v in _settings(asked).items()
    )
    failed = "".join(f"<p>{escape(line)}</p>\n" for line in _failed(outcomes))
    data = base64.b64encode(picture).decode()
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p>The loop of {escape(asked.model.name)} from {asked.begin:%Y-%m-%d %H:%M} to {asked.end:%Y-%m-%d %H:%M} UTC, replayed over
{len(asked.windows)} windows. Each decision saw only what had arrived by then. A {better} {escape(metric_name(metric))} is better.</p>
<p><img alt="error of each policy over time, with its retrains" src="data:image/png;base64,{data}"></p>
<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>
{failed}<h2>How to read it</h2>
<dl>{reading}</dl>
<p>A policy that retrains more is not better by that: look for the smallest error at a number of retrains, gate rejections
and alarms that people can live with. Retraining at random moments often helps too; compare with random:K:SEED.</p>
<h2>Settings</h2>
<table><tbody>{told}</tbody></table>
</body></html>
"""


def _point(point: Any) -> dict[str, Any]:
    return {
        "start": point.start.isoformat(),
        "end": point.end.isoformat(),
        "rows": point.rows,
        "error": point.error,
        "status": point.status,
        "trained": point.trained,
        "came_of_it": point.came_of_it,
        "why": point.why,
    }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
