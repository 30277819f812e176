"""Names that MLflow shows for versions: `champion` follows the ledger, `challenger` is the newest candidate."""

from __future__ import annotations

from evergreen.registry.client import client, guarded


def aliases(model_name: str) -> dict[str, str]:
    """The aliases of a registered model and the versions they name; empty where the model is not registered.

    Raises:
        TransientError: MLflow does not answer.
    """
    with guarded(f"read the aliases of {model_name}"):
        found = client().search_registered_models(f"name = '{model_name}'")
    return {alias: str(version) for model in found for alias, version in model.aliases.items()}


def move_alias(model_name: str, alias: str, version: str) -> bool:
    """Make an alias name a version.

    Returns:
        Whether it had to be moved.

    Raises:
        TerminalError: MLflow has no such version (REGISTRY_MISMATCH).
        TransientError: MLflow does not answer.
    """
    if aliases(model_name).get(alias) == version:
        return False
    with guarded(f"point the alias {alias} of {model_name} at version {version}"):
        client().set_registered_model_alias(model_name, alias, version)
    return True
