"""`evergreen client add|list|revoke`: who may ask the prediction service, and for what."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError
from evergreen.serving import grants
from evergreen.spec import load_specs
from evergreen.terminal import as_json, place
from evergreen.terminal.page import Page

RATE = 100.0


def main(argv: list[str] | None = None) -> int:
    """Add, list or revoke; 1 with a sentence where it cannot be done."""
    parser = place.parser(
        "client",
        "Say who may ask the prediction service: each client has a key, which is printed once, the models that it may ask, and how often.",
        "client add web-shop --models bike_demand --rate 50",
    )
    parser.add_argument("do", choices=("add", "list", "revoke"), help="what to do")
    parser.add_argument("name", nargs="?", help="of the client, such as web-shop")
    parser.add_argument("--models", default="*", help="names, by comma (default: all)")
    parser.add_argument(
        "--rate",
        type=_rate,
        default=RATE,
        help="requests a second, of each process of the service (default: %(default)g)",
    )
    options = parser.parse_args(argv)
    return place.told(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    place.find(options.home)
    if options.do != "list" and not options.name:
        raise TerminalError(f"name the client: evergreen client {options.do} NAME", ErrorReason.BAD_SPEC)
    if options.do == "list":
        return _list(options.json)
    with place.writing() as conn:
        if options.do == "revoke":
            grants.revoke(conn, options.name)
            said = {"client": options.name, "revoked": True}
            text = f"{options.name} may not ask any more, within some seconds of this."
        else:
            key = grants.add(conn, options.name, _models(options.models), options.rate)
            said = {"client": options.name, "key": key}
            text = f"The key of {options.name}, which is told this once:\n{key}"
    print(as_json.text(said) if options.json else text)
    return 0


def _list(as_text: bool) -> int:
    with place.reading() as conn:
        found = grants.listed(conn)
    if as_text:
        print(as_json.text([asdict(one) for one in found]))
        return 0
    page = Page()
    if not found:
        page.line("No client has a key yet; evergreen client add NAME makes one.")
    for one in found:
        state = (
            f"revoked {one.revoked_at:%Y-%m-%d %H:%M} UTC"
            if one.revoked_at
            else f"{one.rate:g} requests a second"
        )
        models = "all models" if one.models == ("*",) else ", ".join(one.models)
        page.line(f"{one.name}: {models}; {state}; made {one.made_at:%Y-%m-%d %H:%M} UTC", hang=4)
    return 0


def _models(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = load_specs(settings.specs_folder()).models
    if unknown := [name for name in names if name != "*" and name not in known]:
        raise TerminalError(
            f"there is no model {', '.join(unknown)}; there is {', '.join(known)}", ErrorReason.BAD_SPEC
        )
    if not names:
        raise TerminalError("--models names none; write names by comma, or * for all", ErrorReason.BAD_SPEC)
    return names


def _rate(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return found
