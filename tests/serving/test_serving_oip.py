"""The Open Inference Protocol: by hand, and by a public client that knows nothing of us."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from serving import tensors
from serving.app import create_app
from serving.limits import Limits

URL = "/v2/models/policy/infer"


def tensor(**more: Any) -> dict[str, Any]:
    data = [0, 0, -1, 0, 0, 0, 1, 0]
    return {"name": "obs", "shape": [2, 4], "datatype": "FP32", "data": data, **more}


@pytest.fixture(scope="module")
def client(shared_home: Any) -> Iterator[TestClient]:
    app = create_app(shared_home.settings, Limits(batch=64))
    with TestClient(app, raise_server_exceptions=False) as opened:
        yield opened


def test_it_answers_as_the_protocol_says(client: TestClient) -> None:
    request = {"id": "42", "inputs": [tensor()], "outputs": [{"name": "action"}]}
    answer = client.post(URL, content=json.dumps(request))
    assert answer.status_code == 200
    assert answer.json() == {
        "model_name": "policy",
        "model_version": "1",
        "id": "42",
        "outputs": [{"name": "action", "shape": [2], "datatype": "INT64", "data": [0, 1]}],
    }
    assert answer.headers["x-route"] == "champion"
    nested = {"inputs": [tensor(data=[[0, 0, -1, 0], [0, 0, 1, 0]])]}
    again = client.post("/v2/models/policy/versions/1/infer", json=nested)
    assert again.json()["outputs"] == answer.json()["outputs"]
    assert "id" not in again.json()


def test_metadata_says_what_goes_in_and_comes_out(client: TestClient) -> None:
    found = client.get("/v2").json()
    assert found["extensions"] == ["binary_tensor_data", "model_repository"]
    assert found["models"] == ["policy"]
    assert client.get("/v2/models/policy").json() == {
        "name": "policy",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "obs", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "action", "datatype": "INT64", "shape": [-1]}],
    }
    for path in ("health/live", "health/ready", "models/policy/ready"):
        assert client.get(f"/v2/{path}").status_code == 200
    assert client.get("/v2/models/policy/versions/1/ready").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/policy/versions/2", 404),
        ("GET", "/v2/models/policy/versions/2/ready", 404),
        ("POST", "/v2/models/policy/versions/2/infer", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/policy/infer", 405),
    ],
)
def test_what_is_not_served_is_404_with_an_error_alone(
    client: TestClient, method: str, path: str, status: int
) -> None:
    body = json.dumps({"inputs": [tensor()]}) if method == "POST" else None
    answer = client.request(method, path, content=body)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}


def test_a_version_that_only_passed_is_not_served(home: Any) -> None:
    home.first()
    version = home.approved(bias=1.0)
    with TestClient(create_app(home.settings)) as client:
        path = f"/v2/models/policy/versions/{version}/infer"
        answer = client.post(path, json={"inputs": [tensor()]})
        assert answer.status_code == 404
        assert "one that is served now" in answer.json()["error"]


def test_before_the_first_champion_it_is_not_ready(home: Any) -> None:
    with TestClient(create_app(home.settings)) as client:
        for answer in (
            client.get("/v2/health/ready"),
            client.get("/v2/models/policy/ready"),
            client.post(URL, json={"inputs": [tensor()]}),
        ):
            assert answer.status_code == 503
            assert "there is no champion yet" in answer.json()["error"]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "inputs: expected to be given"),
        ({"inputs": []}, "inputs: expected one tensor, 'obs'"),
        ({"inputs": [tensor(), tensor()]}, "inputs: expected one tensor"),
        ({"inputs": [tensor(name="x")]}, "inputs: expected one tensor, 'obs', got ['x']"),
        ({"inputs": [tensor(datatype="FP64")]}, "inputs[0].datatype: expected FP32"),
        ({"inputs": [tensor(shape=[8])]}, "inputs[0].shape: expected [n, 4]"),
        ({"inputs": [tensor(shape=[4, 2])]}, "inputs[0].shape"),
        ({"inputs": [tensor(shape=[0, 4], data=[])]}, "inputs[0].shape"),
        ({"inputs": [tensor(shape=[-1, 4])]}, "inputs[0].shape[0]"),
        ({"inputs": [tensor(shape=[65, 4])]}, "at most 64 observations"),
        ({"inputs": [tensor(shape=[3, 4])]}, "inputs[0].data: expected 12 numbers, got 8"),
        ({"inputs": [tensor(data=[[0, 0, 0, 0]])]}, "inputs[0].data: expected 2 rows, got 1"),
        ({"inputs": [tensor(data=[[0], [0]])]}, "inputs[0].data[0]: expected 4 numbers, got [0]"),
        ({"inputs": [tensor(data=None)]}, "inputs[0].data: expected 8 numbers, got 0"),
        ({"inputs": [tensor(data=["0"] * 8)]}, "inputs[0].data[0]: expected a number"),
        ({"inputs": [tensor(data=[float("nan")] * 8)]}, "finite"),
        ({"inputs": [tensor(data=[1e300] * 8)]}, "float32"),
        ({"inputs": [tensor()], "outputs": [{"name": "logits"}]}, "outputs: expected only"),
        ({"inputs": [tensor(parameters={"binary_data_size": 32})]}, "none beside binary data"),
        (
            {"inputs": [tensor(data=None, parameters={"binary_data_size": 32})]},
            "binary data: expected 32 bytes, got 0",
        ),
        (
            {"inputs": [tensor(data=None, parameters={"binary_data_size": 31})]},
            "binary_data_size: expected 32, got 31",
        ),
    ],
)
def test_a_bad_request_is_refused_in_words(client: TestClient, request_: Any, words: str) -> None:
    answer = client.post(URL, content=json.dumps(request_))
    assert answer.status_code in (400, 413, 422)
    assert set(answer.json()) == {"error"}
    assert words in answer.json()["error"]


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "999999", "٣"])
def test_a_bad_head_length_is_refused(client: TestClient, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length.encode()}
    answer = client.post(URL, content=b"{}", headers=headers)
    assert answer.status_code == 400


def test_binary_input_that_is_not_finite_is_refused(client: TestClient) -> None:
    binary = np.array([[0, 0, np.nan, 0]], "<f4").tobytes()
    said = tensor(shape=[1, 4], parameters={"binary_data_size": 16})
    del said["data"]
    head = json.dumps({"inputs": [said]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = client.post(URL, content=head + binary, headers=headers)
    assert answer.status_code == 422
    assert "finite" in answer.json()["error"]
    squeezed = client.post(URL, content=b"", headers={"Content-Encoding": "br"})
    assert squeezed.status_code == 415


def test_an_episode_may_be_named_here_too(home: Any) -> None:
    home.first()
    with TestClient(create_app(home.settings)) as client:
        request: dict[str, Any] = {"inputs": [tensor()], "parameters": {"episode_id": "e1"}}
        token = client.post(URL, json=request).json()["parameters"]["token"]
        request["parameters"] = {"episode_id": "e1", "token": token}
        token = client.post(URL, json=request).json()["parameters"]["token"]
        post = {"return": 1.0, "token": token, "terminated": True}
        assert client.post("/v1/episodes/e1/outcome", json=post).status_code == 200


@pytest.mark.services
def test_a_public_client_works_unmodified(home: Any, running: Any) -> None:
    http = pytest.importorskip("tritonclient.http")
    home.first(flip=True)
    with running(home) as (url, _):
        client = http.InferenceServerClient(url.removeprefix("http://"))
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("policy")
        assert client.get_model_metadata("policy")["inputs"][0]["shape"] == [-1, 4]
        batch = np.array([[0, 0, 1, 0], [0, 0, -1, 0], [0, 0, 2, 0]], np.float32)
        for binary in (True, False):
            given = http.InferInput("obs", [3, 4], "FP32")
            given.set_data_from_numpy(batch, binary_data=binary)
            wanted = http.InferRequestedOutput("action", binary_data=True)
            for outputs in (None, [wanted]):
                result = client.infer("policy", [given], outputs=outputs, request_id="7")
                assert result.as_numpy("action").tolist() == [0, 1, 0]
                assert result.get_response()["id"] == "7"
        given = http.InferInput("obs", [1, 3], "FP32")
        given.set_data_from_numpy(np.zeros((1, 3), np.float32))
        with pytest.raises(Exception, match=r"expected \[n, 4\]"):
            client.infer("policy", [given])
        client.close()


def test_what_every_client_sends_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are looked at again only where one may be there twice."""
    looked: list[bytes] = []
    monkeypatch.setattr(tensors, "check_keys", looked.append)
    one = {"name": "obs", "shape": [1, 1], "datatype": "FP32"}
    body: dict[str, Any] = {"id": "1", "inputs": [{**one, "data": [0.5]}]}
    wanted = {"name": "action", "parameters": {"binary_data": True}}
    for more in ({}, {"outputs": [{"name": "action"}]}, {"outputs": [wanted]}):
        tensors.read(json.dumps({**body, **more}).encode())
    body["inputs"] = [{**one, "parameters": {"binary_data_size": 4}}]
    tensors.read(json.dumps({**body, "outputs": [wanted]}).encode())
    assert looked == []
    tensors.read(b'{"inputs": [], "inputs": []}')
    assert len(looked) == 1
