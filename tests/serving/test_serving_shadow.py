"""Shadow, guards and holdback over HTTP: off the request path, counted, and acted on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from serving.control import copies as copying
from serving.control import helper
from serving.control import shadow as shadowing
from serving.control.copies import Answer, Answers, Copy, Of, compared
from serving.control.shadow import Shadow
from serving.counts import Counts
from serving.limits import Limits
from serving.registry.ledger import POLICY
from serving.registry.records import Who
from serving.registry.rules import DeploymentRules, HoldbackTerms
from serving.tokens import Tokens
from serving.trial.assignment import arm_of, trial_key
from serving.trial.rules import GuardTerms
from srghn.config import CanaryParams
from srghn.parents import alive, mark
from tests.serving.test_serving_episodes import OBSERVATION, act, end, opened, wait_for

ANN = Who("ann", "because")
LEANING = [0.5, 0.5, 0.1, 0.5]


def tried(client: TestClient) -> Any:
    return client.app.state.service.follower.served.tried  # type: ignore[attr-defined]


def shadow(home: Any, **options: Any) -> int:
    version: int = home.approved(**options)
    loaded = {"digest": home.ledger.version(version).digest, "golden": 8}
    home.ledger.start_shadow(version, loaded=loaded, who=ANN)
    return version


def copies(home: Any, version: int) -> Any:
    return home.ledger.compared(POLICY, version)[1]


def test_a_shadow_answers_copies_and_nobody_gets_its_answers(home: Any) -> None:
    home.first()
    version = shadow(home, flip=True)
    with opened(home, shadow_rate=10_000) as client:
        wait_for(lambda: tried(client))
        for n in range(10):
            answer = act(client, episode_id=f"e-{n}")
            assert (answer["action"], answer["version"], answer["route"]) == (1, 1, "champion")
        client.post("/v1/act/batch", json={"observations": [OBSERVATION] * 3})
        tensor = {"name": "obs", "shape": [1, 4], "datatype": "FP32", "data": OBSERVATION}
        client.post("/v2/models/policy/infer", json={"inputs": [tensor]})
        seen = wait_for(lambda: (s := copies(home, version)).copies == 12 and s)
        assert (seen.differed, seen.errors, seen.timed) == (12, 0, 12)
        assert seen.seconds > 0
        wait_for(lambda: 'srghn_shadow_copies{route="shadow"} 12.0' in client.get("/metrics").text)
        metrics = client.get("/metrics").text
        assert 'srghn_shadow_disagreement_ratio{route="shadow"} 1.0' in metrics
        assert 'srghn_guard_ratio{guard="errors",route="shadow"}' in metrics
        page = client.get("/").text
        assert f"version {version} answers a copy of the traffic" in page
    home.ledger.stop_shadow(version, who=ANN)
    assert home.ledger.version(version).state == "APPROVED"


@pytest.fixture
def naughty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """The process that answers copies does something before a version answers one."""

    def do(version: int, what: str) -> None:
        script = tmp_path / "naughty.py"
        script.write_text(NAUGHTY.format(version=version, what=what), encoding="utf-8")
        monkeypatch.setattr(shadowing, "COMMAND", (sys.executable, str(script)))
        monkeypatch.setattr(helper, "PAUSES", (0.01, 0.02))

    return do


NAUGHTY = """
import os, signal, sys, time
from pathlib import Path
from serving.control.copies import main
from serving.predictor import Predictor

real = Predictor.step_one

def step_one(self, observation, memory):
    if self.version == {version}:
        {what}
    return real(self, observation, memory)

Predictor.step_one = step_one
main(Path(sys.argv[1]))
"""


def test_a_shadow_that_hangs_slows_no_request_and_copies_are_dropped(
    home: Any, naughty: Callable[[int, str], None]
) -> None:
    home.first()
    version = shadow(home, bias=1.0)
    naughty(version, "time.sleep(60)")
    with opened(home, shadow_queue=2) as client:
        wait_for(lambda: tried(client))
        begun = time.monotonic()
        for _ in range(20):
            act(client)
        assert time.monotonic() - begun < 10
        text = client.get("/metrics").text
        dropped = float(text.split("\nsrghn_shadow_dropped_total ")[1].split()[0])
        assert dropped >= 17


def test_a_shadow_that_hangs_has_failed_on_that_copy_and_the_next_is_answered(
    home: Any, naughty: Callable[[int, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    home.first()
    version = shadow(home, bias=1.0)
    naughty(version, "time.sleep(60)")
    monkeypatch.setattr(shadowing, "ANSWERS", 0.5)  # the champion answers in time
    with opened(home, shadow_rate=10_000) as client:
        wait_for(lambda: tried(client))
        # copies that come before the process may begin again are dropped
        seen = wait_for(lambda: act(client) and (s := copies(home, version)).copies >= 2 and s)
    assert (seen.errors, seen.champion_errors, seen.timed) == (seen.copies, 0, 0)


def test_native_code_that_crashes_ends_no_worker_and_ends_the_trial(
    home: Any, naughty: Callable[[int, str], None]
) -> None:
    """Each crash is an error of the version that was asked: after a few the guard is broken."""
    soon = DeploymentRules(guards=GuardTerms(alpha=0.4))
    home.ledger.set_deployment_rules(soon, who=ANN)
    home.first()
    version = home.approved(bias=1.0)
    home.steps.canary(version, weight=0.5)
    naughty(version, "os.kill(os.getpid(), signal.SIGSEGV)")
    with opened(home, shadow_rate=10_000) as client:
        wait_for(lambda: tried(client))
        until = time.monotonic() + 60
        while home.ledger.canary() is not None and time.monotonic() < until:
            assert act(client)["action"] == 1
            time.sleep(0.02)
    event = home.ledger.events(version)[-1]
    assert "guard of errors: it failed on" in event.reason
    assert home.ledger.version(version).quarantined


def test_a_shadow_whose_file_was_changed_is_not_run_and_is_said(home: Any) -> None:
    home.first()
    version = shadow(home, bias=1.0)
    with opened(home, shadow_rate=10_000) as client:
        wait_for(lambda: tried(client))
        digest = home.ledger.version(version).digest
        policy = home.settings.home / "artefacts" / digest / "policy.onnx"
        policy.write_bytes(policy.read_bytes() + b"x")
        act(client)
        wait_for(lambda: "srghn_model_load_failures_total 1.0" in client.get("/metrics").text)
        assert client.get("/health/ready").status_code == 200
        act(client)
    assert copies(home, version).copies == 0


def test_the_process_ends_with_its_server_and_when_nothing_is_tried(
    home: Any, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.first()
    shadow(home, bias=1.0)
    with running(home, environment={"SRGHN_LIMIT_POLL_SECONDS": "0.05"}) as (url, process):
        found = wait_for(lambda: answering(process.pid, url))
        process.kill()
        wait_for(lambda: not Path(f"/proc/{found}").exists() or not alive(mark(found)))
    monkeypatch.setattr(shadowing, "IDLE", 0.05)
    with opened(home, shadow_rate=10_000) as client:
        wait_for(lambda: tried(client))
        act(client)
        service = client.app.state.service  # type: ignore[attr-defined]
        wait_for(lambda: copies(home, 2).copies > 0 and not service.default.shadow._helper.runs)


def answering(server: int, url: str) -> int | None:
    """The process that answers copies for a server, once a request has begun it."""
    with suppress(httpx.TransportError):  # it may be starting
        httpx.post(f"{url}/v1/act", json={"observation": OBSERVATION})
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(fields[1]) == server and b"serving.control.copies" in words:
            return int(entry.name)
    return None


@pytest.mark.parametrize("then", ["person", "trial"])
def test_a_shadow_that_showed_enough_goes_on_trial_where_the_rules_say_so(
    home: Any, then: Literal["person", "trial"]
) -> None:
    rules = DeploymentRules(shadow_first=True, shadow_copies=5, shadow_then=then)
    home.ledger.set_deployment_rules(rules, who=ANN)
    home.first()
    version = shadow(
        home,
        bias=1.0,
        canary=CanaryParams(return_low=0.0, return_high=500.0).model_dump(mode="json"),
    )
    with opened(home, shadow_rate=10_000) as client:
        wait_for(lambda: tried(client))
        for _ in range(4):
            act(client)
        wait_for(lambda: copies(home, version).copies == 4)
        says = {"person": "a person may begin its trial", "trial": "its trial begins by itself"}
        assert f"After 5 copies {says[then]}." in client.get("/").text
        assert home.ledger.shadow().version == version
        act(client)
        wait_for(lambda: home.ledger.shadow() is None or copies(home, version).copies == 5)
        if then == "trial":
            wait_for(lambda: home.ledger.canary() and home.ledger.canary().version == version)
            assert home.ledger.events(version)[-1].actor == "shadow"
        else:
            time.sleep(0.1)
            assert home.ledger.canary() is None


def test_a_shadow_that_broke_a_guard_goes_on_no_trial(home: Any) -> None:
    rules = DeploymentRules(shadow_first=True, shadow_copies=20, shadow_then="trial")
    home.ledger.set_deployment_rules(rules, who=ANN)
    home.first()
    asked = CanaryParams(return_low=0.0, return_high=500.0).model_dump(mode="json")
    version = shadow(home, brittle=True, canary=asked)
    with opened(home, shadow_rate=10_000) as client:
        wait_for(lambda: tried(client))
        for _ in range(20):
            act(client)
        wait_for(lambda: copies(home, version).copies >= 20)
        time.sleep(0.1)
    assert home.ledger.canary() is None
    assert home.ledger.shadow().version == version


def test_a_canary_that_fails_is_covered_and_aborted_by_the_guard(home: Any) -> None:
    home.first()
    version = home.approved(brittle=True)
    home.steps.canary(version, weight=0.5)
    with opened(home, shadow_rate=10_000) as client:
        wait_for(lambda: tried(client))
        for n in range(30):
            assert act(client, episode_id=f"e-{n}")["action"] == 1
        wait_for(lambda: home.ledger.canary() is None)
    assert home.ledger.version(version).state == "ABORTED"
    event = home.ledger.events(version)[-1]
    assert "guard of invalid actions" in event.reason
    said = home.ledger.evidence(event.evidence_sha256)
    assert said["copies"]["invalid"] >= 10
    assert said["guard"]["capital"] >= said["guard"]["needed"]


def test_observations_that_no_environment_shows_end_no_trial(home: Any) -> None:
    """Of 1e38 the sums of a sound network overflow, maybe the canary's alone."""
    home.first()
    version = home.approved(brittle=True)
    home.steps.canary(version, weight=0.5)
    with opened(home, shadow_rate=10_000) as client:
        wait_for(lambda: tried(client))
        for _ in range(20):
            client.post("/v1/act", json={"observation": [0.0, 0.0, 0.0, 3e38]})
        wait_for(lambda: "srghn_shadow_dropped_total 20.0" in client.get("/metrics").text)
        assert "srghn_shadow_outside_total 20.0" in client.get("/metrics").text
        time.sleep(0.1)
        assert home.ledger.canary() is not None
    assert copies(home, version).copies == 0


def test_a_copy_comes_with_the_owner_of_its_token(home: Any) -> None:
    home.first()
    shadow(home, bias=1.0)
    token = Tokens(home.ledger.database()).add("ann", ["infer"])
    home.settings = home.settings.model_copy(update={"auth": "inference"})
    found: list[str | None] = []
    with opened(home) as client:
        wait_for(lambda: tried(client))
        service = client.app.state.service  # type: ignore[attr-defined]
        service.default.shadow.offer = lambda *given: found.append(given[-1])
        client.headers.update({"Authorization": f"Bearer {token}"})
        act(client, episode_id="e")
        client.post("/v1/act/batch", json={"observations": [OBSERVATION] * 3})
        for rows in (1, 2):
            data = {"shape": [rows, 4], "datatype": "FP32", "data": OBSERVATION * rows}
            client.post("/v2/models/policy/infer", json={"inputs": [{"name": "obs", **data}]})
    assert found == ["ann"] * 4


def test_where_both_fail_the_canary_is_not_to_blame(home: Any) -> None:
    home.first(brittle=True)
    version = home.approved(brittle=True, salt=1)
    home.steps.canary(version, weight=0.5)
    with opened(home, shadow_rate=10_000) as client:
        wait_for(lambda: tried(client))
        for _ in range(20):
            client.post("/v1/act", json={"observation": OBSERVATION})
        wait_for(lambda: copies(home, version).copies >= 20)
        time.sleep(0.2)
        assert home.ledger.canary() is not None
        seen = copies(home, version)
        assert (seen.invalid, seen.champion_invalid) == (0, 0)


def test_a_slow_canary_breaks_the_guard_of_latency(
    home: Any, naughty: Callable[[int, str], None]
) -> None:
    home.first()
    version = home.approved(bias=1.0)
    home.steps.canary(version, weight=0.5)
    naughty(version, "time.sleep(0.02)")
    with opened(home, shadow_rate=10_000) as client:
        wait_for(lambda: tried(client))
        # further ones where a busy machine delays the champion's answers, too
        wait_for(lambda: act(client) and home.ledger.canary() is None)
    assert "guard of latency" in home.ledger.events(version)[-1].reason


@pytest.mark.parametrize(
    ("mine", "champions", "counted"),
    [
        ("", "", {"timed": 1}),
        ("error", "", {"errors": 1}),
        ("", "error", {"champion_errors": 1}),
        ("error", "error", {}),
        ("invalid", "", {"invalid": 1}),
        ("invalid", "error", {"invalid": 1, "champion_errors": 1}),
    ],
)
def test_what_a_copy_counts_for(mine: str, champions: str, counted: dict[str, int]) -> None:
    found = compared(Answer(1, mine, 0.0), Answer(1, champions, 0.0), None, GuardTerms())
    assert {k: v for k, v in vars(found).items() if v} == {"copies": 1, **counted}


def test_counts_that_the_ledger_did_not_take_are_kept(home: Any, monkeypatch: Any) -> None:
    from serving.trial.compared import Compared
    from srghn.errors import LedgerError

    made = Shadow(home.ledger, home.settings.home, Counts(), Limits(), POLICY)
    made._keep(5, Compared(copies=2))
    real: Callable[..., None] = home.ledger.add_compared

    def fails(*_: Any) -> None:
        raise LedgerError("locked")

    monkeypatch.setattr(home.ledger, "add_compared", fails)
    with pytest.raises(LedgerError):
        made.look()
    monkeypatch.setattr(home.ledger, "add_compared", real)
    made._keep(5, Compared(copies=1))
    made.look()
    assert made._seen == {}
    with home.ledger._database.read() as connection:
        from serving.registry import comparisons

        assert comparisons.find(connection, POLICY, 5).copies == 3
    made.close()


# ---------------------------------------------------------------------------- holdback


def fresh(home: Any) -> int:
    terms = HoldbackTerms(share=0.3)
    home.ledger.set_deployment_rules(DeploymentRules(holdback=terms), who=ANN)
    home.first()
    version: int = home.second(flip=True)
    return version


def play(client: TestClient, home: Any, count: int, good: float, bad: float) -> set[str]:
    """Episodes until the window ends; the champion earns `bad`, its predecessor `good`."""
    window, routes = home.ledger.holdback(), set()
    key = trial_key(home.ledger.secret(POLICY), POLICY, window.epoch)
    for n in range(count):
        name = f"e-{n}"
        answer = act(client, episode_id=name)
        if home.ledger.holdback() is None:
            break  # it ended meanwhile, and this answer may be from after it
        routes.add(answer["route"])
        held = arm_of(key, name, window.share) == 1
        assert answer["action"] == (1 if held else 0)  # the predecessor's, or the champion's
        assert "version" not in answer
        assert end(client, name, answer["token"], good if held else bad).status_code == 200
    return routes


def test_a_worse_champion_is_rolled_back_by_itself_once_and_it_is_announced(home: Any) -> None:
    version = fresh(home)
    with opened(home) as client:
        wait_for(lambda: client.app.state.service.follower.served.held)  # type: ignore[attr-defined]
        assert "stay on version 1" in client.get("/").text
        assert play(client, home, 300, 450.0, 50.0) == {"trial"}
        wait_for(lambda: home.ledger.champion().version == 1)
        wait_for(lambda: client.get("/v1/champion").json()["version"] == 1)
        follower = client.app.state.service.follower  # type: ignore[attr-defined]
        wait_for(lambda: follower.served.champion.version == 1 and not follower.served.held)
        answer = act(client, episode_id="after")
        assert (answer["route"], answer["version"]) == ("champion", 1)
        wait_for(
            lambda: (
                'srghn_rollbacks_total{reason="rollback_by_holdback"} 1.0'
                in client.get("/metrics").text
            )
        )
    event = home.ledger.events()[-1]
    champion = home.ledger.events(1)[-1]
    assert (champion.action, champion.actor) == ("rollback_by_holdback", "holdback")
    assert "worse than version 1: champion mean 10.0%" in champion.reason
    assert home.ledger.version(version).quarantined
    assert home.ledger.holdback() is None
    assert event.seq >= champion.seq
    home.ledger.verify()


def test_a_champion_that_is_not_worse_ends_its_window(home: Any) -> None:
    version = fresh(home)
    with opened(home) as client:
        wait_for(lambda: client.app.state.service.follower.served.held)  # type: ignore[attr-defined]
        play(client, home, 300, 300.0, 320.0)
        wait_for(lambda: home.ledger.holdback() is None)
        wait_for(lambda: act(client)["route"] == "champion")
        assert act(client)["version"] == version
    event = home.ledger.events()[-1]
    assert (event.action, event.actor, event.version) == ("end_holdback", "holdback", None)
    assert "not worse than version 1 by 5% or more" in event.reason


def test_a_window_whose_time_is_over_ends(home: Any) -> None:
    terms = HoldbackTerms(hours=1e-4)
    home.ledger.set_deployment_rules(DeploymentRules(holdback=terms), who=ANN)
    home.first()
    home.second(bias=1.0)
    time.sleep(0.4)
    with opened(home) as client:
        wait_for(lambda: home.ledger.holdback() is None)
        assert act(client)["route"] == "champion"
    assert "its time passed without harm shown" in home.ledger.events()[-1].reason


# --------------------------------------------------------------------- networks with memory


class Counter:
    """A network whose memory is the number of steps that it was asked for, and its action, too."""

    actions, state_size = None, 1

    def __init__(self, version: int) -> None:
        self.version = version

    def step_one(self, observation: list[float], memory: bytes) -> tuple[int, bytes]:
        steps = int(np.frombuffer(memory, np.float32)[0]) if memory else 0
        return steps, np.array([steps + 1], np.float32).tobytes()


def asked(episode: str | None, step: int) -> Copy:
    return Copy(Of(1, ""), (Of(2, ""),), OBSERVATION, episode, step, 2.0, 1.0)


def test_a_network_with_memory_is_compared_while_no_copy_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[Any] = []
    made: Any = Answers(lambda of: Counter(of.version), said.append)  # type: ignore[arg-type]

    def compare(episode: str | None, step: int) -> Any:
        made.answer(asked(episode, step))
        return said[-1].seen[0]

    for step in range(3):
        seen = compare("whole", step)
        assert (seen.timed, seen.differed) == (1, 0)
    assert [one.does for one in said[:5]] == ["loads", "loads", "asks", "asks", "seen"]
    assert made._memories[2, "whole"] == (3, np.array([3], np.float32).tobytes())
    assert compare("whole", 4) is None  # the copy of step 3 was dropped
    assert compare("begun before", 5) is None
    assert compare(None, 0).timed == 1  # outside an episode each observation begins anew
    monkeypatch.setattr(copying, "EPISODES", 4)
    compare("older", 0)
    compare("whole", 3)  # asked last: it stays, and the other goes
    compare("newer", 0)
    assert {episode for _, episode in made._memories} == {"whole", "newer"}


def test_the_description_has_the_route_of_an_outcome_after_the_window(home: Any) -> None:
    fresh(home)
    window = home.ledger.holdback()
    key = trial_key(home.ledger.secret(POLICY), POLICY, window.epoch)
    name = next(f"e-{n}" for n in range(100) if arm_of(key, f"e-{n}", window.share) == 1)
    with opened(home) as client:
        follower = client.app.state.service.follower  # type: ignore[attr-defined]
        wait_for(lambda: follower.served.held)
        token = act(client, episode_id=name)["token"]
        home.ledger.end_holdback(who=ANN)
        wait_for(lambda: not follower.served.held)
        route = end(client, name, token, 1.0).json()["route"]
        paths = client.get("/openapi.json").json()["paths"]
    said = paths["/v1/episodes/{episode_id}/outcome"]["post"]["responses"]["200"]
    schema = said["content"]["application/json"]["schema"]
    assert route == "holdback"
    assert route in schema["properties"]["route"]["enum"]
