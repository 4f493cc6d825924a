"""Tensors of the Open Inference Protocol v2, in JSON and in its binary extension."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from serving.schemas import BadRequest, Body, EpisodeId, Number, observations, parse

INPUT, OUTPUT = "obs", "action"
Size = Annotated[int, Field(strict=True, ge=0)]


class Parameters(Body):
    """What this server reads of a request's or a tensor's parameters; it ignores others."""

    model_config = ConfigDict(extra="ignore")
    binary_data_size: Size | None = None
    episode_id: EpisodeId | None = None


class Tensor(Body):
    """One input."""

    name: str
    shape: list[Size]
    datatype: str
    data: list[Number] | list[list[Number]] | None = None
    parameters: Parameters = Parameters()


class Wanted(Body):
    """One output that is asked for. It is answered in JSON, which every client reads."""

    model_config = ConfigDict(extra="ignore")
    name: str


class InferRequest(Body):
    """The body of `/infer`, or its JSON head where tensors follow in binary."""

    model_config = ConfigDict(extra="ignore")
    id: Annotated[str, Field(max_length=200)] | None = None
    inputs: list[Tensor]
    outputs: tuple[Wanted, ...] = ()
    parameters: Parameters = Parameters()


def read(body: bytes, head_length: str | None) -> tuple[InferRequest, bytes]:
    """The request and the binary tensors after it; the header `head_length` divides them."""
    if head_length is None:
        return parse(InferRequest, body), b""
    if not (head_length.isascii() and head_length.isdigit() and int(head_length) <= len(body)):
        raise BadRequest(
            400, "Inference-Header-Content-Length", f"0 to {len(body)}", repr(head_length[:20])
        )
    length = int(head_length)
    return parse(InferRequest, body[:length]), body[length:]


def batch(said: InferRequest, binary: bytes, size: int, limit: int) -> NDArray[np.float32]:
    """The observations (n, size) of a request; raises `BadRequest`."""
    for wanted in said.outputs:
        _expect(400, "outputs", f"only {OUTPUT!r}", wanted.name, wanted.name == OUTPUT)
    _expect(400, "inputs", f"one tensor, {INPUT!r}", _names(said), _names(said) == [INPUT])
    tensor = said.inputs[0]
    _expect(400, "inputs[0].datatype", "FP32", tensor.datatype, tensor.datatype == "FP32")
    shape = tensor.shape
    fits = len(shape) == 2 and shape[1] == size and shape[0] >= 1
    _expect(400, "inputs[0].shape", f"[n, {size}] with n at least 1", shape, fits)
    _expect(413, "inputs[0].shape", f"at most {limit} observations", shape[0], shape[0] <= limit)
    if tensor.parameters.binary_data_size is None:
        return observations(_rows(tensor), size, limit, "inputs[0].data[{}]")
    return _from_binary(tensor, binary)


def flat(actions: list[Any]) -> list[Any]:
    """Actions in row-major order."""
    if actions and isinstance(actions[0], list):
        return [value for action in actions for value in action]
    return actions


def _rows(tensor: Tensor) -> list[list[float]]:
    """Data as rows, whether it came nested or flat."""
    count, size = tensor.shape
    data: list[Any] = tensor.data if tensor.data is not None else []
    if data and isinstance(data[0], list):
        _expect(400, "inputs[0].data", f"{count} rows", len(data), len(data) == count)
        return data
    _expect(400, "inputs[0].data", f"{count * size} numbers", len(data), len(data) == count * size)
    return [data[start : start + size] for start in range(0, len(data), size)]


def _from_binary(tensor: Tensor, binary: bytes) -> NDArray[np.float32]:
    said, needed = tensor.parameters.binary_data_size, 4 * tensor.shape[0] * tensor.shape[1]
    both = tensor.data is not None
    _expect(400, "inputs[0].data", "none beside binary data", tensor.data, not both)
    _expect(400, "binary_data_size", str(needed), said, said == needed)
    _expect(400, "binary data", f"{needed} bytes", len(binary), len(binary) == needed)
    array = np.frombuffer(binary, "<f4").reshape(tensor.shape).astype(np.float32, copy=False)
    finite = bool(np.isfinite(array).all())
    _expect(422, "binary data", "finite numbers", "NaN or infinity", finite)
    return array


def _names(said: InferRequest) -> list[str]:
    return [tensor.name for tensor in said.inputs]


def _expect(status: int, field: str, expected: str, came: object, holds: bool) -> None:
    if not holds:
        raise BadRequest(status, field, expected, repr(came)[:80])
