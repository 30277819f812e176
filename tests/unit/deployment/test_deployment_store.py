"""The bucket of the profile `s3`, made by `init` in a server that answers as the store does: S3, signatures and rights are real."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError

from evergreen.deployment import store
from evergreen.deployment.environment import STORES
from evergreen.errors import ErrorReason, TerminalError
from evergreen.warehouse.storage.bucket import NoAccessError, Store
from s3_server import page_policy

REPOSITORY = Path(__file__).resolve().parents[3]
SERVER = REPOSITORY / "tests" / "compose" / "stand_in" / "server.py"
SERVICE = yaml.safe_load((REPOSITORY / "docker-compose.yaml").read_text())["services"]["store"]
BUCKET = STORES["s3"]["STORE_BUCKET"]
ROOT_SECRET = "root-secret"


@contextmanager
def serving(folder: Path, port: int) -> Iterator[str]:
    """Run the server as the service of docker-compose.yaml runs; its address."""
    own = {
        name: str(value).replace("/var/lib/store", str(folder))
        for name, value in SERVICE["environment"].items()
    }
    own |= {"VGW_PORT": f"127.0.0.1:{port}", "ROOT_SECRET_KEY": ROOT_SECRET}
    arguments = [part.replace("/var/lib/store", str(folder)) for part in SERVICE["command"]]
    for name in ("buckets", "users"):
        (folder / name).mkdir(exist_ok=True)
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [sys.executable, str(SERVER), *arguments], env={**os.environ, **own},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            for _ in range(600):
                with suppress(OSError):
                    urllib.request.urlopen(address + own["VGW_HEALTH"], timeout=5).close()
                    break
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def served(
    tmp_path: Path, port: int, clean: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.MonkeyPatch]:
    """A store without a bucket, and the variables of `init`."""
    with serving(tmp_path, port) as address:
        values = {
            **STORES["s3"], "AWS_ENDPOINT_URL": address, "AWS_SECRET_ACCESS_KEY": "worker-secret",
            "STORE_ROOT_PASSWORD": ROOT_SECRET,
        }  # fmt: skip
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        yield monkeypatch


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)


def client(key: str = "evergreen", secret: str = "worker-secret") -> Any:
    return boto3.client(
        "s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret
    )  # fmt: skip


def refused(call: Any) -> str:
    with pytest.raises(ClientError) as found:
        call()
    return str(found.value.response["Error"]["Code"])


def test_the_bucket_is_made_once_and_the_workers_read_write_and_list_it(served, tmp_path) -> None:
    assert store.prepare(BUCKET) is True
    place = Store.at(STORES["s3"]["EVERGREEN_SNAPSHOTS"])
    place.write("model/one.json", b"{}")
    assert store.prepare(BUCKET) is False
    assert [one.key for one in place.objects()] == ["model/one.json"]
    assert place.read("model/one.json") == b"{}"


def test_the_workers_key_may_do_nothing_else(served) -> None:
    store.prepare(BUCKET)
    client("root", ROOT_SECRET).create_bucket(Bucket="another")
    s3 = client()
    s3.put_object(Bucket=BUCKET, Key="kept", Body=b"x")
    assert refused(lambda: s3.delete_object(Bucket=BUCKET, Key="kept")) == "AccessDenied"
    assert refused(lambda: s3.create_bucket(Bucket="mine")) == "AccessDenied"
    assert refused(lambda: s3.put_bucket_policy(Bucket=BUCKET, Policy="{}")) == "AccessDenied"
    assert refused(lambda: s3.list_objects_v2(Bucket="another")) == "AccessDenied"
    served.setattr(store, "ROOT", "evergreen")
    served.setenv("STORE_ROOT_PASSWORD", "worker-secret")
    served.setenv("AWS_ACCESS_KEY_ID", "friend")
    with pytest.raises(TerminalError, match="refuses what init asks for: 403"):
        store.prepare(BUCKET)


def test_nobody_reads_anything_without_a_key(served) -> None:
    store.prepare(BUCKET)
    with pytest.raises(urllib.error.HTTPError) as found:
        urllib.request.urlopen(f"{os.environ['AWS_ENDPOINT_URL']}/{BUCKET}", timeout=10)
    assert found.value.code == 403


def test_a_secret_that_is_another_one_in_env_is_taken(served) -> None:
    store.prepare(BUCKET)
    served.setenv("AWS_SECRET_ACCESS_KEY", "a-new-one")
    place = Store.at(STORES["s3"]["EVERGREEN_LANDING"])
    with pytest.raises(NoAccessError):
        place.objects()
    store.prepare(BUCKET)
    assert place.objects() == []


def test_the_roots_own_key_is_not_given_to_the_workers(served) -> None:
    served.setenv("AWS_ACCESS_KEY_ID", store.ROOT)
    with pytest.raises(TerminalError, match="give the workers another one"):
        store.prepare(BUCKET)


def test_a_wrong_secret_and_a_store_that_is_away_are_told(served) -> None:
    served.setenv("STORE_ROOT_PASSWORD", "wrong-secret")
    with pytest.raises(TerminalError, match="leave STORE_BUCKET empty") as found:
        store.prepare(BUCKET)
    assert found.value.reason is ErrorReason.NO_ACCESS
    served.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(TerminalError, match="does not answer") as away:
        store.prepare(BUCKET)
    assert away.value.reason is ErrorReason.UNREACHABLE
    assert not re.search("(wrong|worker)-secret", str(found.value) + str(away.value))


def test_the_rights_are_those_that_the_page_names() -> None:
    assert page_policy("BUCKET")["Statement"] == store.rights("BUCKET")
