"""The commands of the embedded stack: `evergreen up`, `down`, `silence`, `logs`, `env` and `clean`."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
from pathlib import Path

from evergreen.program import typed
from evergreen.stack import alerts, control, supervisor
from evergreen.stack.layout import Layout, StackError
from evergreen.stack.mailcatcher import serve
from evergreen.stack.variables import environment, secret_names


def main(arguments: list[str]) -> int:
    """Run the command that the first argument names; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except StackError as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        print(
            f"\nInterrupted; what was begun goes on in the background, see {typed('status')}.",
            file=sys.stderr,
        )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="evergreen", description="The embedded stack on this machine.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--home", type=Path, help="the stack's folder (default: $EVERGREEN_HOME, else .evergreen)"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: object, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, parents=[common])
        command.set_defaults(run=run)
        return command

    add(
        "up",
        _up,
        "Start PostgreSQL, MLflow, Airflow, the prediction service and the mail catcher, and wait until they work.",
    )
    add("down", _down, "Stop all of it; nothing is lost.")
    logs = add("logs", _logs, "List the logs, or print the end of one.")
    logs.add_argument("name", nargs="?", help="service whose log to print")
    logs.add_argument("-n", "--lines", type=int, default=50, help="how many lines (default 50)")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as the log grows")
    env = add("env", _env, "Print the environment of the services as shell exports.")
    env.add_argument("name", nargs="*", help="only these variables")
    env.add_argument(
        "--secrets", action="store_true", help="also show those named that hold a password or key"
    )
    silence = add(
        "silence", _silence, "Keep the alerts of a model or dataset back for a while, for a reason."
    )
    silence.add_argument("--model", default="", help="whose alerts")
    silence.add_argument("--dataset", default="", help="whose alerts")
    silence.add_argument(
        "--until", default="", help="a time (UTC), a duration such as 3d, or now to end a silence"
    )
    silence.add_argument("--reason", default="", help="why")
    clean = add("clean", _clean, "Stop all of it and remove its folder with all data, after a question.")
    clean.add_argument("--yes", action="store_true", help="do not ask")
    # What `up` runs in the background; not listed.
    commands.add_parser("supervise", parents=[common]).set_defaults(
        run=lambda options: supervisor.main(Layout.of(options.home))
    )
    commands.add_parser("catch-mail", parents=[common]).set_defaults(run=_catch_mail)
    return parser


def _up(options: argparse.Namespace) -> None:
    login = control.up(options.home)
    print(
        f"\nAirflow  {login.airflow_url}   login {login.user}   password {login.airflow_password}"
        f"\nMLflow   {login.mlflow_url}   login {login.user}   password {login.mlflow_password}"
        f"\nPredictions  {login.serving_url}/models   key of this machine in {login.serving_key_file}"
        f"\nThe passwords are kept in {login.secrets_file}. {typed('status')}, {typed('mail')}, {typed('logs')}, {typed('down')}."
    )


def _down(options: argparse.Namespace) -> None:
    control.down(options.home)


def _clean(options: argparse.Namespace) -> int:
    held = control.contents(options.home)
    if held and not options.yes:
        print(f"{Layout.of(options.home).home} and all that is in it is removed for good:")
        for entry, size in held:
            print(f"  {entry.name:<16}{size / 1e6:>10,.1f} MB")
        if not sys.stdin.isatty():
            print(
                "Nothing was removed. Without a terminal to ask on, say it: "
                + typed("clean --yes", "clean YES=1"),
                file=sys.stderr,
            )
            return 1
        if input("Remove it? Type yes: ").strip().lower() != "yes":
            print("Nothing was removed.")
            return 1
    control.clean(options.home)
    return 0


def _silence(options: argparse.Namespace) -> None:
    print(
        alerts.silence(
            options.home,
            model=options.model,
            dataset=options.dataset,
            until=options.until,
            reason=options.reason,
        )
    )


def _logs(options: argparse.Namespace) -> None:
    layout = Layout.of(options.home)
    if options.name is None:
        for log in sorted(layout.logs.glob("*.log")):
            print(f"{log.stem:20} {log.stat().st_size / 1024:10.0f} KiB  {log}")
        print(f"{'tasks of Airflow':20} {'':14}  {layout.logs / 'airflow'}")
        return
    log = layout.log(options.name)
    if not log.exists():
        names = ", ".join(sorted(path.stem for path in layout.logs.glob("*.log")))
        raise StackError(f"There is no log {options.name!r}; there are: {names or 'none yet'}.")
    sys.stdout.flush()
    os.execvp(
        "tail", ["tail", f"--lines={options.lines}", *(["--follow"] if options.follow else []), str(log)]
    )


def _catch_mail(options: argparse.Namespace) -> None:
    layout = Layout.of(options.home)
    asyncio.run(serve(layout.ports()["mail"], layout.mail))


def _env(options: argparse.Namespace) -> None:
    own, hidden, found = os.environ, secret_names(options.home), environment(options.home)
    if unknown := sorted(set(options.name) - set(found)):
        raise StackError(f"The services have no variable {', '.join(unknown)}; without names all are listed.")
    for name, value in sorted(found.items()):
        if name not in options.name if options.name else own.get(name) == value:
            continue
        if name in hidden and not (options.secrets and options.name):
            print(f"# {name}: a secret, shown by: env --secrets {name}")
        else:
            print(f"export {name}={shlex.quote(value)}")
