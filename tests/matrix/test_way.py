"""One case of `make worlds` goes the whole way here; the others take minutes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from srghn.config import EnvParams, NetworkParams
from tests.matrix import run


def test_a_world_asked_natively_and_a_network_with_memory_go_all_the_way() -> None:
    params = run.BASE.model_copy(
        update={
            "env": EnvParams(id="FrozenLake-v1", max_episode_steps=40),
            "network": NetworkParams(module="srghn.policies:GRU", kwargs={"width": 4}),
        }
    )
    row, fine = run.attempt(params, "")
    assert fine, row
    observations, actions, parameters, verdict, steps = row
    assert (observations, actions, verdict) == ("16, native", "discrete", "passed")
    assert parameters.endswith("state 4")
    assert int(steps) > 0


def test_what_should_have_been_refused_is_a_failure() -> None:
    params = run.BASE.model_copy(update={"env": EnvParams(id="NoSuch-v0")})
    assert run.attempt(params, "no such reason")[1] is False
    assert run.attempt(params, "NoSuch")[1] is True


def test_a_case_that_hangs_ends_by_its_deadline_and_the_next_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was seen before stays seen, though the file's last line was cut off."""
    cases = [("worlds", name, run.BASE, "") for name in ("done", "hangs", "next")]
    went: list[int] = []

    def through(params: object) -> object:
        went.append(1)
        if len(went) == 1:
            time.sleep(30)
        raise RuntimeError("as a world may")

    seen = tmp_path / "seen.jsonl"
    seen.write_text(json.dumps({"worlds done": ["row"]}) + '\n{"worlds hangs": ["ro')
    for name, value in {"cases": lambda: cases, "_through": through, "DEADLINE": 1}.items():
        monkeypatch.setattr(run, name, value)
    monkeypatch.setattr(run, "SEEN", seen)
    said: list[str] = []
    assert run.main(said.append) == 1
    assert [line.partition(" (")[0] for line in said] == [
        "worlds hangs: FAILED Late: it was not done after 1 s",
        "worlds next: FAILED RuntimeError: as a world may",
    ]
