"""What made a model: the spec it was trained from, the code's commit, the versions of the libraries."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from evergreen import settings

LIBRARIES = (
    "xgboost-cpu",
    "xgboost",
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "optuna",
    "evergreen",
)


def git_commit(folder: Path | None = None) -> str | None:
    """The commit that is checked out in a folder (default: the project's), read from `.git` without git, or `EVERGREEN_COMMIT`; None where there is neither.

    Changes that were not committed do not show.
    """
    return _checked_out(folder or settings.project()) or settings.COMMIT.read() or None


def _checked_out(folder: Path) -> str | None:
    try:
        place = folder / ".git"
        if place.is_file():
            place = (folder / place.read_text(encoding="utf-8").partition("gitdir:")[2].strip()).resolve()
        head = (place / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref:"):
            return head or None
        name = head.partition(":")[2].strip()
        common = place / "commondir"
        homes = [place] + (
            [(place / common.read_text(encoding="utf-8").strip()).resolve()] if common.is_file() else []
        )
        for home in homes:
            if (home / name).is_file():
                return (home / name).read_text(encoding="utf-8").strip() or None
        for home in homes:
            packed = home / "packed-refs"
            for line in packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else ():
                commit, _, ref = line.partition(" ")
                if ref == name:
                    return commit
    except (OSError, UnicodeDecodeError):
        return None
    return None


def library_versions() -> dict[str, str]:
    """Versions of Python and of the installed libraries that shape a model."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def requirements() -> list[str]:
    """What a server of the model must install, pinned. MLflow would take ten seconds to find out by itself."""
    versions = library_versions()
    name = "xgboost-cpu" if "xgboost-cpu" in versions else "xgboost"
    return [f"{n}=={versions[n]}" for n in (name, "numpy", "pandas", "scikit-learn") if n in versions]
