"""JSON at the edges (vast integers, deep lists, lone surrogates) is answered, never with a 500."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.limits import Limits
from serving.schemas import BadRequest, shown
from tests.serving.conftest import Home, maker
from tests.serving.test_native_observations import SIZE, interface, jsonable, samples

ACT, BATCH, INFER = "/v1/act", "/v1/act/batch", "/v2/models/policy/infer"
SURROGATE = rb'"\ud800"'
DEEP = b"[" * 800 + b"NaN" + b"]" * 800
#: Beyond 64 bits, but a number within float32; beyond float64; of more digits than Python reads.
LARGE, VAST, ENDLESS = b"1" + b"0" * 20, b"1" + b"0" * 400, b"1" * 5000
ODD = [
    LARGE, b"-" + LARGE, VAST, b"-" + VAST, ENDLESS, DEEP, b"[" * 990 + b"]" * 990, SURROGATE,
    b"1e400", b"NaN", b'{"\\ud800":1}', b'{"\\ud800":1,"\\ud800":2}', b"null",
]  # fmt: skip


@pytest.fixture(scope="module")
def client(shared_home: Any) -> Iterator[TestClient]:
    app = create_app(shared_home.settings, Limits(body_bytes=100_000, batch=64))
    with TestClient(app, raise_server_exceptions=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("native")
    home = Home(folder / "home", maker(folder))
    home.first(more=SIZE - 4, interface=interface())
    app = create_app(home.settings, Limits(body_bytes=100_000, batch=64))
    with TestClient(app, raise_server_exceptions=False) as opened:
        yield opened
    home.ledger.close()


def tensor(rows: bytes, count: int = 2) -> bytes:
    head = b'{"inputs":[{"name":"obs","shape":[%d,4],"datatype":"FP32","data":' % count
    return head + rows + b"}]}"


def placed(odd: bytes) -> Iterator[tuple[str, bytes]]:
    """Bodies that hold an odd value at each place that a client may fill."""
    row = b"[" + odd + b",0,0,0]"
    yield ACT, odd
    yield ACT, b'{"observation":' + row + b"}"
    for name in (SURROGATE, b'"[' + ENDLESS + b']"', b'"a\\nb"'):
        yield ACT, b'{"observation":[1,2],' + name + b":" + odd + b"}"
        yield ACT, b'{"observation":[1,2],' + name + b":1," + name + b":" + odd + b"}"
    for name in (b"episode_id", b"token"):
        yield ACT, b'{"observation":[0,0,0,0],"' + name + b'":' + odd + b"}"
        more = b',"parameters":{"' + name + b'":' + odd + b"}}"
        yield INFER, tensor(b"[0,0,0,0]", 1)[:-1] + more
    yield ACT, b'{"observations":{' + SURROGATE + b":" + row + b"}}"
    yield BATCH, odd
    yield BATCH, b'{"observations":' + odd + b"}"
    yield BATCH, b'{"observations":[' + row + b"," + row + b"]}"
    yield BATCH, b'{"forms":{"1":[' + row + b"]}}"
    yield INFER, odd
    yield INFER, tensor(b"[" + row + b"," + row + b"]")
    yield INFER, tensor(b"[" + row[1:-1] + b"," + row[1:-1] + b"]")
    yield INFER, tensor(row, 1)
    yield INFER, tensor(odd)
    yield INFER, tensor(b"[0,0,0,0]", 1).replace(b"[1,4]", b"[1," + odd + b"]")
    for name in (b"id", b"outputs", b"x"):
        yield INFER, tensor(b"[0,0,0,0]", 1)[:-1] + b',"' + name + b'":' + odd + b"}"
    yield "/v1/episodes/e/outcome", odd
    yield "/v1/episodes/e/outcome", b'{"terminated":true,"return":' + odd + b"}"


def native_bodies(odd: bytes) -> Iterator[tuple[str, bytes]]:
    """The same for parts of an observation in an environment's own form."""
    good = jsonable(samples(1)[0])
    arrays: list[tuple[str, Any]] = [(name, "ODD") for name in good]
    arrays += [("camera", [[["ODD"]] * 3] * 2), ("pair", [["ODD", 0.0], 0])]
    arrays += [("camera", {"b64": "AAAA", "shape": "ODD", "dtype": "u1"})]
    arrays += [("camera", {"b64": "AAAA", "shape": [1], "dtype": "ODD"})]
    for name, value in arrays:
        text = json.dumps({**good, name: value}).encode().replace(b'"ODD"', odd)
        yield ACT, b'{"observation":' + text + b"}"
        yield BATCH, b'{"observations":[' + text + b"," + text + b"]}"
    for name in good:
        part = b'{"inputs":[{"name":"%b","shape":[1],"datatype":"FP32","data":[' % name.encode()
        yield INFER, part + odd + b"]}]}"


def check(client: TestClient, path: str, body: bytes) -> None:
    answer = client.post(path, content=body)
    assert answer.status_code in (200, 400, 404, 413, 422), (path, body[:200], answer.text)
    if answer.status_code != 200:
        text = answer.json()["error"]
        assert 10 < len(text) < 1500, (path, body[:200], text)


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_an_odd_value_is_answered_wherever_it_stands(
    client: TestClient, native: TestClient, odd: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for path, body in placed(odd):
        check(client, path, body)
    for path, body in native_bodies(odd):
        check(native, path, body)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_an_integer_beyond_64_bits_is_a_number_everywhere(
    client: TestClient, native: TestClient
) -> None:
    row = b"[0,0," + LARGE + b",0]"
    assert client.post(ACT, content=b'{"observation":' + row + b"}").json()["action"] == 1
    batch = client.post(BATCH, content=b'{"observations":[' + row + b"," + row + b"]}")
    assert batch.json()["actions"] == [1, 1]
    for rows in (b"[" + row + b"," + row + b"]", b"[" + row[1:-1] + b"," + row[1:-1] + b"]"):
        answer = client.post(INFER, content=tensor(rows))
        assert answer.json()["outputs"][0]["data"] == [1, 1]
    text = json.dumps({**jsonable(samples(1)[0]), "pair": [["ODD", 0.5], 0]}).encode()
    body = b'{"observation":' + text.replace(b'"ODD"', LARGE) + b"}"
    assert native.post(ACT, content=body).status_code == 200


def test_an_integer_beyond_float64_is_refused_everywhere(
    client: TestClient, native: TestClient
) -> None:
    row = b"[0,0,-" + VAST + b",0]"
    for path, body in (
        (ACT, b'{"observation":' + row + b"}"),
        (BATCH, b'{"observations":[' + row + b"," + row + b"]}"),
        (INFER, tensor(b"[" + row + b"," + row + b"]")),
        (INFER, tensor(row, 1)),
    ):
        answer = client.post(path, content=body)
        assert answer.status_code == 422, (path, answer.text)
        assert "[2]: expected a " in answer.json()["error"]
    flat = b'{"observation":[' + VAST + b",0" * (SIZE - 1) + b"]}"
    assert native.post(ACT, content=flat).status_code == 422


@pytest.mark.parametrize(
    ("given", "length"), [("9" * 5000, 400), ("١", 400), ("9" * 15, 400), ("0" * 12, 400)]
)
def test_a_head_s_length_of_many_digits_is_refused(
    client: TestClient, given: str, length: int
) -> None:
    headers = {"Inference-Header-Content-Length": given.encode()}
    answer = client.post(INFER, content=tensor(b"[0,0,0,0]", 1), headers=headers)
    assert answer.status_code == length


def test_what_the_refusals_of_odd_bodies_say(client: TestClient) -> None:
    def said(path: str, body: bytes) -> str:
        return str(client.post(path, content=body).json()["error"])

    twice = said(ACT, b'{"observation":[1,2],' + SURROGATE + b":1," + SURROGATE + b":1}")
    assert twice == r"\ud800: expected to be given once, got the same key again"
    named = said(ACT, b'{"observation":[1,2],' + SURROGATE + b":NaN}")
    assert named == r"\ud800: expected a finite number, got nan"
    deep = said(INFER, tensor(DEEP, 1))
    assert deep.startswith("inputs[0].data[0][0]")
    assert deep.endswith("expected a finite number, got nan")
    assert "an integer of too many digits" in said(INFER, tensor(b"[" + ENDLESS + b"]", 1))


def test_a_refusal_is_short_and_can_be_sent() -> None:
    error = BadRequest(422, "x" * 10_000, "a number", "\ud800")
    assert len(error.body["error"].encode()) < 1000
    assert error.body["got"] == r"\ud800"
    assert len(BadRequest.said(422, "x", "y" * 10_000).body["error"]) == 500
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert shown(nested) == "one with too many levels or digits"
    assert shown(10**5000) == "one with too many levels or digits"
