"""What `init` does in the store of the profile `s3`: the bucket, and a key that may read, write and list there and do nothing else.

Users are made by requests of versitygw's own; all else is S3. Again, it changes nothing but a secret that is another one in `.env`.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from evergreen.deployment import variables
from evergreen.errors import ErrorReason, TerminalError

ROOT = "root"
"""Id of the store's own key, which may everything; `init` and the store alone know its secret."""
REGION = "us-east-1"
"""What a store without regions calls its own."""
TIMEOUT_S = 20
_CREATED, _EXISTS = (200, 201), 409


def rights(bucket: str) -> list[dict[str, Any]]:
    """What Evergreen needs in a bucket, as statements of a policy; docs/storage.md shows them."""
    name = f"arn:aws:s3:::{bucket}"
    return [
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": name},
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": f"{name}/*"},
    ]


def prepare(bucket: str) -> bool:
    """Make the bucket and the user of `AWS_ACCESS_KEY_ID`, and give that one its rights.

    Returns:
        Whether the bucket is new.

    Raises:
        TerminalError: a variable is missing, the store does not answer (UNREACHABLE), or it refuses (NO_ACCESS).
    """
    # Not at the module's top: it is in the image, and who runs Evergreen without one need not have it.
    from botocore.exceptions import BotoCoreError, ClientError

    key, endpoint = variables.AWS_ACCESS_KEY_ID.read(), variables.AWS_ENDPOINT_URL.read()
    if key == ROOT:
        raise TerminalError(
            f"AWS_ACCESS_KEY_ID is {ROOT}, the store's own key, which may everything; give the workers another one in .env",
            ErrorReason.BAD_SPEC,
        )
    try:
        _user(endpoint, key, variables.AWS_SECRET_ACCESS_KEY.read())
        s3 = _client(endpoint)
        new = bucket not in {found["Name"] for found in s3.list_buckets()["Buckets"]}
        if new:
            s3.create_bucket(Bucket=bucket)
        policy = {
            "Version": "2012-10-17",
            "Statement": [{**one, "Principal": {"AWS": [key]}} for one in rights(bucket)],
        }
        s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    except ClientError as error:
        raise _refused(endpoint, str(error)) from error
    except BotoCoreError as error:
        raise TerminalError(
            f"the store at {endpoint} does not answer: {error}; `make compose-status` shows whether it is up, `docker compose logs store` why "
            "not",
            ErrorReason.UNREACHABLE,
        ) from error
    return new


def _user(endpoint: str, key: str, secret: str) -> None:
    """Make the user, or give the one that is there this secret."""
    made = ElementTree.Element("Account")
    for name, value in (("Access", key), ("Secret", secret), ("Role", "user")):
        ElementTree.SubElement(made, name).text = value
    status, said = _ask(f"{endpoint}/create-user", ElementTree.tostring(made))
    if status == _EXISTS:
        changed = ElementTree.Element("MutableProps")
        ElementTree.SubElement(changed, "Secret").text = secret
        status, said = _ask(
            f"{endpoint}/update-user?access={quote(key, safe='')}", ElementTree.tostring(changed)
        )
    if status not in _CREATED:
        raise _refused(endpoint, f"{status} {' '.join(said.split())[:300]}")


def _ask(url: str, body: bytes) -> tuple[int, str]:
    """Send a request about users; its status and what was said."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    from botocore.httpsession import URLLib3Session

    request = AWSRequest("PATCH", url, data=body, headers={"Content-Type": "application/xml"})
    S3SigV4Auth(Credentials(ROOT, variables.STORE_ROOT_PASSWORD.read()), "s3", REGION).add_auth(request)
    answer = URLLib3Session(timeout=TIMEOUT_S).send(request.prepare())
    return answer.status_code, answer.text


def _client(endpoint: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3", endpoint_url=endpoint, region_name=REGION, aws_access_key_id=ROOT,
        aws_secret_access_key=variables.STORE_ROOT_PASSWORD.read(),
        config=Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, s3={"addressing_style": "path"}),
    )  # fmt: skip


def _refused(endpoint: str, said: str) -> TerminalError:
    return TerminalError(
        f"the store at {endpoint} refuses what init asks for: {said}. AWS_ENDPOINT_URL is to name the store of the profile s3, and "
        "STORE_ROOT_PASSWORD what that one was started with; for another store leave STORE_BUCKET empty and make the bucket there",
        ErrorReason.NO_ACCESS,
    )
