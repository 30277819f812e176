"""Where a model comes from: commit without git, hash of the spec, pinned requirements."""

from __future__ import annotations

import re

import pytest

from evergreen.spec import DatasetSpec, Specs
from evergreen.spec.hashes import spec_document, spec_hash, training_hash
from evergreen.training.record.provenance import git_commit, requirements

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def detached(git):
    (git / "HEAD").write_text(COMMIT + "\n")


def branch(git):
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "refs/heads").mkdir(parents=True)
    (git / "refs/heads/main").write_text(COMMIT + "\n")


def packed(git):
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text(f"# pack-refs with: peeled\n{COMMIT} refs/heads/main\n")


@pytest.mark.parametrize("make", [detached, branch, packed])
def test_commit_is_read_without_git(tmp_path, make):
    (tmp_path / ".git").mkdir()
    make(tmp_path / ".git")
    assert git_commit(tmp_path) == COMMIT


def test_commit_of_a_linked_worktree(tmp_path):
    git = tmp_path / "main/.git"
    (git / "worktrees/side").mkdir(parents=True)
    packed(git)
    (git / "worktrees/side/HEAD").write_text("ref: refs/heads/main\n")
    (git / "worktrees/side/commondir").write_text("../..\n")
    (tmp_path / ".git").write_text(f"gitdir: {git}/worktrees/side\n")
    assert git_commit(tmp_path) == COMMIT


@pytest.mark.parametrize("head", [None, "", "ref: refs/heads/gone\n", b"\xff\xfe"])
def test_no_commit_is_no_failure(tmp_path, head, monkeypatch):
    monkeypatch.delenv("EVERGREEN_COMMIT", raising=False)
    if head is not None:
        (tmp_path / ".git").mkdir()
        (tmp_path / ".git/HEAD").write_bytes(head if isinstance(head, bytes) else head.encode())
    assert git_commit(tmp_path) is None
    monkeypatch.setenv("EVERGREEN_COMMIT", "of the image")
    assert git_commit(tmp_path) == "of the image"


def test_the_checkout_knows_its_commit_better_than_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("EVERGREEN_COMMIT", "of the image")
    (tmp_path / ".git").mkdir()
    detached(tmp_path / ".git")
    assert git_commit(tmp_path) == COMMIT


def test_the_spec_hash_changes_with_the_sql_and_with_nothing_else(world, change):
    document = spec_document(world.specs, world.model)
    again = spec_document(Specs(dict(world.specs.datasets), {}), change(world.model))
    other = spec_document(world.specs, change(world.model, query=world.model.query + " WHERE x > 0"))
    assert spec_hash(document) == spec_hash(again) != spec_hash(other)


@pytest.mark.parametrize(
    "edit",
    [
        {"query": "SELECT ts, extract(hour FROM ts)::int AS hour, x, kind, gone, demand FROM rides_hourly WHERE x > 0"},
        {"features": {"numeric": ["hour"]}},
        {"label": {"delay": "2h"}},
        {"training": {"max_rounds": 16}},
        {"training": {"params": {"max_depth": 4}}},
        {"training": {"holdout": "6d"}},
        {"key": ["ts", "kind"]},
    ],
    ids=str,
)  # fmt: skip
def test_the_training_hash_changes_with_what_shapes_a_model(world, change, edit):
    assert training_hash(world.specs, change(world.model, **edit)) != training_hash(world.specs, world.model)


@pytest.mark.parametrize(
    "edit",
    [
        {"description": "another"},
        {"owner": "others"},
        {"alerts": ["a@b.c"]},
        {"schedule": None},
        {"monitoring": {"min_rows": 7, "trigger": {"m": 1}}},
        {"gate": {"margin": 0.5}},
        {"scoring": {"chunk_rows": 7}},
        {"watch": {"margin": 0.5}},
        {"training": {"engine": "dask", "device": "cuda"}},
        {"training": {"refit": True, "seed": 7}},
        {"query": "SELECT ts, extract(hour FROM ts)::int AS hour,\n  x, kind, gone, -- what is gone\n demand /* told */\nFROM rides_hourly;\n"},
    ],
    ids=str,
)  # fmt: skip
def test_the_training_hash_does_not_change_with_anything_else(world, change, edit):
    assert training_hash(world.specs, change(world.model, **edit)) == training_hash(world.specs, world.model)


def test_the_training_hash_reads_texts_of_the_query_as_they_are(world, change):
    texts = ("WHERE kind = 'a  b'", "WHERE kind = 'a b'", "WHERE kind = 'a -- b'", "WHERE kind = 'a'")
    found = {
        training_hash(world.specs, change(world.model, query=world.model.query + f" {t}")) for t in texts
    }
    assert len(found) == len(texts)


def test_the_training_hash_changes_with_the_columns_that_land(world, change):
    (dataset,) = world.specs.datasets.values()
    content = dataset.model_dump()

    def hashed(**columns: object) -> str:
        changed = DatasetSpec.model_validate({**content, "columns": {**content["columns"], **columns}})
        return training_hash(Specs({changed.name: changed}, {}), world.model)

    same = training_hash(world.specs, world.model)
    assert hashed(x={"type": "float", "required": False, "min": 0, "description": "told"}) == same
    assert hashed(x={"type": "integer"}) != same
    assert hashed(more={"type": "float"}) != same


def test_requirements_are_pinned():
    found = requirements()
    assert found[0].startswith("xgboost")
    assert all(re.fullmatch(r"[a-z-]+==[\w.+]+", line) for line in found)
