"""Good specs are damaged at random and odd files laid beside them.

The oracle needs no second reader: the files that were not touched must come out exactly as before, nothing may be raised,
hang or say nothing, and what is accepted must be usable by everything that later reads it.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
import yaml
from croniter import croniter
from pydantic import BaseModel

from evergreen.spec import DatasetSpec, ModelSpec, Specs, load_dataset, load_model, load_specs
from evergreen.spec.alerts import readable
from evergreen.training.parameters import parameter_problems
from evergreen.warehouse.connection import Connection
from evergreen.warehouse.features import feature_query, views
from evergreen.warehouse.migrate import ensure_dataset

REPOSITORY = Path(__file__).resolve().parents[2]
CPU_SECONDS, SECONDS = 3.0, 60
NOW = datetime(2026, 5, 1, tzinfo=UTC)
# As they stand in a file, unquoted.
SCALARS = (
    "", "NO", "on", "yes", "~", "null", "12", "1:30", "0x" + "f" * 5000, "9" * 5000, "1e999", ".nan", "-.inf", "2024-13-45", "2024-01-01",
    "*a", "&a [*a]", "&a x", "{{ team }}", "{", "[", "]", "'", '"', "!!python/object/apply:os.system [x]", "!x y", "!!set {a}", "|", ">", "@daily",
    "%", "`", "? [a]", "- a", "a: b", "<<", "=", "\t", "#", "---", "...", "é", "\ufeff", "\u2028", '"\\0"', '"\\ud800"', "x" * 200_000,
    "[" * 3000, "a;b@x.org", "Doe, Jane <j@x.org>", "61 2 * * *", "0 2 30 2 *", "*/0 * * * *", "0d", "99999999999d", "-1", "0", "1e-320", "1_000",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 10**6, 2**63, 10**40, 0.5, -0.5, 1e308, 5e-324, "", " ", "x", "NO", "é", "a\nb", "a\x07b", "x" * 5000, "_key",
    "_label", "temp[C]", "ts", "all", "0d", "1m", "7d", "1e3d", "999999999999d", "0 2 * * *", "@daily", "61 2 * * *", "0 2 31 2 *", "R R * * *",
    "a@x.org", "a@x.org;b@x.org", "jörg@x.org", "a@x.org\nBcc: b@x.org", [], [[]], ["x"], ["x", "x"], [None], ["ts"], [1, 2], {}, {"x": 1}, {"": {}},
    [["x"] * 50] * 50, [f"y{n}" for n in range(3000)], "rot13", "utf-16", "||", "\\", "\t", ".", "Europe/Berlin", "UTC+2", "rmse", "brier", "binary",
)  # fmt: skip


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a spec."""
    if at:
        yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from paths(item, (*at, key))


def change(rng: random.Random, content: dict[str, Any]) -> str:
    """A spec in which one thing or two are dropped, replaced, renamed or added."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 1, 2))):
        path = rng.choice([p for p in paths(content) if p != ("name",)])
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        kind = rng.randrange(5)
        if kind == 0:
            del parent[path[-1]]
        elif kind <= 2:
            parent[path[-1]] = rng.choice(VALUES)
        elif isinstance(parent, dict):
            value = parent.pop(path[-1]) if kind == 3 else rng.choice(VALUES)
            parent[rng.choice((f"{path[-1]}x", path[-1][1:], "x", "", 5, None, True, "a.b"))] = value
        else:
            parent.append(rng.choice(VALUES))
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def scribble(rng: random.Random, text: str) -> bytes:
    """A spec whose text is damaged: a line, a value, or some bytes."""
    lines = text.splitlines()
    at = rng.randrange(1, len(lines))
    kind = rng.randrange(8)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, lines[at])
    elif kind == 2:
        lines.insert(at, rng.choice(SCALARS))
    elif kind <= 4:
        lines[at] = f"{lines[at].partition(':')[0]}: {rng.choice(SCALARS)}"
    elif kind == 5:
        lines[at] = rng.choice((" ", "\t", "  ")) + lines[at]
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    if kind == 6:
        data = data[: rng.randrange(len(data))]
    elif kind == 7:
        place = rng.randrange(len(data))
        data = data[:place] + rng.randbytes(rng.randrange(1, 20)) + data[place + rng.randrange(3) :]
    return data


def odd_file(rng: random.Random, folder: Path) -> str:
    """Something that is no spec, in the place of one; returns what it is."""
    path = folder / "odd.yaml"
    path.unlink()

    def write(name: str, data: bytes = b"name: odd") -> None:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name.encode("utf-8", "surrogateescape"))).write_bytes(
            data
        )

    kinds: dict[str, Callable[[], object]] = {
        "link to nothing": lambda: path.symlink_to("nowhere"),
        "link to itself": lambda: path.symlink_to(path.name),
        "link to a folder": lambda: path.symlink_to(folder),
        "link to a device": lambda: path.symlink_to(rng.choice(("/dev/zero", "/dev/random", "/dev/null"))),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "empty": lambda: write("odd.yaml", b""),
        "bytes": lambda: write("odd.yaml", rng.randbytes(rng.randrange(1, 5000))),
        "huge": lambda: write("odd.yaml", rng.choice((b"x", b"[", b"- ", b"&a ", b"#", b"a: ")) * 600_000),
        "two endings": lambda: (write("odd.yaml"), write("odd.yml")),
        "ending in capitals": lambda: write("odd.YAML"),
        "odd name": lambda: write(rng.choice(("odd\n.yaml", "odd odd.yaml", "odd\udce9.yaml", "Odd.yaml", "odd-.yaml", "odd.x.yaml"))),
        "bomb": lambda: write("odd.yaml", bomb(rng)),
        "UTF-16": lambda: write("odd.yaml", "name: odd\n".encode("utf-16")),
    }  # fmt: skip
    kind = rng.choice(sorted(kinds))
    kinds[kind]()
    return kind


def bomb(rng: random.Random) -> bytes:
    """A few lines that unfold to more than any memory holds."""
    width, depth = rng.randrange(2, 12), rng.randrange(20, 60)
    lines = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, depth)]
    return "\n".join(["name: odd", "a0: &a0 [x]", *lines]).encode()


@contextmanager
def limited() -> Iterator[None]:
    """Fail what hangs or computes for too long."""

    def hangs(*_: object) -> None:
        raise TimeoutError(f"took longer than {SECONDS} s")

    before, began = signal.signal(signal.SIGALRM, hangs), time.process_time()
    signal.alarm(SECONDS)
    try:
        yield
        spent = time.process_time() - began
        assert spent < CPU_SECONDS, f"took {spent:.1f} s of the processor"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def without_odd(specs: Specs) -> tuple[dict[str, DatasetSpec], dict[str, ModelSpec]]:
    return (
        {n: d for n, d in specs.datasets.items() if n != "odd"},
        {n: m for n, m in specs.models.items() if n != "odd"},
    )


def leaves(value: Any) -> Iterator[Any]:
    """Every value of a typed spec."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from leaves(getattr(value, name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    else:
        yield value


def use(conn: Connection, specs: Specs) -> None:
    """Do with an accepted spec what later reads it: keep it, draw times from it, plan its SQL, address its mails."""
    spec = {**specs.datasets, **specs.models}["odd"]
    kept = json.loads(json.dumps(spec.model_dump(mode="json"), allow_nan=False))
    assert type(spec).model_validate(kept) == spec, "what the run keeps of it is another spec"
    for value in leaves(spec):
        if isinstance(value, timedelta):
            assert datetime.min.replace(tzinfo=UTC) < NOW - value <= NOW
        if isinstance(value, str):
            value.encode("utf-8")
            assert "\x00" not in value
    crons = [spec.schedule]
    if isinstance(spec, ModelSpec):
        crons += [spec.scoring.schedule, spec.monitoring.schedule]
    for cron in filter(None, crons):
        assert croniter(cron, NOW).get_next(datetime) > NOW
    good, bad = readable(", ".join(spec.alerts))
    assert not bad
    assert len(default.header_factory("To", ", ".join(good)).addresses) == len(good)
    if isinstance(spec, ModelSpec):
        for problem in [*feature_query.check(specs, spec), *parameter_problems(spec)]:
            assert str(problem).isprintable()
    else:
        ensure_dataset(conn, spec)
        with conn.cursor() as cursor:
            cursor.execute(views.as_known([spec], NOW) + feature_query.sql.SQL("SELECT 1 FROM {}").format(
                feature_query.sql.Identifier(spec.name)
            ))  # fmt: skip
        conn.rollback()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project's specs, and a model and a dataset in which every field is written out."""
    for name in ("datasets", "models"):
        shutil.copytree(REPOSITORY / "include" / name, tmp_path / name)
    return tmp_path


def test_specs(attack: Any, folder: Path, conn: Connection) -> None:
    good = load_specs(folder)
    assert good.problems == ()
    written = {
        "models": {**good.models["bike_rush"].model_dump(mode="json", exclude={"query"}), "name": "odd"},
        "datasets": {**good.datasets["bike_hourly"].model_dump(mode="json"), "name": "odd"},
    }
    query = (folder / "models" / "bike_rush.sql").read_text()
    for place, content in written.items():
        (folder / place / "odd.yaml").write_text(yaml.safe_dump(content))
    (folder / "models" / "odd.sql").write_text(query)
    whole = load_specs(folder)
    assert whole.problems == (), "written out in full they are good"
    for place in written:
        (folder / place / "odd.yaml").unlink()
    (folder / "models" / "odd.sql").unlink()

    tried, wrong, outcomes = attack.count(sample=40, whole=1200), [], Counter[str]()
    for number in range(tried):
        rng = random.Random(f"{attack.seed}/{number}")
        place = rng.choice(sorted(written))
        path = folder / place / "odd.yaml"
        path.write_text(yaml.safe_dump(written[place], sort_keys=False))
        if place == "models":
            (folder / "models" / "odd.sql").write_text(query)
        kind = rng.choice(("change", "change", "scribble", "file", "SQL"))
        if kind == "change":
            path.write_bytes(change(rng, written[place]).encode("utf-8", "surrogatepass"))
        elif kind == "file":
            kind = odd_file(rng, folder / place)
        elif kind == "SQL" and place == "models":
            (folder / "models" / "odd.sql").write_bytes(scribble(rng, query))
        else:
            path.write_bytes(scribble(rng, path.read_text()))
        try:
            with limited():
                found = load_specs(folder)
            own = [p for p in found.problems if p.file.lower().startswith(f"{place}/odd")]
            assert without_odd(found) == without_odd(good), "another spec is not what it was"
            assert len(own) == len(found.problems), f"a problem of another file: {found.problems}"
            assert all(str(p).isprintable() and len(str(p)) < 1200 for p in own)
            accepted = "odd" in {**found.datasets, **found.models}
            assert accepted != bool(own), "said nothing, or said no and took it"
            alone = (load_model if place == "models" else load_dataset)(folder, "odd")
            assert ("odd" in {**alone.datasets, **alone.models}) == accepted, "read alone, it is another one"
            if accepted:
                use(conn, found)
            outcomes["usable" if accepted else "told"] += 1
        except Exception as error:
            conn.rollback()
            wrong.append(f"{number} ({kind}, {place}): {type(error).__name__}: {str(error)[:300]}")
        for left in folder.glob("*/*[oO]dd*"):
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    attack.record("specs", tried, wrong, f"{outcomes['usable']} usable, {outcomes['told']} told")
