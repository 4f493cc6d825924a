"""The replayed share: every byte of both arms, from a process that shares nothing with this one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from regression_suite.again import judge_again, pick, play_recorded
from regression_suite.episodes import Played
from regression_suite.suite import Cell
from srghn.candidates.candidate import Candidate
from srghn.config import EnvParams, Returns
from srghn.envs import EnvVersion, pin
from srghn.envs.registry import load_object
from tests.regression_suite.conftest import Make

ROOT = 7
WEAK = (0.0, 0.0, 0.3, 1.0)


def play(version: EnvVersion, *arms: Candidate) -> Played:
    """Twenty paired episodes in the nominal world."""
    seeds = np.arange(20)
    found = play_recorded(
        [("primary", seeds.tolist())], [arm.policy() for arm in arms], version, "normal"
    )
    (returns, lengths) = found[0]
    cell = Cell("primary", "primary", "normal", 20)
    return Played(cell, seeds, returns[0], lengths[0], returns[1], lengths[1])


@pytest.mark.parametrize(
    ("column", "named"),
    [
        ("returns", "the candidate's episode"),
        ("lengths", "the candidate's episode"),
        ("incumbent_returns", "the champion's episode"),
        ("incumbent_lengths", "the champion's episode"),
    ],
)
def test_another_byte_in_either_arm_is_an_error(
    make: Make, version: EnvVersion, column: str, named: str
) -> None:
    arms = make("good"), make("weak", WEAK)
    played = play(version, *arms)
    assert judge_again([played], *arms, version, "normal", ROOT).outcome == "passed"
    changed = getattr(played, column).copy()
    first = pick([played], ROOT)[0].picked[0]
    changed[first] = np.nextafter(changed[first], 0) if changed.dtype == float else 9
    found = judge_again([replace(played, **{column: changed})], *arms, version, "normal", ROOT)
    assert found.outcome == "error"
    assert named in found.reason
    assert found.remedy.endswith("ignores the seed; pin again.")
    assert f"on seed {first}" in found.reason


class Bent(CartPoleEnv):
    """Its track has the length that this process says."""

    track = 2.4

    def reset(self, **options: Any) -> Any:
        self.x_threshold = self.track
        return super().reset(**options)


@pytest.mark.services
def test_what_holds_in_this_process_alone_is_an_error(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here, episodes repeat to the byte; a server is another process."""
    world = EnvParams(
        id=f"{__name__}:Bent",
        kwargs={"max_episode_steps": 500},
        returns=Returns(low=0, high=500),
        failure_return=100,
    )
    version, weak = pin(world), make("weak", WEAK)
    monkeypatch.setattr(load_object(world.id, "environment"), "track", 0.3)
    played = play(version, weak, weak)
    np.testing.assert_array_equal(played.returns, played.incumbent_returns)
    found = judge_again([played], weak, weak, version, "normal", ROOT)
    assert found.outcome == "error"
    assert "the environment is not reproducible" in found.reason
