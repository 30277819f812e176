"""Every candidate of a training in one table, best first, as it stands in MLflow beside the run."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergreen.training.search.validate import Scored

TABLE_FILE = "leaderboard.json"
PAGE_FILE = "leaderboard.html"


@dataclass(frozen=True)
class Leaderboard:
    """The candidates that were scored on the same folds.

    `metric` is the gate's, `folds` says when each fold is, newest first; `relative` is each candidate's error as a share
    of the first candidate's (None where it has none), in the order of `scored`. `chosen` is the position of the one that
    was trained. `sentence` says in words what came out.
    """

    metric: str
    folds: tuple[str, ...]
    scored: tuple[Scored, ...]
    relative: tuple[float | None, ...]
    chosen: int
    sentence: str

    @property
    def order(self) -> list[int]:
        """Positions, best first; those without a score come last, as they were tried."""
        return sorted(
            range(len(self.scored)), key=lambda i: (self.relative[i] is None, self.relative[i] or 0.0, i)
        )

    @property
    def seconds(self) -> float:
        """What the candidates' fits took."""
        return sum(s.seconds for s in self.scored)

    def measured(self) -> dict[str, float]:
        """What the run keeps as metrics: of the chosen candidate and of the leaderboard as a whole."""
        mean, share = self.scored[self.chosen].mean, self.relative[self.chosen]
        found = {
            "candidates": float(len(self.scored)),
            "validation_seconds": self.seconds,
        }
        if mean is not None and share is not None:
            found |= {f"validation_{self.metric}": mean, "validation_error_of_the_first": share}
        return found

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary a candidate, best first."""
        found = []
        for rank, place in enumerate(self.order, 1):
            one, share = self.scored[place], self.relative[place]
            row: dict[str, Any] = {
                "rank": rank if share is not None else None,
                "chosen": place == self.chosen,
                "learner": one.candidate.kind,
                "source": one.candidate.source,
                "window": one.candidate.window_text,
                "error of the first": None if share is None else round(share, 5),
                f"{self.metric} mean": one.mean,
            }
            for number, name in enumerate(self.folds):
                row[f"{self.metric} {name}"] = one.values[number] if number < len(one.values) else None
            row |= {
                "rounds": ", ".join(map(str, one.rounds)) if any(one.rounds) else "",
                "fit seconds": round(one.seconds, 2),
                "parameters": json.dumps(one.candidate.params, sort_keys=True)
                if one.candidate.params
                else "",
                "problem": one.problem,
            }
            found.append(row)
        return found

    def table(self) -> dict[str, Any]:
        """As `mlflow.log_table` writes it, so that MLflow shows it as a table and `MlflowClient.load_table` reads it."""
        rows = self.rows()
        return {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}

    def page(self) -> str:
        """As a page without scripts, which MLflow shows among the run's artifacts."""
        rows = [row | {"parameters": readable(row["parameters"])} for row in self.rows()]
        lines = [
            _line("th", rows[0]),
            *(_line("td", map(_text, row.values()), row["chosen"]) for row in rows),
        ]
        return PAGE.format(sentence=html.escape(self.sentence), lines="\n".join(lines))


PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Leaderboard</title>
<style>
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 1.5em; color: #1a1a1a; background: #fff }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }}
tr.chosen {{ background: #e8f3e8; font-weight: 600 }}
</style>
<p>{sentence}</p>
<table>
{lines}
</table>
<p>Folds are the newest pieces of the training part, newest first, before the holdout by which the gate judges. "Error of
the first" is the error as a share of that of the spec's parameters with its longest window, the mean over the folds.</p>
"""


def _line(tag: str, cells: Any, chosen: bool = False) -> str:
    made = "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells)
    return f'<tr class="chosen">{made}</tr>' if chosen else f"<tr>{made}</tr>"


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "chosen" if value else ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def params_text(params: Mapping[str, Any]) -> str:
    """Parameters as people read them: `max_depth 6, learning_rate 0.08`."""
    return ", ".join(f"{name} {_plain(value)}" for name, value in sorted(params.items()))


def readable(parameters: str) -> str:
    """The parameters of a line of the table, which has them exactly, as people read them."""
    return params_text(json.loads(parameters)) if parameters else ""


def common_params(every: Sequence[Mapping[str, Any]]) -> set[str]:
    """The parameters that have one value wherever candidates have parameters at all: what does not tell them apart."""
    some = [params for params in every if params]
    names = {name for params in some for name in params}
    return {n for n in names if all(n in p and p[n] == some[0].get(n) for p in some)}


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write(board: Leaderboard, folder: Path) -> None:
    """Write the table and the page into a folder."""
    table = json.dumps(board.table(), allow_nan=False)
    (folder / TABLE_FILE).write_text(table, encoding="utf-8")
    (folder / PAGE_FILE).write_text(board.page(), encoding="utf-8")
