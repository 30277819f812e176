"""The demo's files land in a folder or in a bucket, the same ones under the same names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evergreen.feeds import catalogue
from evergreen.stack.demo import land
from evergreen.warehouse.storage.bucket import Store

if TYPE_CHECKING:
    from s3_server import Bucket


def test_a_delivery_lands_in_a_bucket_as_in_a_folder(bucket: Bucket, tmp_path: Path) -> None:
    delivery = next(one for one in catalogue.get("simulated").deliveries if one.kind == "normal")
    land(delivery, tmp_path / "landing")
    land(delivery, Store.at(f"{bucket.url}/landing/bike_hourly"))
    names = [path.name for path in (tmp_path / "landing").iterdir()]
    assert bucket.names() == sorted(f"landing/bike_hourly/{name}" for name in names)
    for name in names:
        assert bucket.get(f"landing/bike_hourly/{name}") == (tmp_path / "landing" / name).read_bytes()
