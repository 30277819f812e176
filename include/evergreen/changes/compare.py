"""What differs between the specs of a commit and those of the working tree, and what that means for models and tables."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from evergreen.changes import base, fields
from evergreen.monitoring.trigger.upkeep_rule import asks_for_changes
from evergreen.spec import DatasetSpec, ModelSpec, Specs, load_specs
from evergreen.spec import folder as folders
from evergreen.spec.hashes import training_hash

SHOWN = 12  # characters of a hash
NOTHING = "nothing that is read changes: comments, spacing, order, or a default that is written out"
ONE = {"datasets": "dataset", "models": "model"}


@dataclass(frozen=True)
class Diff:
    """A file as a unified diff, without its head."""

    file: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """What is another in one spec, and what that means.

    Attributes:
        kind: `dataset` or `model`.
        name: of now; of before where it is gone.
        what: `changed`, `new`, `removed`, `renamed`, or `affected`: none of its own files differs, a dataset of it does.
        was: its name before, where it was renamed.
        files: of its own that differ, `models/NAME.yaml`.
        fields: that differ.
        diffs: its SQL, and its YAML where the fields cannot be told.
        trains: whether the model that a training makes is another one; None where that cannot be told, and for datasets.
        hashes: `provenance.training_hash` before and now, where there is one.
        means: sentences.
        champion: who is champion and whether it is older than the spec; empty without a warehouse.
        rehearsal: what a training came to that left nothing behind; empty where none was asked for.
    """

    kind: str
    name: str
    what: str
    was: str = ""
    files: tuple[str, ...] = ()
    fields: tuple[fields.Field, ...] = ()
    diffs: tuple[Diff, ...] = ()
    trains: bool | None = None
    hashes: tuple[str, str] = ("", "")
    means: tuple[str, ...] = ()
    champion: str = ""
    rehearsal: str = ""

    @property
    def worth_rehearsing(self) -> bool:
        """Whether a training, or the gate's word on it, may come out otherwise than before."""
        gate = any(field.name.startswith("gate.") for field in self.fields)
        return self.kind == "model" and self.what != "removed" and (self.trains is not False or gate)


@dataclass(frozen=True)
class Compared:
    """All that differs from a commit; `before` are its specs."""

    name: str
    commit: str
    changes: tuple[Change, ...]


def compare(folder: Path, specs: Specs, name: str) -> Compared:
    """Compare the working tree with a commit.

    Args:
        folder: the specs of the working tree.
        specs: the same, read.
        name: of the commit.

    Raises:
        TerminalError: there is nothing to compare with, see `base.base`.
    """
    with base.base(folder, name) as before:
        old = load_specs(before.folder)
        changes = []
        for kind, pairs in _by_spec(base.moved(before, folder)).items():
            for (was, now), files in pairs.items():
                changes.append(
                    _change(kind, was, now, files, _Side(old, before.folder), _Side(specs, folder))
                )
        known = {c.name for c in changes if c.kind == "model"}
        changes += [c for c in _affected(old, specs) if c.name not in known]
    order = sorted(changes, key=lambda c: (c.kind, c.name))
    return Compared(name, before.commit, tuple(order))


def _by_spec(moved: list[tuple[str, base.Moved]]) -> dict[str, dict[tuple[str, str], list[base.Moved]]]:
    """The files by kind and by the names of their spec before and now; of a rename both, else one may be empty."""
    found: dict[str, dict[tuple[str, str], list[base.Moved]]] = {kind: {} for kind in base.KINDS}
    for kind in base.KINDS:
        endings = folders.ENDINGS if kind == "datasets" else (*folders.ENDINGS, ".sql")
        files = [
            one for k, one in moved if k == kind and Path(one.after or one.before or "").suffix in endings
        ]
        renamed = {
            Path(f.before).stem: Path(f.after).stem
            for f in files
            if f.before
            and f.after
            and not f.after.endswith(".sql")
            and Path(f.before).stem != Path(f.after).stem
        }
        new_names = {now: was for was, now in renamed.items()}
        for file in files:
            for path, is_new in ((file.before, False), (file.after, True)):
                if path is None:
                    continue
                stem = Path(path).stem
                pair = (new_names.get(stem, stem), stem) if is_new else (stem, renamed.get(stem, stem))
                listed = found[kind].setdefault(pair, [])
                if file not in listed:
                    listed.append(file)
    return found


@dataclass(frozen=True)
class _Side:
    """The specs before or after, and the folder that they are read from."""

    specs: Specs
    folder: Path


def _change(kind: str, was: str, now: str, files: list[base.Moved], before: _Side, after: _Side) -> Change:
    old, new = before.specs, after.specs
    one = ONE[kind]
    told = dict.fromkeys(f"{kind}/{f.after or f.before}" for f in files)
    there, here = (_exists(side.folder / kind, name) for side, name in ((before, was), (after, now)))
    what = (
        "renamed"
        if was != now and there and here
        else "changed"
        if there and here
        else "new"
        if here
        else "removed"
    )
    name = now if here else was
    found = Change(one, name, what, was if what == "renamed" else "", tuple(told))
    if not (there or here):  # SQL that no YAML stands beside
        text = "SQL without a YAML file of its name is no spec"
        return replace(
            found,
            means=(text,),
            diffs=tuple(_diffs(kind, files, before.folder, after.folder, ".sql")),
            trains=None,
        )
    a, b = _spec(old, one, was) if there else None, _spec(new, one, now) if here else None
    broken = [
        text
        for is_there, spec, text in (
            (
                there,
                a,
                f"{kind}/{was}.yaml is not usable as the base has it, so its fields cannot be compared",
            ),
            (here, b, f"{kind}/{now}.yaml is not usable now; the problems say why"),
        )
        if is_there and spec is None
    ]
    ending = (*folders.ENDINGS, ".sql") if broken else ".sql"
    found = replace(found, diffs=tuple(_diffs(kind, files, before.folder, after.folder, ending)))
    if broken:
        return replace(found, means=tuple(broken), trains=None)
    if a is not None and b is not None:
        found = replace(found, fields=fields.differing(a, b))
    if isinstance(a, ModelSpec) or isinstance(b, ModelSpec):
        return _model(found, old.models.get(was), new.models.get(now), old, new)
    return _dataset(found, old.datasets.get(was), new.datasets.get(now), old, new)


def _model(found: Change, a: ModelSpec | None, b: ModelSpec | None, old: Specs, new: Specs) -> Change:
    before, after = training_hash(old, a) if a else "", training_hash(new, b) if b else ""
    found = replace(found, hashes=(before, after))
    if b is None:
        text = (
            "its DAGs go, and nothing is trained, scored or watched any more; its versions in MLflow, its predictions and its "
            "decisions stay"
        )
        return replace(found, trains=False, means=(text,))
    means = list(fields.effects(found.fields, "model"))
    if a is None or found.what == "renamed":
        if found.was:
            means.append(
                f"to Evergreen it is another model: the champion, predictions and decisions of {found.was} stay under that "
                "name, and its DAGs go"
            )
        means.append(f"it begins without a champion; {_first(b)}")
        return replace(found, trains=True, means=tuple(means))
    if not found.fields and before == after:
        means.append(NOTHING)
    if before != after:
        means += _by_datasets(b, before, old, new)
    return replace(found, trains=before != after, means=(*means, _retrained(b, before, after)))


def _dataset(found: Change, a: DatasetSpec | None, b: DatasetSpec | None, old: Specs, new: Specs) -> Change:
    if b is None:
        text = f"its DAG goes, and no file of it is read any more; data.{found.name} and its history stay in the warehouse"
        return replace(found, means=(text,))
    if a is None or found.what == "renamed":
        means = [f"data.{b.name} and data.{b.name}__history are made with its first file"]
        if found.was:
            means.append(
                f"what was published as {found.was} stays there; land the files again to have the rows here"
            )
        return replace(found, means=tuple(means))
    means = [*fields.tables(a, b), *fields.effects(found.fields, "dataset")]
    # With the other dataset alone: what the model's own files change is told of the model.
    swapped = Specs({**old.datasets, b.name: b}, old.models)
    readers = [n for n, m in old.models.items() if b.name in m.datasets]
    hit = [n for n in readers if _hash(old, n) != _hash(swapped, n)]
    if hit:
        means.append(f"what is trained changes for what reads it: {', '.join(hit)}")
    elif readers:
        means.append(f"what is trained does not change by it for {', '.join(readers)}")
    if not found.fields:
        means.insert(0, NOTHING)
    return replace(found, means=tuple(means))


def _affected(old: Specs, new: Specs) -> Iterator[Change]:
    """Models none of whose files differs, and which train another model all the same: a dataset of theirs does."""
    for name, model in new.models.items():
        if name in old.models and (hashes := (_hash(old, name), _hash(new, name)))[0] != hashes[1]:
            means = (*_by_datasets(model, hashes[0], old, new), _retrained(model, *hashes))
            yield Change("model", name, "affected", trains=True, hashes=hashes, means=means)


def _by_datasets(model: ModelSpec, before: str, old: Specs, new: Specs) -> Iterator[str]:
    """That only the datasets make a model train otherwise; nothing where its own files do."""
    if all(name in old.datasets for name in model.datasets) and training_hash(old, model) == before:
        changed = [n for n in model.datasets if old.datasets[n] != new.datasets[n]]
        yield f"its own files change nothing of what is trained, the key, event time or columns of {', '.join(changed)} do"


def _retrained(model: ModelSpec, before: str, after: str) -> str:
    if before == after:
        return f"what is trained does not change (training hash {after[:SHOWN]}), so no champion is retrained for it"
    head = f"what is trained changes (training hash {before[:SHOWN]} → {after[:SHOWN]}): "
    if asks_for_changes(model):
        return f"{head}the monitor asks for a retraining once (code_change)"
    if model.schedule:
        return f"{head}the next training of the schedule ({model.schedule}, UTC) takes it up, and nothing asks before it"
    return f"{head}nothing asks for a retraining (schedule: null, monitoring.trigger.on_change: false); run train__{model.name} by hand"


def _first(model: ModelSpec) -> str:
    if model.schedule:
        return f"the next training of the schedule ({model.schedule}, UTC) makes the first one"
    return f"run train__{model.name} by hand for the first one"


def _hash(specs: Specs, name: str) -> str:
    return training_hash(specs, specs.models[name])


def _spec(specs: Specs, kind: str, name: str) -> DatasetSpec | ModelSpec | None:
    return specs.datasets.get(name) if kind == "dataset" else specs.models.get(name)


def _exists(folder: Path, name: str) -> bool:
    return any((folder / f"{name}{ending}").exists() for ending in folders.ENDINGS)


def _diffs(
    kind: str, files: list[base.Moved], before: Path, after: Path, endings: str | tuple[str, ...]
) -> Iterator[Diff]:
    for file in files:
        name = file.after or file.before or ""
        if name.endswith(endings):
            old = _lines(before / kind / file.before) if file.before else []
            new = _lines(after / kind / file.after) if file.after else []
            lines = list(difflib.unified_diff(old, new, lineterm="", n=2))[2:]
            yield Diff(f"{kind}/{name}", tuple(lines))


def _lines(path: Path) -> list[str]:
    """The lines of a file; what a link leads to is not shown to whoever reads the comparison."""
    if path.is_symlink():
        return ["(a link)"]
    try:
        return folders.text(path, folders.MOST_BYTES).splitlines()
    except (OSError, folders.Unreadable) as error:
        return [f"({error})"]
