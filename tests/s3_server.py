"""A real S3 server for the tests: moto's, as a process on loopback, with rights as they are on AWS.

Evergreen has the rights that docs/storage.md names and no other; what a test does in the bucket it does as the administrator.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "storage.md"
USER, BOSS = "evergreen", "boss"
_count = itertools.count()


@dataclass
class Server:
    """The server; `keys` are the id and the secret of each user."""

    endpoint: str
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        """A client of the administrator."""
        key, secret = self.keys.get(BOSS, ("first", "first"))
        return boto3.client(
            service, endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret
        )  # fmt: skip

    def allow(self, policy: dict[str, Any]) -> None:
        """Give Evergreen these rights, instead of those it has."""
        self.client("iam").put_user_policy(UserName=USER, PolicyName="it", PolicyDocument=json.dumps(policy))


@dataclass
class Bucket:
    """An empty bucket."""

    server: Server
    name: str
    client: Any

    @property
    def url(self) -> str:
        """As Evergreen's settings name it."""
        return f"s3://{self.name}"

    def put(self, key: str, content: bytes | str) -> None:
        """Write an object."""
        self.client.put_object(
            Bucket=self.name, Key=key, Body=content.encode() if isinstance(content, str) else content
        )

    def names(self) -> list[str]:
        """What is there."""
        return [o["Key"] for o in self.client.list_objects_v2(Bucket=self.name).get("Contents", [])]

    def get(self, key: str) -> bytes:
        """Read an object."""
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def delete(self, key: str) -> None:
        """Remove an object."""
        self.client.delete_object(Bucket=self.name, Key=key)

    def deny(self, *actions: str) -> None:
        """Take rights from Evergreen."""
        policy = page_policy(self.name)
        policy["Statement"].append({"Effect": "Deny", "Action": list(actions), "Resource": "*"})
        self.server.allow(policy)


def page_policy(bucket: str) -> dict[str, Any]:
    """The rights that docs/storage.md names, for a bucket."""
    found = re.search(r"```json\n(\{.*?\n\})\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return dict(json.loads(found[1].replace("BUCKET", bucket)))


@contextmanager
def running() -> Iterator[Server]:
    """Run a server."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(600):
                with suppress(OSError):
                    urllib.request.urlopen(f"{server.endpoint}/moto-api/", timeout=5).close()
                    break
                time.sleep(0.1)
            iam = server.client("iam")
            found = {}
            for name in (USER, BOSS):
                iam.create_user(UserName=name)
                made = iam.create_access_key(UserName=name)["AccessKey"]
                found[name] = (made["AccessKeyId"], made["SecretAccessKey"])
            everything = {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
            }
            iam.put_user_policy(UserName=BOSS, PolicyName="it", PolicyDocument=json.dumps(everything))
            server.keys = found
            # From now on who may do what is asked for.
            asked = urllib.request.Request(
                f"{server.endpoint}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
            )
            urllib.request.urlopen(asked, timeout=5).close()
            yield server
        finally:
            process.terminate()


def bucket(server: Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new bucket, with the variables of a worker that may use it."""
    made = Bucket(server, f"evergreen-{next(_count)}", server.client("s3"))
    made.client.create_bucket(Bucket=made.name)
    server.allow(page_policy(made.name))
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    key, secret = server.keys[USER]
    for name, value in {
        "AWS_ENDPOINT_URL": server.endpoint, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return made
