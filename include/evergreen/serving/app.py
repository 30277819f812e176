"""The service's addresses: predictions straight from the server, the rest a FastAPI app behind it."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from evergreen.serving import open_inference, openapi, predict
from evergreen.serving.clients import Known
from evergreen.serving.predict import RefusedError
from evergreen.serving.served import Served
from evergreen.serving.service import Service

log = logging.getLogger(__name__)

MOST_BYTES = 2 << 20
MOST_AT_ONCE = 256
"""Requests that are being answered; one more is told to come again."""
BODY_S = 10.0
"""So long a client may take to send its request."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_ENCODE = msgspec.json.Encoder().encode
_PATH = re.compile(r"^(?:/v2)?/models/([a-z][a-z0-9_]{0,47})/(predict|explain|infer)$")
_JSON = (b"content-type", b"application/json")


class Front:
    """The ASGI app: a request for predictions is answered here, anything else goes on to FastAPI."""

    def __init__(self, service: Service) -> None:
        """Of a running service."""
        self._service = service
        self._rest = rest(service)
        self._at_once = 0
        self._reading: dict[asyncio.Task[Any], float] = {}
        """Who waits for the rest of a request, since when: cheaper for each request than a timer of its own."""
        service.traffic.in_flight.set_function(lambda: self._at_once)
        service.every(1.0, self._end_slow)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        path = _PATH.match(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if path is None or (path[2] == "infer") != scope["path"].startswith("/v2/"):
            await self._rest(scope, receive, send)
            return
        began = time.perf_counter()
        name, wanted = path.groups()
        service = self._service
        served = service.served.get(name)
        self._at_once += 1
        try:
            known = _client(service, scope, name)
            if self._at_once > MOST_AT_ONCE:
                raise RefusedError(
                    503, f"more than {MOST_AT_ONCE} requests are being answered; come again", wait_s=1
                )
            served = _served(service, name)
            body = await self._body(scope, receive)
            if wanted == "predict":
                said = await self._predict(served, predict.read(body), known, began)
            elif wanted == "explain":
                said = await service.predictions.explain(served, predict.read(body, predict.MOST_EXPLAINED))
            else:
                said = await self._infer(served, body, known, began)
            content = _ENCODE(said)
            status, headers = 200, [_JSON, (b"content-length", b"%d" % len(content))]
        except RefusedError as error:
            status, headers, content = _refused(service, served, error)
        except Exception:
            log.exception("%s: a request could not be answered", name)
            status, headers, content = _refused(
                service, served, RefusedError(500, "this should not happen; the service's log says more")
            )
        finally:
            self._at_once -= 1
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _predict(
        self, served: Served, asked: predict.Asked, known: Known, began: float
    ) -> dict[str, Any]:
        service = self._service
        answer, logged, missing = await service.predictions.answer(served, asked, known.client.name)
        service.spool.add(logged)
        for problem in missing:
            service.traffic.missing.labels(served.model.name, problem.field).inc()
        made = logged.records
        service.traffic.ok(served.model.name, made[0].version, len(made), time.perf_counter() - began)
        return answer

    async def _infer(self, served: Served, body: bytes, known: Known, began: float) -> dict[str, Any]:
        asked, named = open_inference.read(body)
        return open_inference.told(served, await self._predict(served, asked, known, began), named)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The body of a request.

        Raises:
            RefusedError: it is too large, or takes too long.
        """
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or int(value) > MOST_BYTES):
                raise _too_large()
        task = asyncio.current_task()
        assert task is not None
        self._reading[task] = time.monotonic()
        try:
            message = await receive()
            body: bytes = message.get("body", b"")
            if not message.get("more_body"):
                return body
            parts, size = [body], len(body)
            while message.get("more_body"):
                message = await receive()
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > MOST_BYTES:
                    raise _too_large()
            return b"".join(parts)
        except asyncio.CancelledError:
            if task in self._reading:
                raise  # the server ends
            task.uncancel()
            raise RefusedError(408, f"the body did not come within {BODY_S:g} s") from None
        finally:
            self._reading.pop(task, None)

    async def _end_slow(self) -> None:
        """Send those away who have not sent their request in time."""
        late = time.monotonic() - BODY_S
        for task in [task for task, since in self._reading.items() if since < late]:
            del self._reading[task]
            task.cancel()


def _refused(
    service: Service, served: Served | None, error: RefusedError
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    name = served.model.name if served is not None else ""
    (service.traffic.failed if error.status >= 500 else service.traffic.refused)(name)
    content = _ENCODE(error.body())
    headers = [_JSON, (b"content-length", b"%d" % len(content))]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.wait_s:
        headers.append((b"retry-after", b"%d" % max(1, round(error.wait_s))))
    if error.status in (408, 413):
        # What is left of the body is not read.
        headers.append((b"connection", b"close"))
    return error.status, headers, content


def _client(service: Service, scope: Scope, model: str | None) -> Known:
    """Who asks.

    Raises:
        RefusedError: nobody who may.
    """
    key = next((value for name, value in scope["headers"] if name == b"authorization"), None)
    known = service.clients.find(key)
    if known is None:
        raise RefusedError(
            401,
            "name a client's key: Authorization: Bearer KEY. `evergreen client add NAME` makes one and prints it",
        )
    if wait := known.waits():
        raise RefusedError(
            429,
            f"{known.client.name} may ask {known.client.rate:g} times a second; come again in {wait:.2f} s",
            wait_s=wait,
        )
    if model is not None and not known.may_ask(model):
        raise RefusedError(403, f"{known.client.name} may not ask {model}")
    return known


def _served(service: Service, name: str) -> Served:
    served = service.served.get(name)
    if served is not None:
        return served
    if problem := service.problem(name):
        raise RefusedError(503, problem, wait_s=5)
    names = ", ".join(sorted(service.served)) or "none yet: no model has a champion"
    raise RefusedError(404, f"no model {name} is served; there is {names}")


def _too_large() -> RefusedError:
    return RefusedError(413, f"the body is larger than {MOST_BYTES >> 20} MB; ask for fewer records at once")


def rest(service: Service) -> FastAPI:
    """The addresses that are no predictions; the app's life is the service's."""

    @asynccontextmanager
    async def life(_: FastAPI) -> Any:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(title="Evergreen", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        status, headers, content = _refused(service, None, error)
        return Response(content, status, {k.decode(): v.decode() for k, v in headers})

    def asked_by(request: Request, model: str | None = None) -> Known:
        return _client(service, request.scope, model)

    @app.get("/healthz")
    async def healthz() -> Response:
        """Whether the process works."""
        return answer({"alive": True})

    @app.get("/readyz")
    async def readyz() -> Response:
        """Whether every model that has a champion is answered for; and what is away, without which the service goes on."""
        return answer(*readiness(service))

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(service.traffic.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/openapi.json")
    async def document(request: Request) -> Response:
        """The models of this client, with their features."""
        known = asked_by(request)
        return answer(openapi.document([s for n, s in service.served.items() if known.may_ask(n)]))

    @app.get("/models")
    async def models(request: Request) -> Response:
        """What is served, and by which version."""
        known = asked_by(request)
        found = [
            openapi.told(s, service.problem(n)) for n, s in sorted(service.served.items()) if known.may_ask(n)
        ]
        return answer({"models": found})

    @app.get("/models/{name}")
    async def model(name: str, request: Request) -> Response:
        """One model: its version, since when, how good it was, its drift, and what a record looks like."""
        asked_by(request, name)
        served = _served(service, name)
        return answer(
            openapi.told(served, service.problem(name))
            | {"record": openapi.record_of(served), "example": openapi.example(served)}
        )

    _open_inference(app, service)
    return app


def _open_inference(app: FastAPI, service: Service) -> None:
    """What the Open Inference Protocol asks beside inference."""

    @app.get("/v2")
    async def server() -> Response:
        """Which server it is."""
        return answer(open_inference.SERVER)

    @app.get("/v2/health/live")
    async def live() -> Response:
        """Whether the process works."""
        return answer({"live": True})

    @app.get("/v2/health/ready")
    async def ready() -> Response:
        """Whether every model is answered for."""
        said, status = readiness(service)
        return answer({"ready": said["ready"]}, status)

    @app.get("/v2/models/{name}")
    async def metadata(name: str, request: Request) -> Response:
        """The tensors of a model."""
        _client(service, request.scope, name)
        return answer(open_inference.about(_served(service, name)))

    @app.get("/v2/models/{name}/ready")
    async def model_ready(name: str) -> Response:
        """Whether a model is answered for."""
        there = name in service.served
        return answer({"name": name, "ready": there}, 200 if there else 404)


def answer(content: Any, status: int = 200) -> Response:
    """An answer of JSON."""
    return Response(_ENCODE(content), status, media_type="application/json")


def readiness(service: Service) -> tuple[dict[str, Any], int]:
    """What `/readyz` says, and its status: 503 where a model that has a champion is not answered for, or none has one."""
    state = service.state
    missing = sorted({*state.models, *state.unserved} - set(service.served)) if state else []
    ready = bool(state and service.served and not missing)
    said: dict[str, Any] = {
        "ready": ready,
        "models": {name: one.champion.version.version for name, one in sorted(service.served.items())},
        "away": service.away(),
        "problems": {
            name: text for name in sorted({*service.served, *missing}) if (text := service.problem(name))
        },
    }
    if not ready:
        said["because"] = (
            f"not answered for: {', '.join(missing)}"
            if missing
            else "no model has a champion yet: run its training first"
        )
    return said, 200 if ready else 503
