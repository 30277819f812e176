"""The two ways in which a step can fail, so that callers know whether trying again can help.

A message names the value, the limit and the next step. The DAGs turn `TerminalError` into a failure
without retry and `TransientError` into a retry with back-off.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorReason(StrEnum):
    """Reason codes of failures; they go to the ledger and into e-mails, so they never change meaning."""

    BAD_SPEC = "bad_spec"
    BAD_BATCH = "bad_batch"
    NO_ROWS = "no_rows"
    TOO_FEW_ROWS = "too_few_rows"
    ONE_CLASS = "one_class"
    BAD_LABEL = "bad_label"
    NO_CHAMPION = "no_champion"
    NO_PREVIOUS_CHAMPION = "no_previous_champion"
    REGISTRY_MISMATCH = "registry_mismatch"
    BAD_QUERY = "bad_query"
    NO_ROLE = "no_role"
    NEWER_SCHEMA = "newer_schema"
    BAD_MIGRATION = "bad_migration"
    DAMAGED_LEDGER = "damaged_ledger"
    BAD_METRIC = "bad_metric"
    PROBE_FAILED = "probe_failed"
    UNREACHABLE = "unreachable"
    BUSY = "busy"
    NO_SPACE = "no_space"
    NO_ACCESS = "no_access"


class EvergreenError(Exception):
    """Base of all errors that Evergreen raises on purpose.

    Args:
        message: what was found, what the limit was, what to do next.
        reason: the code under which the failure is recorded.
    """

    def __init__(self, message: str, reason: ErrorReason) -> None:
        super().__init__(message)
        self.reason = reason


class TerminalError(EvergreenError):
    """Trying again cannot help: a bad spec, a failed suite, a broken contract. A person is told."""


class TransientError(EvergreenError):
    """The same call may succeed later: a lost connection, a registry that is restarting."""

    def __init__(self, message: str, reason: ErrorReason = ErrorReason.UNREACHABLE) -> None:
        super().__init__(message, reason)


def in_one_line(error: object, most: int = 300) -> str:
    """What an error says, without line breaks, cut off after so many characters."""
    return " ".join(str(error).split())[:most]


# By name, so that no library has to be there to tell.
TRANSIENT = (
    "evergreen.errors.TransientError",
    "psycopg2.OperationalError",
    "builtins.ConnectionError",
    "builtins.TimeoutError",
    "requests.exceptions.ConnectionError",
    "requests.exceptions.Timeout",
)


def may_pass(error: BaseException) -> bool:
    """Whether the same call may succeed later: the error is one of `TRANSIENT`, or derived from one."""
    return any(f"{kind.__module__}.{kind.__qualname__}" in TRANSIENT for kind in type(error).__mro__)
