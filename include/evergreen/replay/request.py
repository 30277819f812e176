"""What a replay was asked for, and where it lies on the disk; written down first, so that every worker reads the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError
from evergreen.reference import calendar
from evergreen.reference.calendar import Window
from evergreen.replay.checkpoint import PolicyFolder, write_json
from evergreen.replay.policies import WEEK, Policy, PolicyKind, parse_all
from evergreen.spec import DatasetSpec, ModelSpec, Specs, format_duration
from evergreen.spec.hashes import spec_document, spec_hash
from evergreen.spec.load import read_model
from evergreen.training.record.provenance import git_commit, library_versions
from evergreen.warehouse.batches.contents import contents
from evergreen.warehouse.connection import connect

FILE = "settings.json"
SAME = ("task", "datasets", "key", "event_time", "label")


@dataclass(frozen=True)
class ReplayRequest:
    """A replay.

    Attributes:
        specs: the datasets.
        model: the model as it is now; its windows are those of the table.
        begin: FROM, moved up to the start of a window: as-of time of the first champion.
        end: TO, moved down to the end of a window: labels that arrived by then make the table.
        policies: with the spec that each runs.
        folder: of the replay.
        provenance: the code's commit, the versions of the libraries, and what each dataset held up to TO.
    """

    specs: Specs
    model: ModelSpec
    begin: datetime
    end: datetime
    policies: tuple[tuple[Policy, ModelSpec], ...]
    folder: Path
    provenance: dict[str, Any]

    @property
    def windows(self) -> list[Window]:
        """The windows of the table."""
        length = self.model.monitoring.window
        return calendar.complete(length, self.begin, self.end)

    def ends(self, model: ModelSpec) -> list[datetime]:
        """The moments of a policy after its first champion: the ends of its windows, and the end of the replay."""
        found = [w.end for w in calendar.complete(model.monitoring.window, self.begin, self.end)]
        found = [end for end in found if end > self.begin]
        return found if found and found[-1] == self.end else [*found, self.end]

    def policy_folder(self, policy: Policy, model: ModelSpec) -> PolicyFolder:
        """Where a policy's steps are."""
        name = policy.folder
        if policy.spec is not None:
            name += "-" + spec_hash(spec_document(self.specs, model))[:8]
        return PolicyFolder(self.folder / "policies" / name)

    def with_finished(self) -> ReplayRequest:
        """The same with the policies that earlier runs in this folder have finished: a table holds all that are known."""
        if not (self.folder / FILE).is_file():
            return self
        mine = {self.policy_folder(p, m).path for p, m in self.policies}
        others = [
            (p, m)
            for p, m in ReplayRequest.read(self.folder).policies
            if (place := self.policy_folder(p, m)).path not in mine
            and place.finished() >= len(self.ends(m)) + 1
        ]
        return replace(self, policies=(*self.policies, *others))

    def write(self) -> None:
        """Write it into its folder: of the specs what their files say, because a default may mean more than its value, as `freshness`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "model": _written(self.model),
            "datasets": {n: _written(d) for n, d in self.specs.datasets.items()},
            "from": self.begin.isoformat(),
            "to": self.end.isoformat(),
            "policies": [{"name": p.name, "spec": _written(m) if p.spec else None} for p, m in self.policies],
            "provenance": self.provenance,
        }
        write_json(self.folder / FILE, content)

    @staticmethod
    def read(folder: Path) -> ReplayRequest:
        """Read what `write` wrote."""
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        model = ModelSpec.model_validate(content["model"])
        datasets = {n: DatasetSpec.model_validate(d) for n, d in content["datasets"].items()}
        found = parse_all([p["name"] for p in content["policies"]])
        specs = [ModelSpec.model_validate(p["spec"]) if p["spec"] else model for p in content["policies"]]
        return ReplayRequest(
            specs=Specs(datasets, {model.name: model}),
            model=model,
            begin=datetime.fromisoformat(content["from"]),
            end=datetime.fromisoformat(content["to"]),
            policies=tuple(zip(found, specs, strict=True)),
            folder=folder,
            provenance=content["provenance"],
        )


def _written(spec: ModelSpec | DatasetSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude_unset=True)


def ask(
    specs: Specs, model: ModelSpec, begin: datetime, end: datetime, names: list[str], home: Path | None = None
) -> ReplayRequest:
    """Plan a replay; its folder is another one where specs, code, libraries or the rows up to TO are.

    Args:
        specs: all specs.
        model: whose loop is replayed.
        begin, end: event times, aware.
        names: of the policies, see `policies.KNOWN`.
        home: folder of all replays; default `EVERGREEN_HOME/replays`.

    Raises:
        TerminalError: a policy is not known, its spec is not usable, or the range holds no whole window (BAD_SPEC).
        TransientError: the warehouse does not answer.
    """
    length = model.monitoring.window
    first = calendar.window_of(begin, length)
    begin = first.start if first.start == begin else first.end
    end = calendar.window_of(end, length).start
    if begin >= end:
        raise TerminalError(
            f"{model.name}: no whole window of {format_duration(length)} (monitoring.window) lies between FROM and TO; choose "
            "a longer range",
            ErrorReason.BAD_SPEC,
        )
    # With windows of a week or more the two are the same trainings.
    if length >= WEEK and "every_window" in names:
        names = [name for name in names if name != "weekly"]
    policies = tuple((p, _spec_of(p, model)) for p in parse_all(names))
    with connect(timeout_s=1500) as conn:
        data = {d.name: asdict(contents(conn, d, end)) for d in specs.datasets_of(model)}
    provenance = {"commit": git_commit(), "libraries": library_versions(), "data": data}
    told = json.dumps([spec_document(specs, model), _written(model), provenance], sort_keys=True)
    digest = hashlib.sha256(told.encode()).hexdigest()[:8]
    home = home or settings.HOME.path() / "replays"
    folder = home / model.name / f"{begin:%Y%m%d}-{end:%Y%m%d}-{digest}"
    return ReplayRequest(specs, model, begin, end, policies, folder, provenance)


def cost(policy: Policy) -> tuple[int, float]:
    """The order in which policies are begun: those with the most trainings first."""
    order = (PolicyKind.SCHEDULE, PolicyKind.MOMENTS, PolicyKind.DRIFT, PolicyKind.NEVER)
    return order.index(policy.kind), policy.every.total_seconds()


def _spec_of(policy: Policy, model: ModelSpec) -> ModelSpec:
    if policy.spec is None:
        return model
    found = read_model(policy.spec, model.query)
    if isinstance(found, list):
        raise TerminalError("\n".join(map(str, found)), ErrorReason.BAD_SPEC)
    if other := [name for name in SAME if getattr(found, name) != getattr(model, name)]:
        raise TerminalError(
            f"{policy.spec}: {', '.join(other)} differ from those of {model.name}; policies are compared on the same labels",
            ErrorReason.BAD_SPEC,
        )
    return found.model_copy(update={"name": model.name})
