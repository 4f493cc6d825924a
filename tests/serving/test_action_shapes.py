"""Actions in the shape of the environment's space, in every API: what it takes, it is given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium as gym
import jsonschema
import numpy as np
import pytest
from fastapi.testclient import TestClient
from gymnasium import spaces

from serving.app import create_app
from serving.control.copies import Answer, compared
from serving.control.loading import ready
from serving.trial.rules import GuardTerms
from srghn.candidates.candidate import Candidate
from srghn.candidates.freeze import freeze
from srghn.config import NetworkParams
from srghn.envs.spaces import read_interface
from srghn.errors import ArtefactError
from srghn.graph.frozen import evolved_size
from srghn.networks import build_network
from tests.serving.conftest import Home

SPACES: dict[str, gym.Space[Any]] = {
    "matrix": spaces.Box(-2, 2, (2, 3), np.float32),
    "matrix, with memory": spaces.Box(-np.inf, np.inf, (2, 3), np.float64),
    "number": spaces.Box(-np.inf, np.inf, (), np.float32),
    "vector": spaces.Box(-1, 1, (3,), np.float32),
    "choices": spaces.MultiDiscrete([[3, 2], [2, 4]], start=[[0, 1], [2, 0]]),
    "choice": spaces.Discrete(3, start=1),
}
SEEN = np.random.default_rng(5).normal(size=(8, 4)).astype(np.float32)
URL = "/v2/models/policy/infer"


class World(gym.Env[Any, Any]):
    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)

    def __init__(self, space: gym.Space[Any]) -> None:
        self.action_space = space


@pytest.fixture(scope="module", params=SPACES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def candidate(name: str, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """One for that space, frozen from a torch network."""
    interface = read_interface(World(SPACES[name]), "world")
    module = "srghn.policies:GRU" if "memory" in name else "srghn.policies:MLP"
    kwargs: dict[str, Any] = {"width": 2} if "memory" in name else {"hidden": [4]}
    network = build_network(NetworkParams(module=module, kwargs=kwargs), interface)
    generator = np.random.default_rng(1)
    return freeze(
        tmp_path_factory.mktemp("made") / "candidate",
        network=network,
        weights=generator.normal(size=evolved_size(network)).astype(np.float32),
        genome=np.zeros(3, np.float32),
        interface=interface,
        env_version=json.dumps({"fingerprint": "e" * 64, "modes": ["normal"]}),
        ancestry="{}",
        observations=SEEN,
        manifest={
            "name": "world",
            "run_id": "run",
            "generation": 1,
            "mode": "normal",
            "env_fingerprint": "e" * 64,
        },
    )


@pytest.fixture(scope="module")
def client(candidate: Candidate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    home = Home(tmp_path_factory.mktemp("home"), lambda **_: candidate)
    home.first()
    with TestClient(create_app(home.settings), raise_server_exceptions=False) as opened:
        yield opened
    home.ledger.close()


def test_each_api_gives_actions_in_the_shape_of_the_space(
    client: TestClient, candidate: Candidate, name: str
) -> None:
    space, flat = SPACES[name], candidate.golden[1]
    expected = flat.reshape(len(SEEN), *space.shape).tolist()
    said = client.get("/openapi.json").json()["paths"]["/v1/act"]["post"]["responses"]["200"]
    for number, seen in enumerate(SEEN.tolist()):
        for body in ({}, {"episode_id": f"e-{number}"}):
            answer = client.post("/v1/act", json={"observation": seen, **body}).json()
            jsonschema.validate(answer, said["content"]["application/json"]["schema"])
            np.testing.assert_allclose(answer["action"], expected[number], rtol=0, atol=1e-5)
            assert np.shape(answer["action"]) == space.shape
            taken = np.array(answer["action"], space.dtype)
            assert space.contains(int(taken) if isinstance(space, spaces.Discrete) else taken)
    batch = client.post("/v1/act/batch", json={"observations": SEEN.tolist()}).json()
    np.testing.assert_allclose(batch["actions"], expected, rtol=0, atol=1e-5)
    assert np.shape(batch["actions"]) == (len(SEEN), *space.shape)


def test_the_protocol_says_the_shape_and_lists_the_numbers_in_order(
    client: TestClient, candidate: Candidate, name: str
) -> None:
    shape, flat = SPACES[name].shape, candidate.golden[1]
    (output,) = client.get("/v2/models/policy").json()["outputs"]
    assert output["shape"] == [-1, *shape]
    for rows in (SEEN, SEEN[:1]):
        tensor = {"name": "obs", "shape": [len(rows), 4], "datatype": "FP32", "data": rows.tolist()}
        (given,) = client.post(URL, json={"inputs": [tensor]}).json()["outputs"]
        assert given["shape"] == [len(rows), *shape]
        np.testing.assert_allclose(given["data"], flat[: len(rows)].ravel(), rtol=0, atol=1e-5)
        wanted = {"binary_data_output": True}
        answer = client.post(URL, json={"inputs": [tensor], "parameters": wanted})
        head = int(answer.headers["inference-header-content-length"])
        (told,) = json.loads(answer.content[:head])["outputs"]
        assert told["shape"] == given["shape"]
        kind = "<i8" if given["datatype"] == "INT64" else "<f4"
        data = np.frombuffer(answer.content[head:], kind)
        np.testing.assert_array_equal(data, np.array(given["data"], kind))


def test_copies_of_requests_are_compared_in_that_shape(candidate: Candidate) -> None:
    """A shadow's and a canary's answers: alike with themselves, different from others."""
    found = ready(candidate, 1)
    answers = [Answer(found.step_one(seen, b"")[0], "", 0.001) for seen in SEEN.tolist()]
    pairs = [(one, two) for one in answers for two in answers]
    seen = [compared(one, two, found.actions, GuardTerms()).differed for one, two in pairs]
    assert not any(seen[:: len(answers) + 1])
    assert any(seen)


def test_actions_of_another_size_than_the_interface_says_are_refused(
    candidate: Candidate, name: str
) -> None:
    interface = {**candidate.manifest["interface"], "action_shape": [7]}
    changed = replace(candidate, manifest={**candidate.manifest, "interface": interface})
    with pytest.raises(ArtefactError, match=r"actions of shape \(7,\), its golden outputs \("):
        ready(changed, 1)
