"""No request tells the arm of an episode: neither a form's name, nor a refusal, nor a length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.registry.interfaces import key_of
from srghn.config import CanaryParams
from tests.serving.test_serving_episodes import opened
from tests.serving.test_serving_memory import counting

FOUR, OTHER, SIX = [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, -1.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
EPISODES = 12
URL = "/v2/models/policy/infer"


def tried(home: Any, version: int) -> None:
    params = CanaryParams(weight=0.5, min_episodes=5000, return_low=0.0, return_high=500.0)
    home.steps.canary(version, params=params, weight=0.5)


@pytest.fixture
def alike(home: Any) -> Iterator[TestClient]:
    """Versions 1 and 2 on trial, which push the same way and have one interface."""
    home.first()
    tried(home, home.approved(bias=1e-3))
    with opened(home) as client:
        yield client


def successor(home: Any, face: dict[str, Any], **options: Any) -> None:
    digest = home.candidate(interface=face, **options)
    manifest = {**home.store.load(digest).manifest, "successor": True}
    version = home.steps.register(digest, manifest=manifest)
    home.steps.begin(version, incumbent_digest=None)
    home.steps.judge(version)
    home.steps.approve(version)
    tried(home, version)


@pytest.fixture
def unlike(home: Any) -> Iterator[tuple[TestClient, str]]:
    """Version 1 observes 4 numbers, version 2 on trial 6; and the key of the latter."""
    home.first()
    seen = {"observation_size": 6, "kind": "discrete", "n": 2}
    successor(home, seen, more=2)
    with opened(home) as client:
        yield client, key_of(seen)


def told(answer: Any) -> tuple[int, Any]:
    """What the caller sees of an answer, but for its token."""
    content = {name: value for name, value in answer.json().items() if name != "token"}
    content.pop("parameters", None)
    return answer.status_code, str(content)


def arms(home: Any, names: list[str]) -> set[int]:
    return {home.ledger.find_episode(name).arm for name in names}


def inputs(rows: dict[str, list[list[float]]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "datatype": "FP32", "shape": [len(given), len(given[0])], "data": given}
        for name, given in rows.items()
    ]


def v1(client: TestClient, name: str, forms: dict[str, Any], **more: Any) -> Any:
    plain = {"observation": forms[""]} if "" in forms else {}
    named = {key: form for key, form in forms.items() if key}
    return client.post("/v1/act", json={**plain, "observations": named, "episode_id": name, **more})


def v2(client: TestClient, name: str, forms: dict[str, Any], **more: Any) -> Any:
    rows = {f"obs@{key}" if key else "obs": [form] for key, form in forms.items()}
    body = {"inputs": inputs(rows), "parameters": {"episode_id": name, **more}}
    return client.post(URL, json=body)


BOTH = pytest.mark.parametrize("ask", [v1, v2])


@BOTH
def test_a_versions_number_is_no_way_to_tell_the_arms_of_one_interface(
    home: Any, alike: TestClient, ask: Callable[..., Any]
) -> None:
    """It stands for the interface: either arm takes that form, and two for one are refused."""
    names = [f"e{n}" for n in range(EPISODES)]
    assert len({told(ask(alike, name, {"2": FOUR})) for name in names}) == 1
    assert arms(home, names) == {0, 1}
    for number, forms in enumerate([{"1": FOUR, "2": OTHER}, {"2": [0.0, 0.0]}, {"9": FOUR}]):
        names = [f"bad{number}-{n}" for n in range(EPISODES)]
        [(status, _)] = {told(ask(alike, name, forms)) for name in names}
        assert status in (400, 422)
        assert {home.ledger.find_episode(name) for name in names} == {None}


@BOTH
def test_two_forms_for_one_interface_are_refused_in_a_running_episode(
    home: Any, alike: TestClient, ask: Callable[..., Any]
) -> None:
    names = [f"e{n}" for n in range(EPISODES)]
    seen = set()
    for name in names:
        first = ask(alike, name, {"": FOUR}).json()
        token = first.get("token") or first["parameters"]["token"]
        seen.add(told(ask(alike, name, {"1": FOUR, "2": OTHER}, token=token)))
    assert arms(home, names) == {0, 1}
    [(status, error)] = seen
    assert status in (400, 422)
    assert "1 and 2, which name the same interface" in error


def test_a_batch_tells_no_arm_by_a_forms_name(alike: TestClient) -> None:
    one = {"forms": {"2": [FOUR]}}
    two = {"forms": {"1": [FOUR], "2": [OTHER]}}
    for said, status in ((one, 200), (two, 422)):
        answers = [alike.post("/v1/act/batch", json=said) for _ in range(EPISODES)]
        assert {told(answer)[0] for answer in answers} == {status}
        assert len({answer.text for answer in answers}) == 1


@BOTH
def test_where_interfaces_differ_a_refusal_is_one_text_for_both_arms(
    home: Any, unlike: tuple[TestClient, str], ask: Callable[..., Any]
) -> None:
    client, key = unlike
    for number, forms in enumerate([{key: SIX}, {"2": SIX}, {"": FOUR, key: FOUR}, {"2": FOUR}]):
        names = [f"bad{number}-{n}" for n in range(EPISODES)]
        assert len({told(ask(client, name, forms)) for name in names}) == 1
        assert {home.ledger.find_episode(name) for name in names} == {None}
    names = [f"e{n}" for n in range(EPISODES)]
    seen: dict[int, set[Any]] = {}
    for name in names:
        first = ask(client, name, {"": FOUR, "2": SIX}).json()
        token = first.get("token") or first["parameters"]["token"]
        incomplete = [
            {"": FOUR},
            {key: SIX},
            {"2": SIX},
            {"": FOUR, key: FOUR},
            {"": SIX, key: SIX},
        ]
        for number, forms in enumerate(incomplete):
            seen.setdefault(number, set()).add(told(ask(client, name, forms, token=token)))
        assert ask(client, name, {"1": FOUR, "2": SIX}, token=token).status_code == 200
    assert arms(home, names) == {0, 1}
    assert {home.ledger.find_episode(name).trial for name in names} == {home.ledger.canary().epoch}
    for answers in seen.values():
        [(status, _)] = answers
        assert status in (400, 422)


def test_each_form_has_as_many_observations(home: Any, unlike: tuple[TestClient, str]) -> None:
    """Else the number of actions would tell the arm."""
    client, key = unlike
    body = {"inputs": inputs({"obs": [FOUR], f"obs@{key}": [SIX, SIX]})}
    names = [f"e{n}" for n in range(EPISODES)]
    seen = {
        told(client.post(URL, json={**body, "parameters": {"episode_id": name}})) for name in names
    }
    [(status, error)] = seen
    assert status == 422
    assert "as many of them in each form, got 1 and 2" in error
    assert {home.ledger.find_episode(name) for name in names} == {None}


def test_a_layout_that_one_arm_did_not_write_down_tells_no_arm(home: Any) -> None:
    """An older version takes flat vectors alone, but its interface is the same."""
    leaf = {"kind": "box", "shape": [2], "dtype": "float32", "counts": [], "starts": []}
    layout = {"leaves": [{**leaf, "path": [name]} for name in "ab"]}
    flat = {"observation_size": 4, "kind": "discrete", "n": 2}
    home.first(interface=flat)
    tried(home, home.approved(bias=1e-3, interface={**flat, "layout": layout}))
    keys = [key_of(flat), key_of({**flat, "layout": layout})]
    native = {"a": FOUR[:2], "b": FOUR[2:]}
    requests = [
        ({"": native}, 422),
        ({keys[0]: FOUR, keys[1]: OTHER}, 422),
        ({keys[1]: FOUR}, 200),
        ({keys[1]: native}, 422),
    ]
    with opened(home) as client:
        for number, (forms, expected) in enumerate(requests):
            names = [f"e{number}-{n}" for n in range(EPISODES)]
            [(status, _)] = {told(v1(client, name, forms)) for name in names}
            assert status == expected


def test_a_state_that_one_arm_keeps_tells_no_arm(home: Any, tmp_path: Path) -> None:
    home.first()
    digest = home.store.put(counting(tmp_path / "counting").path)
    tried(home, home.steps.approved(digest, manifest=home.store.load(digest).manifest))
    names = [f"e{n}" for n in range(EPISODES)]
    rows = {"inputs": inputs({"obs": [FOUR, FOUR]})}
    with opened(home) as client:
        for name in names:
            assert v1(client, name, {"": FOUR}).status_code == 200
        assert arms(home, names) == {0, 1}
        [(status, _)] = {told(v1(client, name, {"": FOUR})) for name in names}  # without a token
        assert status == 422
        several = {
            told(client.post(URL, json={**rows, "parameters": {"episode_id": f"v2-{name}"}}))
            for name in names
        }
        [(status, _)] = several
        assert status == 422
        assert {home.ledger.find_episode(f"v2-{name}") for name in names} == {None}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/act", {"observation": [0, 0], "episode_id": "bad1"}),
        ("/v1/act", {"observation": [0, 0, 0, 1e39], "episode_id": "bad1"}),
        ("/v1/act", {"observations": {"9": FOUR}, "episode_id": "bad1"}),
        ("/v1/act", {"observation": {"a": 1}, "observations": {}, "episode_id": "bad1"}),
        (URL, {"inputs": inputs({"obs": [[0.0, 0.0]]}), "parameters": {"episode_id": "bad1"}}),
        (URL, {"inputs": inputs({"obs": [FOUR]}) * 2, "parameters": {"episode_id": "bad1"}}),
        (URL, {"inputs": inputs({"o": [FOUR]}), "parameters": {"episode_id": "bad1"}}),
    ],
)
def test_a_refused_request_begins_no_episode(
    home: Any, alike: TestClient, path: str, said: dict[str, Any]
) -> None:
    """So it leaves no start whose outcome is missing, and the next request is the first one."""
    assert alike.post(path, json=said).status_code in (400, 422)
    assert home.ledger.find_episode("bad1") is None
    answer = alike.post("/v1/act", json={"observation": FOUR, "episode_id": "bad1"}).json()
    end = {"return": 1.0, "terminated": True, "token": answer["token"]}
    assert alike.post("/v1/episodes/bad1/outcome", json=end).json()["counted"] is True
