"""Which warehouse, specs and servers a command works on, and what it says where they cannot be read."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2.errors

from evergreen import settings
from evergreen.errors import ErrorReason, EvergreenError, TerminalError
from evergreen.program import typed
from evergreen.stack.layout import Layout, StackError
from evergreen.terminal.page import Page
from evergreen.warehouse.connection import Connection, connect

TIMEOUT_S = 30
# Where a proxy is set, it is not asked for what is on this machine.
_OF_THE_STACK = ("EVERGREEN_", "MLFLOW_", "NO_PROXY", "no_proxy")


def parser(name: str, description: str, example: str) -> argparse.ArgumentParser:
    """A command line with what all commands here take: --home and --json.

    Args:
        name: of the command.
        description: what it does, in a sentence or two.
        example: how it is typed, without `evergreen`.
    """
    made = argparse.ArgumentParser(
        prog=f"evergreen {name}",
        description=description,
        epilog=f"example: evergreen {example}",
    )
    made.add_argument(
        "--home", type=Path, help="the embedded stack's folder (default: $EVERGREEN_HOME, else .evergreen)"
    )
    made.add_argument("--json", action="store_true", help="print JSON; times are ISO in UTC")
    return made


def count(text: str) -> int:
    """A number from 1 on as it is typed, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdigit() and int(text[:9]) > 0 and len(text) <= 9):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def find(home: Path | None = None, *, all_of_it: bool = False) -> Layout | None:
    """Take the variables of the embedded stack for this process, and return the stack's layout; None where there is no stack.

    Where the environment names a warehouse, the stack is asked for nothing but its services.

    Args:
        home: the stack's folder; a stack that is named so is asked for all.
        all_of_it: take what the stack's services have, whatever warehouse the environment names.

    Raises:
        StackError: the stack's folder cannot be read.
    """
    layout = Layout.of(home)
    if not layout.secrets_file.exists():
        return None
    if home is None and not all_of_it and os.environ.get(settings.WAREHOUSE.name):
        return layout
    # Needs what only the stack needs, which may not be installed where there is none.
    from evergreen.stack.variables import environment

    if home is not None:
        os.environ.pop(settings.WAREHOUSE.name, None)
    os.environ.update({n: v for n, v in environment(layout.home).items() if n.startswith(_OF_THE_STACK)})
    return layout


@contextmanager
def reading() -> Iterator[Connection]:
    """A connection to the warehouse that cannot write.

    Raises:
        EvergreenError: no warehouse is named, it does not answer, has no tables of this release, or does not let this login read.
    """
    if not os.environ.get(settings.WAREHOUSE.name):
        raise _no_warehouse()
    try:
        with connect(timeout_s=TIMEOUT_S) as conn:
            with conn.cursor() as cursor:
                cursor.execute("SET TRANSACTION READ ONLY")
            yield conn
    except (
        psycopg2.errors.UndefinedTable,
        psycopg2.errors.InvalidSchemaName,
        psycopg2.errors.UndefinedColumn,
    ) as error:
        raise _other_release(error) from error
    except psycopg2.errors.InsufficientPrivilege as error:
        raise TerminalError(
            f"this login may not read the warehouse ({str(error).splitlines()[0]}); name another in {settings.WAREHOUSE.name}",
            ErrorReason.NO_ACCESS,
        ) from error
    except psycopg2.ProgrammingError as error:
        # Of a text that is no address of a server; what is asked of a server has been told above.
        if error.pgcode is not None:
            raise
        raise TerminalError(
            f"{settings.WAREHOUSE.name} is no address of PostgreSQL; it should be such as postgresql://user@host/database",
            ErrorReason.BAD_SPEC,
        ) from error


@contextmanager
def writing() -> Iterator[Connection]:
    """A connection to the warehouse for what a person changes there.

    Raises:
        EvergreenError: as `reading`; or this login may not write (NO_ACCESS).
    """
    if not os.environ.get(settings.WAREHOUSE.name):
        raise _no_warehouse()
    try:
        with connect(timeout_s=TIMEOUT_S) as conn:
            yield conn
    except psycopg2.errors.UndefinedTable as error:
        raise _other_release(error) from error
    except psycopg2.errors.InsufficientPrivilege as error:
        raise TerminalError(
            f"this login may not do that ({str(error).splitlines()[0]}); name the owner's in {settings.WAREHOUSE.name}",
            ErrorReason.NO_ACCESS,
        ) from error


def _no_warehouse() -> TerminalError:
    return TerminalError(
        f"No warehouse is named here, and no stack was ever up: {typed('up')} starts one, or set {settings.WAREHOUSE.name}",
        ErrorReason.BAD_SPEC,
    )


def _other_release(error: Exception) -> TerminalError:
    return TerminalError(
        f"the warehouse has not the tables of this release ({str(error).splitlines()[0]}); `evergreen migrate` makes them",
        ErrorReason.BAD_SPEC,
    )


def told(command: Callable[[], int]) -> int:
    """Run a command; what it cannot do is one sentence on standard error, and the exit status 1."""
    try:
        return command()
    except (EvergreenError, StackError) as error:
        page = Page(sys.stderr)
        for line in str(error).splitlines():
            page.line(line)
        return 1
    except KeyboardInterrupt:
        Page(sys.stderr).line(
            f"Interrupted; what was begun goes on in the background, see {typed('status')}."
        )
        return 1
