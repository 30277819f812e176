"""What lies in a bucket comes out as it went in, or with a sentence that says why it does not."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.warehouse.storage.bucket import GoneError, NoAccessError, Store, place


@pytest.fixture
def store(bucket) -> Store:
    return Store.at(f"{bucket.url}/here")


@pytest.fixture
def blocks(monkeypatch):
    """The least blocks, so that a test's files have several."""
    monkeypatch.setenv(settings.STORE_BLOCK_MB.name, "1")


@pytest.mark.parametrize("key", ["a/b c.csv", "a.csv.gz", "a.zst"])
def test_what_is_put_is_listed_and_fetched_as_it_was(store, bucket, tmp_path, blocks, key):
    content = os.urandom(3 << 20) + b"end"
    (tmp_path / "in").write_bytes(content)
    store.put(tmp_path / "in", key)
    assert store.fetch(key, tmp_path / "out") == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "out").read_bytes() == content == store.read(key)
    assert store.tail(key, 3) == b"end"
    (found,) = store.objects()
    assert (found.key, found.size) == (key, len(content))
    assert store.size(key) == len(content)
    assert bucket.names() == [f"here/{key}"]


def test_nothing_there_is_an_empty_listing(store, bucket):
    bucket.put("here/", "")  # as consoles make a folder
    assert store.objects() == []
    assert store.size("x") is None


def test_a_large_file_takes_no_more_memory_than_a_small_one(store, tmp_path):
    """Of a process of its own: a file of 64 MB up and down again, in blocks of the setting."""
    code = (
        "import sys; from pathlib import Path; from evergreen.warehouse.storage.bucket import Store\n"
        "def peak(): return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "store, path = Store.at(sys.argv[1]), Path(sys.argv[2])\n"
        "store.write('small', b'x'); store.read('small')\n"
        "before = peak(); store.put(path, 'large'); store.fetch('large', path.with_name('out'))\n"
        "print((peak() - before) >> 10)"
    )
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    done = subprocess.run(
        [sys.executable, "-c", code, store.url, str(path)],
        env={**os.environ, "PYTHONPATH": "include"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert path.with_name("out").stat().st_size == 64 << 20
    assert int(done.stdout) < 3 * 8, "megabytes"


def test_one_that_changes_while_it_is_fetched_is_noticed(store, bucket, tmp_path, blocks, monkeypatch):
    bucket.put("here/a", b"1" * (3 << 20))
    path = tmp_path / "out"

    class Slow:
        """A disk that is so slow that the object is replaced meanwhile, by one of the same size."""

        def __init__(self, file):
            self._file, self._done = file, 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def write(self, content):
            if not self._done:
                bucket.put("here/a", b"2" * (3 << 20))
            self._done += len(content)

        def tell(self):
            return self._done

    opened = Path.open
    monkeypatch.setattr(type(path), "open", lambda self, mode: Slow(opened(self, mode)))
    with pytest.raises(GoneError, match="changed while it was read"):
        store.fetch("a", path)


def test_what_is_not_there(store, tmp_path):
    with pytest.raises(GoneError, match=r"s3://evergreen-.*/here/a: it is not there"):
        store.fetch("a", tmp_path / "out")


def test_a_server_that_is_no_store_is_no_empty_one(monkeypatch):
    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>no such page</html>")

        do_HEAD = do_PUT = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    try:
        with pytest.raises(TransientError, match="leads to the store") as raised:
            Store.at("s3://bucket/landing").objects()
        assert not isinstance(raised.value, GoneError)
    finally:
        server.shutdown()


def test_a_bucket_that_is_missing_says_so(bucket, tmp_path):
    store = Store.at("s3://no-such-bucket/x")
    (tmp_path / "in").write_bytes(b"1")
    bucket.server.allow(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    )
    for act in (store.objects, lambda: store.put(tmp_path / "in", "a")):
        with pytest.raises(TerminalError, match="no such bucket") as raised:
            act()
        assert raised.value.reason is ErrorReason.BAD_SPEC


@pytest.mark.parametrize(
    ("action", "act"),
    [
        ("s3:ListBucket", lambda store, path: store.objects()),
        ("s3:GetObject", lambda store, path: store.fetch("a", path)),
        ("s3:GetObject", lambda store, path: store.read("a")),
        ("s3:PutObject", lambda store, path: store.put(path, "a")),
    ],
    ids=["list", "fetch", "read", "put"],
)  # fmt: skip
def test_a_right_that_is_missing_is_named(store, bucket, tmp_path, action, act):
    bucket.put("here/a", "1")
    (tmp_path / "file").write_bytes(b"1")
    act(store, tmp_path / "file")
    bucket.deny(action)
    with pytest.raises(NoAccessError, match=r"may not be .*docs/storage.md") as raised:
        act(store, tmp_path / "file")
    assert raised.value.reason is ErrorReason.NO_ACCESS
    assert bucket.server.keys["evergreen"][1] not in str(raised.value)


def test_a_store_that_is_away_is_tried_again(store, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for act in (store.objects, lambda: store.write("a", b"1")):
        with pytest.raises(TransientError, match="does not answer as it should") as raised:
            act()
        assert raised.value.reason is ErrorReason.UNREACHABLE


def test_one_that_has_not_got_all_of_it_is_noticed(store, monkeypatch):
    monkeypatch.setattr(Store, "size", lambda self, key: 1)
    with pytest.raises(TransientError, match="1 of 2 bytes"):
        store.write("a", b"12")


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3://key:secret@bucket/x",
        "s3://bucket:9000/x",
        "ftp://bucket/x",
        "s3://bucket/x?endpoint_override=y",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_secret(url):
    with pytest.raises(TerminalError, match="no place for files") as raised:
        Store.at(url)
    assert "secret@" not in str(raised.value)


def test_a_variable_names_a_folder_or_a_bucket(monkeypatch, tmp_path):
    variable = settings.LANDING
    monkeypatch.setenv(variable.name, str(tmp_path))
    assert place(variable) == tmp_path
    assert place(variable, "rides") == tmp_path / "rides"
    assert place(variable, "/elsewhere") == Path("/elsewhere")
    assert place(variable, "s3://other/rides") == Store("s3://other/rides")
    monkeypatch.setenv(variable.name, "s3://bucket/landing/")
    assert place(variable) == Store("s3://bucket/landing")
    assert place(variable, "rides") == Store("s3://bucket/landing/rides")
    assert place(variable, "/elsewhere") == Path("/elsewhere")
    with pytest.raises(TerminalError, match="EVERGREEN_LANDING names a bucket"):
        variable.path()


def test_importing_it_brings_no_threads():
    code = "import evergreen.warehouse.storage.bucket, sys; print('pyarrow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": "include"}, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert done.stdout == "False\n"
