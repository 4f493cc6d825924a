"""The public tritonclient, unmodified, over HTTP: every option that it has."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from copy import deepcopy
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest

from tests.serving.test_serving_process import ready, wait_for

http = pytest.importorskip("tritonclient.http")
pytestmark = pytest.mark.services

BATCH = np.array([[0, 0, 1, 0], [0, 0, -1, 0], [0, 0, 2, 0]], np.float32)
ACTIONS = [1, 0, 1]
#: Option of `infer` -> values of it. The test below says if the client has one that is not here.
OPTIONS: dict[str, list[Any]] = {
    "model_version": ["", "1"],
    "request_id": ["", "a-7"],
    "sequence_id": [0, 5, "walk"],
    "sequence_start": [False, True],
    "sequence_end": [False, True],
    "priority": [0, 3],
    "timeout": [None, 1_000_000],
    "headers": [None, {"X-Request-Id": "mine"}],
    "query_params": [None, {"from": "here", "n": 2}],
    "request_compression_algorithm": [None, "gzip", "deflate"],
    "response_compression_algorithm": [None, "gzip", "deflate"],
    "parameters": [None, {"plant": "7", "shift": 2, "night": True}],
}
#: Parts of Triton that are no part of the protocol: refused in the protocol's words.
OTHERS: dict[str, tuple[Any, ...]] = {
    "get_model_config": ("policy",),
    "get_inference_statistics": ("policy",),
    "get_trace_settings": ("policy",),
    "update_trace_settings": ("policy", {"trace_level": ["OFF"]}),
    "get_log_settings": (),
    "update_log_settings": ({"log_info": True},),
    "load_model": ("policy",),
    "unload_model": ("policy",),
    "get_system_shared_memory_status": (),
    "register_system_shared_memory": ("r", "/r", 16),
    "unregister_system_shared_memory": ("r",),
    "get_cuda_shared_memory_status": (),
    "register_cuda_shared_memory": ("r", b"handle", 0, 16),
    "unregister_cuda_shared_memory": ("r",),
}


@pytest.fixture(scope="module")
def url(shared_home: Any) -> Iterator[str]:
    from tests.serving.conftest import run_server

    with run_server(shared_home) as (found, _):
        wait_for(ready(found))
        yield found.removeprefix("http://")


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    opened = http.InferenceServerClient(url, concurrency=4)
    yield opened
    opened.close()


def given(binary: bool = True) -> list[Any]:
    tensor = http.InferInput("obs", list(BATCH.shape), "FP32")
    tensor.set_data_from_numpy(BATCH, binary_data=binary)
    return [tensor]


def test_every_option_of_infer_is_in_the_table() -> None:
    known = set(inspect.signature(http.InferenceServerClient.infer).parameters)
    assert known - {"self", "model_name", "inputs", "outputs"} == set(OPTIONS)
    own = {name for name in dir(http.InferenceServerClient) if not name.startswith("_")}
    plain = {"infer", "async_infer", "close", "generate_request_body", "parse_response_body"}
    plain |= {"is_model_ready", "is_server_live", "is_server_ready", "plugin", "register_plugin"}
    plain |= {"unregister_plugin", "get_model_metadata", "get_server_metadata"}
    assert own - plain - {"get_model_repository_index"} == set(OTHERS)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_infer(client: Any, option: str) -> None:
    for value in OPTIONS[option]:
        more = {"sequence_id": 5} if option.startswith("sequence_") else {}
        # the client writes into the headers that it is given
        result = client.infer("policy", given(), **{**more, option: deepcopy(value)})
        assert result.as_numpy("action").tolist() == ACTIONS, value
        assert result.get_response()["model_version"] == "1"
        if option == "request_id" and value:
            assert result.get_response()["id"] == value


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_tensors_in_both_forms(client: Any, binary_in: bool, binary_out: bool | None) -> None:
    wanted = None
    if binary_out is not None:
        wanted = [http.InferRequestedOutput("action", binary_data=binary_out)]
    result = client.infer("policy", given(binary_in), outputs=wanted)
    assert result.as_numpy("action").tolist() == ACTIONS
    assert result.as_numpy("action").dtype == np.int64
    assert result.get_output("action")["datatype"] == "INT64"


def test_all_options_at_once_in_both_forms(client: Any) -> None:
    options = {name: values[-1] for name, values in OPTIONS.items()}
    for binary in (True, False):
        wanted = [http.InferRequestedOutput("action", binary_data=binary)]
        result = client.infer("policy", given(binary), outputs=wanted, **deepcopy(options))
        assert result.as_numpy("action").tolist() == ACTIONS


def test_requests_at_once_and_bodies_made_apart(client: Any, url: str) -> None:
    pending = [client.async_infer("policy", given()) for _ in range(16)]
    assert [p.get_result().as_numpy("action").tolist() for p in pending] == [ACTIONS] * 16
    body, length = http.InferenceServerClient.generate_request_body(given())
    headers = {} if length is None else {"Inference-Header-Content-Length": str(length)}
    headers["Content-Type"] = "application/octet-stream"
    asked = Request(f"http://{url}/v2/models/policy/infer", body, headers)
    with urlopen(asked, timeout=10) as answer:
        said = answer.headers.get("Inference-Header-Content-Length")
        found = http.InferenceServerClient.parse_response_body(
            answer.read(), header_length=None if said is None else int(said)
        )
    assert found.as_numpy("action").tolist() == ACTIONS


def test_a_plugin_adds_headers(client: Any) -> None:
    from tritonclient.http.auth import BasicAuth

    client.register_plugin(BasicAuth("ann", "secret"))
    assert client.infer("policy", given()).as_numpy("action").tolist() == ACTIONS
    client.unregister_plugin()


def test_what_is_asked_about_the_server(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("policy", "1")
    assert not client.is_model_ready("policy", "2")
    assert client.get_server_metadata()["name"] == "srghn"
    assert client.get_model_metadata("policy", "1")["versions"] == ["1"]
    index = client.get_model_repository_index()
    assert [(one["name"], one["state"]) for one in index] == [("policy", "READY")]


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_part_of_the_protocol_is_refused_in_its_words(client: Any, name: str) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="/v2/"):
        getattr(client, name)(*OTHERS[name])


def test_classes_are_refused_not_ignored(client: Any) -> None:
    wanted = [http.InferRequestedOutput("action", class_count=2)]
    with pytest.raises(Exception, match="classification"):
        client.infer("policy", given(), outputs=wanted)


def test_shared_memory_is_refused(client: Any) -> None:
    tensor = http.InferInput("obs", list(BATCH.shape), "FP32")
    tensor.set_shared_memory("region", BATCH.nbytes)
    with pytest.raises(Exception, match="shared_memory"):
        client.infer("policy", [tensor])


def test_the_asyncio_client(url: str) -> None:
    from tritonclient.http import aio

    async def ask() -> list[Any]:
        async with aio.InferenceServerClient(url) as client:
            assert await client.is_server_ready()
            results = [await client.infer("policy", given(binary)) for binary in (True, False)]
            return [result.as_numpy("action").tolist() for result in results]

    assert asyncio.run(ask()) == [ACTIONS, ACTIONS]
