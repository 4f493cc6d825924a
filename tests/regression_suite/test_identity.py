"""Infinite constants that no evolution made: the open side of a box, a mask of attention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import onnx
import pytest
import torch
from gymnasium import spaces
from onnx import numpy_helper
from torch import Tensor, nn

from regression_suite.gate import judge
from regression_suite.identity import identify
from srghn.candidates.candidate import Candidate
from srghn.candidates.freeze import ServedPolicy, export_onnx, load_weights
from srghn.config import EnvParams, GateParams, NetworkParams, Returns
from srghn.envs import EnvVersion, pin
from srghn.files import canonical_json
from srghn.networks import build_network
from tests.regression_suite.conftest import Make, founder_in, seal

HERE = "tests.regression_suite.test_identity"
RULES = GateParams(
    episodes=60,
    cell_episodes=20,
    perturbations=(),
    min_return=0.0,
    min_cell_return=0.0,
    max_failure_rate=0.2,
    ceiling=None,
)
Damage = Callable[[Path, EnvVersion], object]
SERVED = "serving artefact"
WIDE = {"observations": [[0.0] * 7] * 9, "actions": [1] * 9}
MASKED = NetworkParams(module=f"{HERE}:Masked", kwargs={})
LINEAR = NetworkParams(kwargs={"hidden": []})


class Tank(gym.Env[Any, Any]):
    """Pump as much as is missing; nothing says how much a pump can do."""

    observation_space = spaces.Box(-5, 5, (2,), np.float32)

    def __init__(
        self, low: tuple[float, ...] = (0.0,), high: tuple[float, ...] = (np.inf,)
    ) -> None:
        ends = np.array(low, np.float32), np.array(high, np.float32)
        self.action_space = spaces.Box(*ends, dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.level = self.np_random.normal(size=2).clip(-5, 5).astype(np.float32)
        return self.level, {}

    def step(self, action: Any) -> Any:
        reward = 1.1 - min(abs(float(action[0]) - abs(float(self.level[0]))), 1.0)
        self.level = self.np_random.normal(size=2).clip(-5, 5).astype(np.float32)
        return self.level, reward, False, False, {}


class Open(Tank):
    """No bound at all, and one whose elements are bound on other sides."""

    def __init__(self, elements: int = 1) -> None:
        ends = ((-np.inf, -np.inf, 0.0, -1.0)[:elements], (np.inf, 2.0, np.inf, 1.0)[:elements])
        super().__init__(*ends)


class Masked(nn.Module):
    """Attention over the elements, under the usual causal mask."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.up, self.query, self.key = nn.Linear(1, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.last = nn.Linear(4 * observation_size, action_size)
        mask = nn.Transformer.generate_square_subsequent_mask(observation_size)
        self.mask = nn.Buffer(mask)

    def forward(self, obs: Tensor) -> Tensor:
        inner = self.up(obs.unsqueeze(-1))
        weights = torch.softmax(self.query(inner) @ self.key(inner).mT + self.mask, -1)
        outputs: Tensor = self.last((weights @ inner).flatten(1))
        return outputs


def world(name: str = "Tank", **kwargs: Any) -> EnvVersion:
    returns = Returns(low=0, high=33)
    return pin(
        EnvParams(
            id=f"{HERE}:{name}",
            kwargs=kwargs,
            max_episode_steps=30,
            returns=returns,
            failure_return=0,
        )
    )


@pytest.mark.parametrize(
    ("version", "network"),
    [
        (("Tank", {"low": [-3.0]}), LINEAR),
        (("Open", {}), LINEAR),
        (("Open", {"elements": 4}), LINEAR),
        (("Tank", {"high": [1.0]}), MASKED),
    ],
    ids=["above", "both", "some", "mask"],
)
def test_infinite_constants_do_not_fail_a_candidate(
    tmp_path: Path, version: tuple[str, dict[str, Any]], network: NetworkParams
) -> None:
    pinned = world(version[0], **version[1])
    candidate = founder_in(tmp_path, pinned, network)
    verdict = judge(
        candidate.path,
        pinned,
        pinned.modes[0],
        RULES,
        tmp_path / "out",
        incumbent_dir=None,
        run_dir=tmp_path / "run",
    )
    outcomes = {check.name: check for check in verdict.checks}
    assert outcomes["finite weights"].outcome == "passed", verdict.summary
    assert "the network's own constants" in outcomes["finite weights"].reason
    for name in ("serving artefact", "policy of the genome", "same twice", "lineage"):
        assert outcomes[name].outcome == "passed", (name, verdict.summary)
    assert verdict.verdict == "passed", verdict.summary


def test_nan_beside_an_infinite_constant_is_refused(tmp_path: Path) -> None:
    version = world(high=[1.0])
    candidate = founder_in(tmp_path, version, MASKED)
    found = _spoilt(candidate, version, "mask", np.float32(np.nan))
    assert _finite(found, version).outcome == "failed"
    assert "network.mask" in _finite(found, version).reason


def test_weights_that_a_genome_makes_infinite_are_refused(tmp_path: Path) -> None:
    """The genome may be finite where what it generates is not."""
    version = world(high=[1.0])
    candidate = founder_in(tmp_path, version, MASKED)
    spoilt = _spoilt(candidate, version, "last.weight", np.float32(np.inf))
    check = _finite(spoilt, version)
    assert (check.outcome, check.remedy) == ("failed", "Discard this individual.")
    assert "last.weight" in check.reason
    assert "mask" not in check.reason


class Scaled(nn.Module):
    """Outputs scaled by e to an evolved power, which the exporter computes beforehand."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.last = nn.Linear(observation_size, action_size)
        self.log = nn.Parameter(torch.zeros(1))

    def forward(self, obs: Tensor) -> Tensor:
        return torch.tanh(self.last(obs) * self.log.exp())


def test_finite_weights_whose_power_is_infinite_are_refused(tmp_path: Path) -> None:
    version = world(low=[-1.0], high=[1.0])
    network = NetworkParams(module=f"{HERE}:Scaled", kwargs={})
    candidate = founder_in(tmp_path, version, network)
    module = build_network(network, version.interface)
    weights = np.where(candidate.load_genome() == 0, 200, candidate.load_genome())
    served = ServedPolicy(load_weights(module, weights.astype(np.float32)), version.interface)
    (candidate.path / "policy.onnx").write_bytes(export_onnx(served, 2))
    check = _finite(seal(candidate.path, version, {}), version)
    assert check.outcome == "failed", check.reason


def _finite(candidate: Candidate, version: EnvVersion) -> Any:
    checks = identify(candidate.path, version, RULES).checks
    return next(check for check in checks if check.name == "finite weights")


def _spoilt(candidate: Candidate, version: EnvVersion, name: str, value: Any) -> Candidate:
    """The candidate with one number of its policy's file replaced, and sealed again."""
    path = candidate.path / "policy.onnx"
    model = onnx.load_model(path)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(name):
            values = numpy_helper.to_array(tensor).copy()
            values.flat[0] = value
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path.write_bytes(model.SerializeToString(deterministic=True))
    return seal(candidate.path, version, {})


def _rewritten(name: str, data: bytes) -> Damage:
    return lambda folder, version: (folder / name).write_bytes(data) and seal(folder, version, {})


def _named(**changes: Any) -> Damage:
    return lambda folder, version: seal(folder, version, changes)


@pytest.mark.parametrize(
    ("damage", "check", "reason"),
    [
        (_rewritten("policy.onnx", b"no model"), "integrity", "policy.onnx cannot be read"),
        (_rewritten("golden.json", b'{"observations": [[0]], "actions": ["up"]}'), SERVED, "read"),
        (_rewritten("golden.json", canonical_json(WIDE)), SERVED, "got float32 (9, 7)"),
        (
            _rewritten("golden.json", canonical_json({**WIDE, "states": [1, "a"]})),
            SERVED,
            "could not convert",
        ),
        (_named(interface="a box"), "integrity", "interface is no object, got 'a box'"),
        (_named(state_size="1"), "integrity", "state_size is no whole number, got '1'"),
        (_named(validation={"mean": "good"}), "integrity", "validation mean is no number"),
        (_named(packages=["numpy"]), "integrity", "packages is no object"),
    ],
)
def test_what_cannot_be_read_fails_for_that_reason(
    make: Make, version: EnvVersion, damage: Damage, check: str, reason: str
) -> None:
    """Every digest is right: whoever writes a file can write its digest, too."""
    folder = make("odd").path
    damage(folder, version)
    found = {each.name: each for each in identify(folder, version, GateParams()).checks}
    assert found[check].outcome == "failed"
    assert reason in found[check].reason
