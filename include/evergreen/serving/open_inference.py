"""The Open Inference Protocol (V2), as KServe's and MLServer's clients speak it over REST with JSON: the same answers in its form.

An input tensor is a feature (or a column of the key, or the event time), by its name, with a value for each record; `predict` tells all
that is wrong. The output is one tensor, `prediction`. Tensors of raw bytes, behind the JSON, are not taken: its clients send them where
they are told to.

Source: the protocol's REST specification, https://github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from evergreen.serving import predict
from evergreen.serving.predict import Asked, RefusedError
from evergreen.serving.served import Served

SERVER = {"name": "evergreen", "version": "1", "extensions": []}
PLATFORM = "evergreen_xgboost"


def about(served: Served) -> dict[str, Any]:
    """A model's metadata."""
    version = served.champion.version
    inputs = [{"name": name, "datatype": "FP64", "shape": [-1]} for name in version.numeric]
    inputs += [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in version.categorical]
    outputs = [{"name": "prediction", "datatype": "FP64", "shape": [-1]}]
    return {
        "name": served.model.name, "versions": [version.version], "platform": PLATFORM, "inputs": inputs, "outputs": outputs,
    }  # fmt: skip


def read(body: bytes) -> tuple[Asked, str | None]:
    """The records of a request for inference, and the id that the client gave it.

    Raises:
        RefusedError: it is none.
    """
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(
            400, f"the body is no JSON (tensors of raw bytes are not taken): {error}"
        ) from None
    if type(told) is not dict or type(tensors := told.get("inputs")) is not list or not tensors:
        raise RefusedError(422, "inputs is a list of tensors, one for each feature")
    columns = dict(map(_tensor, tensors))
    lengths = {name: len(values) for name, values in columns.items()}
    if len(columns) != len(tensors) or len(set(lengths.values())) != 1:
        raise RefusedError(
            422, f"each tensor has another name, and all have as many values; told are {lengths}"
        )
    count = lengths[next(iter(lengths))]
    if not 1 <= count <= predict.MOST_RECORDS:
        raise RefusedError(422, f"{count:,} records; 1 to {predict.MOST_RECORDS:,} are answered at once")
    names = list(columns)
    records = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    named = told.get("id")
    return Asked(records, by_key=False, one=False, ranges=False), named if type(named) is str else None


def _tensor(tensor: Any) -> tuple[str, list[Any]]:
    """The name of a tensor and its values: a list, or a list of lists of one value."""
    if (
        type(tensor) is not dict
        or type(tensor.get("name")) is not str
        or type(tensor.get("data")) is not list
    ):
        raise RefusedError(
            422,
            'a tensor is such as {"name": "temperature", "shape": [1], "datatype": "FP64", "data": [21.5]}',
        )
    shape, data = tensor.get("shape"), tensor["data"]
    flat = [value for part in data for value in (part if type(part) is list else (part,))]
    if shape not in ([len(flat)], [len(flat), 1]):
        raise RefusedError(
            422, f"{tensor['name']} has the shape {shape} and {len(flat)} values; its shape is [{len(flat)}]"
        )
    if tensor.get("datatype") == "BOOL":
        flat = [value if value is None else bool(value) for value in flat]
    return tensor["name"], flat


def told(served: Served, answer: Mapping[str, Any], named: str | None) -> dict[str, Any]:
    """An answer of `predict` in the form of the protocol."""
    made = answer["predictions"]
    versions = {one["version"] for one in made}
    return {
        "model_name": served.model.name,
        "model_version": made[0]["version"] if len(versions) == 1 else "mixed",
        "id": named or answer["request_id"],
        "parameters": {"request_id": answer["request_id"], **({"missing": answer["missing"]} if "missing" in answer else {})},
        "outputs": [{"name": "prediction", "shape": [len(made)], "datatype": "FP64", "data": [one["prediction"] for one in made]}],
    }  # fmt: skip
