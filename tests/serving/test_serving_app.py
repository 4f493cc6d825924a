"""The HTTP contract, in process: answers, refusals, readiness, canary, reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.limits import Limits
from serving.registry.records import Who
from srghn.config import CanaryParams
from tests.serving.test_serving_episodes import wait_for

FAST = Limits(
    poll_seconds=0.02,
    retry_seconds=0.05,
    body_bytes=20_000,
    batch=64,
    start_seconds=10,
    lock_seconds=10,
)
OBSERVATION = [0.0, 0.0, 0.1, 0.0]


def client_of(home: Any, limits: Limits = FAST, *, unblind: bool = False) -> TestClient:
    settings = home.settings.model_copy(update={"unblind": unblind})
    return TestClient(create_app(settings, limits), raise_server_exceptions=False)


@pytest.fixture
def unblinded(home: Any) -> Iterator[TestClient]:
    """A server whose answers tell the arm."""
    home.first()
    with client_of(home, unblind=True) as opened:
        yield opened


@pytest.fixture
def client(home: Any) -> Iterator[TestClient]:
    home.first()
    with client_of(home) as opened:
        yield opened


def test_before_the_first_champion_it_says_why(home: Any) -> None:
    with client_of(home) as client:
        for answer in (
            client.get("/health/ready"),
            client.post("/v1/act", json={"observation": OBSERVATION}),
            client.get("/v1/champion"),
        ):
            assert answer.status_code == 503
            assert "there is no champion yet" in answer.text
            assert "got there is" not in answer.text
        assert client.get("/health/live").status_code == 200
        home.first()
        wait_for(lambda: client.get("/health/ready").status_code == 200)


def test_it_answers_with_the_version_that_answered(client: TestClient, home: Any) -> None:
    answer = client.post("/v1/act", json={"observation": OBSERVATION})
    assert answer.json() == {"action": 1, "version": 1, "generation": 1, "route": "champion"}
    champion = home.ledger.champion()
    assert answer.headers["x-model-version"] == "1"
    assert answer.headers["x-champion-generation"] == "1"
    assert answer.headers["x-route"] == "champion"
    assert answer.headers["x-env-fingerprint"] == champion.env_fingerprint
    assert len(answer.headers["x-request-id"]) == 32
    left = client.post("/v1/act", json={"observation": [0, 0, -1, 0]})
    assert left.json()["action"] == 0
    batch = client.post("/v1/act/batch", json={"observations": [OBSERVATION, [0, 0, -1, 0]]})
    assert batch.json()["actions"] == [1, 0]


def test_it_takes_a_body_without_content_type_and_keeps_the_request_id(client: TestClient) -> None:
    answer = client.post(
        "/v1/act", content=b'{"observation": [0,0,1,0]}', headers={"X-Request-Id": "mine-1"}
    )
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == "mine-1"
    bad = client.get("/health/live", headers={"X-Request-Id": "no spaces\tplease"})
    assert bad.headers["x-request-id"] != "no spaces\tplease"


def test_paths_that_are_not_there_are_said(client: TestClient) -> None:
    assert client.get("/v1/nothing").json() == {"error": "GET /v1/nothing: Not Found"}
    assert client.get("/v1/act").status_code == 405
    assert client.get("/v1/versions/9").status_code == 404
    assert client.get("/v1/versions/x").status_code == 422
    assert client.get("/v1/versions/1/episodes.parquet").status_code == 404


def test_an_episode_id_may_come_as_a_header_but_not_as_two(client: TestClient) -> None:
    body = {"observation": OBSERVATION, "episode_id": "one"}
    assert client.post("/v1/act", json=body, headers={"X-Episode-Id": "one"}).status_code == 200
    two = client.post("/v1/act", json=body, headers={"X-Episode-Id": "two"})
    assert two.status_code == 422
    assert client.post("/v1/act", json=body, headers={"X-Episode-Id": "a b"}).status_code == 422


def test_an_outcome_counts_once_and_only_for_an_episode_that_was_played(
    client: TestClient, home: Any
) -> None:
    post = {"return": 412.0, "length": 412, "terminated": True}
    unknown = client.post("/v1/episodes/e1/outcome", json=post)
    assert unknown.status_code == 422
    assert "token: expected the token of this episode's last answer" in unknown.json()["error"]
    answered = client.post("/v1/act", json={"observation": OBSERVATION, "episode_id": "e1"})
    post["token"] = answered.json()["token"]
    first = client.post("/v1/episodes/e1/outcome", json=post)
    assert first.json() == {
        "episode_id": "e1", "length": 1, "version": 1, "route": "champion", "counted": False,
    }  # fmt: skip
    assert client.post("/v1/episodes/e1/outcome", json=post).json() == first.json()
    other = client.post("/v1/episodes/e1/outcome", json={**post, "return": 500.0})
    assert other.status_code == 409
    assert len(home.ledger.outcomes()) == 1
    after = client.post("/v1/act", json={"observation": OBSERVATION, "episode_id": "e1"})
    assert after.status_code == 409
    assert "new id for the next episode" in after.json()["error"]


def test_metrics_have_the_names_of_the_contract(client: TestClient) -> None:
    client.post("/v1/act", json={"observation": OBSERVATION})
    client.post("/v1/act", json={"observation": []})
    text = client.get("/metrics").text
    for line in (
        'srghn_inference_requests_total{code="200",route="champion"} 1.0',
        'srghn_inference_requests_total{code="422",route="none"} 1.0',
        "srghn_inference_duration_seconds_count 2.0",
        "srghn_inference_inflight_requests 0.0",
        "srghn_champion_generation 1.0",
        "srghn_canary_weight_ratio 0.0",
        'srghn_gate_decisions_total{verdict="passed"} 1.0',
        'srghn_transitions_total{from="APPROVED",to="CHAMPION"} 1.0',
        "srghn_model_load_failures_total 0.0",
    ):
        assert line in text, line
    assert 'srghn_champion_info{digest="' in text


def test_versions_tell_their_story(client: TestClient, home: Any) -> None:
    found = client.get("/v1/versions").json()["versions"]
    assert [(v["version"], v["state"]) for v in found] == [(1, "CHAMPION")]
    detail = client.get("/v1/versions/1").json()
    assert [event["to"] for event in detail["events"]][-1] == "CHAMPION"
    assert detail["verdict"]["verdict"] == "passed"
    assert detail["manifest"]["name"] == "linear"
    champion = client.get("/v1/champion").json()
    assert (champion["version"], champion["by"], champion["canary"]) == (1, "ann", None)


def test_a_report_is_shown_as_its_verdict_names_it(client: TestClient, home: Any) -> None:
    version = home.steps.register()
    home.steps.begin(version)
    page = home.steps.report(version, home.steps.verdict(version))
    home.steps.judge(version)
    shown = client.get(f"/v1/versions/{version}/report")
    assert (shown.status_code, shown.content) == (200, page.read_bytes())
    assert shown.headers["content-type"].startswith("text/html")
    assert (
        client.get(f"/v1/versions/{version}/report.json").json()["verdict"]["verdict"] == "passed"
    )
    for file, path in ((page, "report"), (page.with_name("report.json"), "report.json")):
        file.write_bytes(b"<p>better</p>")
        changed = client.get(f"/v1/versions/{version}/{path}")
        assert changed.status_code == 503
        assert "a changed file" in changed.json()["error"]
        file.unlink()
        missing = client.get(f"/v1/versions/{version}/{path}")
        assert (missing.status_code, "no such file" in missing.text) == (503, True)
        assert f"restore reports/{page.parent.name} from a backup" in missing.text
    assert client.get(f"/v1/versions/{version}/data_docs.html").status_code == 404  # it has none


def start_canary(home: Any, version: int, **params: Any) -> Any:
    chosen = CanaryParams(
        **{"return_low": 0.0, "return_high": 500.0, "weight": 0.5, "min_episodes": 10, **params}
    )
    return home.steps.canary(version, params=chosen)


def play(client: TestClient, name: str, returns: dict[int, float], most: int = 1) -> None:
    """One episode of three actions, answered by no more than `most` versions, and its outcome."""
    seen, token = set(), None
    for _ in range(3):
        said = {"observation": OBSERVATION, "episode_id": name, "token": token}
        answer = client.post("/v1/act", json=said).json()
        seen.add(answer["version"])
        token = answer["token"]
    assert len(seen) <= most
    post = {"return": returns[seen.pop()], "terminated": True, "token": token}
    assert client.post(f"/v1/episodes/{name}/outcome", json=post).json()["length"] == 3


def test_a_better_canary_is_promoted_by_its_episodes(unblinded: TestClient, home: Any) -> None:
    client = unblinded
    version = home.approved(bias=1.0)
    start_canary(home, version)
    wait_for(lambda: client.app.state.service.follower.served.canary)  # type: ignore[attr-defined]
    for n in range(400):
        play(client, f"episode-{n}", {1: 20.0, version: 480.0})
        if home.ledger.champion().version == version:
            break
    champion = home.ledger.champion()
    assert (champion.version, champion.generation) == (version, 2)
    assert champion.by == "canary controller"
    event = home.ledger.events(version)[-1]
    evidence = home.ledger.evidence(event.evidence_sha256)
    assert evidence["action"] == "promote"
    assert evidence["effect"] > 0
    assert evidence["promote"] >= evidence["needed"]
    wait_for(lambda: client.get("/health/ready").json().get("version") == version)
    assert home.ledger.verify()


def test_a_worse_canary_is_aborted_by_its_episodes(unblinded: TestClient, home: Any) -> None:
    client = unblinded
    version = home.approved(bias=1.0)
    start_canary(home, version)
    wait_for(lambda: client.app.state.service.follower.served.canary)  # type: ignore[attr-defined]
    for n in range(400):
        # an episode on a version that is withdrawn for harm moves at once
        play(client, f"episode-{n}", {1: 480.0, version: 20.0}, most=2)
        if home.ledger.canary() is None:
            break
    assert home.ledger.version(version).state == "ABORTED"
    assert home.ledger.champion().version == 1
    wait_for(lambda: client.app.state.service.follower.served.canary is None)  # type: ignore[attr-defined]
    answers = [client.post("/v1/act", json={"observation": OBSERVATION}) for _ in range(50)]
    assert {answer.json()["version"] for answer in answers} == {1}


def test_a_restart_goes_on_from_the_logged_evidence(home: Any) -> None:
    home.first()
    version = home.approved(bias=1.0)
    canary = start_canary(home, version, weight=0.3)
    home.steps.play(canary, 480.0, 20.0, 100)
    with client_of(home):
        wait_for(lambda: home.ledger.canary() is None)
    assert home.ledger.version(version).state == "ABORTED"


def test_an_episode_keeps_its_version_across_a_promotion(client: TestClient, home: Any) -> None:
    body = {"observation": OBSERVATION, "episode_id": "long"}
    assert client.post("/v1/act", json=body).json()["version"] == 1
    second = home.second(bias=1.0)
    wait_for(lambda: client.get("/health/ready").json().get("version") == second)
    answer = client.post("/v1/act", json=body)
    assert (answer.json()["version"], answer.json()["route"]) == (1, "draining")
    fresh = client.post("/v1/act", json={**body, "episode_id": "new"})
    assert fresh.json()["version"] == second
    with client_of(home) as restarted:
        assert restarted.post("/v1/act", json=body).json()["version"] == 1


def test_a_withdrawn_version_answers_no_more(unblinded: TestClient, home: Any) -> None:
    client = unblinded
    body = {"observation": OBSERVATION, "episode_id": "long"}
    assert client.post("/v1/act", json=body).json()["version"] == 1
    second = home.second(bias=1.0)
    home.ledger.revoke(1, who=Who("ann", "a leak"))
    wait_for(lambda: client.post("/v1/act", json=body).json()["version"] == second)
    token = client.post("/v1/act", json=body).json()["token"]
    post = {"return": 1.0, "token": token, "terminated": True}
    assert client.post("/v1/episodes/long/outcome", json=post).json()["counted"] is False


def test_a_champion_that_does_not_load_leaves_the_old_one(client: TestClient, home: Any) -> None:
    digest = home.candidate(bias=1.0)
    version = home.steps.approved(digest)
    (home.store.folder / digest / "policy.onnx").write_bytes(b"junk")
    home.steps.play(home.steps.canary(version), 10.0, 490.0, 20)
    home.ledger.promote(version, expected_generation=1, who=Who("ann", "better"))
    ready = wait_for(lambda: (a := client.get("/health/ready")).status_code == 503 and a)
    assert "did not load" in ready.json()["reason"]
    assert "policy.onnx was changed" in ready.json()["reason"]
    assert client.post("/v1/act", json={"observation": OBSERVATION}).json()["version"] == 1
    assert "srghn_model_load_failures_total 0.0" not in client.get("/metrics").text


def test_a_version_whose_pass_is_forged_is_not_served(home: Any) -> None:
    import sqlite3

    home.first()
    with sqlite3.connect(home.settings.home / "ledger.db") as raw:
        raw.execute("DROP TRIGGER evidence_no_UPDATE")
        raw.execute("UPDATE evidence SET body = replace(body, 'primary', 'secondary')")
    raw.close()
    with client_of(home) as client:
        answer = client.post("/v1/act", json={"observation": OBSERVATION})
        assert answer.status_code == 503
        assert "was changed" in answer.json()["error"]


def test_a_canary_that_fails_is_covered_for_and_aborted(unblinded: TestClient, home: Any) -> None:
    client = unblinded
    version = home.approved(brittle=True)
    start_canary(home, version, weight=0.99)
    wait_for(lambda: client.app.state.service.follower.served.canary)  # type: ignore[attr-defined]
    for n in range(400):  # one in twenty falls on the canary at the trial's first step
        body = {"observation": OBSERVATION, "episode_id": f"e{n}"}
        answer = client.post("/v1/act", json=body)
        assert (answer.status_code, answer.json()["version"]) == (200, 1)
        if home.ledger.canary() is None:
            break
    wait_for(lambda: home.ledger.canary() is None)
    assert home.ledger.version(version).state == "ABORTED"
    assert "guard of invalid actions" in home.ledger.events(version)[-1].reason


def test_a_champion_that_fails_says_so(home: Any) -> None:
    home.first(brittle=True)
    with client_of(home) as client:
        assert client.post("/v1/act", json={"observation": [1, 2, 3, 4]}).status_code == 200
        answer = client.post("/v1/act", json={"observation": OBSERVATION})
        assert answer.status_code == 503
        assert "not finite" in answer.json()["error"]


def test_one_action_and_a_batch_have_the_same_digits(home: Any) -> None:
    home.first(brittle=True)
    third = float(np.float32(1 / 3))
    with client_of(home) as client:
        one = client.post("/v1/act", json={"observation": [1, 2, 3, 4]}).json()["action"]
        many = client.post("/v1/act/batch", json={"observations": [[1, 2, 3, 4]]}).json()
        assert [one] == many["actions"] == [[third] * 4]


def test_a_rollback_is_followed(client: TestClient, home: Any) -> None:
    second = home.second(bias=1.0)
    wait_for(lambda: client.get("/health/ready").json().get("version") == second)
    home.ledger.rollback(who=Who("ann", "it fell"))
    back = wait_for(lambda: (a := client.get("/health/ready").json()).get("version") == 1 and a)
    assert back["generation"] == 3
    wait_for(lambda: 'srghn_rollbacks_total{reason="rollback"} 1.0' in client.get("/metrics").text)


def test_a_ledger_that_cannot_be_read_leaves_the_champion_serving(
    home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from srghn.errors import LedgerError

    home.first()
    limits = Limits(poll_seconds=0.02, blind_seconds=0.2)
    with client_of(home, limits) as client:
        ledger = client.app.state.service.ledger  # type: ignore[attr-defined]

        def broken(*_: Any, **__: Any) -> Any:
            raise LedgerError("the disk is gone")

        said = {"observation": OBSERVATION, "episode_id": "begun"}
        begun = client.post("/v1/act", json=said).json()
        for name in ("served", "versions"):
            monkeypatch.setattr(ledger, name, broken)
        monkeypatch.setattr(ledger.database(), "write", broken)
        answer = client.post("/v1/act", json={"observation": OBSERVATION, "episode_id": "e"})
        assert answer.status_code == 200
        assert answer.json()["recorded"] is False
        post = {"return": 1.0, "token": answer.json()["token"], "terminated": True}
        lost = client.post("/v1/episodes/e/outcome", json=post)
        assert (lost.json()["recorded"], lost.json()["counted"]) == (False, False)
        post["token"] = begun["token"]
        refused = client.post("/v1/episodes/begun/outcome", json=post)
        assert (refused.status_code, "the disk is gone" in refused.text) == (503, True)
        assert client.get("/v1/versions").status_code == 503
        ready = wait_for(lambda: (a := client.get("/health/ready")).status_code == 503 and a)
        assert "cannot read the ledger: the disk is gone" in ready.json()["reason"]
        assert client.post("/v1/act", json={"observation": OBSERVATION}).status_code == 200
        monkeypatch.undo()
        wait_for(lambda: client.get("/health/ready").status_code == 200)


def test_old_pins_are_forgotten_and_their_outcomes_refused(home: Any) -> None:
    home.first()
    limits = Limits(poll_seconds=0.02, pin_seconds=0.0, prune_seconds=0.1)
    with client_of(home, limits) as client:
        said = {"observation": OBSERVATION, "episode_id": "e"}
        token = client.post("/v1/act", json=said).json()["token"]
        wait_for(lambda: home.ledger.find_episode("e") is None)
        post = {"return": 1.0, "token": token, "terminated": True}
        assert client.post("/v1/episodes/e/outcome", json=post).status_code == 404


def test_an_episode_that_runs_too_long_is_moved_and_not_counted(home: Any) -> None:
    home.first()
    with client_of(home, Limits(poll_seconds=0.02, episode_seconds=1e-6)) as client:
        version = home.approved(bias=1.0)
        start_canary(home, version)
        wait_for(lambda: client.app.state.service.follower.served.canary)  # type: ignore[attr-defined]
        body: dict[str, Any] = {"observation": OBSERVATION, "episode_id": "constant"}
        for _ in range(2):
            answer = client.post("/v1/act", json=body)
            assert answer.status_code == 200
            body["token"] = answer.json()["token"]
        post = {"return": 1.0, "token": body["token"], "terminated": True}
        assert client.post("/v1/episodes/constant/outcome", json=post).json()["counted"] is False
