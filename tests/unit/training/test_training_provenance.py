"""Where a model comes from: commit without git, hash of the spec, pinned requirements."""

from __future__ import annotations

import re

import pytest

from evergreen.spec import Specs
from evergreen.training.provenance import git_commit, requirements, spec_document, spec_hash

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
def test_no_commit_is_no_failure(tmp_path, head):
    if head is not None:
        (tmp_path / ".git").mkdir()
        (tmp_path / ".git/HEAD").write_bytes(head if isinstance(head, bytes) else head.encode())
    assert git_commit(tmp_path) is None


def test_the_spec_hash_changes_with_the_sql_and_with_nothing_else(world, change):
    document = spec_document(world.specs, world.model)
    again = spec_document(Specs(dict(world.specs.datasets), {}), change(world.model))
    other = spec_document(world.specs, change(world.model, query=world.model.query + " WHERE x > 0"))
    assert spec_hash(document) == spec_hash(again) != spec_hash(other)


def test_requirements_are_pinned():
    found = requirements()
    assert found[0].startswith("xgboost")
    assert all(re.fullmatch(r"[a-z-]+==[\w.+]+", line) for line in found)
