"""Observations as an environment gives them: over HTTP, in every API, beside the flat vector."""

from __future__ import annotations

import base64
import json
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import httpx
import jsonschema
import numpy as np
import pytest
from fastapi.testclient import TestClient
from gymnasium import spaces

from serving.app import create_app
from serving.client import Client, Refused
from serving.control.samples import step_of
from serving.registry.interfaces import key_of
from serving.registry.records import Who
from serving.registry.rules import DeploymentRules
from serving.registry.samples import kept
from srghn.candidates.candidate import OnnxPolicy
from srghn.envs.spaces import read_interface

SPACE = spaces.Dict(
    {
        "camera": spaces.Box(-9, 9, (2, 3, 1), np.int16),
        "goal": spaces.Discrete(3, start=1),
        "grip": spaces.MultiDiscrete([2, 3]),
        "pair": spaces.Tuple((spaces.Box(-1, 1, (2,), np.float64), spaces.Discrete(2))),
    }
)
SIZE = 6 + 3 + 5 + 2 + 2


class Robot(gym.Env[Any, Any]):
    observation_space, action_space = SPACE, spaces.Discrete(2)


def interface() -> dict[str, Any]:
    return json.loads(json.dumps(read_interface(Robot(), "robot").to_dict()))  # type: ignore[no-any-return]


def samples(count: int) -> list[dict[str, Any]]:
    SPACE.seed(7)
    return [SPACE.sample() for _ in range(count)]


def jsonable(observation: dict[str, Any]) -> dict[str, Any]:
    """One observation as Gymnasium writes it."""
    made = SPACE.to_jsonable([observation])
    pair = [part[0] for part in made.pop("pair")]
    return {**{name: values[0] for name, values in made.items()}, "pair": pair}


@pytest.fixture
def policy(home: Any) -> OnnxPolicy:
    """The champion, whose action the first four numbers of the camera decide."""
    home.first(more=SIZE - 4, interface=interface())
    found: OnnxPolicy = home.store.load(home.ledger.champion().digest).policy()
    return found


@pytest.fixture
def client(home: Any, policy: OnnxPolicy) -> Iterator[TestClient]:
    with TestClient(create_app(home.settings), raise_server_exceptions=False) as opened:
        yield opened


def expected(policy: OnnxPolicy, observations: list[dict[str, Any]]) -> list[int]:
    flat = np.stack([spaces.flatten(SPACE, one) for one in observations]).astype(np.float32)
    found: list[int] = policy(flat).tolist()
    assert len(set(found)) == 2  # or the test could not fail
    return found


def test_each_api_answers_as_to_the_flat_vector(client: TestClient, policy: OnnxPolicy) -> None:
    seen = samples(32)
    actions, native = expected(policy, seen), [jsonable(one) for one in seen]
    assert [client.post("/v1/act", json={"observation": o}).json()["action"] for o in native] == (
        actions
    )
    answer = client.post("/v1/act/batch", json={"observations": native})
    assert answer.json()["actions"] == actions
    flat = [spaces.flatten(SPACE, one).tolist() for one in seen]
    assert client.post("/v1/act/batch", json={"observations": flat}).json()["actions"] == actions
    one = client.post("/v1/act", json={"observation": flat[3]}).json()
    assert one["action"] == actions[3]


def test_a_batch_may_be_as_gymnasium_stacks_it(client: TestClient, policy: OnnxPolicy) -> None:
    seen = samples(32)
    stacked = SPACE.to_jsonable(seen)
    assert isinstance(stacked, dict)  # and so no list of observations
    answer = client.post("/v1/act/batch", json={"observations": stacked})
    assert answer.json()["actions"] == expected(policy, seen)
    for change, said in [
        ({"goal": [1, 2]}, "observation goal: expected 32 values, as camera has, got 2"),
        ({"goal": 1}, "goal: expected a list with a whole number of 1 to 3 for each observation"),
        ({"camera": stacked["camera"][0]}, "camera: expected a list with an array of shape"),
        ({"gaol": []}, "the observation has no 'gaol'"),
        ({"grip": None}, "observation grip is missing"),
    ]:
        refused = client.post("/v1/act/batch", json={"observations": {**stacked, **change}})
        assert refused.status_code == 422
        assert said in refused.json()["error"]
    limit = client.app.state.service.limits.batch  # type: ignore[attr-defined]
    many = {"goal": [1] * (limit + 1), "grip": [[0, 0]] * (limit + 1)}
    many |= {"camera": [[[[0]] * 3] * 2] * (limit + 1)}
    many |= {"pair": [[[0.0, 0.0]] * (limit + 1), [0] * (limit + 1)]}
    assert client.post("/v1/act/batch", json={"observations": many}).status_code == 413


def test_a_stacked_batch_is_counted_before_it_fills_memory(home: Any) -> None:
    """One number of its body is a thousand of the flat vector; and none at all is no batch."""

    class Many(gym.Env[Any, Any]):
        observation_space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Discrete(1000)})
        action_space = spaces.Discrete(2)

    described = json.loads(json.dumps(read_interface(Many(), "many").to_dict()))
    home.first(more=1003 - 4, interface=described)
    with TestClient(create_app(home.settings), raise_server_exceptions=False) as client:
        for count, status in ((0, 422), (3, 200), (10_000, 413)):
            said = {"observations": {"a": [1] * count, "b": [999] * count}}
            tracemalloc.start()
            assert client.post("/v1/act/batch", json=said).status_code == status
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 20e6  # 10,000 of them would be 40 MB


def test_short_values_are_refused_before_they_are_decoded(client: TestClient) -> None:
    """An empty object takes 3 bytes in JSON, and 72 when it is one."""
    limit = client.app.state.service.limits.batch  # type: ignore[attr-defined]
    for part in (b"0,", b"{},", b"[],"):
        body = b'{"observations": [' + part * (40 * limit) + b"0]}"
        answer = client.post("/v1/act/batch", content=body)
        assert answer.status_code == 413
        assert "more commas or brackets than they have" in answer.json()["error"]


def test_a_whole_batch_in_any_form_is_within_its_marks(client: TestClient) -> None:
    limit = client.app.state.service.limits.batch  # type: ignore[attr-defined]
    one = samples(1)[0]
    data = base64.b64encode(one["camera"].astype("<i2").tobytes()).decode()
    camera = {"b64": data, "shape": [2, 3, 1], "dtype": "int16"}
    flat = spaces.flatten(SPACE, one).tolist()
    for row in (jsonable(one), {**jsonable(one), "camera": camera}, flat):
        answer = client.post("/v1/act/batch", json={"observations": [row] * limit})
        assert answer.status_code == 200, answer.text
    stacked = SPACE.to_jsonable([one] * limit)
    assert client.post("/v1/act/batch", json={"observations": stacked}).status_code == 200


def test_a_batch_of_tuples_is_a_list_of_tuples(home: Any) -> None:
    """Stacked, as Gymnasium writes it, two of two parts would be two others: it is refused."""

    class Two(gym.Env[Any, Any]):
        observation_space = spaces.Tuple((spaces.Box(-9, 9, (4,), np.float32), spaces.Discrete(2)))
        action_space = spaces.Discrete(2)

    described = json.loads(json.dumps(read_interface(Two(), "two").to_dict()))
    home.first(more=2, interface=described)
    rows = [[[0.0, 0.0, 1.0, 0.0], 1], [[0.0, 0.0, -1.0, 0.0], 0], [[0.0, 0.0, 1.0, 0.0], 0]]
    with TestClient(create_app(home.settings)) as client:
        answer = client.post("/v1/act/batch", json={"observations": rows})
        assert answer.json()["actions"] == [1, 0, 1]
        stacked = [[row[0] for row in rows], [row[1] for row in rows]]
        refused = client.post("/v1/act/batch", json={"observations": stacked})
        assert refused.status_code == 422
        assert "a batch lists whole observations: the parts of a Tuple" in refused.json()["error"]


def test_what_is_kept_for_the_diagnosis_is_the_flat_vector(
    client: TestClient, home: Any, policy: OnnxPolicy
) -> None:
    seen = samples(1)[0]
    names = [f"e-{n}" for n in range(60)]
    first = [name for name in names if step_of(name) == 0]  # kept at their first step
    for name in names:
        body = {"observation": jsonable(seen), "episode_id": name}
        assert client.post("/v1/act", json=body).status_code == 200
    client.app.state.service.default.samples.flush()  # type: ignore[attr-defined]
    found = kept(home.ledger.database(), "policy")
    assert first
    assert {one.episode for one in found} == set(first)
    flat = spaces.flatten(SPACE, seen).astype("<f4").tobytes()
    assert {one.observation for one in found} == {flat}


def test_an_array_may_be_the_base64_of_its_bytes(client: TestClient, policy: OnnxPolicy) -> None:
    seen = samples(8)
    for one, action in zip(seen, expected(policy, seen), strict=True):
        data = base64.b64encode(one["camera"].astype("<i2").tobytes()).decode()
        camera = {"b64": data, "shape": [2, 3, 1], "dtype": "int16"}
        answer = client.post("/v1/act", json={"observation": {**jsonable(one), "camera": camera}})
        assert answer.json()["action"] == action


def test_the_protocol_takes_one_input_a_part(client: TestClient, policy: OnnxPolicy) -> None:
    described = client.get("/v2/models/policy").json()["inputs"]
    assert described == [
        {"name": "obs", "datatype": "FP32", "shape": [-1, SIZE]},
        {"name": "camera", "datatype": "INT16", "shape": [-1, 2, 3, 1]},
        {"name": "goal", "datatype": "INT64", "shape": [-1]},
        {"name": "grip", "datatype": "INT64", "shape": [-1, 2]},
        {"name": "pair.0", "datatype": "FP64", "shape": [-1, 2]},
        {"name": "pair.1", "datatype": "INT64", "shape": [-1]},
    ]
    seen = samples(8)
    parts = {
        "camera": np.stack([one["camera"] for one in seen]),
        "goal": np.array([one["goal"] for one in seen]),
        "grip": np.stack([one["grip"] for one in seen]),
        "pair.0": np.stack([one["pair"][0] for one in seen]),
        "pair.1": np.array([one["pair"][1] for one in seen]),
    }
    inputs = [
        {
            "name": said["name"],
            "datatype": said["datatype"],
            "shape": [8, *said["shape"][1:]],
            "data": parts[said["name"]].tolist(),
        }
        for said in described[1:]
    ]
    answer = client.post("/v2/models/policy/infer", json={"inputs": inputs}).json()
    assert answer["outputs"][0]["data"] == expected(policy, seen)
    binary = b"".join(parts[said["name"]].tobytes() for said in described[1:])
    for said in inputs:
        size = parts[said["name"]].nbytes
        said.update({"parameters": {"binary_data_size": size}})
        del said["data"]
    head = json.dumps({"inputs": inputs}).encode()
    sizes = {"Inference-Header-Content-Length": str(len(head))}
    again = client.post("/v2/models/policy/infer", content=head + binary, headers=sizes).json()
    assert again["outputs"] == answer["outputs"]
    refused = client.post("/v2/models/policy/infer", json={"inputs": inputs[:2]})
    assert refused.status_code == 400


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"camera": None}, "observation camera is missing; expected an array of shape [2, 3, 1]"),
        ({"camera": [[1, 2, 3]]}, "observation camera: expected an array of shape [2, 3, 1]"),
        ({"camera": "dark"}, "observation camera: expected an array of shape [2, 3, 1]"),
        ({"camera": {"b64": "!", "shape": [2, 3, 1], "dtype": "int16"}}, "observation camera: exp"),
        ({"goal": 4}, "observation goal: expected a whole number of 1 to 3, got 4"),
        ({"goal": 1.5}, "observation goal: expected a whole number of 1 to 3, got 1.5"),
        ({"goal": 1e300}, "observation goal: expected a whole number of 1 to 3, got 1e+300"),
        ({"grip": [0, 3]}, "observation grip: expected a whole number of 0 to 2, got 3"),
        ({"pair": [[0.0, 1e39], 0]}, "observation pair.0: expected finite numbers within float32"),
        ({"pair": [[0.0, 0.0], 0, 9]}, "pair: expected 2 parts, got 3"),
        ({"gaol": 1}, "the observation has no 'gaol'; it has camera, goal, grip, pair"),
    ],
)
def test_an_error_names_the_part(client: TestClient, change: dict[str, Any], said: str) -> None:
    observation = {**jsonable(samples(1)[0]), **change}
    answer = client.post("/v1/act", json={"observation": observation})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(said)
    assert "\n" not in answer.json()["error"]
    batch = client.post(
        "/v1/act/batch", json={"observations": [jsonable(samples(1)[0]), observation]}
    )
    assert batch.json()["error"].startswith(f"observations[1]: {said}")


def test_the_description_says_what_is_observed(client: TestClient) -> None:
    found = client.get("/openapi.json").json()["components"]["schemas"]
    assert found["ActRequest"]["properties"]["observation"] == {
        "$ref": "#/components/schemas/Observation"
    }
    schema = found["Observation"]
    for one in samples(4):
        jsonschema.validate(jsonable(one), schema)
    jsonschema.validate([0.0] * SIZE, schema)
    for wrong in ([0.0] * 3, {**jsonable(samples(1)[0]), "goal": 9}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


@pytest.mark.services
def test_the_client_sends_numpy_arrays_as_they_are(
    home: Any, policy: OnnxPolicy, running: Any
) -> None:
    other = home.of("other")
    other.first(more=1)
    seen = samples(6)
    with running(home) as (url, _), Client(url) as client, Client(url, policy="other") as second:
        with client.episode() as episode:
            assert [episode.act(one) for one in seen] == expected(policy, seen)
        assert client.act_batch(seen) == expected(policy, seen)
        with pytest.raises(Refused, match=r"observation camera: expected .* got shape \[2, 3\]"):
            client.act({**seen[0], "camera": seen[0]["camera"][..., 0]})
        with second.episode() as episode:
            assert episode.act(np.array([0, 0, 1, 0, 0], np.float32)) == 1
        versions = [o.version for o in home.ledger.outcomes(policy="other")]
        assert versions == [home.ledger.champion("other").version]


# ------------------------------------------------------------------ a successor with other sensors


@pytest.fixture
def successor(home: Any) -> Iterator[tuple[TestClient, int, str]]:
    """A champion of 4 numbers, and on trial a successor that sees 6: a client, its version, key."""
    home.first()
    seen = {"observation_size": 6, "kind": "discrete", "n": 2}
    digest = home.candidate(more=2, flip=True, interface=seen)
    manifest = {**home.store.load(digest).manifest, "successor": True}
    version = home.steps.register(digest, manifest=manifest)
    home.steps.begin(version, incumbent_digest=None)
    home.steps.judge(version)
    home.steps.approve(version)
    home.steps.canary(version, weight=0.5)
    with TestClient(create_app(home.settings), raise_server_exceptions=False) as client:
        yield client, version, key_of(seen)


FOUR, SIX = [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]


def test_only_who_sends_both_is_on_trial(home: Any, successor: tuple[TestClient, int, str]) -> None:
    client, version, key = successor
    for number in range(40):
        old = {"observation": FOUR, "episode_id": f"old-{number}"}
        assert client.post("/v1/act", json=old).json()["action"] == 1  # the champion's
        name = key if number % 2 else str(version)
        both = {"observation": FOUR, "observations": {name: SIX}, "episode_id": f"new-{number}"}
        assert client.post("/v1/act", json=both).status_code == 200
    found = {n: home.ledger.find_episode(n) for n in [f"old-{n}" for n in range(40)]}
    assert {row.trial for row in found.values()} == {None}
    assert {row.version for row in found.values()} == {1}
    tried = [home.ledger.find_episode(f"new-{n}") for n in range(40)]
    assert {row.version for row in tried} == {1, version}
    assert {row.trial for row in tried} == {home.ledger.canary().epoch}
    assert client.post("/v1/act/batch", json={"observations": [FOUR]}).json()["actions"] == [1]


def test_a_trial_whose_clients_send_one_form_alone_expires_and_says_why(home: Any) -> None:
    home.first()
    terms = {"idle": 0.3, "deadline": 0.3}
    rules = DeploymentRules.model_validate({"trial": terms})
    home.ledger.set_deployment_rules(rules, who=Who("ann", "quick"))
    seen = {"observation_size": 6, "kind": "discrete", "n": 2}
    digest = home.candidate(more=2, flip=True, interface=seen)
    manifest = {**home.store.load(digest).manifest, "successor": True}
    version = home.steps.register(digest, manifest=manifest)
    home.steps.begin(version, incumbent_digest=None)
    home.steps.judge(version)
    home.steps.approve(version)
    home.steps.canary(version)
    with TestClient(create_app(home.settings)) as client:
        deadline = time.monotonic() + 20
        while home.ledger.canary() is not None and time.monotonic() < deadline:
            said = {"observation": FOUR, "episode_id": f"e-{time.monotonic_ns()}"}
            assert client.post("/v1/act", json=said).status_code == 200
            client.app.state.service.poll()  # type: ignore[attr-defined]
    assert home.ledger.version(version).state == "EXPIRED"
    event = home.ledger.events(version, newest=True, limit=1)[0]
    assert event.reason.startswith("no new episode joined the trial within ")
    assert event.reason.endswith(
        f"no client sends its observations, those of interface {key_of(seen)}"
    )


def test_an_episode_goes_on_with_the_form_that_its_arm_sees(
    home: Any, successor: tuple[TestClient, int, str]
) -> None:
    client, version, key = successor
    body = {"observation": FOUR, "observations": {key: SIX}}
    for number in range(40):
        answer = client.post("/v1/act", json={**body, "episode_id": f"e-{number}"}).json()
        if home.ledger.find_episode(f"e-{number}").version == version:
            break
    token = answer["token"]
    assert answer["action"] == 0  # the successor pushes the other way
    again = client.post("/v1/act", json={**body, "token": token}).json()
    assert again["action"] == 0
    refused = client.post("/v1/act", json={"observation": FOUR, "token": token})
    assert refused.status_code == 422
    assert refused.json()["error"] == "observation: expected 6 numbers, got 4"
    wrong = client.post("/v1/act", json={"observations": {"9": SIX}, "token": token})
    assert wrong.json()["error"].startswith("observations: expected one for interface ")


def actions_of(answers: list[httpx.Response]) -> set[int]:
    assert {answer.status_code for answer in answers} == {200}, answers[0].text
    return {action for answer in answers for action in answer.json()["actions"]}


def test_a_batch_in_both_forms_may_be_answered_by_the_successor(
    home: Any, successor: tuple[TestClient, int, str]
) -> None:
    client, version, key = successor
    for name in (key, str(version)):
        both = {"observations": [FOUR, FOUR], "forms": {name: [SIX, SIX]}}
        answers = [client.post("/v1/act/batch", json=both) for _ in range(20)]
        assert actions_of(answers) == {0, 1}  # either arm's, each in its own form
    alone = {"observations": [FOUR, FOUR]}
    assert actions_of([client.post("/v1/act/batch", json=alone) for _ in range(20)]) == {1}
    wrong = {"observations": [FOUR], "forms": {key: [FOUR]}}
    said = {client.post("/v1/act/batch", json=wrong).json().get("error") for _ in range(30)}
    assert said == {None, f"forms.{key}[0]: expected 6 numbers, got 4"}


def inputs_of(rows: dict[str, list[list[float]]], sized: bool = False) -> list[dict[str, Any]]:
    found = []
    for name, given in rows.items():
        shape = [len(given), len(given[0])]
        size = {"parameters": {"binary_data_size": 4 * shape[0] * shape[1]}}
        data = size if sized else {"data": given}
        found.append({"name": name, "datatype": "FP32", "shape": shape, **data})
    return found


@pytest.mark.parametrize("count", [1, 2])
def test_the_protocol_takes_inputs_by_interface(
    home: Any, successor: tuple[TestClient, int, str], count: int
) -> None:
    client, version, key = successor
    url = "/v2/models/policy/infer"

    def ask(rows: dict[str, list[list[float]]], path: str = url) -> Any:
        return client.post(path, json={"inputs": inputs_of(rows)}).json()

    both = {"obs": [FOUR] * count, f"obs@{key}": [SIX] * count}
    found = [tuple(ask(both)["outputs"][0]["data"]) for _ in range(20)]
    assert set(found) == {(0,) * count, (1,) * count}
    own = f"/v2/models/policy/versions/{version}/infer"
    assert ask(both, own)["outputs"][0]["data"] == [0] * count
    assert ask({f"obs@{version}": [SIX], "obs": [FOUR]}, own)["outputs"][0]["data"] == [0]
    assert ask({"obs": [FOUR]})["outputs"][0]["data"] == [1]
    assert ask({f"obs@{'0' * 16}": [SIX]}, own)["error"].startswith(
        f"inputs: expected inputs for interface {key}, or inputs without one"
    )
    head = json.dumps({"inputs": inputs_of(both, sized=True)}).encode()
    data = np.array(FOUR * count + SIX * count, "<f4").tobytes()
    sizes = {"Inference-Header-Content-Length": str(len(head))}
    answer = client.post(own, content=head + data, headers=sizes)
    assert answer.json()["outputs"][0]["data"] == [0] * count
    short = client.post(own, content=head + data[:-4], headers=sizes)
    assert short.status_code == 400


def test_an_episode_by_the_protocol_in_both_forms_is_on_trial(
    home: Any, successor: tuple[TestClient, int, str]
) -> None:
    client, version, key = successor
    for number in range(20):
        body = {
            "inputs": inputs_of({"obs": [FOUR], f"obs@{key}": [SIX]}),
            "parameters": {"episode_id": f"v2-{number}"},
        }
        assert client.post("/v2/models/policy/infer", json=body).status_code == 200
    rows = [home.ledger.find_episode(f"v2-{number}") for number in range(20)]
    assert {row.version for row in rows} == {1, version}
    assert {row.trial for row in rows} == {home.ledger.canary().epoch}


def test_after_the_promotion_both_forms_still_serve(
    home: Any, successor: tuple[TestClient, int, str]
) -> None:
    client, version, key = successor
    home.steps.play(home.ledger.canary(), 10.0, 490.0, 12)
    for _ in range(200):
        client.app.state.service.poll()  # type: ignore[attr-defined]
        if home.ledger.champion().version == version:
            break
    shown = client.get("/v1/champion").json()
    assert (shown["version"], shown["interface"]) == (version, key)
    both = {"observation": FOUR, "observations": {key: SIX}}
    assert client.post("/v1/act", json=both).json()["action"] == 0
    assert client.post("/v1/act", json={"observation": SIX}).json()["action"] == 0
    old = client.post("/v1/act", json={"observation": FOUR})
    assert old.json()["error"] == "observation: expected 6 numbers, got 4"


def test_a_successor_that_fails_is_covered_with_the_champions_form(
    home: Any, successor: tuple[TestClient, int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.predictor import PredictionError, Predictor

    client, version, key = successor
    real = Predictor.act_one

    def failing(self: Predictor, observation: list[float]) -> Any:
        if self.version == version:
            raise PredictionError("broken")
        return real(self, observation)

    monkeypatch.setattr(Predictor, "act_one", failing)
    whole = Predictor.act

    def failing_batch(self: Predictor, observations: Any) -> Any:
        if self.version == version:
            raise PredictionError("broken")
        return whole(self, observations)

    monkeypatch.setattr(Predictor, "act", failing_batch)
    batch = {"observations": [FOUR, FOUR], "forms": {key: [SIX, SIX]}}
    assert actions_of([client.post("/v1/act/batch", json=batch) for _ in range(20)]) == {1}
    both = {"observation": FOUR, "observations": {key: SIX}}
    answers = [client.post("/v1/act", json=both) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["action"] for answer in answers} == {1}
    assert isinstance(answers[0], httpx.Response)
