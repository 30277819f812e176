"""The specs as a server that goes on for months has them: read again only where a file has changed."""

from __future__ import annotations

from pathlib import Path

from evergreen.spec import Specs, load_specs


class SpecsFolder:
    """The specs, read again only where a file of them has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: object = None
        self._specs = Specs()

    def read(self) -> Specs:
        """The specs as the files are now."""
        seen = sorted(
            (str(file), file.stat().st_mtime_ns, file.stat().st_size)
            for kind in ("datasets", "models")
            for file in (self._path / kind).glob("*.*")
        )
        if seen != self._seen:
            self._specs, self._seen = load_specs(self._path), seen
        return self._specs
