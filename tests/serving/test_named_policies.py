"""Two policies of different interfaces side by side, over real HTTP: nothing is mixed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving.registry.records import Who
from serving.registry.rules import DeploymentRules
from serving.tokens import Tokens
from srghn.config import CanaryParams
from tests.serving.test_serving_process import wait_for

pytestmark = pytest.mark.services

RIGHT, LEFT = [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, -1.0, 0.0]
ARM = "/v1/policies/arm"


@pytest.fixture
def both(home: Any, running: Any) -> Iterator[httpx.Client]:
    """Policy `policy` takes 4 numbers and pushes right, `arm` takes 6 and pushes left."""
    home.first()
    home.of("arm").first(more=2, flip=True)
    with running(home) as (url, _), httpx.Client(base_url=url, timeout=10) as client:
        wait_for(lambda: client.get("/v2/models/arm/ready").status_code == 200)
        yield client


def outcome(client: httpx.Client, base: str, name: str, token: str) -> httpx.Response:
    body = {"return": 100.0, "terminated": True, "token": token}
    return client.post(f"{base}/episodes/{name}/outcome", json=body)


def weight(client: httpx.Client, labels: str) -> float:
    """The canary's share of episodes as the metrics say it."""
    line = rf"^srghn_canary_weight_ratio{re.escape(labels)} (\S+)$"
    found = re.search(line, client.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_each_answers_by_its_own_champion_and_interface(both: httpx.Client) -> None:
    answer = both.post("/v1/act", json={"observation": RIGHT}).json()
    assert (answer["action"], answer["version"]) == (1, 1)
    answer = both.post(f"{ARM}/act", json={"observation": [*RIGHT, 0.0, 0.0]}).json()
    assert (answer["action"], answer["version"], answer["generation"]) == (0, 2, 1)
    batch = both.post(f"{ARM}/act/batch", json={"observations": [[*LEFT, 0.0, 0.0]] * 2})
    assert batch.json()["actions"] == [1, 1]
    refused = both.post(f"{ARM}/act", json={"observation": RIGHT})
    assert refused.status_code == 422
    assert refused.json()["error"] == "observation: expected 6 numbers, got 4"
    refused = both.post("/v1/policies/leg/act", json={"observation": RIGHT})
    assert refused.status_code == 404
    assert refused.json()["error"].startswith("policy: expected one that is served here")


def test_the_open_inference_protocol_knows_each_by_its_name(both: httpx.Client) -> None:
    assert both.get("/v2").json()["models"] == ["arm", "policy"]
    index = both.post("/v2/repository/index", json={}).json()
    assert index == [
        {"name": "arm", "version": "2", "state": "READY"},
        {"name": "policy", "version": "1", "state": "READY"},
    ]
    for name, size, version in (("policy", 4, "1"), ("arm", 6, "2")):
        found = both.get(f"/v2/models/{name}").json()
        assert (found["name"], found["versions"]) == (name, [version])
        assert found["inputs"][0]["shape"] == [-1, size]
        row = [*RIGHT, 0.0, 0.0][:size]
        tensor = {"name": "obs", "shape": [1, size], "datatype": "FP32", "data": row}
        for path in (f"/v2/models/{name}/infer", f"/v2/models/{name}/versions/{version}/infer"):
            answer = both.post(path, json={"inputs": [tensor]}).json()
            assert (answer["model_name"], answer["model_version"]) == (name, version)
    other = both.get("/v2/models/arm/versions/1")  # served, and another policy's
    assert other.status_code == 404
    assert both.get("/v2/models/leg").status_code == 404


def test_episodes_of_one_are_refused_by_the_other(home: Any, both: httpx.Client) -> None:
    body = {"observation": RIGHT, "episode_id": "e-1"}
    mine = both.post("/v1/act", json=body).json()["token"]
    theirs = both.post(f"{ARM}/act", json={**body, "observation": [*RIGHT, 0.0, 0.0]})
    assert theirs.status_code == 200  # the same name is another episode there
    refused = both.post(f"{ARM}/act", json={**body, "token": mine})
    assert refused.status_code == 422
    assert refused.json()["field"] == "token"
    assert outcome(both, ARM, "e-1", mine).status_code == 422
    assert outcome(both, "/v1", "e-1", theirs.json()["token"]).status_code == 422
    assert outcome(both, "/v1", "e-1", mine).json()["version"] == 1
    assert outcome(both, ARM, "e-1", theirs.json()["token"]).json()["version"] == 2
    assert [(o.policy, o.version) for o in home.ledger.outcomes(policy="policy")] == [("policy", 1)]
    assert [(o.policy, o.version) for o in home.ledger.outcomes(policy="arm")] == [("arm", 2)]


def test_a_trial_and_a_swap_of_one_are_none_of_the_others(home: Any, both: httpx.Client) -> None:
    arm = home.of("arm")
    version = arm.approved(more=2, bias=1.0)
    canary = arm.steps.canary(
        version, params=CanaryParams(min_episodes=5, return_low=0.0, return_high=500.0)
    )
    wait_for(lambda: both.get("/v1/policies/arm").json()["canary"] == version)
    wait_for(lambda: weight(both, '{policy="arm"}') > 0)
    assert weight(both, "") == 0
    assert both.get("/v1/policies/policy").json()["canary"] is None
    answer = both.post("/v1/act", json={"observation": RIGHT}).json()
    assert (answer["version"], answer["route"]) == (1, "champion")
    answer = both.post(f"{ARM}/act", json={"observation": [*RIGHT, 0.0, 0.0]}).json()
    assert answer["route"] == "trial"
    arm.steps.play(canary, 10.0, 490.0, 12)
    wait_for(lambda: both.get(f"{ARM}/champion").json()["version"] == version)
    assert both.get("/v1/champion").json()["version"] == 1
    assert both.get("/v1/champion").json()["generation"] == 1
    loaded = 'srghn_champion_generation{policy="arm"} 2.0'
    wait_for(lambda: loaded in both.get("/metrics").text)  # after the ledger knows the champion
    text = both.get("/metrics").text
    assert "srghn_champion_generation 1.0" in text
    assert text.count("# TYPE srghn_champion_generation gauge") == 1


def test_people_decide_for_the_policy_that_the_path_names(home: Any, both: httpx.Client) -> None:
    token = Tokens(home.ledger.database()).add("ann", ["admin"])
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "1", "If-Match": "1"}
    refused = both.post("/v1/versions/2/revoke", json={"reason": "wrong address"}, headers=headers)
    assert refused.status_code == 404
    assert "see /v1/policies/arm/versions/2" in refused.json()["error"]
    moded = both.post(f"{ARM}/mode", json={"mode": "flipped", "reason": "rewired"}, headers=headers)
    assert moded.status_code == 200
    assert home.ledger.service_mode("arm") == "flipped"
    assert home.ledger.service_mode("policy") == "normal"


def test_the_pages_list_them_and_show_each(home: Any, both: httpx.Client) -> None:
    home.ledger.set_deployment_rules(DeploymentRules(two_persons=True), who=Who("a", "b"))
    page = both.get("/").text
    assert '<a href="./policies/arm">arm</a>' in page
    assert "set deployment rules" in page
    other = both.get("/policies/arm").text
    assert 'href="../v1/policies/arm/versions/2/report"' in other
    assert 'href="../versions/1"' not in other
    assert "set deployment rules" not in other
    assert both.get("/policies/leg").status_code == 404
    versions = both.get(f"{ARM}/versions").json()["versions"]
    assert [version["version"] for version in versions] == [2]
    assert [v["version"] for v in both.get("/v1/versions").json()["versions"]] == [1]


def test_a_policy_made_later_is_served_without_a_restart(home: Any, both: httpx.Client) -> None:
    home.of("leg").first(more=1)
    wait_for(lambda: both.get("/v2/models/leg/ready").status_code == 200)
    answer = both.post("/v1/policies/leg/act", json={"observation": [*RIGHT, 0.0]})
    assert answer.json()["version"] == 3
