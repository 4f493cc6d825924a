"""A long body costs no more than its length, and other requests are answered meanwhile."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving import calls, hot, tensors
from serving.app import create_app
from serving.aside import Room
from serving.calls import Call
from serving.explain import check_keys
from serving.limits import Limits
from serving.schemas import BadRequest
from serving.tensors import read
from srghn.envs.layout import Layout
from tests.serving.conftest import Home, maker
from tests.serving.test_native_observations import SIZE, interface, jsonable, samples

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
    assert answer.status_code in (413, 422)


@pytest.mark.parametrize(("count", "status"), [(1999, 400), (2001, 413)])
def test_ignored_fields_are_counted_before_they_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, count: int, status: int
) -> None:
    looked: list[bytes] = []
    real = tensors.check_keys
    monkeypatch.setattr(tensors, "check_keys", lambda body: looked.append(body) or real(body))
    with pytest.raises(BadRequest) as refused:
        read(b'{"inputs":[],"x":{' + different(count - 2) + b"}}")
    assert refused.value.status == status
    assert bool(looked) is (status == 400)


def noting(monkeypatch: pytest.MonkeyPatch, name: str, module: Any = hot) -> list[str]:
    """The names of the threads in which a function, of the hot path, runs from now on."""
    found: list[str] = []
    real: Callable[..., Any] = getattr(module, name)

    def noted(*arguments: Any, **options: Any) -> Any:
        found.append(threading.current_thread().name)
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, noted)
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


def test_a_long_observation_is_parsed_aside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = noting(monkeypatch, "read_act")
    for blanks in (0, 70_000):
        body = b'{"observation":[0,0,1,0]' + b" " * blanks + b"}"
        assert client.post("/v1/act", content=body).json()["action"] == 1
    assert [name.startswith("parsing") for name in where] == [False, True]


def test_a_long_native_observation_is_read_aside(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home", maker(tmp_path))
    home.first(more=SIZE - 4, interface=interface())
    where: list[str] = []
    flatten = Layout.flatten

    def noted(self: Layout, observation: Any) -> Any:
        where.append(threading.current_thread().name)
        return flatten(self, observation)

    with TestClient(create_app(home.settings, Limits(body_bytes=1_000_000))) as client:
        monkeypatch.setattr(Layout, "flatten", noted)
        for blanks in (0, 70_000):
            body = json.dumps({"observation": jsonable(samples(1)[0])}).encode()
            answer = client.post("/v1/act", content=body + b" " * blanks)
            assert answer.status_code == 200, answer.text
    assert [name.startswith("parsing") for name in where] == [False, True]
    home.ledger.close()


def test_what_is_long_when_unpacked_is_unpacked_aside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = noting(monkeypatch, "unpack", calls)
    for blanks in (0, 200_000):
        body = gzip.compress(b'{"observation":[0,0,1,0]' + b" " * blanks + b"}")
        headers = {"Content-Encoding": "gzip"}
        assert client.post("/v1/act", content=body, headers=headers).json()["action"] == 1
    assert [name.startswith("parsing") for name in where] == [False, False, True]


def test_what_is_long_while_packed_is_unpacked_aside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of nothing take all the time of unpacking, and none of the room."""
    where = noting(monkeypatch, "unpack", calls)
    packed = zlib.compress(b'{"observation":[0,0,1,0]}')
    body = packed[:2] + b"\0\0\0\xff\xff" * 2000 + packed[2:]
    headers = {"Content-Encoding": "deflate"}
    assert client.post("/v1/act", content=body, headers=headers).json()["action"] == 1
    assert [name.startswith("parsing") for name in where] == [True]


def test_a_body_is_at_most_16_mib_or_one_observation() -> None:
    most = 4096 + 16 * 2**20
    assert Limits().of_body(4096, 4) == 4096 + 4096 * (2 + 4 * 28)  # as many as a batch may have
    assert Limits().of_body(4096, 84 * 84 * 3) == most
    assert Limits().fitting(84 * 84 * 3) == 28
    assert Limits().of_body(4096, 2_000_000) == Limits().of_body(1, 2_000_000) > most
    assert Limits().fitting(2_000_000) == 1
    assert Limits().fitting(4) == 4096
    assert Limits(body_bytes=10**9).of_body(4096, 84 * 84 * 3) == 10**9
    assert Limits(body_bytes=10**9).small_body == 65_536


def test_a_refused_long_body_says_how_many_observations_fit(home: Any) -> None:
    home.first(more=3000)
    with TestClient(create_app(home.settings)) as client:
        for path in ("/v1/act/batch", INFER):
            answer = client.post(path, content=b" " * (17 * 2**20))
            assert answer.status_code == 413
            assert "199 observations of 3004 numbers always fit" in answer.json()["error"]
            assert "SRGHN_LIMIT_BODY_BYTES" in answer.json()["error"]


def test_a_worker_holds_only_so_many_bytes_of_long_bodies(shared_home: Any) -> None:
    limits = Limits(buffered_bytes=300_000)
    app = create_app(shared_home.settings, limits)
    with TestClient(app, raise_server_exceptions=False) as client:
        room = app.state.service.room
        good = b'{"observations":[[0,0,1,0]]' + b" " * 200_000 + b"}"
        packed = {"content": gzip.compress(good), "headers": {"Content-Encoding": "gzip"}}

        def asked() -> list[int]:
            answers = [
                client.post("/v1/act/batch", content=good),
                client.post("/v1/act/batch", **packed),
                client.post("/v1/act/batch", content=good[:-2]),  # no JSON
                client.post("/v1/act/batch", content=b" " * 500_000),  # too long
                client.post("/v1/act", json={"observation": [0, 0, 1, 0]}),
            ]
            for answer in answers:
                if answer.status_code == 503:
                    assert answer.headers["retry-after"] == "1"
                    assert "at most 300000 bytes in all at once" in answer.json()["error"]
            return [answer.status_code for answer in answers]

        assert asked() == [200, 200, 400, 413, 200]
        assert room.left == 300_000
        room.take(150_000)  # by others
        assert asked() == [503, 503, 503, 413, 200]
        room.give(150_000)
        assert room.left == 300_000
        assert asked() == [200, 200, 400, 413, 200]


def test_a_body_that_arrives_in_parts_takes_room_for_each() -> None:
    room, parts = Room(100_000), [b"x" * 40_000] * 3

    async def receive() -> Any:
        return {"type": "http.request", "body": parts.pop(), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        raise AssertionError

    async def read() -> None:
        call = Call({"type": "http", "headers": []}, receive, send, "/v1/act", room)
        with pytest.raises(BadRequest) as refused:
            await call.body(1_000_000)
        assert refused.value.status == 503
        assert room.left == 20_000
        call.release()
        assert room.left == 100_000

    asyncio.run(read())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"inputs":[]' + b" " * 70_000, "truncated"),
        (b'{"inputs":' + b" " * 70_000 + b"x", "malformed"),
        (b'{"x":' + b"[" * 70_000, "too many levels"),
        (b'{"inputs":[],"id":"' + b"\xff" * 70_000 + b'"}', "not UTF-8"),
    ],
)
def test_a_long_body_that_is_no_json_is_called_so(body: bytes, words: str) -> None:
    with pytest.raises(BadRequest, match=f"^body: expected JSON, got .*{words}") as refused:
        read(body)
    assert refused.value.status == 400
