"""One training: snapshot in, judged and registered challenger out. Nothing is promoted here, see `promotion`."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg2
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE

from evergreen import ledger, registry
from evergreen.errors import ErrorReason, EvergreenError, TransientError
from evergreen.microseconds import moment
from evergreen.progress import counted
from evergreen.registry import identity
from evergreen.registry.models import DIGEST_TAG, MODEL_FILE, SPEC_FILE
from evergreen.spec import ModelSpec, Specs
from evergreen.spec.hashes import spec_document, spec_hash, training_hash
from evergreen.training import log_lines
from evergreen.training.card.card import card, known_decisions
from evergreen.training.card.made import Made
from evergreen.training.card.render import PAGE_FILE, TEXT_FILE, page, text
from evergreen.training.data import scratch
from evergreen.training.data.rows import Rows, opened
from evergreen.training.figures.figures import FOLDER, figures
from evergreen.training.figures.judged_sample import WHO
from evergreen.training.fitting import machine
from evergreen.training.fitting.fit import Fitted, gain_shares, parameters
from evergreen.training.gate.candidates import JudgedTraining
from evergreen.training.gate.evaluate import Again, EvaluatedChallenger, Means, evaluate
from evergreen.training.gate.past_holdouts import KINDS, realised
from evergreen.training.plan import answers_drift
from evergreen.training.record import tracking
from evergreen.training.record.dataset_input import dataset_of
from evergreen.training.record.description import description
from evergreen.training.record.outcome import TrainingOutcome
from evergreen.training.record.provenance import git_commit, library_versions
from evergreen.training.record.version import REFERENCE, Final, finalise, write_model_files, write_run_files
from evergreen.training.search.leaderboard import TABLE_FILE
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.features import snapshot_store
from evergreen.warehouse.features.snapshot import Snapshot, write_seen
from evergreen.warehouse.storage.full_disk import room

log = logging.getLogger(__name__)

FINGERPRINT_TAG, COMMIT_TAG = "evergreen.fingerprint", "evergreen.git_commit"
CURVE_STEPS = 100


def train(  # noqa: PLR0913  # what a plan and a run of the DAG say, by name
    specs: Specs,
    model: ModelSpec,
    snapshot: Snapshot,
    as_of: datetime,
    run_id: str,
    *,
    trigger: str,
    requests: tuple[int, ...] = (),
    dry_run: bool = False,
    commit: str | None = None,
) -> TrainingOutcome:
    """Fit a challenger on a snapshot, judge it, log it to MLflow and register it as a version.

    Called again with the same `run_id` it returns what the first call came to, or discards what an interrupted
    call left and does the work again; there is never a second version for one run.

    Args:
        specs: all specs.
        model: what is trained.
        snapshot: the rows, as of `as_of`.
        as_of: the cut-off, aware.
        run_id: the DAG run, the same in all its tries.
        trigger: why it runs, see `ledger.TriggerReason`.
        requests: ids of the retrain requests that it answers.
        dry_run: log a run, tagged so; register and decide nothing.
        commit: of the specs, where they are of another one than this code; that of the code is recorded beside it then.

    Raises:
        TerminalError: data, labels, parameters or predictions that cannot be used; the reason says which.
        TransientError: warehouse, MLflow or the spec's Dask cluster do not answer, or another try of the same run is
            still at work.
    """
    parameters(model)  # those that are refused stop it before anything is written
    with (
        _alone(model.name, run_id) as lock,
        snapshot_store.local(snapshot) as snapshot,
        room(f"training {model.name}", Path(snapshot.path).parent, lambda: _bytes(model, snapshot)),
        scratch.folder(Path(snapshot.path).parent) as work,
        scratch.own_temporaries(work),
    ):
        tracking.sweep(model, run_id, at_work)
        done = tracking.earlier(model, run_id)
        if done is not None:
            log.info("%s: %s was trained already, version %s", model.name, run_id, done.version)
            return done
        document = spec_document(specs, model)
        tags = {
            FINGERPRINT_TAG: snapshot.fingerprint,
            COMMIT_TAG: commit or git_commit() or "none",
            **({"evergreen.code_commit": git_commit() or "none"} if commit else {}),
        }
        dataset = dataset_of(model, snapshot, as_of, tags[COMMIT_TAG])
        for_people = {
            tracking.TRIGGER_TAG: trigger,
            **({tracking.DRY_RUN_TAG: "true"} if dry_run else {}),
        } | {
            MLFLOW_SOURCE_NAME: run_id.partition("/")[0],
            MLFLOW_SOURCE_TYPE: "JOB",
            MLFLOW_GIT_COMMIT: tags[COMMIT_TAG],
        }
        mlflow_run = tracking.begin(model, run_id, as_of, for_people | tags)
        try:
            tracking.learnt_from(mlflow_run, dataset)
            with connect() as conn:
                champion = registry.champion(conn, model.name, repair=False)
                drifted = answers_drift(conn, requests)
                watches = ledger.find(conn, ledger.model_subject(model.name), KINDS, as_of=as_of)
                decisions = known_decisions(conn, model.name, as_of)
            where = machine.choose(model)
            judged = evaluate(
                model,
                snapshot,
                JudgedTraining(run_id, as_of, snapshot.fingerprint, drifted, realised(watches, as_of)),
                champion,
                where,
                work,
                Means(again=read_again(specs, model, as_of, work)),
            )
            log_lines.judged(model, judged, champion.version if champion else None)
            final = finalise(model, judged)
            if final.refitted:
                log.info("%s: fitted again on all %s", model.name, counted(judged.rows["all"], "row"))
            params = parameters(judged.choice.model, where.device)
            shown = _run_parameters(model, judged, final) | {
                "champion_version": champion.version if champion else None,
                "snapshot.rows": snapshot.rows,
                "snapshot.start": snapshot.start,
                "snapshot.end": snapshot.end,
                "engine": where.engine,
                "device": where.device,
            }
            libraries = {f"lib.{name}": version for name, version in library_versions().items()}
            tracking.parameters(mlflow_run, shown | {f"xgb.{n}": v for n, v in params.items()} | libraries)
            drawn = figures(model, judged, gain_shares(final.booster, final.encoding))
            model_id, sums, error_limit = _log_files(
                model, snapshot, judged, final, document, mlflow_run, drawn.pictures
            )
            tracking.measured(
                mlflow_run, model_id, dataset, _measured(model.gate_metric, judged), _curves(judged.fitted)
            )
            outcome = TrainingOutcome(
                model=model.name,
                run_id=run_id,
                as_of=as_of,
                trigger=trigger,
                requests=tuple(requests),
                dry_run=dry_run,
                mlflow_run=mlflow_run,
                version=None,
                verdict=judged.verdict,
                metric=model.gate_metric,
                metrics=judged.metrics,
                holdout=judged.holdout,
                rows=judged.rows,
                rounds=judged.fitted.rounds,
                refitted=final.refitted,
                trained_until=final.trained_until,
                fingerprint=snapshot.fingerprint,
                spec_hash=spec_hash(document),
                digest=identity.digest_of(sums),
                champion_version=champion.version if champion else None,
                champion_decision=champion.decision_id if champion else None,
                note=where.note,
                training_hash=training_hash(specs, model),
                choice=judged.choice.summary(),
                error_limit=error_limit,
            )
            told_of = description(outcome, judged.evidence.over_champion, tracking.experiment(model))
            tracking.describe(mlflow_run, outcome, told_of)
            if not dry_run:
                # Without the connection the lock is gone, and another try may be at work.
                fetch(lock, "SELECT 1")
                more = {DIGEST_TAG: sums[MODEL_FILE], **tracking.tag_files(mlflow_run, sums)}
                with connect() as conn:
                    beyond = identity.highest(conn, model.name)
                version = tracking.register(model, outcome, model_id, tags | more, beyond, told_of)
                outcome = replace(outcome, version=version)
            datasets = specs.datasets_of(model)
            _log_card(
                Made(
                    model,
                    datasets,
                    snapshot,
                    judged,
                    final.encoding,
                    drawn,
                    outcome,
                    decisions,
                    tags[COMMIT_TAG],
                )
            )
            tracking.finish(mlflow_run, outcome)
            log.info(
                "%s: %s",
                model.name,
                f"registered as version {outcome.version}"
                if outcome.version
                else "a dry run: nothing is registered",
            )
        except Exception as error:
            with suppress(EvergreenError):
                tracking.fail(mlflow_run, f"{type(error).__name__}: {error}")
            raise
    return outcome


@contextmanager
def _alone(model_name: str, run_id: str) -> Iterator[Connection]:
    """Keep other tries of the same run out as long as the connection lives; it holds a lock and no transaction.

    A transaction would be idle for the hours of a fit, and a server with idle_in_transaction_session_timeout ends
    those. A connection that is lost lets the next try in, so it is asked for before what counts.

    Raises:
        TransientError: another try holds the lock (BUSY), or the warehouse does not answer.
    """
    name = _lock_name(model_name, run_id)
    with connect() as conn:
        conn.autocommit = True
        if not _taken(conn, name):
            raise TransientError(
                f"another try of {run_id} is still at work; try again when it has ended", ErrorReason.BUSY
            )
        try:
            yield conn
        finally:
            # The server ends a closed session a moment later; the next try need not meet it.
            with suppress(psycopg2.Error):
                _let_go(conn, name)


def at_work(model_name: str, run_id: str) -> bool:
    """Whether a try of a training is at work just now, on whichever machine: it holds its lock."""
    name = _lock_name(model_name, run_id)
    with connect() as conn:
        if not _taken(conn, name):
            return True
        _let_go(conn, name)
        return False


def _lock_name(model_name: str, run_id: str) -> str:
    return f"evergreen.train.{model_name}.{run_id}"


def _taken(conn: Connection, name: str) -> bool:
    return bool(
        fetch(conn, "SELECT pg_try_advisory_lock(hashtextextended(%s, 0)) AS held", (name,))[0]["held"]
    )


def _let_go(conn: Connection, name: str) -> None:
    fetch(conn, "SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (name,))


def _bytes(model: ModelSpec, snapshot: Snapshot) -> int:
    """About what a training writes: its rows encoded, twice where it is fitted again, and a little for the model's files."""
    return snapshot.rows * len(model.features.all) * 4 * (2 if model.training.refit else 1) + (20 << 20)


def read_again(specs: Specs, model: ModelSpec, as_of: datetime, work: Path) -> Again:
    """What reads the holdout once more, with the features that the champion was trained on, into a folder."""

    def rows(version: registry.LoadedModel, held: Rows) -> Rows:
        path, start = work / "champion.parquet", moment(int(held.times[0]))
        write_seen(specs, version.seen_by(model), as_of, start, path, categories=version.categories)
        return opened(path)

    return rows


def _run_parameters(model: ModelSpec, judged: EvaluatedChallenger, final: Final) -> dict[str, Any]:
    """What people ask first, in this order, in which MLflow shows them."""
    return {
        "gate_metric": model.gate_metric,
        "gate_reason": judged.verdict.reason.value,
        "gate_margin": model.gate.margin,
        "baseline": model.baseline,
        **({"window": judged.choice.window} if judged.choice.sentence else {}),
        "rounds": judged.fitted.rounds,
        "early_stopping_metric": judged.fitted.stopping_metric,
        "refitted": final.refitted,
        "holdout_start": judged.notes["holdout_start"],
    }


def _measured(metric: str, judged: EvaluatedChallenger) -> dict[str, float]:
    """The metrics of a run, those by which the gate decided first, as MLflow shows them in this order."""
    every = {f"{who}_{name}": v for who, values in judged.metrics.items() for name, v in values.items()}
    first = [f"{who}_{metric}" for who in WHO]
    found = {name: every[name] for name in first if name in every}
    over = judged.evidence.over_champion
    bounds = {"": over.point, "_low": over.low, "_high": over.high} if over else {}
    found |= {f"improvement{name}": v for name, v in bounds.items() if v is not None}
    found |= every
    found |= {f"holdout_{name}": v for name, v in judged.holdout.items()}
    found |= {f"rows_{name}": float(v) for name, v in judged.rows.items()}
    if judged.choice.board is not None:
        found |= judged.choice.board.measured()
    score = judged.fitted.stopping_score
    return found if score is None else found | {"early_stopping_score": score}


def _curves(fitted: Fitted) -> dict[str, dict[int, float]]:
    """Early stopping's metric by round, of at most some `CURVE_STEPS` of the rounds, the chosen one and the last among them."""
    found = {}
    for name, values in (("newest_rows", fitted.curve.newest), ("learnt_rows", fitted.curve.learnt)):
        if values:
            steps = {
                *range(1, len(values) + 1, max(1, len(values) // CURVE_STEPS)),
                fitted.rounds,
                len(values),
            }
            found[f"{fitted.stopping_metric}_{name}"] = {step: values[step - 1] for step in sorted(steps)}
    return found


def _log_card(made: Made) -> None:
    """Log the model card of what was registered, as a page and as Markdown."""
    written = card(made)
    with tempfile.TemporaryDirectory(prefix="card-") as place:
        Path(place, PAGE_FILE).write_text(page(written, made.figures.pictures), encoding="utf-8")
        Path(place, TEXT_FILE).write_text(text(written, made.figures.pictures), encoding="utf-8")
        registry.log_files(made.outcome.mlflow_run, Path(place))


def _log_files(  # what a training has made, and where it goes
    model: ModelSpec,
    snapshot: Snapshot,
    judged: EvaluatedChallenger,
    final: Final,
    document: dict[str, Any],
    mlflow_run: str,
    pictures: Mapping[str, bytes],
) -> tuple[str, dict[str, str], str]:
    """Log all files; returns MLflow's id of the model, the sums of the files that stay with its version, and what
    is to say of the watch on its error.
    """
    with tempfile.TemporaryDirectory(prefix="files-") as place:
        run_files, model_files = Path(place, "run"), Path(place, "model")
        run_files.mkdir()
        model_files.mkdir()
        error_limit = write_run_files(model, snapshot, judged, final, document, run_files)
        (run_files / FOLDER).mkdir()
        for name, picture in pictures.items():
            (run_files / FOLDER / f"{name}.png").write_bytes(picture)
        registry.log_files(mlflow_run, run_files)
        if judged.choice.board is not None:
            tracking.show_table(mlflow_run, TABLE_FILE)
        model_id = tracking.model_files(
            mlflow_run, final.booster, final.encoding, write_model_files(judged, final, model_files)
        )
        final.booster.save_model(model_files / MODEL_FILE)
        kept = {path.name: path for path in model_files.iterdir()}
        kept[SPEC_FILE] = run_files / SPEC_FILE
        kept |= {f"{REFERENCE}/{path.name}": path for path in (run_files / REFERENCE).iterdir()}
        return model_id, identity.sums(kept), error_limit
