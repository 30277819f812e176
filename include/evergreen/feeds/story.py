"""A story: deliveries of one dataset, each with the time at which it lands, so that anybody can drive the loop.

`get("simulated")` needs nothing; `get("bike_sharing")` is the same story on real data, which may be downloaded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import pandas as pd

Kind = Literal["history", "normal", "broken", "corrected"]
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class File:
    """One CSV file of a delivery: its name in the landing folder and its rows."""

    name: str
    table: pd.DataFrame = field(repr=False, compare=False)

    def write(self, folder: Path) -> Path:
        """Write the file whole or not at all: under a hidden name that no pattern finds, then renamed.

        Times are ISO 8601 in UTC, booleans `true` and `false`, missing values empty. The same table gives the
        same bytes.
        """
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{self.name}.{os.getpid()}.part"
        flags = {
            n: self.table[n].map({True: "true", False: "false"}) for n in self.table.select_dtypes("bool")
        }
        try:
            self.table.assign(**flags).to_csv(
                part, index=False, date_format="%Y-%m-%dT%H:%M:%SZ", lineterminator="\n", encoding="utf-8"
            )
            part.replace(folder / self.name)
        finally:
            part.unlink(missing_ok=True)
        return folder / self.name


@dataclass(frozen=True)
class StoryStep:
    """Files that land together.

    Attributes:
        name: unique within the story.
        as_of: when they land, which is the as-of time of their ingest (aware, UTC).
        first, last: event time of the first and the last hour that the files are about (UTC, both included).
        kind: `history` comes first; `broken` has to be refused; `corrected` is the same week again, mended.
        note: what is true about it, in a sentence for people.
        files: what lands.
    """

    name: str
    as_of: datetime
    first: datetime
    last: datetime
    kind: Kind
    note: str
    files: tuple[File, ...]

    @property
    def end(self) -> datetime:
        """The moment after the last hour."""
        return self.last + HOUR

    def write(self, folder: Path) -> list[Path]:
        """Write the files into the dataset's landing folder, which is made if need be.

        Returns:
            Their paths, in the order of the rows.
        """
        return [file.write(folder) for file in self.files]


@dataclass(frozen=True)
class Story:
    """The deliveries of a dataset in the order in which they land.

    Attributes:
        name: one of `NAMES`.
        dataset: name of the dataset's spec.
        start: first event time (UTC).
        history_end: the moment after the history; the first watched week begins here (UTC).
        deliveries: the history, then the weeks.
    """

    name: str
    dataset: str
    start: datetime
    history_end: datetime
    deliveries: tuple[StoryStep, ...]
