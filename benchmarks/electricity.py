"""The second real data: the price of electricity in New South Wales each half hour, May 1996 to December 1998.

Whether the price is above its mean of the last 24 hours is to be told from price, demand, and what flows between New South
Wales and Victoria. In May 1997 the two markets were joined: a change that nobody injected. The data is a usual one for what
answers changes, and the one on which it was shown that retraining at random moments helps, too (arXiv 1301.3524).

The file is never part of the project: it is in `$EVERGREEN_DATA_DIR/electricity/`, in the cache, or pip fetches the package of
scikit-multiflow 0.3.0 that carries it; only the file with the known checksum is used.

Source: Harries, M. (1999), Splice-2 comparative evaluation: electricity pricing, University of New South Wales.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError
from evergreen.feeds import real_file

FILE = "elec.csv"
SHA256 = "ebdfe5480ae25a43a7d054286135e3a9484697a2850d5158a333b1578c28bb97"
PACKAGE = "scikit-multiflow==0.3.0"
PACKAGE_SHA256 = "70fdf0f2ec3a8ca14d42c6138cf351d54810fbc6269ab2f2779aef3042396a31"
MEMBER = "scikit-multiflow-0.3.0/src/skmultiflow/data/datasets/elec.csv"
NAMES = ["period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer", "up"]
BEGIN = pd.Timestamp("1996-05-07", tz="UTC")
PERIODS, TWICE = 48, 363
"""Half hours of a day; the day of the file that repeats the one before."""


def obtain() -> Path:
    """The verified file: from this machine, else from the package.

    Raises:
        TerminalError: a file that is there or came is another one (BAD_BATCH); pip cannot fetch it (UNREACHABLE).
    """
    cached = real_file.cache_path().parents[1] / "electricity" / FILE
    places = [settings.DATA_DIR.path() / "electricity" / FILE] if settings.DATA_DIR.read() else []
    for path in (*places, cached):
        if path.is_file():
            _verify(path)
            return path
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
        found = _fetch(Path(folder))
        _verify(found)
        return found.replace(cached)


def convert(path: Path) -> pd.DataFrame:
    """Read the file as the columns of the dataset `electricity`.

    The file has no dates, only 944 days of 48 half hours that begin on 7 May 1996. Sunday 4 May 1997 is there twice, and
    every weekend after it a day late; without the second one the last day is 5 December 1998, as the source says. The market's
    clock is taken as UTC.
    """
    raw = pd.read_csv(path, header=0, names=NAMES).drop(columns="period")
    raw = raw.drop(index=range(TWICE * PERIODS, (TWICE + 1) * PERIODS))
    raw.insert(0, "ts", BEGIN + pd.to_timedelta(30 * np.arange(len(raw)), unit="min"))
    return raw


def _verify(path: Path) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise TerminalError(
            f"{path} is not the file of {PACKAGE}: SHA-256 found {found}, expected {SHA256}; delete it, it is fetched again",
            ErrorReason.BAD_BATCH,
        )


def _fetch(folder: Path) -> Path:
    (folder / "requirements.txt").write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation",
        "--require-hashes", "--requirement", "requirements.txt",
    ]  # fmt: skip
    pip = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    packages = list(folder.glob("*.tar.gz"))
    if pip.returncode or not packages:
        raise TerminalError(
            f"pip cannot fetch {PACKAGE} ({pip.stderr.strip()[-300:]}); put {FILE} of it into a folder electricity of "
            "EVERGREEN_DATA_DIR",
            ErrorReason.UNREACHABLE,
        )
    with tarfile.open(packages[0]) as archive:
        member = archive.extractfile(MEMBER)
        if member is None:
            raise TerminalError(f"{PACKAGE} has no {MEMBER}", ErrorReason.BAD_BATCH)
        (folder / FILE).write_bytes(member.read())
    return folder / FILE
