"""No body makes the server fail or guess: each is refused with field, expectation and what came."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.app import create_app
from serving.limits import Limits


@pytest.fixture(scope="module")
def client(shared_home: Any) -> Iterator[TestClient]:
    app = create_app(shared_home.settings, Limits(body_bytes=20_000, batch=64))
    with TestClient(app, raise_server_exceptions=False) as opened:
        yield opened


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, ["body", "JSON"]),
        (b"{", 400, ["body", "JSON"]),
        (b"[" * 10_000, 400, ["JSON"]),
        (b"\xff\xfe", 400, ["JSON"]),
        (b"[]", 422, ["body", "a JSON object"]),
        (b"{}", 422, ["observation", "to be given", "nothing"]),
        (b'{"observation": 3}', 422, ["observation", "a list", "3"]),
        (b'{"observation": [0, 0, NaN, 0]}', 422, ["observation[2]", "finite", "nan"]),
        (b'{"observation": [0, -Infinity, 0, 0]}', 422, ["observation[1]", "finite", "-inf"]),
        (b'{"observation": [0, 1e999, 0, 0]}', 422, ["observation[1]", "finite"]),
        (b'{"observation": [0, 1e39, 0, 0]}', 422, ["observation[1]", "float32", "1e+39"]),
        (b'{"observation": ["0", 0, 0, 0]}', 422, ["observation[0]", "a number", "'0'"]),
        (b'{"observation": ["nan", 0, 0, 0]}', 422, ["observation[0]", "a number"]),
        (b'{"observation": [true, 0, 0, 0]}', 422, ["observation[0]", "a number", "True"]),
        (b'{"observation": [null, 0, 0, 0]}', 422, ["observation[0]", "a number", "None"]),
        (b'{"observation": [[0], 0, 0, 0]}', 422, ["observation[0]", "a number", "[0]"]),
        (b'{"observation": [0, 0, 0]}', 422, ["observation", "4 numbers", "3"]),
        (b'{"observation": []}', 422, ["observation", "4 numbers", "0"]),
        (b'{"observation": [0,0,0,0], "temperature": 1}', 422, ["temperature", "no such field"]),
        (b'{"observation": [0,0,0,0], "episode_id": ""}', 422, ["episode_id"]),
        (b'{"observation": [0,0,0,0], "episode_id": "a b"}', 422, ["episode_id", "'a b'"]),
        (b'{"observation": [0,0,0,0], "episode_id": 7}', 422, ["episode_id", "a string"]),
        (b'{"observation": [' + b"0," * 20_000 + b"0]}", 413, ["body", "at most 20000 bytes"]),
    ],
)
def test_a_bad_observation_is_refused_in_words(
    client: TestClient, body: bytes, status: int, words: list[str]
) -> None:
    answer = client.post("/v1/act", content=body)
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert set(content) == {"error", "field", "expected", "got"}
    for word in words:
        assert word in content["error"]


@pytest.mark.parametrize(
    ("rows", "status", "words"),
    [
        ([], 422, "1 to 64 observations"),
        ([[0, 0, 0, 0]] * 65, 413, "1 to 64 observations in a batch, got 65"),
        ([[]] * 5000, 413, "1 to 64 observations in a batch, got 5000"),
        ([[[]]] * 60, 413, "1 to 64 observations in a batch"),
        ([[0, 0, 0, 0], [0, 0]], 422, "observations[1]: expected 4 numbers, got 2"),
        ([[0, 0, 0, 0], [0, 0, 0, 1e300]], 422, "observations[1][3]"),
        ([0, 0, 0, 0], 422, "observations[0]: expected a list, got 0"),
        ([[0, 0, 0, "x"]], 422, "observations[0][3]: expected a number, got 'x'"),
    ],
)
def test_a_bad_batch_is_refused_in_words(
    client: TestClient, rows: Any, status: int, words: str
) -> None:
    answer = client.post("/v1/act/batch", json={"observations": rows})
    assert answer.status_code == status
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"observation": [0,0,0,0], "observation": [0,0,1,0]}', "observation: expected to be"),
        (b'{"observation": [0,0,0,0], "\\u006fbservation": [0,0,1,0]}', "observation: expected to"),
        (b'{"episode_id": "a", "observation": [0,0,0,0], "episode_id": "b"}', "episode_id"),
    ],
)
def test_a_key_given_twice_is_refused(client: TestClient, body: bytes, words: str) -> None:
    answer = client.post("/v1/act", content=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    nested = {"inputs": [], "parameters": {}}
    text = json.dumps(nested).replace("{}", '{"x": 1, "x": 2}').encode()
    assert client.post("/v2/models/policy/infer", content=text).status_code == 400


def test_a_key_may_be_escaped_and_ignored_fields_may_stand_once(
    client: TestClient,
) -> None:
    escaped = b'{"\\u006fbservation": [0,0,0.1,0]}'
    assert client.post("/v1/act", content=escaped).json()["action"] == 1
    tensor = {"name": "obs", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 1, 0]}
    more = {"inputs": [tensor], "parameters": {"priority": 1, "note": {"a": [1]}}}
    assert client.post("/v2/models/policy/infer", json=more).status_code == 200


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_packed_body_is_unpacked_up_to_the_limit(client: TestClient, pack: Any) -> None:
    def post(body: bytes) -> Any:
        name = "gzip" if pack is gzip.compress else "deflate"
        return client.post("/v1/act", content=body, headers={"Content-Encoding": name})

    assert post(pack(b'{"observation": [0,0,0.1,0]}')).json()["action"] == 1
    bomb = pack(b'{"observation": [' + b" " * 10_000_000 + b"0,0,0,0]}")
    assert len(bomb) < 20_000
    assert post(bomb).status_code == 413
    assert post(b"not packed").status_code == 400
    assert post(pack(b"{}" * 50)[:-4]).status_code == 400


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/vnd.api+json", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
    ],
)
def test_a_body_that_says_it_is_no_json_is_refused(
    client: TestClient, kind: str, status: int
) -> None:
    body = b'{"observation": [0,0,0.1,0]}'
    answer = client.post("/v1/act", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    post = b'{"return": 1, "length": 1, "terminated": true}'
    outcome = client.post("/v1/episodes/x/outcome", content=post, headers={"Content-Type": kind})
    assert (outcome.status_code == 415) is (status == 415)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=JSON, raw=st.binary(max_size=40))
def test_no_body_makes_it_fail(client: TestClient, value: Any, raw: bytes) -> None:
    for content in (
        raw,
        json.dumps(value).encode(),
        json.dumps({"observation": value}).encode(),
        json.dumps({"observation": [0, 0, 0, 0], "episode_id": value}).encode(),
    ):
        assert client.post("/v1/act", content=content).status_code in (200, 400, 422)
    for content in (json.dumps({"return": value, "length": value, "terminated": value}), raw):
        answer = client.post("/v1/episodes/x/outcome", content=content)
        assert answer.status_code in (400, 404, 409, 422)


@pytest.mark.parametrize(
    ("post", "words"),
    [
        ({"return": "nan", "length": 1, "terminated": True}, "return: expected a number"),
        ({"return": 1, "length": 0, "terminated": True}, "length"),
        ({"return": 1, "length": 1.5, "terminated": True}, "length: expected an integer"),
        ({"return": 1, "length": 2**40, "terminated": True}, "length"),
        ({"return": 1, "length": 1, "terminated": 1}, "terminated: expected true or false"),
        ({"return": 1, "length": 1}, "terminated: expected to be given"),
        ({"return": 1, "terminated": True}, "token: expected the token of this episode's"),
        ({"return": 1, "terminated": True, "token": "AAAA"}, "it is too short"),
        ({"return": 1, "terminated": True, "token": "A" * 200}, "was not sealed here"),
        ({"return": 1, "terminated": True, "token": "é"}, "it is not base64"),
        ({"return": 1, "length": 1, "terminated": True, "version": 2}, "version: expected no such"),
    ],
)
def test_a_bad_outcome_is_refused_in_words(client: TestClient, post: Any, words: str) -> None:
    answer = client.post("/v1/episodes/e1/outcome", json=post)
    assert answer.status_code == 422
    assert words in answer.json()["error"]


def test_a_long_observation_is_counted_before_it_is_decoded(shared_home: Any) -> None:
    """Decoded, a zero of two bytes takes twenty times as much memory and time."""
    with TestClient(create_app(shared_home.settings, Limits(body_bytes=1_000_000))) as client:
        zeros = client.post("/v1/act", content=b'{"observation": [' + b"0," * 100_000 + b"0]}")
        assert zeros.status_code == 413
        assert zeros.json()["error"].endswith("got more commas or brackets than they have")
        spaced = b'{"observation": [0,0,0,0]' + b" " * 100_000 + b"}"
        assert client.post("/v1/act", content=spaced).status_code == 200
