"""A champion's reference: a sample of the rows of the time it learnt from, and what is usual in them.

The training room builds it once for a version and keeps it with the version in MLflow; every later window is
judged against it. Limits come from the reference's own past: a season that the champion has seen is no drift.

A window has rows whose label never comes, and they may be other rows than the rest. So features, predictions and numbers of
rows are learnt from all rows of that time, the labels and the error from those that have one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evergreen.errors import ErrorReason, TerminalError
from evergreen.metrics.metric_values import compute
from evergreen.microseconds import moment
from evergreen.reference import past_windows
from evergreen.reference.frame import Frame, InMemory
from evergreen.reference.limits import StatisticsFamily, p_values, weights
from evergreen.reference.movement import Movement
from evergreen.reference.noise import RESAMPLES, Resamples
from evergreen.reference.profile import ColumnProfile, Drawn, as_numbers, describe
from evergreen.reference.rhythm import Rhythm
from evergreen.reference.samples import held_from, movement_of, rhythm_of, taken, wanted_columns
from evergreen.spec import BY_CUT, ModelSpec

FORMAT = 3
NOT_LEARNT = ""  # the metric of a movement that is still to be learnt
SAMPLE_FILE = "reference.parquet"
LABELLED_FILE = "labelled.parquet"
PROFILE_FILE = "profile.json"


@dataclass(frozen=True)
class Reference:
    """The sample and the profile of the rows of the time that a champion learnt from.

    Attributes:
        sample: `_key`, `_hash` (not in those of earlier versions), `_time`, the features, `_label`, `_prediction`,
            `_outside` (a prediction by a model that had not learnt the row; null where there is none); at most
            `monitoring.sample_rows` rows.
        columns: a profile for each feature, `_prediction` and `_label`.
        rows: how many rows there are, with a label or without (those of earlier versions: with a label).
        start, end: first and last event time among them, UTC.
        usual_rows: median of the rows in a window that has any.
        window_s: the window's length in seconds when the reference was made.
        windows: how many past windows the limits come from.
        basis: `history`, or `resampled` where the history has fewer than four whole windows.
        family: what the columns' statistics have in common.
        holdout_metrics: the champion's metrics on its holdout.
        baseline_metrics: the naive baseline's on the same rows; empty in those of earlier releases.
        movement: how the watched metric moves between windows.
        rhythm: when rows usually come, and how many.
        labels: the same as `sample`, of the rows that have a label; None where all have one.
        labelled_rows: how many rows have a label: those that the champion learnt from.
        usual_labels: median of the rows with a label in a window that has any.
        cut: `ModelSpec.cut` of the metrics and the movement.
    """

    sample: pa.Table
    columns: Mapping[str, ColumnProfile]
    rows: int
    start: datetime
    end: datetime
    usual_rows: float
    window_s: float
    windows: int
    basis: str
    family: StatisticsFamily
    holdout_metrics: Mapping[str, float]
    movement: Movement
    rhythm: Rhythm
    baseline_metrics: Mapping[str, float] = field(default_factory=dict)
    labels: pa.Table | None = None
    labelled_rows: int = 0
    usual_labels: float = 0.0
    cut: float | None = None

    @property
    def labelled(self) -> pa.Table:
        """The sample of the rows that have a label."""
        return self.sample if self.labels is None else self.labels

    def write(self, folder: Path) -> None:
        """Write `reference.parquet` and `profile.json` into a folder, which is made if it is not there.

        Where rows without a label are in the sample, `labelled.parquet` too.
        """
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.sample, folder / SAMPLE_FILE, compression="zstd")
        if self.labels is not None:
            pq.write_table(self.labels, folder / LABELLED_FILE, compression="zstd")
        profile: dict[str, Any] = {
            "format": FORMAT,
            "rows": self.rows,
            "sample_rows": self.sample.num_rows,
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "usual_rows": self.usual_rows,
            "labelled_rows": self.labelled_rows,
            "usual_labels": self.usual_labels,
            "labelled_sample_rows": None if self.labels is None else self.labels.num_rows,
            "window_s": self.window_s,
            "windows": self.windows,
            "basis": self.basis,
            "family": asdict(self.family),
            "holdout_metrics": dict(self.holdout_metrics),
            "baseline_metrics": dict(self.baseline_metrics),
            "cut": self.cut,
            "movement": self.movement.to_dict(),
            "rhythm": self.rhythm.to_dict(),
            "columns": [c.to_dict() for c in self.columns.values()],
        }
        text = json.dumps(profile, allow_nan=False, indent=1)
        (folder / PROFILE_FILE).write_text(text, encoding="utf-8")

    def for_window(self, model: ModelSpec) -> Reference:
        """This reference for the spec's window, metric and cut of now: made again from the sample if they were changed.

        What a reference of an earlier format does not tell is learnt from its sample.
        """
        model = self.seen_by(model)
        if "_outside" not in self.sample.column_names:  # format 2
            rows = InMemory.of(self.sample)
            everything = np.arange(len(rows.times))
            self = replace(self, sample=taken(model, rows, everything, wanted_columns(model)))
        metric = model.performance_metric
        same = metric == self.movement.metric and (metric not in BY_CUT or model.cut == self.cut)
        self = self._measured(model)
        if model.monitoring.window.total_seconds() == self.window_s:
            return self if same else self.moving(model)
        gains = {c.name: c.gain for c in self.columns.values() if c.gain is not None}
        again = build(model, self.sample, self.holdout_metrics, gains, self.baseline_metrics, self.labels)
        scale = self.rows / self.sample.num_rows
        rhythm = rhythm_of(self.sample, model.monitoring.window, scale)
        return replace(
            again,
            rows=self.rows,
            usual_rows=again.usual_rows * scale,
            labelled_rows=self.labelled_rows,
            usual_labels=again.usual_labels * self.labelled_rows / self.labelled.num_rows,
            rhythm=replace(rhythm, silence=self.rhythm.silence),
        )

    def _measured(self, model: ModelSpec) -> Reference:
        """This reference with the metrics by the spec's cut, and the watched one where an earlier release did not know it."""
        stale = {n for n in self.holdout_metrics if n in BY_CUT and model.cut != self.cut}
        if not stale and model.performance_metric in self.holdout_metrics:
            return self
        frame = InMemory.of(self.labelled)
        begin = held_from(model, frame.times)
        y, p = (as_numbers(frame.column(name))[begin:] for name in ("_label", "_prediction"))
        known = np.isfinite(y) & np.isfinite(p)
        found = compute(model.task, y[known], p[known], model.cut) if known.any() else {}
        kept = {n: v for n, v in self.holdout_metrics.items() if n not in stale}
        return replace(
            self,
            holdout_metrics={**found, **kept},
            baseline_metrics={n: v for n, v in self.baseline_metrics.items() if n not in stale},
            cut=model.cut,
        )

    def moving(self, model: ModelSpec, rows: Frame | None = None) -> Reference:
        """This reference with the movement of the error learnt again, for the spec's window and metric.

        `rows`: those that it was built from and that have a label; None: its sample of them, whose holdout is smaller.
        """
        usual = self.usual_labels * (model.monitoring.window.total_seconds() / self.window_s)
        rows = rows or InMemory.of(self.labelled)
        return replace(self, movement=movement_of(model, rows, self.labelled, usual))

    def seen_by(self, model: ModelSpec) -> ModelSpec:
        """The spec with the features that the champion learnt from, which are what is watched; it may have left some since."""
        features = [c for c in self.columns.values() if c.role == "feature"]
        return model.seeing(
            (c.name for c in features if c.numeric), (c.name for c in features if not c.numeric)
        )

    @classmethod
    def read(cls, folder: Path) -> Reference:
        """Read what `write` wrote.

        Raises:
            TerminalError: a file is missing, damaged or of an unknown format. Nothing can be judged then.
        """
        try:
            profile = json.loads((folder / PROFILE_FILE).read_text(encoding="utf-8"))
            while step := _STEPS.get(profile.get("format")):
                profile = step(profile)
            if profile.get("format") != FORMAT:
                raise _unusable(
                    f"{PROFILE_FILE} has format {profile.get('format')!r}, this release reads {min(_STEPS)} to {FORMAT}"
                )
            columns = [ColumnProfile.from_dict(c) for c in profile["columns"]]
            sample = _read_sample(folder / SAMPLE_FILE, profile["sample_rows"], columns)
            few = profile.get("labelled_sample_rows")
            labels = None if few is None else _read_sample(folder / LABELLED_FILE, few, columns)
            rows, usual = int(profile["rows"]), float(profile["usual_rows"])
            # An earlier release kept no rhythm, and a number of rows that empty windows had made too small.
            rhythm = (
                Rhythm.from_dict(profile["rhythm"])
                if "rhythm" in profile
                else rhythm_of(
                    sample, timedelta(seconds=float(profile["window_s"])), rows / profile["sample_rows"]
                )
            )
            return cls(
                sample=sample,
                columns={c.name: c for c in columns},
                rows=rows,
                start=datetime.fromisoformat(profile["start"]),
                end=datetime.fromisoformat(profile["end"]),
                usual_rows=usual or rhythm.largest,
                window_s=float(profile["window_s"]),
                windows=int(profile["windows"]),
                basis=str(profile["basis"]),
                family=_family(profile["family"]),
                holdout_metrics={k: float(v) for k, v in profile["holdout_metrics"].items()},
                movement=Movement.from_dict(profile["movement"]),
                rhythm=rhythm,
                baseline_metrics={k: float(v) for k, v in profile.get("baseline_metrics", {}).items()},
                labels=labels,
                # An earlier release knew of rows with a label only.
                labelled_rows=int(profile.get("labelled_rows", rows)),
                usual_labels=float(profile.get("usual_labels", usual or rhythm.largest)),
                cut=profile.get("cut"),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
            raise _unusable(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error


def build(
    model: ModelSpec,
    rows: pa.Table | Frame,
    holdout_metrics: Mapping[str, float],
    gains: Mapping[str, float] | None = None,
    baseline_metrics: Mapping[str, float] | None = None,
    labelled: pa.Table | Frame | None = None,
) -> Reference:
    """Make the reference of a champion from the rows of the time it learnt from.

    Deterministic: the same rows give the same reference, in whatever order a table has them. Memory is one column.

    Args:
        model: names the features and the monitoring settings.
        rows: `_key` (text), `_time` (timestamp with time zone), the features, `_label` and `_prediction`
            (numbers), a row for each row of the time that the champion learnt from; with `_hash` (int64), that of the feature
            query, the sample is drawn as the warehouse draws a window's; with `_outside`, see `Reference.sample`.
            Predictions of the newest `training.holdout` are of a model that had not learnt those rows.
        holdout_metrics: the metrics of the champion on its holdout.
        gains: each feature's share of the champion's gain, 0 for one that is not named; none: all count the same.
        baseline_metrics: the metrics of the naive baseline on the holdout.
        labelled: those of the rows that have a label; None: all have one.

    Raises:
        TerminalError: no rows, a column is absent, or the watched metric is missing or not a number.
    """
    wanted = wanted_columns(model)
    names = rows.column_names if isinstance(rows, pa.Table) else rows.names
    absent = [n for n in wanted if n not in names]
    if absent:
        raise TerminalError(
            f"{model.name}: the reference needs the columns {', '.join(absent)}; give the snapshot with predictions",
            ErrorReason.BAD_QUERY,
        )
    frame = InMemory.of(rows) if isinstance(rows, pa.Table) else rows
    times, hashes = frame.times, frame.hashes
    if not len(times):
        raise TerminalError(
            f"{model.name}: 0 rows for the reference, at least 1 is needed; land data", ErrorReason.NO_ROWS
        )
    metric = holdout_metrics.get(model.performance_metric)
    if metric is None or not math.isfinite(metric):
        raise TerminalError(
            f"{model.name}: the holdout has {model.performance_metric} {metric}, so served errors could not be judged; "
            f"evaluate the challenger on {model.performance_metric}, or watch another metric",
            ErrorReason.BAD_METRIC,
        )
    monitoring = model.monitoring
    past = past_windows.split(times, monitoring, model.training.seed)
    chosen = past_windows.sample_of(hashes, monitoring.sample_rows)
    sample = np.zeros(len(times), dtype=bool)
    sample[chosen] = True
    windows = tuple(w[past_windows.sample_of(hashes[w], monitoring.sample_rows)] for w in past.rows)
    window_rows = float(np.median([len(w) for w in windows]))
    resamples = Resamples.draw(chosen, window_rows, monitoring.sample_rows, model.training.seed)
    share = {n: (gains.get(n, 0.0) if gains else None) for n in model.features.all}
    weighted = weights(share)
    roles = [(n, "feature", True) for n in model.features.numeric]
    roles += [(n, "feature", False) for n in model.features.categorical]
    roles += [("_prediction", "prediction", True)]
    roles += [("_label", "label", True)] if labelled is None else []
    columns, drawn = {}, Drawn(sample, past, windows, resamples)
    smallest = np.ones((len(resamples.sizes), RESAMPLES))
    for name, role, numeric in roles:
        columns[name], moves = describe(frame.column(name), name, role, numeric, share.get(name), drawn)
        for values in moves.values() if role != "label" else ():
            smallest = np.minimum(smallest, p_values(values, weighted.get(name, 1.0)))
    kept = taken(model, frame, chosen, wanted)
    known, labels, usual_labels = frame, None, past.usual_rows
    if labelled is not None:
        known = InMemory.of(labelled) if isinstance(labelled, pa.Table) else labelled
        columns["_label"], usual_labels = _label(model, known, resamples)
        labels = taken(model, known, past_windows.sample_of(known.hashes, monitoring.sample_rows), wanted)
    return Reference(
        sample=kept,
        columns=columns,
        rows=len(times),
        start=moment(int(times.min())),
        end=moment(int(times.max())),
        usual_rows=past.usual_rows,
        window_s=monitoring.window.total_seconds(),
        windows=len(past.rows),
        basis=past.basis,
        family=StatisticsFamily(
            sizes=resamples.sizes,
            smallest=tuple(tuple(float(f"{p:.4g}") for p in np.sort(found)) for found in smallest),
            window_rows=window_rows,
            basis=past.basis,
        ),
        holdout_metrics={k: float(v) for k, v in holdout_metrics.items() if math.isfinite(v)},
        movement=movement_of(model, known, kept if labels is None else labels, usual_labels),
        rhythm=past.rhythm,
        cut=model.cut,
        baseline_metrics={k: float(v) for k, v in (baseline_metrics or {}).items() if math.isfinite(v)},
        labels=labels,
        labelled_rows=len(known.times),
        usual_labels=usual_labels,
    )


def _label(model: ModelSpec, frame: Frame, resamples: Resamples) -> tuple[ColumnProfile, float]:
    """The label's profile from the rows that have one, and how many of those a window usually has."""
    monitoring, hashes = model.monitoring, frame.hashes
    past = past_windows.split(frame.times, monitoring, model.training.seed)
    chosen = past_windows.sample_of(hashes, monitoring.sample_rows)
    sample = np.zeros(len(hashes), dtype=bool)
    sample[chosen] = True
    windows = tuple(w[past_windows.sample_of(hashes[w], monitoring.sample_rows)] for w in past.rows)
    drawn = Resamples.draw(
        chosen, past.usual_rows, monitoring.sample_rows, model.training.seed, resamples.sizes
    )
    profile, _ = describe(
        frame.column("_label"), "_label", "label", True, None, Drawn(sample, past, windows, drawn)
    )
    return profile, past.usual_rows


def _read_sample(file: Path, count: int, columns: Sequence[ColumnProfile]) -> pa.Table:
    """A sample as `write` wrote it, if it is whole."""
    sample = pq.ParquetFile(file).read()
    if sample.num_rows != count or not sample.num_rows:
        raise _unusable(f"{file.name} has {sample.num_rows} rows, the profile names {count}")
    absent = [c.name for c in columns if c.name not in sample.column_names]
    if absent:
        raise _unusable(f"{file.name} lacks {', '.join(absent)}")
    return sample


def _family(told: dict[str, Any]) -> StatisticsFamily:
    smallest = tuple(tuple(map(float, found)) for found in told["smallest"])
    return StatisticsFamily(
        tuple(map(int, told["sizes"])), smallest, float(told["window_rows"]), str(told["basis"])
    )


def _from_format_2(profile: dict[str, Any]) -> dict[str, Any]:
    """Format 2 knew nothing of how the error moves; see `Reference.for_window`."""
    return {**profile, "format": 3, "movement": Movement(NOT_LEARNT).to_dict()}


_STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {2: _from_format_2}
"""By format, what makes a profile of the next one of it. A new format brings its own, so that no champion is lost by an upgrade."""


def _unusable(what: str) -> TerminalError:
    return TerminalError(
        f"the champion's reference is not usable: {what}; no window can be judged without it. "
        "Train the model again, or roll back to a version whose reference is whole",
        ErrorReason.REGISTRY_MISMATCH,
    )
