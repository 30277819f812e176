"""Trainings of a replayed policy: the live snapshot, evaluation, gate and final fit; versions stay in its folder."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from evergreen import registry
from evergreen.errors import TerminalError
from evergreen.ledger import Decision, model_subject
from evergreen.ledger.evidence import FailedRunEvidence
from evergreen.ledger.reasons import DecisionKind, of_a_drift
from evergreen.promotion.ruling import decided, evidence, ruled
from evergreen.replay.checkpoint import PolicyFolder
from evergreen.replay.fits import Fits
from evergreen.replay.state import ReplayState, Step
from evergreen.spec import ModelSpec, Specs
from evergreen.spec.hashes import spec_document, spec_hash, training_hash
from evergreen.training.data import scratch
from evergreen.training.fitting import machine
from evergreen.training.gate.candidates import JudgedTraining
from evergreen.training.gate.evaluate import EvaluatedChallenger, Means, evaluate
from evergreen.training.gate.past_holdouts import KINDS, realised
from evergreen.training.plan import Plan
from evergreen.training.record.outcome import TrainingOutcome
from evergreen.training.record.version import Final, finalise, reference_of
from evergreen.warehouse.features import snapshot


class Trainer:
    """Trains challengers, and loads the versions that were promoted."""

    def __init__(self, specs: Specs, model: ModelSpec, folder: PolicyFolder, fits: Path) -> None:
        self._specs, self._model, self._folder, self._fits = specs, model, folder, fits
        self._spec_hash = spec_hash(spec_document(specs, model))
        self._training_hash = training_hash(specs, model)
        self._loaded: dict[str, registry.LoadedModel] = {}

    def load(self, model: ModelSpec, version: str) -> registry.LoadedModel:
        """A promoted version; the last ones stay in memory."""
        if version not in self._loaded:
            recent = list(self._loaded.items())[-2:]
            self._loaded = dict([*recent, (version, self._folder.version(version))])
        return self._loaded[version]

    def params_of(self, model: ModelSpec, champion: registry.Champion) -> dict[str, Any]:
        """The parameters that a promoted version was fitted with."""
        return self._folder.params(champion.version)

    def train(
        self, state: ReplayState, step: Step, plan: Plan, champion: registry.Champion | None
    ) -> Decision:
        """Train as of a plan's time, ask the gate, and rule on the challenger as the live loop does.

        A training that cannot be done, such as one without enough rows, is a decision too (`run_failed`); its requests
        stay open.

        Raises:
            TransientError: the warehouse does not answer.
        """
        version = str(state.trainings + 1)
        run = f"train__{self._model.name}/{version}"
        state.trained(step.as_of)
        step.trained = version
        subject = model_subject(self._model.name)
        try:
            return state.decide(step, self._settled(state, step, plan, champion, version, run))
        except TerminalError as error:
            if champion is None:
                raise
            failure = FailedRunEvidence(dag_id=f"train__{self._model.name}", message=str(error))
            failed = Decision(
                plan.as_of,
                subject,
                DecisionKind.RUN_FAILED,
                error.reason.value,
                run,
                f"failed:{run}",
                failure,
            )
            return state.decide(step, failed)

    def fit_ahead(self, as_of: datetime) -> None:
        """Do the fits of a training as of a time; they do not depend on the champion, so none is asked for.

        Those of a spec that searches for parameters do: the search begins with the champion's.
        """
        if self._model.training.tune.on:
            return
        self._ahead(as_of)

    def first_passes(self, as_of: datetime) -> bool:
        """Whether the gate lets a first champion through that is trained as of a time; decides nothing.

        Raises:
            TransientError: the warehouse does not answer.
        """
        try:
            return self._ahead(as_of).verdict.passed
        except TerminalError:
            return False

    def _means(self, fits: Fits) -> Means:
        return Means(
            load=self.load,
            fitting=fits.fit,
            refitting=fits.refit,
            studies=self._folder.studies,
            params_of=self.params_of,
        )

    def _ahead(self, as_of: datetime) -> EvaluatedChallenger:
        place = self._folder.path / "ahead"
        taken = snapshot.take(self._specs, self._model, as_of, place)
        fits = Fits(self._fits, taken.fingerprint)
        try:
            with scratch.folder(place) as work:
                judged = evaluate(
                    self._model,
                    taken,
                    JudgedTraining("ahead", as_of, taken.fingerprint),
                    None,
                    machine.choose(self._model),
                    work,
                    self._means(fits),
                )
                finalise(self._model, judged, fits.refit)
                return judged
        finally:
            taken.remove()

    def _settled(
        self,
        state: ReplayState,
        step: Step,
        plan: Plan,
        champion: registry.Champion | None,
        version: str,
        run: str,
    ) -> Decision:
        model, place = self._model, self._folder.path / "scratch"
        taken = snapshot.take(self._specs, model, plan.as_of, place)
        fits = Fits(self._fits, taken.fingerprint)
        # As `plan.answers_drift` asks the live ledger.
        reasons = [d.reason for d in state.open_requests() if d.id in plan.requests]
        drifted = any(of_a_drift(reason) for reason in reasons)
        try:
            with scratch.folder(place) as work:
                where = machine.choose(model)
                judged = evaluate(
                    model,
                    taken,
                    JudgedTraining(
                        run, plan.as_of, taken.fingerprint, drifted, realised(state.find(*KINDS), plan.as_of)
                    ),
                    champion,
                    where,
                    work,
                    self._means(fits),
                )
                if judged.choice.board is not None:
                    step.fit_seconds += judged.choice.board.seconds
                final = finalise(model, judged, fits.refit)
                found = self._outcome(plan, champion, taken, judged, final, version, run)
                ruling = ruled(found, champion, state.find(DecisionKind.ROLLED_BACK))
                if ruling.passed:
                    reference = reference_of(model, taken, judged, final)
                    params = judged.choice.model.training.params
                    self._folder.save_version(version, final.booster, final.encoding, reference, params)
        finally:
            step.fit_seconds += fits.seconds
            taken.remove()
        return decided(found, ruling, run, evidence(found, ruling, None))

    def _outcome(
        self,
        plan: Plan,
        champion: registry.Champion | None,
        taken: snapshot.Snapshot,
        judged: EvaluatedChallenger,
        final: Final,
        version: str,
        run: str,
    ) -> TrainingOutcome:
        return TrainingOutcome(
            model=self._model.name,
            run_id=run,
            as_of=plan.as_of,
            trigger=plan.trigger,
            requests=plan.requests,
            dry_run=False,
            mlflow_run=f"replay-{version}",
            version=version,
            verdict=judged.verdict,
            metric=self._model.gate_metric,
            metrics=judged.metrics,
            holdout=judged.holdout,
            rows=judged.rows,
            rounds=judged.fitted.rounds,
            refitted=final.refitted,
            trained_until=final.trained_until,
            fingerprint=taken.fingerprint,
            spec_hash=self._spec_hash,
            champion_version=champion.version if champion else None,
            champion_decision=champion.decision_id if champion else None,
            training_hash=self._training_hash,
            choice=judged.choice.summary(),
        )
