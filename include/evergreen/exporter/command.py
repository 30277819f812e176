"""`evergreen exporter`: serves the metrics until it is ended."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading

from prometheus_client import CollectorRegistry, start_http_server

from evergreen import settings
from evergreen.command import use_stack
from evergreen.errors import EvergreenError

PORT = 9465


def main(argv: list[str] | None = None) -> int:
    """Serve; 1 with a message where it cannot be done."""
    parser = argparse.ArgumentParser(
        prog="evergreen exporter",
        description="Serve Prometheus metrics of models, datasets and mails at /metrics, read from the ledger in the warehouse "
        "(EVERGREEN_WAREHOUSE_URL; the embedded stack's where none is named). Reads only. What each metric means: docs/metrics.md.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="port to listen on; 0: a free one (default: %(default)s)")  # fmt: skip
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        use_stack()
        settings.WAREHOUSE.read()
        from evergreen.exporter.collector import WarehouseCollector

        registry = CollectorRegistry()
        registry.register(WarehouseCollector())
        server, _ = start_http_server(args.port, args.host, registry)
    except EvergreenError as error:
        print(str(error), file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"{args.host}:{args.port} cannot be listened on: {error.strerror}; choose another --port",
            file=sys.stderr,
        )
        return 1
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    print(f"metrics at http://{args.host}:{server.server_port}/metrics", flush=True)
    ended.wait()
    server.shutdown()
    return 0
