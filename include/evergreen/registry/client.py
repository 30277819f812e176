"""The way to MLflow: a client that gives up in seconds, and what each of its failures means to a caller."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import requests
import sqlalchemy.exc
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from evergreen import quiet, settings
from evergreen.errors import ErrorReason, TerminalError, TransientError, in_one_line
from evergreen.program import typed
from evergreen.warehouse.storage.full_disk import full, is_full

MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})
REFUSED = frozenset(
    {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED", "UNAUTHENTICATED", "MALFORMED_REQUEST"}
)
# MLflow's own defaults retry for four minutes and draw progress bars into task logs. These are defaults too: what the
# environment says wins. At worst (an address that swallows packets) a call gives up after 3 x 15 s and two pauses.
# A server whose artifacts lie in a bucket would send each client there by a signed URL: only the server needs a way to its bucket,
# and its login stands before each file.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
}
# What can be done about a version that is lost or not what was registered; each of it leads on.
WAY_ON = (
    "Restore MLflow's database and artifacts from the backup; or roll back to an earlier champion (rollback__MODEL); or run "
    "train__MODEL: where the champion cannot be evaluated, a challenger that beats the baseline waits in promote__MODEL for a "
    "person's approval"
)
_USER = re.compile(r"//[^/@\s]+@")

quiet.hand_over("mlflow", "alembic", "huey", "sqlalchemy.engine")


def client() -> MlflowClient:
    """A client of the server in MLFLOW_TRACKING_URI.

    Raises:
        TerminalError: the variable is not set.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    return MlflowClient(settings.MLFLOW.read())


@contextmanager
def guarded(doing: str) -> Iterator[None]:
    """Turn what MLflow raises inside into the two kinds of error of this project.

    Args:
        doing: what was tried, for the message: `load version 3 of bike_demand`.

    Raises:
        TerminalError: MLflow answered that the thing is not there (REGISTRY_MISMATCH) or may not be done.
        TransientError: MLflow did not answer, or not sensibly.
    """
    try:
        yield
    except MlflowException as error:
        if error.error_code in MISSING or ("alias" in str(error) and "not found" in str(error)):
            raise TerminalError(
                f"cannot {doing}: MLflow has no such thing ({_line(error)}). {WAY_ON}",
                ErrorReason.REGISTRY_MISMATCH,
            ) from error
        if error.error_code in REFUSED:
            raise TerminalError(
                f"cannot {doing}: MLflow refuses it ({error.error_code}: {_line(error)}); mend the access or the "
                "request, trying again does not help",
                ErrorReason.REGISTRY_MISMATCH,
            ) from error
        raise (_full(doing, error) if is_full(error) else _lost(doing, error)) from error
    except (requests.exceptions.RequestException, sqlalchemy.exc.OperationalError, OSError) as error:
        raise (_full(doing, error) if is_full(error) else _lost(doing, error)) from error


def _full(doing: str, error: Exception) -> TransientError:
    where = "this machine" if isinstance(error, OSError) else "MLflow's server or its database"
    return full(f"cannot {doing}: no space left on the disk of {where}", error)


def _lost(doing: str, error: Exception) -> TransientError:
    return TransientError(
        f"cannot {doing}: MLflow does not answer ({_line(error)}); nothing was decided. Start it ({typed('up')} for the embedded stack) "
        f"and try again; {typed('status')} shows what is up",
        ErrorReason.UNREACHABLE,
    )


def _line(error: Exception) -> str:
    return _USER.sub("//***@", in_one_line(error))
