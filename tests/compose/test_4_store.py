"""The demo's story with the store of the profile `s3`, on two workers that share no folder for data; then the store is away."""

from __future__ import annotations

import json
import time

import pytest
from compose_stack import DAG, Stack

from evergreen.deployment.environment import STORES

pytestmark = pytest.mark.parametrize("stack", ["s3"], indirect=True, scope="session")
AWAY_S = 60
CHOSEN = STORES["s3"]
BUCKET = CHOSEN["STORE_BUCKET"]
# What a worker does in the bucket with the key that it has.
LISTED = f"""
import json
from evergreen.warehouse.storage.bucket import Store
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


def in_worker(stack: Stack, *command: str) -> str:
    """What a command says in the first worker."""
    return stack.engine("exec", stack.containers("airflow-worker")[0], *command)


def test_the_story_goes_to_its_end_on_two_workers_without_a_common_folder(stack: Stack) -> None:
    said = stack.compose("--profile", "tools", "run", "--rm", "--no-deps", "demo", timeout_s=1800)
    assert "did not go as promised" not in said
    assert "What happened, from the ledger:" in said
    kinds = {row["kind"] for row in stack.rows("SELECT DISTINCT kind FROM evergreen.decision")}
    assert {"batch_quarantined", "retrain_requested", "promoted"} <= kinds
    tasks = stack.api.call("POST", "dags/~/dagRuns/~/taskInstances/list", json={"page_limit": 100})
    assert len({task["hostname"] for task in tasks["task_instances"]} - {""}) == 2, "both workers had work"


def test_the_bucket_holds_what_is_handed_on_and_the_volumes_hold_nothing_of_it(stack: Stack) -> None:
    keys = json.loads(in_worker(stack, "python", "-c", LISTED))
    below = {
        name: [key for key in keys if f"s3://{BUCKET}/{key}".startswith(f"{value}/")]
        for name, value in CHOSEN.items()
        if value.startswith("s3://")
    }
    assert any(key.endswith(".csv") for key in below["EVERGREEN_LANDING"]), keys[:20]
    assert any(key.endswith(".json") for key in below["EVERGREEN_SNAPSHOTS"]), keys[:20]
    assert any(key.endswith(".ubj") for key in below["MLFLOW_ARTIFACTS"]), keys[:20]
    assert sum(map(len, below.values())) == len(keys), "something lies elsewhere"
    mlflow = stack.compose("exec", "-T", "mlflow", "find", "/var/lib/mlflow", "-type", "f")
    assert mlflow == ""
    # The volume that all of them see on this server; a worker's own folder is elsewhere here.
    volume = in_worker(stack, "find", "/var/lib/evergreen", "-type", "f", "-not", "-path", "*/demo/*")
    assert volume == "", "but the picture of the demo, which is no worker's"


def test_the_workers_key_may_read_write_and_list(stack: Stack) -> None:
    said = json.loads(in_worker(stack, "python", "-c", TRIED))
    assert said.pop("read") == "may"
    assert set(said.values()) == {"AccessDenied"}, said


def test_a_second_init_leaves_the_bucket_as_it_is(stack: Stack) -> None:
    before = in_worker(stack, "python", "-c", LISTED)
    assert f"bucket {BUCKET}: is there" in stack.compose("run", "--rm", "init")
    assert in_worker(stack, "python", "-c", LISTED) == before


@pytest.mark.parametrize("task", ["snapshot", "fit"])
def test_a_training_ends_though_the_store_is_away_for_a_minute(stack: Stack, task: str) -> None:
    def disturb(run: str) -> None:
        stack.task_running(DAG, run, task)
        stack.compose("stop", "store")
        time.sleep(AWAY_S)
        stack.compose("start", "store")

    assert stack.training(f"test: the store is away during {task}", disturb) == "success"
    stack.works_again()


def test_no_secret_is_in_the_logs(stack: Stack) -> None:
    logs = stack.compose("logs", "--no-color")
    shown = [name for name, value in stack.secrets.items() if value in logs]
    assert not shown, f"in the logs: {shown}"
