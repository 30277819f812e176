"""Recipients are read by the standard library's parser when the spec is checked, not when a mail must go out."""

from __future__ import annotations

from pathlib import Path

import pytest

from evergreen.spec import load_specs
from evergreen.spec.alerts import addresses, readable

REFUSED = {
    "semicolon": ("a@x.org;b@x.org", "separate addresses by commas, not by semicolons"),
    "semicolon and space": ("a@x.org; b@x.org", "separate addresses by commas, not by semicolons"),
    "letters beyond ASCII": ("jörg@x.org", "has letters beyond ASCII before the @"),
    "domain beyond ASCII": ("a@bücher.de", "write the domain in ASCII, xn--bcher-kva.de"),
    "name with a comma": ("Doe, Jane <jane@x.org>", 'a name with a comma stands in quotes: "Doe, Jane" <jane@example.org>'),
    "space": ("a@x.org b@x.org", "is no e-mail address"),
    "no domain": ("jane", "is no e-mail address"),
    "nothing after the @": ("jane@", "is no e-mail address"),
    "nothing before the @": ("@x.org", "is no e-mail address"),
    "two @": ("a@b@c", "is no e-mail address"),
    "open bracket": ("Jane <jane@x.org", "is no e-mail address"),
    "closing bracket": ("jane@x.org>", "is no e-mail address"),
    "two dots": ("a..b@x.org", "is no e-mail address"),
    "dot at the end": ("a@x.org.", "is no e-mail address"),
    "dash at the start": ("a@-x.org", "is no e-mail address"),
    "group": ("team: a@x.org, b@x.org;", "not by semicolons"),
    "link": ("mailto:a@x.org", "is no e-mail address"),
    "empty": ("", "an empty text is no address"),
    "only spaces": ("  ", "an empty text is no address"),
    "line break": ("a@x.org\nBcc: b@x.org", "holds a line break"),
    "carriage return": ("a@x.org\r\n", "holds a line break"),
    "invisible": ("a@x.org\u200b", "holds a line break or another character that no address has"),
    "template": ("{{ team }}@x.org", "is no e-mail address"),
    "endless": ("a" * 300 + "@x.org", "is no e-mail address"),
    "open quote": ('"Jane <jane@x.org>', "is no e-mail address"),
}  # fmt: skip
TAKEN = {
    "plain": ("a@x.org", ["a@x.org"]),
    "one word domain": ("ml-team@localhost", ["ml-team@localhost"]),
    "name": ("Jane Doe <jane@x.org>", ["Jane Doe <jane@x.org>"]),
    "initial": ("John Q. Public <j@x.org>", ['"John Q. Public" <j@x.org>']),
    "quoted name": ('"Doe, Jane" <jane@x.org>', ['"Doe, Jane" <jane@x.org>']),
    "quoted semicolon": ('"a; b" <jane@x.org>', ['"a; b" <jane@x.org>']),
    "name beyond ASCII": ("Jörg <jorg@x.org>", ["Jörg <jorg@x.org>"]),
    "two": ("a@x.org, Jane <b@x.org>", ["a@x.org", "Jane <b@x.org>"]),
    "tag": ("team+alerts@x.org", ["team+alerts@x.org"]),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        addresses(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(("text", "kept"), TAKEN.values(), ids=TAKEN.keys())
def test_taken(text: str, kept: list[str]) -> None:
    assert list(map(str, addresses(text))) == kept
    assert readable(text) == (kept, [])


def test_one_that_cannot_be_read_leaves_the_others() -> None:
    good, bad = readable(
        'a@x.org;b@x.org, jörg@x.org, "Doe, Jane" <jane@x.org>, c@x.org, c@x.org,, a..b@x.org'
    )
    assert good == ['"Doe, Jane" <jane@x.org>', "c@x.org"]
    assert bad == ["a@x.org;b@x.org", "jörg@x.org", "a..b@x.org"]


@pytest.mark.parametrize("file", ["datasets/bike_hourly.yaml", "models/bike_rush.yaml"])
def test_a_spec_names_its_recipients_rightly(folder: Path, file: str) -> None:
    path = folder / file
    good = path.read_text()
    for index, bad in enumerate(("a@x.org;b@x.org", "jörg@x.org", "Doe, Jane <jane@x.org>")):
        path.write_text(f"{good}\nalerts: ['ok@x.org', '{bad}']\n")
        own = [p for p in load_specs(folder).problems if not p.because]
        assert [(p.file, p.field) for p in own] == [(file, "alerts.1")], index
    path.write_text(f"{good}\nalerts: a@x.org\n")
    (problem, *_) = load_specs(folder).problems
    assert str(problem) == f"{file}: alerts: must be a list, such as [a, b] (value: 'a@x.org')"
