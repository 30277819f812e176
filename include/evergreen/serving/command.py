"""`evergreen serve`: answers requests for predictions until it is ended."""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import subprocess
import sys
import threading

from evergreen.command import use_stack
from evergreen.errors import EvergreenError

PORT = 8088
KEEP_ALIVE_S = 75
MOST_CONNECTIONS = 2000
BACKLOG = 2048
RESTART_S = 2.0

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Serve; 1 with a message where it cannot be done."""
    parser = argparse.ArgumentParser(
        prog="evergreen serve",
        description="Answer requests for predictions with the champion of each model: POST /models/NAME/predict. It follows the ledger "
        "(EVERGREEN_WAREHOUSE_URL, MLFLOW_TRACKING_URI; the embedded stack's where none is named), and goes on with what it has where "
        "they are away. docs/serving.md tells of it.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="port to listen on (default: %(default)s)")
    parser.add_argument(
        "--local-client",
        action="store_true",
        help="make a client `local` for this machine, whose key lies in EVERGREEN_HOME/serving",
    )
    parser.add_argument("--companion", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    try:
        use_stack()
    except EvergreenError as error:
        print(str(error), file=sys.stderr)
        return 1
    if args.companion:
        from evergreen.serving import companion

        return companion.main(local=args.local_client)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s server %(levelname)s %(message)s")
    return _serve(args.host, args.port, local=args.local_client)


def _serve(host: str, port: int, *, local: bool) -> int:
    import uvicorn

    from evergreen.serving import by_key, kept
    from evergreen.serving.app import Front
    from evergreen.serving.service import Service

    features = by_key.FeaturesByKey()
    try:
        service = Service(features)
    except OSError as error:
        print(
            f"{kept.folder()} cannot be written: {error.strerror}; make it writable, or set EVERGREEN_HOME",
            file=sys.stderr,
        )
        return 1
    try:
        listening = socket.create_server((host, port), backlog=BACKLOG, reuse_port=False)
    except OSError as error:
        print(
            f"{host}:{port} cannot be listened on: {error.strerror}; choose another --port", file=sys.stderr
        )
        return 1
    server = uvicorn.Server(
        uvicorn.Config(
            Front(service),
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=10,
            limit_concurrency=MOST_CONNECTIONS,
            backlog=BACKLOG,
        )
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    (kept.folder() / "url").write_text(f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}\n")
    companion = _Companion(local=local)
    companion.start()
    # The server takes these signals while it runs, ends, and raises them once more: there is still something to do then.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    log.info("predictions at http://%s:%s/models; what is kept lies in %s", host, port, kept.folder())
    try:
        server.run(sockets=[listening])
    finally:
        companion.stop()
        features.close()
    return 0 if server.started else 1


class _Companion(threading.Thread):
    """Keeps the companion running as long as the server does."""

    def __init__(self, *, local: bool) -> None:
        super().__init__(name="companion", daemon=True)
        self._command = [
            sys.executable,
            "-m",
            "evergreen",
            "serve",
            "--companion",
            *(["--local-client"] if local else []),
        ]
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        while not self._ended.is_set():
            # It sees its standard input end when this process does, however that ends.
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, start_new_session=True)
            status = self._process.wait()
            if not self._ended.is_set():
                log.warning("the companion ended (%s); it is started again", status)
                self._ended.wait(RESTART_S)

    def stop(self) -> None:
        """Let it bring the rest of the log to the warehouse, and end."""
        self._ended.set()
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
