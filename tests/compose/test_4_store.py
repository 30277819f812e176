"""The demo's story with the store of the profile `s3`, on two workers that share no folder for data; then the store is away."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
import yaml
from compose_stack import DAG, Stack

from evergreen.deployment.environment import STORES

pytestmark = pytest.mark.parametrize("stack", ["s3"], indirect=True, scope="session")
AWAY_S = 60
CHOSEN = STORES["s3"]
BUCKET = CHOSEN["STORE_BUCKET"]
# A worker's own folder, in its own memory. The volume `evergreen`, which all of them see here, is to stay without their data.
HOME = "/tmp/evergreen"
# What a worker does in the bucket with the key that it has.
LISTED = f"""
import json
from evergreen.warehouse.store import Store
print(json.dumps([one.key for one in Store.at("s3://{BUCKET}").objects()]))
"""
TRIED = f"""
import json, boto3
from botocore.exceptions import ClientError
s3 = boto3.client("s3", region_name="us-east-1")
key = s3.list_objects_v2(Bucket="{BUCKET}", MaxKeys=1)["Contents"][0]["Key"]
said = {{}}
for name, call in {{
    "read": lambda: s3.get_object(Bucket="{BUCKET}", Key=key),
    "delete": lambda: s3.delete_object(Bucket="{BUCKET}", Key=key),
    "make a bucket": lambda: s3.create_bucket(Bucket="mine"),
    "change the rights": lambda: s3.put_bucket_policy(Bucket="{BUCKET}", Policy="{{}}"),
}}.items():
    try:
        call()
        said[name] = "may"
    except ClientError as error:
        said[name] = error.response["Error"]["Code"]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def apart(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, with a folder of its own for each worker."""
    override = tmp_path_factory.mktemp("apart") / "apart.yaml"
    override.write_text(
        yaml.safe_dump({"services": {"airflow-worker": {"environment": {"EVERGREEN_HOME": HOME}}}})
    )
    stack.files.append(override)
    stack.compose("up", "--detach", "--wait", "--scale", "airflow-worker=2")
    yield stack
    stack.files.remove(override)


def in_worker(stack: Stack, *command: str) -> str:
    """What a command says in the first worker."""
    return stack.engine("exec", stack.containers("airflow-worker")[0], *command)


def test_the_story_goes_to_its_end_on_two_workers_without_a_common_folder(apart: Stack) -> None:
    said = apart.compose("--profile", "tools", "run", "--rm", "demo", timeout_s=1800)
    assert "did not go as promised" not in said
    assert "What happened, from the ledger:" in said
    kinds = {row["kind"] for row in apart.rows("SELECT DISTINCT kind FROM evergreen.decision")}
    assert {"batch_quarantined", "retrain_requested", "promoted"} <= kinds
    tasks = apart.api.call("POST", "dags/~/dagRuns/~/taskInstances/list", json={"page_limit": 100})
    assert len({task["hostname"] for task in tasks["task_instances"]} - {""}) == 2, "both workers had work"


def test_the_bucket_holds_what_is_handed_on_and_the_volumes_hold_nothing_of_it(apart: Stack) -> None:
    keys = json.loads(in_worker(apart, "python", "-c", LISTED))
    below = {
        name: [key for key in keys if f"s3://{BUCKET}/{key}".startswith(f"{value}/")]
        for name, value in CHOSEN.items()
        if value.startswith("s3://")
    }
    assert any(key.endswith(".csv") for key in below["EVERGREEN_LANDING"]), keys[:20]
    assert any(key.endswith(".json") for key in below["EVERGREEN_SNAPSHOTS"]), keys[:20]
    assert any(key.endswith(".ubj") for key in below["MLFLOW_ARTIFACTS"]), keys[:20]
    assert sum(map(len, below.values())) == len(keys), "something lies elsewhere"
    mlflow = apart.compose("exec", "-T", "mlflow", "find", "/var/lib/mlflow", "-type", "f")
    assert mlflow == ""
    volume = in_worker(apart, "find", "/var/lib/evergreen", "-type", "f", "-not", "-path", "*/demo/*")
    assert volume == "", "but the picture of the demo, which is no worker's"


def test_the_workers_key_may_read_write_and_list(apart: Stack) -> None:
    said = json.loads(in_worker(apart, "python", "-c", TRIED))
    assert said.pop("read") == "may"
    assert set(said.values()) == {"AccessDenied"}, said


def test_a_second_init_leaves_the_bucket_as_it_is(apart: Stack) -> None:
    before = in_worker(apart, "python", "-c", LISTED)
    assert f"bucket {BUCKET}: is there" in apart.compose("run", "--rm", "init")
    assert in_worker(apart, "python", "-c", LISTED) == before


@pytest.mark.parametrize("task", ["snapshot", "fit"])
def test_a_training_ends_though_the_store_is_away_for_a_minute(apart: Stack, task: str) -> None:
    def disturb(run: str) -> None:
        apart.task_running(DAG, run, task)
        apart.compose("stop", "store")
        time.sleep(AWAY_S)
        apart.compose("start", "store")

    assert apart.training(f"test: the store is away during {task}", disturb) == "success"
    apart.works_again()


def test_no_secret_is_in_the_logs(apart: Stack) -> None:
    logs = apart.compose("logs", "--no-color")
    shown = [name for name, value in apart.secrets.items() if value in logs]
    assert not shown, f"in the logs: {shown}"
