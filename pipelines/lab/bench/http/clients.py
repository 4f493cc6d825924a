"""The requests of the benchmark's clients."""

from __future__ import annotations

import json
import struct
import uuid

import numpy as np

from pipelines.lab.bench.http.load import Client

BATCH = 256


def request(path: str, body: bytes, *headers: str) -> bytes:
    """The bytes of a POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: bench", f"Content-Length: {len(body)}"]
    if not any(header.startswith("Inference") for header in headers):
        lines.append("Content-Type: application/json")
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def always(data: bytes) -> Client:
    """A client that repeats the same request."""
    return lambda answer: data


def act(size: int) -> Client:
    return always(request("/v1/act", json.dumps({"observation": _numbers(size)}).encode()))


def scoring(size: int) -> Client:
    """One observation for MLflow's scoring server."""
    body = json.dumps({"inputs": {"obs": [_numbers(size)]}}).encode()
    return always(request("/invocations", body))


def batch(size: int) -> Client:
    body = json.dumps({"observations": _rows(size)}).encode()
    return always(request("/v1/act/batch", body))


def infer(size: int, count: int, binary: bool) -> Client:
    """The Open Inference Protocol, in JSON or with binary tensors both ways."""
    tensor: dict[str, object] = {"name": "obs", "shape": [count, size], "datatype": "FP32"}
    rows = _rows(size)[:count]
    if not binary:
        tensor["data"] = [value for row in rows for value in row]
        return always(request("/v2/models/policy/infer", json.dumps({"inputs": [tensor]}).encode()))
    data = b"".join(struct.pack(f"<{size}f", *row) for row in rows)
    tensor["parameters"] = {"binary_data_size": len(data)}
    asked = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    head = json.dumps(asked).encode()
    length = f"Inference-Header-Content-Length: {len(head)}"
    return always(request("/v2/models/policy/infer", head + data, length))


class Episodes:
    """Episodes of `steps` steps, each with the token returned, and an outcome after the last."""

    def __init__(self, size: int, steps: int) -> None:
        self._observation = json.dumps(_numbers(size))
        self._steps, self._left = steps, 0
        self._name = ""

    def __call__(self, answer: bytes) -> bytes:
        token = _token(answer)
        if self._left == 0 and token is not None:
            said = f'{{"return": 1.5, "length": {self._steps}, "terminated": true, '
            said += f'"token": "{token}"}}'
            return request(f"/v1/episodes/{self._name}/outcome", said.encode())
        if self._left == 0:
            self._name, self._left, token = uuid.uuid4().hex, self._steps, None
        self._left -= 1
        said = f'{{"observation": {self._observation}, "episode_id": "{self._name}"'
        said += f', "token": "{token}"}}' if token else "}"
        return request("/v1/act", said.encode())


def _token(answer: bytes) -> str | None:
    """The token in an answer, found without parsing it."""
    _, found, rest = answer.partition(b'"token":"')
    return rest[: rest.index(b'"')].decode() if found else None


def _numbers(size: int) -> list[float]:
    return _rows(size)[0]


def _rows(size: int) -> list[list[float]]:
    """Observations of a client: float32 values, written with as many digits as they need."""
    drawn = np.random.default_rng(0).normal(size=(BATCH, size)).astype(np.float32)
    return [[float(str(value)) for value in row] for row in drawn]
