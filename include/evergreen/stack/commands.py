"""The commands of the embedded stack: `evergreen up`, `down`, `status`, `run`, `mail`, `silence`, `logs`, `env` and `clean`."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
from pathlib import Path

from evergreen.program import typed
from evergreen.stack import alerts, control, landed, run_dag, supervisor
from evergreen.stack.airflow_api import AirflowApi
from evergreen.stack.layout import Layout, StackError
from evergreen.stack.mailcatcher import messages, serve
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

    add("up", _up, "Start PostgreSQL, MLflow, Airflow and the mail catcher, and wait until they work.")
    add("down", _down, "Stop all of it; nothing is lost.")
    add("status", _status, "Say what is up; exit code 0 only if all is.")
    mail = add("mail", _mail, "List the caught e-mails, or print one.")
    mail.add_argument("number", type=int, nargs="?", help="print the text of this one")
    logs = add("logs", _logs, "List the logs, or print the end of one.")
    logs.add_argument("name", nargs="?", help="service whose log to print")
    logs.add_argument("-n", "--lines", type=int, default=50, help="how many lines (default 50)")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as the log grows")
    run = add("run", _run, "Trigger a DAG, wait for its end, and print the state of its tasks.")
    run.add_argument("dag", help="such as ingest__bike_hourly")
    run.add_argument("param", nargs="*", help="Params as name=value, such as as_of=2026-05-01T02:00:00Z")
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


def _status(options: argparse.Namespace) -> int:
    rows = control.status(options.home)
    if not rows:
        print(f"The stack was never up here; {typed('up')} starts it.")
        return 1
    table = [("SERVICE", "STATE", "PID", "PORT", "SINCE", "RESTARTS")]
    for row in rows:
        since = f"{row.since:%Y-%m-%d %H:%M:%S}" if row.since else "-"
        table.append(
            (row.service, row.state, str(row.pid or "-"), str(row.port or "-"), since, str(row.restarts))
        )
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for row in rows:
        if row.message and not row.is_good:
            print(f"{row.message} {typed(f'logs {row.service}', f'logs NAME={row.service}')} shows its log.")
    for said in alerts.specs(options.home):
        print(said)
    for said in landed.lines(options.home):
        print(said)
    _alerts(options)
    return 0 if all(row.is_good for row in rows) else 1


def _alerts(options: argparse.Namespace) -> None:
    for line in alerts.lines(options.home):
        print(line)


def _mail(options: argparse.Namespace) -> None:
    layout = Layout.of(options.home)
    caught = messages(layout.mail)
    if options.number is None:
        if not caught:
            print(f"No e-mail in {layout.mail}.")
        for number, mail in enumerate(caught, start=1):
            print(
                f"{number:4}  {mail.received.astimezone():%Y-%m-%d %H:%M:%S}  {mail.to}  {mail.subject}\n      {mail.path}"
            )
        _alerts(options)
        return
    if not 1 <= options.number <= len(caught):
        raise StackError(f"There is no e-mail {options.number}; there are {len(caught)} in {layout.mail}.")
    mail = caught[options.number - 1]
    print(
        f"Date: {mail.received.astimezone():%Y-%m-%d %H:%M:%S %Z}\nTo: {mail.to}\nSubject: {mail.subject}\n\n{mail.text}"
    )


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


def _run(options: argparse.Namespace) -> int:
    os.environ.update(environment(options.home))
    login = control.login(options.home)
    api = AirflowApi(login.airflow_url, login.user, login.airflow_password)
    return 0 if run_dag.run(api, options.dag, options.param, lambda line: print(line, flush=True)) else 1


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
