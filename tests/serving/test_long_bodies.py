"""A long body costs no more than its length, and other requests are answered meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving import hot
from serving.app import create_app
from serving.explain import check_keys
from serving.limits import Limits
from serving.schemas import BadRequest

INFER = "/v2/models/policy/infer"


@pytest.fixture(scope="module")
def client(shared_home: Any) -> Iterator[TestClient]:
    app = create_app(shared_home.settings, Limits(body_bytes=4_000_000))
    with TestClient(app, raise_server_exceptions=False) as opened:
        yield opened


def different(count: int) -> bytes:
    """So many different keys, and the last of them again."""
    keys = [b'"k%d":0' % n for n in range(count)]
    return b",".join([*keys, keys[-1]])


@pytest.mark.parametrize("before", [b"", b'"inputs":[],'])
def test_many_different_keys_are_looked_at_once_each(before: bytes) -> None:
    body = b"{" + before + different(60_000) + b"}"
    begun = time.monotonic()
    with pytest.raises(BadRequest, match="k59999: expected to be given once"):
        check_keys(body)
    assert time.monotonic() - begun < 5  # it took a minute


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/act/batch", b'{"observations":[[0,0,0,0]],' + different(30_000) + b"}"),
        (INFER, b'{"inputs":[],"parameters":{' + different(30_000) + b"}}"),
    ],
)
def test_a_body_of_many_keys_is_refused_soon(client: TestClient, path: str, body: bytes) -> None:
    begun = time.monotonic()
    answer = client.post(path, content=body)
    assert time.monotonic() - begun < 5
    assert answer.status_code in (400, 422)


def noting(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """The names of the threads in which a function of the hot path runs from now on."""
    found: list[str] = []
    real: Callable[..., Any] = getattr(hot, name)

    def noted(*arguments: Any, **options: Any) -> Any:
        found.append(threading.current_thread().name)
        return real(*arguments, **options)

    monkeypatch.setattr(hot, name, noted)
    return found


def test_the_long_json_before_binary_data_is_parsed_aside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = noting(monkeypatch, "read")
    tensor = {"name": "obs", "shape": [1, 4], "datatype": "FP32"}
    request = {"inputs": [{**tensor, "parameters": {"binary_data_size": 16}}]}
    for note in ("", " " * 70_000):
        head = json.dumps(request).encode() + note.encode()
        answer = client.post(
            INFER,
            content=head + bytes(16),
            headers={"Inference-Header-Content-Length": str(len(head))},
        )
        assert answer.status_code == 200, answer.text
    assert where[1].startswith("parsing")
    assert not where[0].startswith("parsing")
