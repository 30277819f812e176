"""One odd file among the specs: told as its own problem, or skipped, and the others stay exactly as they were."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evergreen.spec import Problem, Specs, load_dataset, load_model, load_specs
from evergreen.spec.yaml_text import MOST_VALUES

BOMB = "name: odd\n" + "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)  # fmt: skip


def whole(folder: Path) -> Specs:
    specs = load_specs(folder)
    assert specs.problems == ()
    return specs


def put(name: str, content: bytes | str) -> Callable[[Path], object]:
    """What writes a file into the folder of models."""
    data = content.encode() if isinstance(content, str) else content
    return lambda models: (models / name).write_bytes(data)


def sql(content: bytes) -> Callable[[Path], object]:
    """What adds a model whose YAML is good and whose SQL is odd."""

    def write(models: Path) -> None:
        text = (models / "bike_rush.yaml").read_text()
        (models / "odd.yaml").write_text(text.replace("name: bike_rush", "name: odd"))
        (models / "odd.sql").write_bytes(content)

    return write


def bound_socket(models: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(models)  # the name of a socket has at most 108 characters
        try:
            made.bind("odd.yaml")
        finally:
            os.chdir(here)


def piped_sql(models: Path) -> None:
    sql(b"")(models)
    (models / "odd.sql").unlink()
    os.mkfifo(models / "odd.sql")


SKIPPED = {
    "editor's lock": lambda m: (m / ".#bike_rush.yaml").symlink_to("me@host.1234:5678"),
    "swap file": put(".bike_rush.yaml.swp", b"b0VIM\x00\xff"),
    "hidden spec": put(".old.yaml", "name: ["),
    "hidden pipe": lambda m: os.mkfifo(m / ".pipe.yaml"),
    "backup": put("bike_rush.yaml~", "name: ["),
    "other ending": put("notes.md", "name: ["),
    "folder of another name": lambda m: (m / "old").mkdir(),
}


@pytest.mark.parametrize("place", SKIPPED.values(), ids=SKIPPED.keys())
def test_what_is_no_spec_by_its_name_is_skipped(folder: Path, place: Callable[[Path], object]) -> None:
    before = whole(folder)
    place(folder / "models")
    assert load_specs(folder) == before


TOLD: dict[str, tuple[Callable[[Path], object], str]] = {
    "dangling link": (lambda m: (m / "odd.yaml").symlink_to("nowhere"), "is a link that leads nowhere"),
    "link to itself": (lambda m: (m / "odd.yaml").symlink_to("odd.yaml"), "cannot be read"),
    "folder": (lambda m: (m / "odd.yaml").mkdir(), "is a folder, and a spec is a file"),
    "link to a folder": (lambda m: (m / "odd.yaml").symlink_to("/"), "is a folder, and a spec is a file"),
    "pipe": (lambda m: os.mkfifo(m / "odd.yaml"), "is no file (a pipe, a socket or a device)"),
    "link to a device": (lambda m: (m / "odd.yaml").symlink_to("/dev/zero"), "is no file (a pipe,"),
    "socket": (bound_socket, "is no file (a pipe,"),
    "pipe for SQL": (piped_sql, "models/odd.sql: is no file"),
    "folder for SQL": (lambda m: (sql(b"")(m), (m / "odd.sql").unlink(), (m / "odd.sql").mkdir()), "models/odd.sql: is no"),
    "latin-1 in YAML": (put("odd.yaml", b"name: odd\ndescription: caf\xe9\n"), "line 2 is not UTF-8 (byte 0xe9); save the file as UTF-8"),
    "latin-1 in SQL": (sql(b"-- one line\n-- m\xfcde\nSELECT 1"), "models/odd.sql: line 2 is not UTF-8 (byte 0xfc)"),
    "NUL in SQL": (sql(b"SELECT 1 -- \x00"), "models/odd.sql: line 1 holds a NUL character"),
    "huge SQL": (sql(b"SELECT 1 -- " + b"x" * 200_000), "models/odd.sql: is larger than 100,000 bytes"),
    "UTF-16": (put("odd.yaml", "name: odd".encode("utf-16")), "is UTF-16, not UTF-8"),
    "NUL": (put("odd.yaml", "name: odd\x00"), "holds a NUL character"),
    "escaped NUL": (put("odd.yaml", 'name: odd\nowner: "a\\0b"'), "owner: holds a NUL or half a character"),
    "template": (put("odd.yaml", "name: odd\nowner: {{ team }}"), "line 2: a list or section stands where a name must ({{ … }} is"),
    "impossible date": (put("odd.yaml", "name: odd\nowner: 2024-13-45"), "line 2: 2024-13-45 is no possible date"),
    "impossible day": (put("odd.yaml", "name: odd\nowner: 2023-02-29"), "line 2: 2023-02-29 is no possible date"),
    "impossible zone": (put("odd.yaml", "name: odd\nowner: 2023-02-20 10:00:00 +99:00"), "is no possible date"),
    "number of 5,000 digits": (put("odd.yaml", "name: odd\nowner: " + "9" * 5000), "line 2: 9999"),
    "number of 5,000 hex digits": (put("odd.yaml", "name: odd\nowner: 0x" + "f" * 5000), "owner: is larger than any number"),
    "endless number": (put("odd.yaml", "name: odd\ngate: {margin: 1e999, tolerance: .inf}"), "gate.tolerance: inf is no usable number"),
    "no number": (put("odd.yaml", "name: odd\ngate: {margin: .nan}"), "gate.margin: nan is no usable number"),
    "alias bomb": (put("odd.yaml", BOMB), f"holds more than {MOST_VALUES:,} values, with what its aliases repeat"),
    "alias of itself": (put("odd.yaml", "name: odd\ngate: &g {margin: *g}"), "line 2: *g stands inside of what it repeats"),
    "undefined alias": (put("odd.yaml", "name: odd\nowner: *nobody"), "line 2, column 8: found undefined alias"),
    "pattern without quotes": (put("odd.yaml", "name: odd\npattern: *.csv"), "a text that begins with * or & must be in quotes"),
    "deep lists": (put("odd.yaml", "name: odd\na: " + "[" * 5000 + "]" * 5000), "line 2: is nested deeper than 20 levels"),
    "deep sections": (put("odd.yaml", "".join(f"{' ' * i}a:\n" for i in range(900))), "is nested deeper than 20 levels"),
    "only brackets": (put("odd.yaml", "[" * 900_000), "is nested deeper than 20 levels"),
    "huge": (put("odd.yaml", "#" * 1_200_000), "is larger than 1,000,000 bytes, the most that is read"),
    "many values": (put("odd.yaml", "a: [" + "1," * 300_000 + "]"), "holds more than 50,000 values"),
    "tabs": (put("odd.yaml", "name: odd\nlabel:\n\tcolumn: x"), "line 3, column 1: found character that cannot start any token (while scanning for the next token); indent with spaces, not with tabs"),
    "merge conflict": (put("odd.yaml", "name: odd\n<<<<<<< HEAD\nowner: a\n=======\nowner: b\n>>>>>>> x\n"), "a merge conflict is not resolved"),
    "object tag": (put("odd.yaml", "name: odd\nowner: !!python/object/apply:os.system [date]"), "line 2: the tag !!python/object/apply:os.system is not read"),
    "own tag": (put("odd.yaml", "name: odd\nowner: !secret x"), "line 2: the tag !secret is not read"),
    "set tag": (put("odd.yaml", "name: odd\nkey: !!set {a}"), "line 2: the tag !!set is not read"),
    "two documents": (put("odd.yaml", "name: odd\n---\nname: odd2\n"), "line 2: holds a second document (after ---)"),
    "list": (put("odd.yaml", "- name: odd"), "is empty or no mapping"),
    "text": (put("odd.yaml", "odd"), "is empty or no mapping"),
    "empty": (put("odd.yaml", ""), "is empty or no mapping"),
    "list as a name": (put("odd.yaml", "? [a, b]\n: 1"), "line 1: a list or section stands where a name must"),
    "number as a name": (put("odd.yaml", "name: odd\ngate: {1: 2}"), "line 2: the name 1 must be a text, and YAML reads 1 as a number: put it in quotes, '1'"),
    "on as a name": (put("odd.yaml", "name: odd\non: push"), "models/odd.yaml: on: unknown field"),
    "off as a name": (put("odd.yaml", "name: odd\noff: push"), "line 2: the name off must be a text, and YAML reads off as a boolean (true, false): put it in quotes, 'off'"),
    "null as a name": (put("odd.yaml", "name: odd\nnull: push"), "line 2: the name null must be a text"),
    "date as a name": (put("odd.yaml", "name: odd\n2024-01-01: push"), "line 2: the name 2024-01-01 must be a text"),
    "no as the name": (put("no.yaml", "name: no"), "models/no.yaml: name: must be the file's name; write name: no"),
    "capital letters": (put("Odd.yaml", "name: Odd"), "models/Odd.yaml: is no usable name for a spec"),
    "space": (put("my odd.yaml", "name: my odd"), "models/my odd.yaml: is no usable name for a spec"),
    "line break": (put("odd\n.yaml", "name: odd"), "models/odd\\n.yaml: is no usable name for a spec"),
    "name that is no UTF-8": (lambda m: Path(os.fsdecode(os.fsencode(m) + b"/m\xe9t.yaml")).write_text("name: x"), "models/m\\udce9t.yaml: is no usable name"),
    "long name": (put("o" * 60 + ".yaml", "name: x"), "is no usable name for a spec"),
    "ending in capitals": (put("odd.YAML", "name: odd"), "models/odd.YAML: has the ending .YAML; write it in small letters, .yaml"),
}  # fmt: skip


@pytest.mark.parametrize(("place", "said"), TOLD.values(), ids=TOLD.keys())
def test_what_has_the_name_of_a_spec_and_is_none_is_told(
    folder: Path, place: Callable[[Path], object], said: str
) -> None:
    before = whole(folder)
    place(folder / "models")
    began = time.process_time(), time.monotonic()
    after = load_specs(folder)
    assert time.process_time() - began[0] < 2, "nothing is unfolded"
    assert time.monotonic() - began[1] < 30, "nothing is waited for"
    assert (after.datasets, after.models) == (before.datasets, before.models)
    assert len(after.problems) >= 1
    assert any(said in str(p) for p in after.problems), [str(p) for p in after.problems]
    for problem in after.problems:
        assert str(problem).isprintable()
        assert len(str(problem)) < 1200


@pytest.mark.parametrize("kind", ["datasets", "models"])
def test_two_endings_of_one_name_are_a_problem_of_both_and_neither_wins(folder: Path, kind: str) -> None:
    name = "bike_hourly" if kind == "datasets" else "bike_rush"
    first = folder / kind / f"{name}.yaml"
    first.with_suffix(".yml").write_text(first.read_text())
    for specs in (load_specs(folder), (load_dataset if kind == "datasets" else load_model)(folder, name)):
        assert name not in {**specs.datasets, **specs.models}
        told = [p for p in specs.problems if p.file.startswith(f"{kind}/{name}")]
        assert [p.file for p in told] == [f"{kind}/{name}.yaml", f"{kind}/{name}.yml"]
        assert "has the same name; keep one of the two" in str(told[0])
    assert "bike_demand" in load_specs(folder).models or kind == "datasets"


def test_a_link_to_a_file_is_that_file(folder: Path, tmp_path: Path) -> None:
    """Volumes of Kubernetes are links."""
    before = whole(folder)
    for name in ("bike_rush.yaml", "bike_rush.sql"):
        (folder / "models" / name).rename(tmp_path / name)
        (folder / "models" / name).symlink_to(tmp_path / name)
    assert load_specs(folder) == before


def test_a_file_that_vanishes_while_it_is_read_was_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an editor or git does: the name was listed, and is gone when the file is opened."""
    real = os.open

    def gone(path: object, *more: object, **named: object) -> int:
        if str(path).endswith("bike_rush.yaml"):
            Path(str(path)).unlink(missing_ok=True)
        return real(path, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", gone)
    specs = load_specs(folder)
    assert (specs.problems, set(specs.models)) == ((), {"bike_demand"})


def test_a_file_that_may_not_be_read_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def denied(path: object, *more: object, **named: object) -> int:
        if str(path).endswith("bike_rush.sql"):
            raise PermissionError(13, "Permission denied")
        return real(path, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", denied)  # who runs the tests may be allowed everything
    specs = load_specs(folder)
    assert [str(p) for p in specs.problems] == ["models/bike_rush.sql: cannot be read (Permission denied)"]
    assert set(specs.models) == {"bike_demand"}


def test_a_folder_without_specs_is_told(tmp_path: Path) -> None:
    (problem,) = load_specs(tmp_path / "gone").problems
    assert "holds neither datasets/ nor models/; EVERGREEN_SPECS names the folder" in str(problem)


def test_merge_keys_and_aliases_are_written_out(folder: Path) -> None:
    path = folder / "datasets" / "bike_hourly.yaml"
    text = path.read_text()
    old = "humidity:     {type: float, required: false, null_share_max: 0.1, min: 0, max: 100}"
    new = "humidity:     &part {type: float, required: false, null_share_max: 0.1, min: 0, max: 100}"
    wind = "windspeed:    {type: float, required: false, null_share_max: 0.1, min: 0, max: 150}"
    assert old in text
    assert wind in text
    before = whole(folder)
    path.write_text(text.replace(old, new).replace(wind, "windspeed:    {<<: *part, max: 150}"))
    assert load_specs(folder) == before


def test_a_byte_order_mark_is_no_mistake(folder: Path) -> None:
    before = whole(folder)
    for path in sorted(folder.rglob("bike_rush.*")):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_specs(folder) == before


def test_a_model_whose_dataset_is_broken_says_whose_problem_it_is(folder: Path) -> None:
    (folder / "datasets" / "bike_hourly.yaml").write_text("name: [")
    problems = load_specs(folder).problems
    assert [(p.file, p.because) for p in problems] == [
        ("datasets/bike_hourly.yaml", ""),
        ("models/bike_demand.yaml", "datasets/bike_hourly.yaml"),
        ("models/bike_rush.yaml", "datasets/bike_hourly.yaml"),
    ]


def test_ten_thousand_mistakes_are_told_in_a_second_and_on_a_page(folder: Path) -> None:
    lines = "".join(f"unknown_{i}: 1\n" for i in range(9000))
    columns = "".join(f"  - column_{i}\n" for i in range(9000))
    (folder / "models" / "odd.yaml").write_text(
        f"name: odd\n{lines}features:\n  numeric:\n{columns}{columns}"
    )
    began = time.process_time()
    problems = load_specs(folder).problems
    assert time.process_time() - began < 3
    assert 10 < len(problems) < 60
    assert "more mistakes; mend these first" in str(problems[-1])


def test_a_problem_can_be_printed_whatever_it_holds() -> None:
    problem = Problem("models/\udce9\n.yaml", "a\x1b[31m", "x" * 10_000, "\u202emend it\x07")
    assert str(problem).isprintable()
    assert len(str(problem)) < 1000
