"""Every environment variable that Evergreen reads, in one place, each with its meaning (but `deployment/variables`: those of a deployment).

The embedded stack sets all of them; a team with servers of its own sets them in its deployment.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evergreen.errors import ErrorReason, TerminalError
from evergreen.program import typed

Elsewhere = Callable[[str], "str | None"]
_elsewhere: Elsewhere = lambda name: None  # noqa: E731


def look_also(elsewhere: Elsewhere) -> None:
    """Ask this, too, for each variable that the environment does not have; None: it has none either.

    It is asked when a value is read, so nothing is looked up by a process that needs nothing.
    """
    global _elsewhere
    _elsewhere = elsewhere


@dataclass(frozen=True)
class Variable:
    """One environment variable: its name, its default (None: must be set where it is used), its meaning.

    `connection` names the Airflow connection that tasks read where the variable is not set.
    """

    name: str
    default: str | None
    meaning: str
    least: int = 1
    connection: str = ""

    def read(self) -> str:
        """Return the value: of the environment, else of `look_also`, else the default.

        Raises:
            TerminalError: none of them has one.
        """
        value = os.environ.get(self.name) or _elsewhere(self.name) or self.default
        if value is None:
            also = (
                f", or make the Airflow connection {self.connection}, which tasks read"
                if self.connection
                else ""
            )
            raise TerminalError(
                f"{self.name} is not set ({self.meaning}). {typed('up')} sets it for the embedded stack; "
                f"elsewhere set it in the environment of the Airflow services{also}.",
                ErrorReason.BAD_SPEC,
            )
        return value

    def given(self) -> bool:
        """Whether somebody has set it: what is read then is no default."""
        return bool(os.environ.get(self.name) or _elsewhere(self.name))

    def number(self) -> int:
        """Return the value as a whole number of at least `least`.

        Raises:
            TerminalError: it is none.
        """
        text = self.read().strip()
        if not (text.isascii() and text.isdigit() and int(text[:18]) >= self.least and len(text) <= 18):
            raise TerminalError(
                f"{self.name} is {text[:40]!r}, which is no whole number from {self.least} on ({self.meaning}); mend it in the environment "
                "of the Airflow services, then run again",
                ErrorReason.BAD_SPEC,
            )
        return int(text)

    def path(self) -> Path:
        """Return the value as an absolute path; a relative one is taken from the project's folder.

        Raises:
            TerminalError: it is a URL, and what asks works on a disk.
        """
        if "://" in (value := self.read()):
            raise TerminalError(
                f"{self.name} names a bucket ({value.partition('://')[0]}://…), and this needs a folder on a disk ({self.meaning})",
                ErrorReason.BAD_SPEC,
            )
        return (project() / value).resolve()

    def place(self, name: str = "") -> Path | str:
        """Return the folder as `path` does, or the URL of a bucket (s3://, gs://) as it is; with a name what is below it.

        A name that is a URL or an absolute path stands for itself.
        """
        return below(self.read(), name)


def below(value: str, name: str = "") -> Path | str:
    """A folder or URL, and what is below it; see `Variable.place`."""
    if "://" in name or ("://" in value and not Path(name).is_absolute()):
        return name if "://" in name else f"{value.rstrip('/')}/{name}".rstrip("/")
    return Path(name) if "://" in value else (project() / value).resolve() / name


PROJECT = Variable(
    "EVERGREEN_PROJECT",
    "",
    "folder of a project, which holds dags/ and include/ and from which relative folders are taken; default: the current folder",
)
HOME = Variable("EVERGREEN_HOME", ".evergreen", "folder for everything the project writes on this machine")
SPECS = Variable(
    "EVERGREEN_SPECS",
    "include",
    "folder with datasets/*.yaml, models/*.yaml and models/*.sql; where it is not set, a DAG reads those beside the folder of its own file",
)
LANDING = Variable(
    "EVERGREEN_LANDING",
    ".evergreen/landing",
    "folder, or s3://bucket/prefix or gs://bucket/prefix, with one sub-folder per dataset, where files land",
)
SNAPSHOTS = Variable(
    "EVERGREEN_SNAPSHOTS",
    ".evergreen/snapshots",
    "folder, or s3://bucket/prefix or gs://bucket/prefix, for training snapshots (Parquet)",
)
PROGRESS = Variable(
    "EVERGREEN_PROGRESS",
    "",
    "s3://bucket/prefix or gs://bucket/prefix where studies and replays are kept, too, for a try on another worker; default: below "
    "EVERGREEN_HOME alone",
)
CACHE_MB = Variable(
    "EVERGREEN_CACHE_MB",
    "10000",
    "megabytes of snapshots from a bucket that a worker keeps below EVERGREEN_HOME; what was used longest ago goes first",
    least=0,
)
STORE_BLOCK_MB = Variable(
    "EVERGREEN_STORE_BLOCK_MB",
    "8",
    "megabytes that go to or come from a bucket at once; a transfer takes about twice as much memory, whatever its size",
)
WAREHOUSE = Variable(
    "EVERGREEN_WAREHOUSE_URL",
    None,
    "PostgreSQL URL of the warehouse (libpq form); where it is not set, tasks read the Airflow connection `evergreen_warehouse`",
    connection="evergreen_warehouse",
)
MLFLOW = Variable(
    "MLFLOW_TRACKING_URI",
    None,
    "address of the MLflow server, with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD beside it; where it is not set, "
    "tasks read the Airflow connection `evergreen_mlflow`",
    connection="evergreen_mlflow",
)
MAIL_FROM = Variable("EVERGREEN_MAIL_FROM", "evergreen@localhost", "sender of the e-mails")
MAIL_TO = Variable(
    "EVERGREEN_MAIL_TO",
    "ml-team@localhost",
    "recipients, by comma, where a spec names none: e-mail addresses and channels (channel:NAME)",
)
CHANNELS = Variable(
    "EVERGREEN_CHANNELS",
    "",
    "names, by comma, of the channels of which Airflow has the URL, in the connection evergreen_channel_NAME: what is not a task cannot "
    "ask there, and would say that they are unknown. Of the others EVERGREEN_CHANNEL_NAME is the URL",
)
CHANNEL_PREFIX = "EVERGREEN_CHANNEL_"


def channel(name: str) -> Variable:
    """The variable with the URL of a channel, which is a secret; `name` as in `channel:name`."""
    return Variable(
        f"{CHANNEL_PREFIX}{name.upper()}",
        None,
        f"the URL of channel:{name}, as apprise takes it",
        connection=f"evergreen_channel_{name}",
    )


AIRFLOW_URL = Variable(
    "EVERGREEN_AIRFLOW_URL", "http://127.0.0.1:8080", "address of the Airflow UI, for links in e-mails"
)
MLFLOW_URL = Variable(
    "EVERGREEN_MLFLOW_URL", "http://127.0.0.1:5000", "address of the MLflow UI, for links in e-mails"
)
SERVING_URL = Variable(
    "EVERGREEN_SERVING_URL",
    "http://127.0.0.1:8088",
    "address of the prediction service, for those who ask it (`evergreen predict`, evergreen.client)",
)
SERVING_KEY = Variable(
    "EVERGREEN_SERVING_KEY",
    "",
    "a client's key for the prediction service; empty: that of this machine's own service, where it lies in EVERGREEN_HOME",
)
RUNBOOK_URL = Variable(
    "EVERGREEN_RUNBOOK_URL",
    "",
    "address of the page docs/runbook.md as you publish it, for the link in e-mails to the section of their kind; empty: they name the "
    "page and the section",
)
DATA_DIR = Variable(
    "EVERGREEN_DATA_DIR",
    "",
    "folder with real data sets (bike_sharing/hour.csv; for `make decisions` also electricity/elec.csv), instead of a download",
)
THREADS = Variable("EVERGREEN_THREADS", "2", "threads that one XGBoost fit or prediction may use")
TRAINING_MEMORY_MB = Variable(
    "EVERGREEN_TRAINING_MEMORY_MB",
    "1024",
    "most megabytes that a fit's rows may take in memory, as XGBoost keeps them (2 to 5 bytes a value); beyond, they lie in "
    "files beside the snapshot while the fit runs (0: always)",
    least=0,
)
DASK_SCHEDULER = Variable(
    "EVERGREEN_DASK_SCHEDULER",
    None,
    "address of the Dask scheduler, such as tcp://host:8786, for models with training.engine: dask",
)
SCHEDULES = Variable(
    "EVERGREEN_SCHEDULES", "on", "off: DAGs run on events and by hand only, for data that ended in the past"
)
POOL_SIZES = {"evergreen_training": 2, "evergreen_judging": 4}
"""Airflow pools by name, with the slots that a new one gets: a task takes one slot, and those beyond wait."""

POOLS = Variable(
    "EVERGREEN_POOLS",
    "off",
    "on: trainings and replays take slots of the Airflow pool `evergreen_training`, scorings and judgements of "
    "`evergreen_judging`; the scheduler makes them at its start where they are missing, if it loads the plugin",
)
DIGEST = Variable(
    "EVERGREEN_DIGEST",
    "0 6 * * 1",
    "cron (UTC) of the digest, which tells of the seven days before it; off: none",
)
COMMIT = Variable(
    "EVERGREEN_COMMIT",
    "",
    "git commit of the code, for what has no checkout (an image); else it is read from the checkout",
)
LINEAGE = Variable(
    "OPENLINEAGE_URL",
    "",
    "address of an OpenLineage server, to which each step tells what it read and wrote (docs/lineage.md); empty: nothing is sent",
)
LINEAGE_NAMESPACE = Variable(
    "OPENLINEAGE_NAMESPACE", "evergreen", "namespace of the DAGs' tasks on the OpenLineage server"
)


KINDS_OF_SPECS = ("datasets", "models")
"""The sub-folders of a folder of specs."""


def project() -> Path:
    """The folder of the project: EVERGREEN_PROJECT, else the current one."""
    return Path(os.environ.get(PROJECT.name) or ".").resolve()


def specs_folder(own: Path | None = None) -> Path:
    """The folder of the specs: EVERGREEN_SPECS, else `include` of the project, else the project's own folder where that one holds some.

    Args:
        own: the project's folder; default: `project()`.
    """
    folder = SPECS.path() if own is None else (own / SPECS.read()).resolve()
    own = own or project()
    if os.environ.get(SPECS.name) or holds_specs(folder) or not holds_specs(own):
        return folder
    return own


def holds_specs(folder: Path) -> bool:
    """Whether a folder has datasets/ or models/."""
    return any((folder / kind).is_dir() for kind in KINDS_OF_SPECS)


def specs_beside(dag_file: str) -> Path:
    """The folder of the specs that belong to a DAG file: EVERGREEN_SPECS, else `include` beside the file's folder.

    So file and specs are of one commit, also where a DAG bundle keeps several commits at once and this package is of none of them.
    """
    if os.environ.get(SPECS.name):
        return SPECS.path()
    return Path(dag_file).resolve().parents[1] / str(SPECS.default)


ALL = (
    PROJECT,
    HOME,
    SPECS,
    LANDING,
    SNAPSHOTS,
    PROGRESS,
    CACHE_MB,
    STORE_BLOCK_MB,
    WAREHOUSE,
    MLFLOW,
    MAIL_FROM,
    MAIL_TO,
    CHANNELS,
    AIRFLOW_URL,
    MLFLOW_URL,
    SERVING_URL,
    SERVING_KEY,
    RUNBOOK_URL,
    DATA_DIR,
    THREADS,
    TRAINING_MEMORY_MB,
    DASK_SCHEDULER,
    SCHEDULES,
    POOLS,
    DIGEST,
    COMMIT,
    LINEAGE,
    LINEAGE_NAMESPACE,
)
