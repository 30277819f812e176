"""`evergreen check --changed BASE`, with real repositories: what differs, what it means, and what cannot be compared."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from evergreen import check
from evergreen.changes import show
from evergreen.spec import load_specs
from evergreen.spec.hashes import training_hash
from evergreen.warehouse.connection import connect, fetch

DATASET = """\
name: rides_hourly
key: [ts]
event_time: ts
columns:
  ts: {type: timestamp}
  kind: {type: category}
  x: {type: float, required: false}
  demand: {type: float, required: false}
"""
MODEL = """\
name: rides
task: regression
datasets: [rides_hourly]
key: [ts]
event_time: ts
label: {column: demand, delay: 1h}
features:
  numeric: [hour, x]
  categorical: [kind]
"""
QUERY = "SELECT ts, extract(hour FROM ts)::int AS hour, x, kind, demand FROM rides_hourly\n"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stack is found, and git reads nobody's settings."""
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    # A warehouse only where a test asks for one.
    monkeypatch.delenv("EVERGREEN_WAREHOUSE_URL", raising=False)


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The specs of a repository with one commit, in a folder of it; its branch is main."""
    repository = tmp_path / "a clone"
    specs = repository / "include"
    for name, text in (
        ("datasets/rides_hourly.yaml", DATASET),
        ("models/rides.yaml", MODEL),
        ("models/rides.sql", QUERY),
    ):
        (specs / name).parent.mkdir(parents=True, exist_ok=True)
        (specs / name).write_text(text, encoding="utf-8")
    git(repository, "init", "--quiet", "--initial-branch=main")
    commit(specs)
    return specs


def commit(folder: Path, message: str = "specs") -> None:
    git(folder.parent, "add", "--all")
    git(folder.parent, "commit", "--quiet", "--message", message)


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Compare the specs with main; returns exit status, what was printed, and the errors."""

    def call(*arguments: str, base: str = "main", specs: Path = folder) -> tuple[int, str, str]:
        status = check.main(["--specs", str(specs), f"--changed={base}", *arguments])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


def edit(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")


def listed(out: str) -> list[str]:
    return [line.strip() for line in out.splitlines() if line.startswith("  ")]


def test_nothing_differs(run: Run) -> None:
    status, out, err = run()
    assert (status, err) == (0, "")
    assert re.match(r"compared with main \([0-9a-f]{10}\): no spec differs\n", out)


def test_alerts_alone_retrain_nothing(folder: Path, run: Run) -> None:
    edit(folder, "models/rides.yaml", "task:", "alerts: [ops@example.org]\ntask:")
    status, out, _ = run("--no-warehouse")
    assert status == 0
    known = training_hash(*_of(folder))[:12]
    assert listed(out) == [
        "alerts: not set → ops@example.org",
        "* alerts: mails go to others",
        f"* what is trained does not change (training hash {known}), so no champion is retrained for it",
    ]


def _of(folder: Path) -> Any:
    specs = load_specs(folder)
    return specs, specs.models["rides"]


def test_sql_alone(folder: Path, run: Run) -> None:
    before = training_hash(*_of(folder))[:12]
    edit(folder, "models/rides.sql", "x, kind", "x * 2 AS x, kind")
    _, out, _ = run("--no-warehouse")
    assert "model rides: changed (models/rides.sql)" in out
    assert listed(out) == [
        "models/rides.sql:",
        "@@ -1 +1 @@",
        f"-{QUERY.strip()}",
        f"+{QUERY.strip().replace('x, kind', 'x * 2 AS x, kind')}",
        f"* what is trained changes (training hash {before} → {training_hash(*_of(folder))[:12]}): the next training of the "
        "schedule (0 2 * * *, UTC) takes it up, and nothing asks before it",
    ]


def test_a_comment_in_the_sql_changes_no_model(folder: Path, run: Run) -> None:
    edit(folder, "models/rides.sql", "SELECT", "-- hourly\nSELECT")
    edit(folder, "models/rides.yaml", "task:", "schedule: '0 2 * * *'  # the default\ntask:")
    _, out, _ = run("--no-warehouse")
    assert "+-- hourly" in out
    assert "nothing that is read changes" in out
    assert "no champion is retrained" in out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("schedule: null\n", "the monitor asks for a retraining once (code_change)"),
        (
            "monitoring: {trigger: {on_change: true}}\n",
            "the monitor asks for a retraining once (code_change)",
        ),
        ("schedule: null\nmonitoring: {trigger: {on_change: false}}\n", "run train__rides by hand"),
        ("schedule: '5 4 * * 0'\n", "the next training of the schedule (5 4 * * 0, UTC) takes it up"),
    ],
    ids=["no schedule", "asked for", "neither", "schedule"],
)
def test_who_takes_a_change_up(folder: Path, run: Run, more: str, said: str) -> None:
    (folder / "models/rides.yaml").write_text(MODEL + more)
    commit(folder)
    edit(folder, "models/rides.yaml", "[hour, x]", "[hour]")
    _, out, _ = run("--no-warehouse")
    assert "features.numeric: -x" in out
    assert said in out


def test_a_new_model_that_git_does_not_know_yet(folder: Path, run: Run) -> None:
    (folder / "models/wetness.yaml").write_text(
        MODEL.replace("name: rides", "name: wetness")
        .replace("regression", "binary")
        .replace("column: demand", "column: wet")
        + "owner: team of its own\ndescription: whether it rains, for those who ride home in the evening and would know\n"
        "gate: {metric: log_loss, slices: [kind], margin: 0.01}\nmonitoring: {window: 7d, min_rows: 30, freshness: 50h}\n"
    )
    (folder / "models/wetness.sql").write_text("SELECT ts, 1 AS hour, x, kind, 0 AS wet FROM rides_hourly\n")
    status, out, _ = run("--no-warehouse")
    assert status == 0
    assert "model wetness: new (models/wetness.sql, models/wetness.yaml)" in out
    assert (
        "it begins without a champion; the next training of the schedule (0 2 * * *, UTC) makes the first one"
        in out
    )


def test_a_deleted_model(folder: Path, run: Run) -> None:
    (folder / "models/rides.yaml").unlink()
    (folder / "models/rides.sql").unlink()
    status, out, _ = run("--no-warehouse")
    assert status == 0
    assert "model rides: removed" in out
    assert "its DAGs go" in out
    assert "its versions in MLflow, its predictions and its decisions stay" in out


def test_a_renamed_model_begins_without_a_champion(folder: Path, run: Run) -> None:
    for ending in (".yaml", ".sql"):
        git(folder, "mv", f"models/rides{ending}", f"models/rides_in_town{ending}")
    edit(folder, "models/rides_in_town.yaml", "name: rides", "name: rides_in_town")
    edit(folder, "models/rides_in_town.yaml", "1h", "2h")
    status, out, _ = run("--no-warehouse")
    assert status == 0
    assert "model rides_in_town: renamed from rides" in out
    assert "label.delay: 1h → 2h" in out
    assert "the champion, predictions and decisions of rides stay under that name" in out
    assert out.count("\nmodel ") == 1


def test_a_dataset_whose_columns_change(folder: Path, run: Run) -> None:
    edit(
        folder,
        "datasets/rides_hourly.yaml",
        "x: {type: float, required: false}",
        "x: {type: text}\n  y: {type: date}",
    )
    edit(folder, "datasets/rides_hourly.yaml", "  kind: {type: category}\n", "")
    _, out, _ = run("--no-warehouse")
    assert listed(out) == [
        "columns.y: not set → date",
        "columns.kind: category → not set",
        "columns.x.type: float → text",
        "columns.x.required: false → true",
        "* data.rides_hourly and data.rides_hourly__history get y (date) with the next file; rows of before have no value there",
        "* kind stays in data.rides_hourly and data.rides_hourly__history with its values, and no query sees it any more",
        "* published rows keep their shape: where rides_hourly has any, the next file is refused for columns.x.type (float → "
        "text). Publish under a new dataset name, or undo it",
        "* columns: other rows or files are held back from the next file on; what was published stays",
        "* what is trained changes for what reads it: rides",
        "* its own files change nothing of what is trained, the key, event time or columns of rides_hourly do",
        *[line for line in listed(out) if line.startswith("* what is trained changes (training hash")],
    ]  # fmt: skip
    assert "model rides: affected\n" in out


def test_what_is_told_of_tables_is_what_publishing_does(folder: Path, warehouse_url: str) -> None:
    """Columns are added, one that left stays, and another type or key is refused."""
    from evergreen.errors import TerminalError
    from evergreen.warehouse.batches.publish import prepare

    def published(text: str) -> list[str]:
        (folder / "datasets/rides_hourly.yaml").write_text(text)
        with connect(warehouse_url) as conn:
            prepare(conn, load_specs(folder).datasets["rides_hourly"])
            rows = fetch(
                conn,
                "SELECT attname FROM pg_attribute WHERE attrelid = 'data.rides_hourly'::regclass AND attnum > 0",
            )
            return [row["attname"] for row in rows]

    published(DATASET)
    there = published(DATASET.replace("  kind: {type: category}\n", "  y: {type: date}\n"))
    assert {"kind", "y"} <= set(there)
    for old, new in (("x: {type: float", "x: {type: text"), ("key: [ts]", "key: [ts, kind]")):
        with pytest.raises(TerminalError, match="Published rows keep their shape"):
            published(DATASET.replace(old, new))


def test_expectations_and_reading_leave_models_and_tables_alone(folder: Path, run: Run) -> None:
    text = "source: {delimiter: ';'}\nquarantine: rows\n"
    edit(folder, "datasets/rides_hourly.yaml", "columns:", f"{text}columns:")
    status, out, _ = run("--no-warehouse")
    assert status == 0
    assert listed(out)[2:] == [
        "* source: files are read in another way from the next one on; those that were taken are not read again",
        "* quarantine: other rows or files are held back from the next file on; what was published stays",
        "* what is trained does not change by it for rides",
    ]


@pytest.mark.parametrize("now", ["mended", "as broken"])
def test_a_spec_that_was_broken_in_the_base(folder: Path, run: Run, now: str) -> None:
    edit(folder, "models/rides.yaml", "task: regression", "task: regresion")
    commit(folder)
    if now == "mended":
        edit(folder, "models/rides.yaml", "regresion", "regression")
    else:
        edit(folder, "models/rides.yaml", "delay: 1h", "delay: 2h")
    status, out, err = run("--no-warehouse")
    assert "models/rides.yaml is not usable as the base has it, so its fields cannot be compared" in out
    assert "+" in out
    if now == "mended":
        assert (status, err) == (0, "")
        assert "+task: regression" in out
    else:
        assert status == 1
        assert "models/rides.yaml: task: " in err
        assert "is not usable now; the problems say why" in out


def test_a_spec_that_is_broken_now(folder: Path, run: Run) -> None:
    edit(folder, "models/rides.yaml", "[hour, x]", "[hour, hour]")
    status, out, err = run("--no-warehouse")
    assert status == 1
    assert "hour is named twice" in err
    assert "models/rides.yaml is not usable now; the problems say why" in out
    assert "+  numeric: [hour, hour]" in out
    status, out, _ = run("--no-warehouse", "--format", "markdown")
    assert status == 1
    assert "**1 problem(s) in the specs:**" in out
    assert "cannot be told" in out


def test_specs_that_the_base_does_not_have_are_new(folder: Path, run: Run, tmp_path: Path) -> None:
    git(folder, "rm", "-r", "--quiet", "--cached", ".")
    git(folder.parent, "commit", "--quiet", "--allow-empty", "--message", "none")
    status, out, _ = run("--no-warehouse")
    assert status == 0
    assert "dataset rides_hourly: new" in out
    assert "model rides: new" in out


def test_a_base_that_nobody_knows(folder: Path, run: Run) -> None:
    status, out, err = run(base="mian")
    assert (status, out) == (2, "")
    assert (
        err
        == "no commit is named mian; `git fetch origin` gets the newest ones, `git branch --all` lists the branches\n"
    )
    git(folder, "update-ref", "refs/remotes/origin/mian", "HEAD")
    assert run(base="mian")[2] == "no commit is named mian here; did you mean origin/mian?\n"
    assert run(base="--exec=x")[0] == 2


def test_a_folder_without_a_repository(folder: Path, run: Run, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "models").mkdir(parents=True)
    status, _, err = run(specs=elsewhere)
    assert status == 2
    assert "is in no git repository that git reads (fatal: not a git repository" in err
    assert "run the command in a clone, or without --changed" in err
    assert run(specs=tmp_path / "gone")[0] == 2


def test_a_shallow_clone_says_what_to_fetch(folder: Path, run: Run, tmp_path: Path) -> None:
    edit(folder, "models/rides.yaml", "1h", "2h")
    first = git(folder, "rev-parse", "HEAD").strip()
    commit(folder, "second")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=1", folder.parent.as_uri(), str(shallow))
    status, _, err = run(base=first, specs=shallow / "include")
    assert status == 2
    assert f"this clone is shallow and does not hold {first}" in err
    assert f"git fetch --depth=1 origin {first}" in err
    git(shallow, "fetch", "--quiet", "--depth=1", "origin", first)
    status, out, _ = run("--no-warehouse", base="FETCH_HEAD", specs=shallow / "include")
    assert status == 0
    assert "label.delay: 1h → 2h" in out


def test_a_checkout_of_depth_2_knows_its_first_parent(folder: Path, run: Run, tmp_path: Path) -> None:
    """What the workflow of a pull request does."""
    git(folder, "checkout", "--quiet", "-b", "change")
    edit(folder, "models/rides.yaml", "1h", "2h")
    commit(folder, "change")
    git(folder, "checkout", "--quiet", "main")
    edit(folder, "datasets/rides_hourly.yaml", "key:", "owner: rides-team\nkey:")
    commit(folder, "what main gained")
    git(folder, "merge", "--quiet", "--no-ff", "--message", "merge", "change")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=2", folder.parent.as_uri(), str(shallow))
    status, out, _ = run("--no-warehouse", base="HEAD^1", specs=shallow / "include")
    assert status == 0
    assert "label.delay: 1h → 2h" in out
    assert "owner" not in out


def test_markdown_quotes_what_the_specs_say(folder: Path, run: Run) -> None:
    edit(folder, "models/rides.yaml", "task:", "description: 'a | b `c` <b>@everyone</b>'\ntask:")
    edit(folder, "models/rides.sql", "SELECT", "-- ```\n-- <script>\nSELECT")
    status, out, _ = run("--no-warehouse", "--format", "markdown")
    assert status == 0
    assert "| `description` | `` not set → a \\| b `c` <b>@everyone</b> `` |" in out
    assert "````diff\n" in out
    assert "\n+-- <script>\n" in out
    outside = re.sub(r"(`+).*?\1", "", out, flags=re.DOTALL)
    assert "@" not in outside
    assert "<b>" not in outside
    assert "| model `rides` | changed | stays |" in out


def test_markdown_fits_into_a_comment(folder: Path, run: Run) -> None:
    for number in range(12):
        (folder / f"models/m{number}.yaml").write_text(MODEL.replace("name: rides", f"name: m{number}"))
        (folder / f"models/m{number}.sql").write_text(
            "\n".join([f"-- {i} {'x' * 40}" for i in range(200)] + [QUERY])
        )
    _, out, _ = run("--no-warehouse", "--format", "markdown")
    assert len(out) < show.MOST
    assert re.search(r"\n\d+ more are left out here; `evergreen check --changed` shows all of them.\n", out)
    assert out.count("<details") == out.count("</details>") > 2
    assert "… 82 more lines" in out


def test_json_holds_the_same(folder: Path, run: Run) -> None:
    edit(folder, "models/rides.yaml", "[hour, x]", "[x]")
    _, out, _ = run("--no-warehouse", "--format", "json")
    found = json.loads(out)
    (change,) = found["changes"]
    assert change["fields"] == [{"name": "features.numeric", "before": ["hour", "x"], "after": ["x"]}]
    assert change["trains"] is True
    assert found["not_checked"] == "--no-warehouse"


@pytest.mark.parametrize(
    "arguments",
    [["--format", "json"], ["--rehearse"], ["--changed", "main", "--as-of", "2024-02-10"]],
    ids=str,
)
def test_options_that_go_with_others(
    folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        check.main(["--specs", str(folder), *arguments])
    assert "goes with --" in capsys.readouterr().err


def test_a_rehearsal_without_a_warehouse_is_a_problem(folder: Path, run: Run) -> None:
    status, _, err = run("--rehearse")
    assert status == 1
    assert "nothing was rehearsed: EVERGREEN_WAREHOUSE_URL is not set" in err


@pytest.fixture
def repository(
    world: Any, made_once: Any, start: Any, folder: Path, warehouse_url: str, monkeypatch: Any
) -> Any:
    """The world's specs in the repository, with 45 days of rows and a champion as of day 30."""
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", warehouse_url)
    dataset = world.specs.datasets["rides_hourly"].model_dump(mode="json", by_alias=True)
    model = world.model.model_dump(mode="json", exclude={"query"})
    (folder / "datasets/rides_hourly.yaml").write_text(yaml.safe_dump(dataset))
    (folder / "models/rides.yaml").write_text(yaml.safe_dump(model))
    (folder / "models/rides.sql").write_text(world.model.query)
    commit(folder)

    def make() -> None:
        world.land(start, 45)
        world.promote(start + timedelta(days=30), "dag/first")

    made_once(make)
    return world


def _kept(folder: Path) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiments = [e.experiment_id for e in client.search_experiments()]
    with connect() as conn:
        decisions = fetch(conn, "SELECT count(*) AS n, max(id) AS newest FROM evergreen.decision")
    versions = [(v.name, v.version, tuple(v.aliases)) for v in client.search_model_versions()]
    return (
        decisions,
        versions,
        len(client.search_runs(experiments)),
        sorted((folder / "home").rglob("*.jsonl")),
    )


def test_the_champion_and_a_rehearsal_that_leaves_nothing_behind(
    repository: Any, folder: Path, run: Run, start: Any, tmp_path: Path
) -> None:
    edit(folder, "models/rides.yaml", "alerts: []", "alerts: [ops@example.org]")
    status, out, err = run("--rehearse")
    assert (status, err) == (0, "")
    assert "* champion is version 1, made by a spec that trains the same; it is not retrained for this" in out
    assert "* rehearsal: none, as neither what is trained nor the gate changes" in out

    # A tree that may not split learns nothing: the gate turns it away.
    edit(folder, "models/rides.yaml", "max_depth: 3", "max_depth: 1\n    gamma: 1000000.0")
    edit(folder, "models/rides.yaml", "alerts: [ops@example.org]", "alerts: []")
    before, as_of = _kept(tmp_path), (start + timedelta(days=40)).isoformat()
    status, out, err = run("--rehearse", "--as-of", as_of)
    assert (status, err) == (0, "")
    assert "* champion is version 1, made by another spec (training hash " in out
    assert re.search(
        r"\* rehearsal: the gate rejects it \(\w+\); rmse: challenger [\d.]+, champion \(version 1\) [\d.]+, baseline [\d.]+, on "
        r"\d+ holdout rows after \d+ of training; ",
        out,
    )  # fmt: skip
    assert _kept(tmp_path) == before
    status, out, _ = run("--rehearse", "--as-of", as_of, "--format", "markdown")
    assert "| model `rides` | changed | **changes** | champion is version 1 |" in out


def test_a_rehearsal_on_a_sample_with_a_feature_that_the_champion_needs_and_the_spec_has_not(
    repository: Any, folder: Path, run: Run, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evergreen.changes.champions.MOST_ROWS", 600)
    edit(folder, "models/rides.yaml", "  - x\n", "")
    status, out, err = run("--rehearse", "--as-of", (start + timedelta(days=40)).isoformat())
    assert (status, err) == (0, "")
    judged, learnt = map(int, re.findall(r"on (\d+) holdout rows after (\d+) of training", out)[0])
    assert 0 < judged < 120
    assert judged + learnt <= 600
    assert re.search(r"champion \(version 1\) [\d.]+,", out)
    assert "on a sample of the rows" in out


def test_a_champion_that_cannot_be_evaluated_any_more_is_told(
    repository: Any, folder: Path, run: Run, start: Any
) -> None:
    edit(folder, "models/rides.yaml", "  - x\n", "")
    edit(folder, "models/rides.sql", "x, kind", "kind")
    status, out, err = run("--rehearse", "--as-of", (start + timedelta(days=40)).isoformat())
    assert (status, err) == (0, "")
    assert "rehearsal: the gate passes it (champion_cannot_be_evaluated); rmse: challenger " in out
    assert "so a person decides: it needs the features x" in out


def test_a_rehearsal_that_cannot_be_made_is_a_problem(
    repository: Any, folder: Path, run: Run, start: Any
) -> None:
    edit(folder, "models/rides.yaml", "min_rows: 200", "min_rows: 5000")
    status, out, err = run("--rehearse", "--as-of", (start + timedelta(days=40)).isoformat())
    assert status == 1
    assert "rehearsal: it cannot be trained as of 2024-02-10 00:00 UTC: " in out
    assert "models/rides.yaml: it cannot be trained as of 2024-02-10 00:00 UTC: " in err


def test_a_spec_that_cannot_be_read_is_not_said_to_change_nothing(
    repository: Any, folder: Path, run: Run, start: Any
) -> None:
    edit(folder, "models/rides.yaml", "max_depth: 3", "max_depth: [")
    status, out, _ = run("--rehearse", "--as-of", (start + timedelta(days=40)).isoformat())
    assert status == 1
    assert "neither what is trained nor the gate changes" not in out
    assert "rehearsal: none, as its spec cannot be read" in out
