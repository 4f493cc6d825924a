"""A network that keeps a state: its memory travels in the episode's token, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fastapi.testclient import TestClient
from onnx import TensorProto, helper, numpy_helper

from serving.app import create_app
from serving.limits import Limits
from serving.registry.records import Who
from srghn.candidates.candidate import Candidate, OnnxPolicy
from srghn.files import canonical_json, sha256_file
from tests.serving.conftest import Home, write_candidate
from tests.serving.test_serving_episodes import wait_for

ONE = [1.0, 0.0, 0.0, 0.0]


def counting(folder: Path) -> Candidate:
    """Adds up what it observes; its action is 1 from a sum of 2.5 on."""
    write_candidate(folder)
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["obs", "ones"], ["seen"]),
            helper.make_node("Add", ["state", "seen"], ["next_state"]),
            helper.make_node("Greater", ["next_state", "least"], ["over"]),
            helper.make_node("Cast", ["over"], ["number"], to=TensorProto.INT64),
            helper.make_node("Squeeze", ["number", "axis"], ["action"]),
        ],
        "counting",
        [
            helper.make_tensor_value_info("obs", floats, ["batch", 4]),
            helper.make_tensor_value_info("state", floats, ["batch", 1]),
        ],
        [
            helper.make_tensor_value_info("action", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("next_state", floats, ["batch", 1]),
        ],
        [
            numpy_helper.from_array(np.ones((4, 1), np.float32), "ones"),
            numpy_helper.from_array(np.float32(2.5), "least"),
            numpy_helper.from_array(np.array([1]), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "policy.onnx")
    observations = np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)
    states = np.arange(8, dtype=np.float32).reshape(8, 1)
    actions, after = OnnxPolicy(folder / "policy.onnx").step(observations, states)
    golden = {"observations": observations, "actions": actions}
    golden |= {"states": states, "next_states": after}
    text = json.dumps({name: values.tolist() for name, values in golden.items()})
    (folder / "golden.json").write_text(text)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["policy_digest"] = sha256_file(folder / "policy.onnx")
    manifest["golden_digest"] = sha256_file(folder / "golden.json")
    (folder / "manifest.json").write_bytes(canonical_json(manifest))
    return Candidate.load(folder)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    home = Home(tmp_path / "home", lambda **_: counting(tmp_path / "counting"))
    home.first()
    with TestClient(create_app(home.settings), raise_server_exceptions=False) as opened:
        yield opened
    home.ledger.close()


def act(client: TestClient, **said: Any) -> dict[str, Any]:
    answer = client.post("/v1/act", json={"observation": ONE, **said})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_each_step_goes_on_from_the_last_ones_memory(client: TestClient) -> None:
    actions, token = [], None
    for _ in range(5):
        answer = act(client, episode_id="e", token=token)
        actions.append(answer["action"])
        token = answer["token"]
    assert actions == [0, 0, 1, 1, 1]


def test_a_step_sent_again_gets_the_same_action(client: TestClient) -> None:
    token = act(client, episode_id="e")["token"]
    second = act(client, token=token)
    assert second["action"] == 0
    assert [act(client, token=token)["action"] for _ in range(5)] == [0] * 5
    assert act(client, token=second["token"])["action"] == 1


def test_in_the_middle_of_an_episode_a_request_without_its_token_is_refused(
    client: TestClient,
) -> None:
    """It was answered as if the episode began, from a state of zeros."""
    token = act(client, episode_id="e")["token"]
    said = {"observation": ONE, "episode_id": "e"}
    tensor = {"name": "obs", "shape": [1, 4], "datatype": "FP32", "data": ONE}
    other = {"inputs": [tensor], "parameters": {"episode_id": "e"}}
    for path, body in (("/v1/act", said), ("/v2/models/policy/infer", other)):
        refused = client.post(path, json=body)
        assert refused.status_code == 422
        assert "the policy keeps a state from step to step" in refused.json()["error"]
    assert act(client, episode_id="e", token=token)["action"] == 0  # and it goes on with it


def test_outside_an_episode_each_observation_begins_anew(client: TestClient) -> None:
    assert [act(client)["action"] for _ in range(4)] == [0] * 4
    batch = client.post("/v1/act/batch", json={"observations": [ONE] * 4})
    assert batch.json()["actions"] == [0] * 4


def test_the_open_protocol_carries_it_too(client: TestClient) -> None:
    actions, parameters = [], {"episode_id": "v2"}
    for _ in range(4):
        tensor = {"name": "obs", "shape": [1, 4], "datatype": "FP32", "data": ONE}
        said = {"inputs": [tensor], "parameters": parameters}
        answer = client.post("/v2/models/policy/infer", json=said).json()
        actions += answer["outputs"][0]["data"]
        parameters = {"token": answer["parameters"]["token"]}
    assert actions == [0, 0, 1, 1]
    two = {"name": "obs", "shape": [2, 4], "datatype": "FP32", "data": ONE * 2}
    said = {"inputs": [two], "parameters": parameters}
    refused = client.post("/v2/models/policy/infer", json=said)
    assert refused.status_code == 422
    assert "keeps a state" in refused.json()["error"]


def test_a_worker_remembers_no_states(client: TestClient) -> None:
    """They may be large, and a caller could have it keep thousands of them."""
    token = client.post("/v1/act", json={"observation": ONE, "episode_id": "e"}).json()["token"]
    assert client.post("/v1/act", json={"observation": ONE, "token": token}).status_code == 200
    assert not client.app.state.service.default.episodes._sealed  # type: ignore[attr-defined]


def test_an_episode_keeps_its_state_after_a_rollback_to_a_version_without_any(
    tmp_path: Path,
) -> None:
    """It is continued by the version that it began with, whose state was not carried on."""

    def make(keeps: bool) -> Candidate:
        if keeps:
            return counting(tmp_path / "counting")
        return Candidate.load(write_candidate(tmp_path / "plain"))

    home = Home(tmp_path / "home", make)
    home.first(keeps=False)
    second = home.second(keeps=True)
    limits = Limits(poll_seconds=0.02, start_seconds=10, lock_seconds=10)
    with TestClient(create_app(home.settings, limits)) as client:
        answer = act(client, episode_id="e")
        assert answer["version"] == second
        home.ledger.rollback(who=Who("ann", "it fell"))
        wait_for(lambda: act(client)["version"] == 1)
        actions = [answer["action"]]
        for _ in range(4):
            answer = act(client, token=answer["token"])
            assert answer["version"] == second
            actions.append(answer["action"])
        assert actions == [0, 0, 1, 1, 1]
        for _ in range(2):  # others may begin without tokens, for the champion keeps no state
            assert act(client, episode_id="other")["version"] == 1
    home.ledger.close()
