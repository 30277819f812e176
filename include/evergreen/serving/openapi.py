"""What a client can ask: the models with their features, as OpenAPI and as the answers of `/models` tell it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evergreen.serving.predict import MOST_EXPLAINED, MOST_RECORDS
from evergreen.serving.served import Served

_TYPES: dict[str, dict[str, Any]] = {
    "timestamp with time zone": {"type": "string", "format": "date-time"},
    "timestamp without time zone": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "boolean": {"type": "boolean"},
    **{name: {"type": "integer"} for name in ("smallint", "integer", "bigint")},
    **{name: {"type": "number"} for name in ("real", "double precision")},
}
_ERRORS = {
    "400": "no JSON", "401": "no key, or one that is not known", "403": "the client may not ask this model",
    "404": "no such model, or no row of a key", "408": "the body came too slowly", "413": "the body is too large",
    "422": "what is wrong, by record and field", "429": "more often than the client may ask",
    "503": "cannot be answered now", "504": "the features took too long",
}  # fmt: skip


def told(served: Served, problem: str = "") -> dict[str, Any]:
    """A model as `/models` tells it."""
    model, champion = served.model, served.champion.version
    found: dict[str, Any] = {
        "name": model.name,
        "description": model.description,
        "task": model.task,
        "version": champion.version,
        "since": model.promoted_at,
        "metric": {"name": model.metric, "at_promotion": champion.metrics.get(model.metric)},
        "drift": model.drift,
    }
    if served.former is not None:
        found["canary"] = {"share": model.share, "former": served.former.version.version}
    if problem:
        found["problem"] = problem
    return found


def record_of(served: Served) -> dict[str, Any]:
    """The JSON Schema of a record: the features, and the key and event time by which its label finds the prediction."""
    version = served.champion.version
    properties: dict[str, Any] = {}
    for name in version.numeric:
        properties[name] = {"type": ["number", "null"]}
        if name in version.lows:
            properties[name]["description"] = f"learnt from {version.lows[name]:g} to {version.highs[name]:g}"
    for name, categories in version.categorical.items():
        properties[name] = {
            "type": ["string", "null"],
            "description": f"one of {', '.join(categories[:20])}" + (", …" if len(categories) > 20 else ""),
        }
    for name, schema in key_of(served)["properties"].items():
        properties.setdefault(
            name,
            {**schema, "description": "names the row; with the whole key and the event time or not at all"},
        )
    properties.setdefault(
        served.model.event_time,
        {"type": "string", "format": "date-time", "description": "when the row happened"},
    )
    return {
        "type": "object",
        "properties": properties,
        "required": list(version.features),
        "additionalProperties": False,
    }


def key_of(served: Served) -> dict[str, Any]:
    """The JSON Schema of a key."""
    model = served.model
    return {
        "type": "object",
        "properties": {
            name: dict(_TYPES.get(type_, {"type": "string"})) for name, type_ in model.key.items()
        },
        "required": [name for name in model.key if name != model.event_time] or list(model.key),
        "additionalProperties": False,
    }


def example(served: Served) -> dict[str, Any]:
    """A request that can be sent as it is: a row that the version learnt from."""
    return {"record": dict(served.champion.version.example)}


def document(served: Sequence[Served]) -> dict[str, Any]:
    """The OpenAPI document of these models."""
    paths: dict[str, Any] = {
        "/models": {"get": _get("The models that are served")},
        "/healthz": {"get": _get("Whether the process works", open_=True)},
        "/readyz": {"get": _get("Whether every model is answered for", open_=True)},
        "/metrics": {"get": _get("For Prometheus", open_=True, kind="text/plain")},
        "/openapi.json": {"get": _get("This document")},
    }
    for one in served:
        name = one.model.name
        paths[f"/models/{name}"] = {"get": _get(f"What {name} is and how it is asked")}
        paths[f"/models/{name}/predict"] = {"post": _post(one, f"Predictions of {name}", MOST_RECORDS)}
        paths[f"/models/{name}/explain"] = {
            "post": _post(one, f"What each feature adds to a prediction of {name}", MOST_EXPLAINED)
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Evergreen predictions", "version": "1"},
        "paths": paths,
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
    }


def _post(served: Served, summary: str, most: int) -> dict[str, Any]:
    record, key = record_of(served), key_of(served)

    def many(one: dict[str, Any]) -> dict[str, Any]:
        return {"type": "array", "items": one, "minItems": 1, "maxItems": most}

    forms = {"record": record, "records": many(record), "key": key, "keys": many(key)}
    body = {
        "oneOf": [
            {
                "type": "object",
                "properties": {
                    form: schema,
                    "ranges": {
                        "type": "boolean",
                        "description": "tell which numbers are beyond what it learnt",
                    },
                },
                "required": [form],
                "additionalProperties": False,
            }
            for form, schema in forms.items()
        ]
    }
    content = {"application/json": {"schema": body, "example": example(served)}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": content},
        "responses": _responses(),
    }


def _get(summary: str, *, open_: bool = False, kind: str = "application/json") -> dict[str, Any]:
    more: dict[str, Any] = {"security": []} if open_ else {}
    return {
        "summary": summary,
        "responses": _responses(kind, ("503",) if open_ else ("401", "403", "404", "429", "503")),
        **more,
    }


def _responses(kind: str = "application/json", errors: Sequence[str] = tuple(_ERRORS)) -> dict[str, Any]:
    failed = {"application/json": {"schema": {"type": "object"}}}
    return {
        "200": {"description": "the answer", "content": {kind: {}}},
        **{status: {"description": _ERRORS[status], "content": failed} for status in errors},
    }
