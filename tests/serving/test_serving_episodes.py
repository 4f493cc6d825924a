"""Episodes over HTTP: what their tokens prove, and what nobody can do without one."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.limits import Limits
from serving.predictor import PredictionError, Predictor
from serving.registry.trial_log import to_log
from serving.trial.assignment import arm_of, trial_key
from serving.trial.tokens import Sealer
from srghn.config import CanaryParams
from srghn.errors import LedgerError

OBSERVATION = [0.0, 0.0, 0.1, 0.0]


def opened(home: Any, **options: Any) -> TestClient:
    patient = {"start_seconds": 10, "lock_seconds": 10}  # a busy machine syncs slowly
    limits = Limits(**{"poll_seconds": 0.02, **patient, **options})
    return TestClient(create_app(home.settings, limits), raise_server_exceptions=False)


def wait_for(check: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120  # only what never comes is given up
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def act(client: TestClient, **said: Any) -> dict[str, Any]:
    answer = client.post("/v1/act", json={"observation": OBSERVATION, **said})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def end(client: TestClient, name: str, token: str, value: float = 1.0, **more: Any) -> Any:
    post = {"return": value, "terminated": True, "token": token, **more}
    return client.post(f"/v1/episodes/{name}/outcome", json=post)


@pytest.fixture
def trial(home: Any) -> Iterator[tuple[TestClient, Any]]:
    """A server in a trial that no outcome decides."""
    home.first()
    version = home.approved(bias=1.0)
    params = CanaryParams(weight=0.5, min_episodes=5000, return_low=0.0, return_high=500.0)
    canary = home.steps.canary(version, params=params, weight=0.5)
    with opened(home) as client:
        wait_for(lambda: client.app.state.service.follower.served.canary)  # type: ignore[attr-defined]
        yield client, canary


def test_an_episode_with_its_tokens_counts_with_its_arm_and_length(
    trial: tuple[TestClient, Any], home: Any
) -> None:
    client, canary = trial
    secret = home.ledger.secret("policy")
    for n in range(8):
        name, token = f"episode-{n}", None
        for _ in range(3):
            token = act(client, episode_id=name, token=token)["token"]
        assert token is not None
        answer = end(client, name, token, 300.0, length=99)
        assert answer.json()["counted"] is True
        row = home.ledger.find_episode(name)
        assert (row.length, row.return_, row.counted) == (3, 300.0, True)
        assert row.arm == arm_of(trial_key(secret, "policy", canary.epoch), name, 0.5)
        assert (row.weight, row.trial) == (0.5, canary.epoch)
        assert row.deadline > row.started_at


def test_no_answer_of_a_trial_tells_the_arm(trial: tuple[TestClient, Any]) -> None:
    client, _ = trial
    seen = set()
    for n in range(30):
        name = f"episode-{n:02}"
        answer = client.post(
            "/v1/act",
            json={"observation": OBSERVATION, "episode_id": name},
            headers={"X-Request-Id": "same"},
        )
        content = answer.json()
        seen.add((content["route"], "version" in content, len(content["token"]), len(answer.text)))
        seen.add(tuple(sorted((k, v) for k, v in answer.headers.items() if k != "date")))
        outcome = end(client, name, content["token"])
        seen.add(tuple(sorted(outcome.json().keys())))
        assert outcome.json()["route"] == "trial"
        tensor = {"name": "obs", "shape": [1, 4], "datatype": "FP32", "data": OBSERVATION}
        infer = client.post(
            "/v2/models/policy/infer",
            json={"inputs": [tensor], "parameters": {"episode_id": f"v2-{n:02}"}},
        )
        assert "model_version" not in infer.json()
        assert infer.headers["x-route"] == "trial"
    assert len(seen) == 3


def test_without_the_token_an_episode_is_answered_and_is_no_evidence(
    trial: tuple[TestClient, Any],
) -> None:
    client, _ = trial
    act(client, episode_id="careless")
    token = act(client, episode_id="careless")["token"]
    token = act(client, episode_id="careless", token=token)["token"]
    assert end(client, "careless", token).json()["counted"] is False
    nameless = client.post("/v1/act", json={"observation": OBSERVATION})
    assert nameless.status_code == 200
    assert "token" not in nameless.json()


def test_nobody_ends_anothers_episode(trial: tuple[TestClient, Any], home: Any) -> None:
    client, _ = trial
    mine = act(client, episode_id="mine")["token"]
    other = act(client, episode_id="other")["token"]
    post = {"return": 0.0, "terminated": True}
    for token in (None, other, "A" * len(mine), mine[:-4] + "AAA="):
        refused = client.post("/v1/episodes/mine/outcome", json={**post, "token": token})
        assert refused.status_code == 422
    assert home.ledger.find_episode("mine").arrived is None
    assert end(client, "mine", mine, 5.0).json()["counted"] is True
    assert end(client, "mine", mine, 5.0).json()["counted"] is True  # sent again: the same answer
    assert end(client, "mine", mine, 6.0).status_code == 409
    wrong = client.post(
        "/v1/act", json={"observation": OBSERVATION, "episode_id": "else", "token": mine}
    )
    assert wrong.status_code == 422


def test_a_token_of_another_ledger_is_refused(
    trial: tuple[TestClient, Any], tmp_path: Any, make_candidate: Any
) -> None:
    from tests.serving.conftest import Home

    elsewhere = Home(tmp_path / "elsewhere", make_candidate)
    elsewhere.first()
    with opened(elsewhere) as other:
        foreign = act(other, episode_id="e")["token"]
    elsewhere.ledger.close()
    client, _ = trial
    act(client, episode_id="e")
    assert "not sealed here" in end(client, "e", foreign).json()["error"]


def test_another_worker_goes_on_with_an_episode(trial: tuple[TestClient, Any], home: Any) -> None:
    client, _ = trial
    token = act(client, episode_id="shared")["token"]
    with opened(home) as second:
        token = act(second, token=token)["token"]
    token = act(client, token=token)["token"]
    answer = end(client, "shared", token).json()
    assert (answer["length"], answer["counted"]) == (3, True)


def test_what_a_worker_remembers_of_a_token_is_what_the_token_says(
    trial: tuple[TestClient, Any], home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It remembers its last answers' tokens until they come back, and not more than so many."""
    monkeypatch.setattr("serving.control.episodes.REMEMBERED", 5)
    client, _ = trial
    known = client.app.state.service.default.episodes._sealed  # type: ignore[attr-defined]
    sealer = Sealer(home.ledger.secret("policy"))
    for n in range(12):
        token = act(client, episode_id=f"kept-{n}")["token"]
        for _ in range(3):
            assert known[token].but() == sealer.open(token)
            token = act(client, token=token)["token"]
        assert len(known) <= 5
    again = [act(client, token=token)["token"] for _ in range(2)]  # an answer that was lost
    assert token not in known
    assert sealer.open(again[0]) == sealer.open(again[1])
    assert sealer.open(again[0]).steps == 5


def test_an_episode_that_moved_says_so_in_its_next_token(home: Any) -> None:
    """Though its steps before had one sealed part."""
    home.first()
    sealer = Sealer(home.ledger.secret("policy"))
    with opened(home) as client:
        token = act(client, episode_id="long")["token"]
        token = act(client, token=token)["token"]
        later = time.time() + 7200
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("serving.control.episodes.time.time", lambda: later)
            moved = act(client, token=token)["token"]
        assert [sealer.open(each).moved for each in (token, moved)] == [False, True]
        assert sealer.open(act(client, token=moved)["token"]).moved


def failing_from(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """From now on this version fails, and the champion answers for it."""
    real = Predictor.step_one

    def step_one(self: Predictor, observation: list[float], memory: bytes) -> Any:
        if self.version == version:
            raise PredictionError("broken")
        return real(self, observation, memory)

    monkeypatch.setattr(Predictor, "step_one", step_one)


def test_an_older_token_does_not_undo_steps_without_one(
    trial: tuple[TestClient, Any], home: Any
) -> None:
    client, _ = trial
    token = act(client, episode_id="hidden")["token"]
    for _ in range(3):
        assert act(client, episode_id="hidden")["recorded"] is False
    assert end(client, "hidden", token).json()["counted"] is False
    assert home.ledger.find_episode("hidden").moved
    token = act(client, episode_id="elsewhere")["token"]
    with opened(home) as second:
        act(second, episode_id="elsewhere")
    assert end(client, "elsewhere", token).json()["counted"] is False


def test_an_older_token_does_not_undo_a_move(
    trial: tuple[TestClient, Any], home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an episode in which the canary failed would count as if it had not."""
    client, canary = trial
    tokens = {f"e{n}": act(client, episode_id=f"e{n}")["token"] for n in range(12)}
    failing_from(monkeypatch, canary.version)
    for token in tokens.values():
        act(client, token=token)
    arms = {name: home.ledger.find_episode(name).arm for name in tokens}
    assert set(arms.values()) == {0, 1}
    with opened(home) as second:
        wait_for(lambda: home.ledger.find_episode(max(arms, key=lambda n: (arms[n], n))).moved)
        for name, token in tokens.items():
            assert end(second, name, token).json()["counted"] is (arms[name] == 0)
    late = act(client, episode_id="late")["token"]
    later = time.time() + 7200
    monkeypatch.setattr("serving.control.episodes.time.time", lambda: later)
    act(client, token=late)
    assert end(client, "late", late).json()["counted"] is False
    assert home.ledger.find_episode("late").moved


def test_what_is_no_evidence_is_not_waited_for(trial: tuple[TestClient, Any], home: Any) -> None:
    """Nor does its outcome, or a mark that comes after it, change what was decided on."""
    client, canary = trial
    tokens = [act(client, episode_id=name)["token"] for name in "abc"]
    act(client, episode_id="a")
    wait_for(lambda: home.ledger.find_episode("a").moved)
    end(client, "b", tokens[1])
    found = home.ledger.resolved("policy", canary.epoch, 0, time.time())
    assert [row.episode for row in found] == ["a", "b"]
    end(client, "a", tokens[0])
    assert [to_log([home.ledger.find_episode(n)], canary.rules).values[0] for n in "ab"] == (
        pytest.approx([float("nan"), canary.rules.scale(1.0)], nan_ok=True)
    )


def test_the_ledger_is_told_as_soon_as_it_can_be_written(
    trial: tuple[TestClient, Any], home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.control.episodes.AGAIN", 0.05)
    client, _ = trial
    token = act(client, episode_id="locked")["token"]
    episodes = client.app.state.service.default.episodes  # type: ignore[attr-defined]
    real, failures = episodes._database.write, [LedgerError("full")] * 3

    def write() -> Any:
        if failures:
            raise failures.pop()
        return real()

    monkeypatch.setattr(episodes._database, "write", write)
    act(client, episode_id="locked")
    wait_for(lambda: home.ledger.find_episode("locked").moved)
    wait_for(lambda: not episodes._untold)
    assert end(client, "locked", token).json()["counted"] is False


def test_it_is_told_of_a_request_that_came_while_it_could_not_be_read(
    trial: tuple[TestClient, Any], home: Any
) -> None:
    """The worker then cannot know that the episode runs already."""
    client, _ = trial
    token = act(client, episode_id="away")["token"]
    with opened(home, start_seconds=0.2, lock_seconds=0.2) as second:
        lock = sqlite3.connect(home.settings.home / "ledger.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        assert act(second, episode_id="away")["recorded"] is False
        lock.execute("ROLLBACK")
        lock.close()
        wait_for(lambda: home.ledger.find_episode("away").moved)
    assert end(client, "away", token).json()["counted"] is False


def test_no_outcome_without_the_episodes_own_token_takes_its_place(
    trial: tuple[TestClient, Any], home: Any
) -> None:
    client, _ = trial
    mine = act(client, episode_id="mine")["token"]
    loose = act(client, episode_id="mine")["token"]  # whoever names it gets one
    for _ in range(2):
        answer = end(client, "mine", loose, 0.0)
        assert answer.json() == {
            "episode_id": "mine", "length": 1, "counted": False, "recorded": False
        }  # fmt: skip
    assert home.ledger.find_episode("mine").arrived is None
    mine = act(client, token=mine)["token"]
    for _ in range(2):
        assert end(client, "mine", mine, 400.0).json()["length"] == 2
    assert end(client, "mine", mine, 401.0).status_code == 409
    assert end(client, "mine", loose, 0.0).json()["recorded"] is False
    row = home.ledger.find_episode("mine")
    assert (row.return_, row.length, row.counted) == (400.0, 2, False)


def test_in_a_trial_no_part_of_a_token_stays(
    trial: tuple[TestClient, Any], home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one stayed until the episode moves, its change would tell that a version failed."""
    client, _ = trial
    tokens = [act(client, episode_id="e")["token"]]
    for _ in range(5):
        tokens.append(act(client, token=tokens[-1])["token"])
    assert len({token[:-40] for token in tokens}) == 6
    assert len({len(token) for token in tokens}) == 1


def test_a_held_lock_delays_a_new_episode_by_a_second_at_most_and_no_step(home: Any) -> None:
    home.first()
    with opened(home, start_seconds=0.3, outcome_seconds=0.3) as client:
        token = act(client, episode_id="begun")["token"]
        lock = sqlite3.connect(home.settings.home / "ledger.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        fresh = act(client, episode_id="fresh")
        assert 0.25 < time.monotonic() - begun < 3
        assert fresh["recorded"] is False
        begun = time.monotonic()
        for _ in range(20):
            token = act(client, token=token)["token"]
        assert time.monotonic() - begun < 3  # each would wait 0.3 s if it waited at all
        assert client.get("/v1/champion").status_code == 200
        refused = end(client, "begun", token)
        assert refused.status_code == 503
        assert "longer than 0.3 s: another process may hold it (locked)" in refused.text
        lock.execute("ROLLBACK")
        lock.close()
        assert end(client, "begun", token).json()["length"] == 21
        assert end(client, "fresh", fresh["token"]).json()["recorded"] is False


def test_an_outcome_waits_longer_than_one_try_for_the_lock(home: Any) -> None:
    home.first()
    with opened(home, lock_seconds=0.2) as client:
        token = act(client, episode_id="begun")["token"]
        lock = sqlite3.connect(
            home.settings.home / "ledger.db", isolation_level=None, check_same_thread=False
        )
        lock.execute("BEGIN IMMEDIATE")
        release = threading.Timer(1.0, lock.execute, ["ROLLBACK"])
        release.start()
        assert end(client, "begun", token).json()["length"] == 1
        release.join()
        lock.close()


def test_a_start_is_in_the_ledger_before_its_first_answer(home: Any) -> None:
    home.first()
    with opened(home) as client:
        for n in range(5):
            act(client, episode_id=f"e{n}")
            assert home.ledger.find_episode(f"e{n}") is not None
        starts = [home.ledger.find_episode(f"e{n}").n for n in range(5)]
    assert starts == sorted(starts)
