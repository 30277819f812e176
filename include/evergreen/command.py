"""What the commands of a person at a terminal have in common: a time as it is typed, and the embedded stack where no server is named."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime

from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError


def moment(text: str) -> datetime:
    """A time as it is typed, for argparse: ISO, UTC where it names no zone.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time; write one such as 2025-06-02 or 2025-06-02T13:00 (UTC)"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


def no_arguments(name: str, page: str | None, argv: list[str] | None) -> None:
    """Read the command line of a command that takes none but --help; a wrong one ends the program as argparse does.

    Args:
        name: of the command.
        page: the docstring of its module, whose first line says what it does.
        argv: the arguments; default: those of the process.
    """
    argparse.ArgumentParser(prog=f"evergreen {name}", description=(page or "").splitlines()[0]).parse_args(
        argv
    )


def use_stack() -> None:
    """Work on the embedded stack, its warehouse and its MLflow with the login, where the environment names no warehouse and there is one.

    An empty variable names none. An MLflow that is named stays, with the login that is named.

    Raises:
        TerminalError: the stack's folder cannot be used.
    """
    from evergreen.stack.layout import Layout, StackError

    if os.environ.get(settings.WAREHOUSE.name):
        return
    try:
        if not Layout.of().secrets_file.exists():
            return
        # Needs what only the stack needs, which may not be installed where there is none.
        from evergreen.stack.variables import environment

        there = environment()
    except StackError as error:
        raise TerminalError(str(error), ErrorReason.BAD_SPEC) from error
    taken = {settings.WAREHOUSE.name}
    if not os.environ.get(settings.MLFLOW.name):
        taken |= {n for n in there if n.startswith("MLFLOW_TRACKING_") or n == settings.MLFLOW_URL.name}
    os.environ.update({name: there[name] for name in taken})
