"""The real file: only the known one is used, wherever it comes from, and what is in it."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pandas as pd
import pytest

from evergreen.errors import ErrorReason, TerminalError
from evergreen.feeds import bike_sharing, real_file

NOBODY_LISTENS = "http://127.0.0.1:9/bikes.zip"


@pytest.fixture(scope="session")
def real() -> Path:
    try:
        return bike_sharing.find()
    except TerminalError as error:
        pytest.skip(f"the real data is not on this machine: {error}")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty machine: no data folder, an empty cache under the returned folder."""
    monkeypatch.delenv("EVERGREEN_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], str]]:
    """Serve bytes at an address."""
    servers: list[HTTPServer] = []

    def start(content: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                return

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/bikes.zip"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def zipped(content: bytes, name: str = "hour.csv") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def test_find_never_downloads_and_names_three_ways(nowhere: Path) -> None:
    with pytest.raises(
        TerminalError, match=r"not on this machine.*\(1\).*\(2\).*EVERGREEN_DATA_DIR.*\(3\)"
    ) as caught:
        bike_sharing.find()
    assert caught.value.reason is ErrorReason.NO_ROWS


def test_without_a_network_three_ways_are_named(nowhere: Path) -> None:
    with pytest.raises(TerminalError, match=r"cannot be downloaded.*\(1\).*\(2\).*\(3\)") as caught:
        bike_sharing.obtain(NOBODY_LISTENS)
    assert caught.value.reason is ErrorReason.UNREACHABLE


@pytest.mark.parametrize("place", ["bike_sharing/hour.csv", "hour.csv"], ids=["in-its-folder", "beside"])
def test_another_file_is_refused_with_path_and_checksums(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("EVERGREEN_DATA_DIR", str(nowhere))
    path = nowhere / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("instant,dteday\n1,2011-01-01\n")
    found = "SHA-256 found [0-9a-f]{64}, expected " + real_file.SHA256
    with pytest.raises(TerminalError, match=f"{path}.*{found}.*put the original there"):
        bike_sharing.obtain(NOBODY_LISTENS)


def test_a_spoilt_cache_is_refused_and_the_remedy_is_to_delete_it(nowhere: Path) -> None:
    real_file.cache_path().parent.mkdir(parents=True)
    real_file.cache_path().write_text("half a fi")
    with pytest.raises(TerminalError, match=f"{real_file.cache_path()}.*delete it"):
        bike_sharing.find()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped(b"instant\n1\n"), "SHA-256 found"),
        (zipped(b"x", "day.csv"), "cannot be downloaded.*hour.csv"),
        (zipped(b"instant\n" * 999)[:60], "cannot be downloaded.*not a zip file"),
        (b"<html>moved</html>", "cannot be downloaded.*not a zip file"),
        (bytes(real_file.MAX_BYTES + 1), "cannot be downloaded.*more than"),
        (zipped(bytes(real_file.MAX_BYTES + 1)), "cannot be downloaded.*expected"),
    ],
    ids=["other-rows", "other-member", "half", "a-page", "endless", "bomb"],
)
def test_a_wrong_download_is_refused_and_not_kept(
    nowhere: Path, serve: Callable[[bytes], str], content: bytes, message: str
) -> None:
    with pytest.raises(TerminalError, match=message):
        bike_sharing.obtain(serve(content))
    assert not real_file.cache_path().exists()


def test_a_download_is_kept_and_used_again(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[bytes], str]
) -> None:
    content = real.read_bytes()
    monkeypatch.delenv("EVERGREEN_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = bike_sharing.obtain(serve(zipped(content)))
    assert path == real_file.cache_path()
    assert [p.name for p in path.parent.iterdir()] == ["hour.csv"]
    assert bike_sharing.obtain(NOBODY_LISTENS) == path


def test_the_data_folder_goes_before_the_cache(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = real.read_bytes()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("EVERGREEN_DATA_DIR", str(tmp_path))
    for path in (real_file.cache_path(), tmp_path / "hour.csv", tmp_path / "bike_sharing" / "hour.csv"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        assert bike_sharing.find() == path


def test_the_real_file_holds_what_its_readme_says(real: Path) -> None:
    table = bike_sharing.convert(real)
    assert real.stat().st_size == real_file.SIZE
    assert len(table) == 17_379
    hours = pd.date_range(table["ts"].iloc[0], table["ts"].iloc[-1], freq="h")
    assert (str(hours[0]), str(hours[-1])) == ("2011-01-01 00:00:00+00:00", "2012-12-31 23:00:00+00:00")
    assert len(hours.difference(pd.DatetimeIndex(table["ts"]))) == 165
    assert not table.isna().any(axis=None)
    assert table["weather"].value_counts().to_dict() == {
        "clear": 11_413, "mist": 4_544, "light_rain": 1_419, "heavy_rain": 3,
    }  # fmt: skip
    assert table["demand"].sum() == 3_292_679
    assert table["temperature"].between(0.5, 41).all()
    assert table["price"].eq(1.0).all()


def test_the_leap_of_march_2012_is_real(real: Path) -> None:
    table = bike_sharing.convert(real).set_index("ts")["demand"]
    before, after = table["2012-03-05":"2012-03-11"].mean(), table["2012-03-12":"2012-03-18"].mean()  # type: ignore[misc]
    assert after > 1.3 * before
