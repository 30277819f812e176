"""What docker-compose.yaml asks of versitygw, answered by moto: for a machine where that image is not to be had, and for the tests of `init`.

S3 itself, signatures and rights are moto's. Of versitygw are the variables and arguments with which it is started, the health path, the
requests that make users, and that a bucket's policy alone gives rights: a user's key may do what the policies name it for. What lies
there is kept over a stop by SIGTERM in a file below the folder; a kill loses it, which versitygw does not.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from xml.etree import ElementTree

from moto.core import DEFAULT_ACCOUNT_ID
from moto.iam.access_control import S3IAMRequest
from moto.iam.models import AccessKey, iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import run_simple

ROOT = "root"
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
IAM, S3 = (backends[DEFAULT_ACCOUNT_ID]["aws"] for backends in (iam_backends, s3_backends))


def main() -> None:
    """Serve until SIGTERM."""
    backend, folder = sys.argv[1:]
    assert backend == "posix"
    kept = Path(folder) / "moto.pickle"
    users = Path(os.environ["VGW_IAM_DIR"])
    assert Path(folder).is_dir()
    assert users.is_dir()
    if kept.exists():
        IAM.users, IAM.access_keys, S3.buckets = pickle.loads(kept.read_bytes())  # noqa: S301
    else:
        user(os.environ["ROOT_ACCESS_KEY"], os.environ["ROOT_SECRET_KEY"])
        IAM.put_user_policy(ROOT, "it", json.dumps(EVERYTHING))

    def stop(*_: object) -> None:
        kept.write_bytes(pickle.dumps((IAM.users, IAM.access_keys, S3.buckets)))
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    host, _, port = os.environ["VGW_PORT"].rpartition(":")
    run_simple(host or "0.0.0.0", int(port), serve, threaded=True)


def serve(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """Answer one request."""
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    if method == "GET" and path == os.environ["VGW_HEALTH"]:
        return answer(start, "200 OK")
    if "HTTP_AUTHORIZATION" not in environ:
        return answer(start, "403 Forbidden", "AccessDenied")
    if method == "PATCH":
        return change_users(environ, start)
    is_policy = method == "PUT" and "policy" in parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    body = read(environ) if is_policy else b""
    said: list[str] = []

    def started(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        said.append(status)
        return start(status, headers, *rest)

    found = list(MOTO(environ, started))
    if is_policy and said[0].startswith("2"):
        grant(path.strip("/"), json.loads(body))
    return found


def change_users(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """Make a user or change one, as the root key asks for it."""
    path, query, body = environ["PATH_INFO"], environ["QUERY_STRING"], read(environ)
    headers = {
        name[5:].replace("_", "-").title(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    headers |= {"Content-Type": environ.get("CONTENT_TYPE", "")}
    try:
        asked = S3IAMRequest(
            account_id=DEFAULT_ACCOUNT_ID, method="PATCH", path=f"{path}?{query}" if query else path,
            data={}, body=body, headers=headers, action="users",
        )  # fmt: skip
        asked.check_signature()
        asked.check_action_permitted("*")
    except Exception as error:
        return answer(start, "403 Forbidden", "AccessDenied", type(error).__name__)
    told = {one.tag: one.text or "" for one in ElementTree.fromstring(body)}
    if path == "/create-user":
        if told["Role"] not in ("user", "userplus", "admin"):
            return answer(start, "400 Bad Request", "XAdminInvalidArgument")
        if told["Access"] in IAM.users:
            return answer(start, "409 Conflict", "XAdminUserExists")
        user(told["Access"], told["Secret"])
        return answer(start, "201 Created")
    if path == "/update-user":
        name = parse_qs(query)["access"][0]
        if name not in IAM.users:
            return answer(start, "404 Not Found", "XAdminUserNotFound")
        for key in IAM.users[name].access_keys:
            key.secret_access_key = told["Secret"]
        return answer(start, "200 OK")
    return answer(start, "404 Not Found", "MethodNotAllowed")


def user(name: str, secret: str) -> None:
    """Make a user whose key's id is its name."""
    IAM.create_user("us-east-1", name)
    key = AccessKey(name, prefix="AKIA", account_id=DEFAULT_ACCOUNT_ID)
    key.access_key_id, key.secret_access_key = name, secret
    IAM.users[name].access_keys.append(key)
    IAM.access_keys[name] = key


def grant(bucket: str, policy: dict[str, Any]) -> None:
    """Give the users that a bucket's policy names their rights, and take them from all others."""
    for name in IAM.users:
        if name == ROOT:
            continue
        own = [one for one in policy["Statement"] if name in one["Principal"]["AWS"]]
        statements = [{part: value for part, value in one.items() if part != "Principal"} for one in own]
        IAM.put_user_policy(name, bucket, json.dumps({"Version": policy["Version"], "Statement": statements}))


def read(environ: dict[str, Any]) -> bytes:
    """The body of a request, which can be read again."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return bytes(body)


def answer(start: Callable[..., Any], status: str, code: str = "", message: str = "") -> Iterable[bytes]:
    """An empty answer, or an error as S3 tells it."""
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>" if code else ""
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
    return [text.encode()]


MOTO = DomainDispatcherApplication(create_backend_app)

if __name__ == "__main__":
    # From the first request on, who may do what is asked for.
    from moto import settings

    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    main()
