"""What MLflow's failures mean, tried on a server of HTTP answers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from evergreen import registry
from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.registry import client


class Answers(BaseHTTPRequestHandler):
    """Answers every request with the status and error code that the server holds."""

    def do_GET(self) -> None:
        status, code = self.server.answer  # type: ignore[attr-defined]
        body = f'{{"error_code": "{code}", "message": "told by the server"}}'.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hidden@127.0.0.1:{found.server_port}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield found
        found.shutdown()


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        pytest.param(
            (404, "RESOURCE_DOES_NOT_EXIST"), TerminalError, ErrorReason.REGISTRY_MISMATCH, id="missing"
        ),
        pytest.param(
            (400, "INVALID_PARAMETER_VALUE"), TerminalError, ErrorReason.REGISTRY_MISMATCH, id="refused"
        ),
        pytest.param(
            (403, "PERMISSION_DENIED"), TerminalError, ErrorReason.REGISTRY_MISMATCH, id="forbidden"
        ),
        pytest.param((500, "INTERNAL_ERROR"), TransientError, ErrorReason.UNREACHABLE, id="broken"),
        pytest.param(
            (503, "TEMPORARILY_UNAVAILABLE"), TransientError, ErrorReason.UNREACHABLE, id="restarting"
        ),
        pytest.param(
            (429, "REQUEST_LIMIT_EXCEEDED"), TransientError, ErrorReason.UNREACHABLE, id="too-many-requests"
        ),
    ],
)
def test_answers(server, rides, answer, kind, reason):
    server.answer = answer
    with pytest.raises(kind) as caught:
        registry.load(rides, "1")
    assert caught.value.reason is reason
    assert "hidden" not in str(caught.value)
    assert "load version 1 of rides" in str(caught.value)


def test_no_server(rides, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hidden@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TransientError) as caught:
        registry.load(rides, "1")
    assert "hidden" not in str(caught.value)


def test_no_address(rides, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(TerminalError, match="MLFLOW_TRACKING_URI is not set"):
        registry.load(rides, "1")


class WithBucket(BaseHTTPRequestHandler):
    """An MLflow server whose artifacts lie in a bucket that clients do not reach."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        offers = b'{"multipart_uploads_enabled": true, "multipart_downloads_enabled": true}'
        body = offers if self.path.endswith("server-info") else b"of the server"
        self.send_response(500 if "presigned" in self.path or "mpu" in self.path else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    do_POST = do_PUT

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


def test_files_go_through_the_server_and_not_to_its_bucket(tmp_path, monkeypatch) -> None:
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    for name in client.DEFAULTS:
        monkeypatch.setenv(name, "")  # so that what `client` sets is undone at the end
        del os.environ[name]
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", "1")
    with ThreadingHTTPServer(("127.0.0.1", 0), WithBucket) as server:
        server.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        client.client()
        files = MlflowArtifactsRepository("mlflow-artifacts:/1")
        files._download_file("model.ubj", tmp_path / "model.ubj")
        files.log_artifact(tmp_path / "model.ubj", "again")
        server.shutdown()
    assert (tmp_path / "model.ubj").read_bytes() == b"of the server"
    assert [path.partition("/mlflow-artifacts/")[2] for path in server.asked] == [  # type: ignore[attr-defined]
        "artifacts/1/model.ubj", "artifacts/1/again/model.ubj",
    ]  # fmt: skip
