"""Commands of other programs that a job of the deployment runs: their output, or an error that shows no secret."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence

from evergreen.errors import ErrorReason, TerminalError

SHOWN = 40
"""Lines that are shown of what a command said before it failed."""


def output_of(
    command: Sequence[str], failure: str, *, secrets: Iterable[str], variables: Mapping[str, str]
) -> str:
    """Run a command; returns what it prints.

    Args:
        command: which; it is never shown, as it may hold a secret.
        failure: what to say where it fails.
        secrets: what is blotted out of its last lines, which are shown then.
        variables: of its environment, beside this process's own.

    Raises:
        TerminalError: it fails.
    """
    done = subprocess.run(
        command, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        shown = "\n".join(done.stdout.splitlines()[-SHOWN:])
        for secret in filter(None, secrets):
            shown = shown.replace(secret, "***")
        print(shown, file=sys.stderr)
        raise TerminalError(f"{failure}; what was said stands above", ErrorReason.BAD_SPEC)
    return done.stdout
