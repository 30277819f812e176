"""Versions of models: which one is champion (the ledger knows), their files and aliases (MLflow keeps them)."""

from evergreen.registry.aliases import aliases, move_alias
from evergreen.registry.artifacts import artifact_folder, kept, log_files
from evergreen.registry.champions import Champion, champion, history
from evergreen.registry.models import LoadedModel, load, trained_as

__all__ = [
    "Champion",
    "LoadedModel",
    "aliases",
    "artifact_folder",
    "champion",
    "history",
    "kept",
    "load",
    "log_files",
    "move_alias",
    "trained_as",
]
