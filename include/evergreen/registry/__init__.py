"""Versions of models: which one is champion (the ledger knows), their files and aliases (MLflow keeps them)."""

from evergreen.registry.aliases import aliases, move_alias
from evergreen.registry.artifacts import artifact_folder, local_copy, log_files
from evergreen.registry.champions import Champion, champion, history
from evergreen.registry.models import LoadedModel, load, trained_as

__all__ = [
    "Champion",
    "LoadedModel",
    "aliases",
    "artifact_folder",
    "champion",
    "history",
    "load",
    "local_copy",
    "log_files",
    "move_alias",
    "trained_as",
]
