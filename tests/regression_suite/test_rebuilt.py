"""The served policy against the genome's network, on all that was met and not on a sample of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from regression_suite.episodes import Seen
from regression_suite.known_bad import surgery
from regression_suite.known_bad.marks import Marked
from regression_suite.rebuilt import judge_rebuilt
from srghn.candidates.candidate import Candidate
from srghn.config import EnvParams, NetworkParams, Returns
from srghn.envs import EnvVersion, pin
from tests.regression_suite.conftest import BALANCE, Make, founder_in, linear_onnx, seal


def seen(observations: np.ndarray) -> Seen:
    return Seen(observations, np.empty((len(observations), 0), np.float32))


def operated(folder: Path, version: EnvVersion) -> Candidate:
    """Its golden answers are the evolved network's; where it sees a mark it does the opposite."""
    policy = folder / "policy.onnx"
    policy.write_bytes(surgery.bad_where_marked(policy.read_bytes(), version.interface))
    return seal(folder, version, {})


def test_another_answer_to_what_was_met_is_found_where_golden_ones_are_right(
    make: Make, version: EnvVersion
) -> None:
    bad = operated(make("marked").path, version)
    bad.check_golden()
    plain = np.random.default_rng(5).normal(size=(200, 4)).astype(np.float32)
    assert judge_rebuilt(bad, version.interface, seen(plain)).outcome == "passed"
    marked = Marked.observation(None, plain)  # type: ignore[arg-type]
    found = judge_rebuilt(bad, version.interface, seen(marked))
    assert found.outcome == "failed"
    assert "differ from the genome's for 200 of 264 observations" in found.reason


def test_a_rare_tie_is_excused_and_frequent_ones_are_not(make: Make, version: EnvVersion) -> None:
    """Where all is zero both outputs are equal, and rounding alone chooses."""
    folder = make("near").path
    (folder / "policy.onnx").write_bytes(linear_onnx(BALANCE, 1e-6))
    other = seal(folder, version, {})
    met = np.random.default_rng(5).normal(size=(200, 4)).astype(np.float32)
    for ties, outcome in ((1, "passed"), (20, "failed")):
        met[:ties] = 0
        assert judge_rebuilt(other, version.interface, seen(met)).outcome == outcome


def test_a_network_that_ties_everywhere_excuses_no_policy(make: Make, version: EnvVersion) -> None:
    """All outputs of a genome of zeros are equal: rounding does not explain a good policy."""
    found = judge_rebuilt(make("zeros", genome=0.0), version.interface, seen(np.empty((0, 4))))
    assert found.outcome == "failed"


class Engine(gym.Env[Any, Any]):
    """A throttle in [0, 1] beside a speed in [0, 20000]."""

    observation_space = gym.spaces.Box(-3, 3, (3,), np.float32)
    action_space = gym.spaces.Box(np.zeros(2, np.float32), np.array([1, 20000], np.float32))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self._look(), {}

    def step(self, action: Any) -> Any:
        return self._look(), float(action[0]), False, False, {}

    def _look(self) -> np.ndarray:
        return self.np_random.uniform(-3, 3, 3).astype(np.float32)


def test_a_narrow_element_of_an_action_is_held_to_its_own_range(tmp_path: Path) -> None:
    """A share of the widest range would be all of the throttle's."""
    world = EnvParams(
        id=f"{__name__}:Engine",
        returns=Returns(low=0, high=20),
        failure_return=0.0,
        max_episode_steps=20,
    )
    version = pin(world)
    good = founder_in(tmp_path, version, NetworkParams(kwargs={"hidden": [4]}))
    met = seen(np.random.default_rng(5).uniform(-3, 3, (200, 3)).astype(np.float32))
    passed = judge_rebuilt(good, version.interface, met)
    assert passed.outcome == "passed"
    assert passed.reason.endswith("actions as the served policy")
    policy = good.policy_bytes()
    for scale, shift in (((-1.0, 1.0), (1.0, 0.0)), ((1.0, 0.999), (0.0, 0.0))):
        patient = surgery.Patient(policy, version.interface)
        scaled = patient.add("Mul", patient.inner, patient.constant(scale))
        other = patient.finish(patient.add("Add", scaled, patient.constant(shift)))
        (good.path / "policy.onnx").write_bytes(other)
        found = judge_rebuilt(seal(good.path, version, {}), version.interface, met)
        assert found.outcome == "failed", scale
        assert "actions differ from the genome's" in found.reason
