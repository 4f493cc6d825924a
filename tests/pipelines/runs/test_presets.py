"""Presets: each is complete, and the partly observable one needs memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipelines.runs.presets import load_preset, presets
from srghn.envs import EnvVersion, pin
from srghn.memory import state_size
from srghn.networks import build_network

POSITIONS = "cartpole-positions"


@pytest.fixture(scope="module")
def positions() -> EnvVersion:
    return pin(load_preset(POSITIONS).env)


def returns(version: EnvVersion, begin: Callable[[], Any], episodes: int) -> float:
    """Mean return of policies: each episode has one of its own, observation -> action."""
    env, total = version.make("normal"), 0.0
    for seed in range(episodes):
        act, over = begin(), False
        row, _ = env.reset(seed=seed)
        while not over:
            row, reward, terminated, truncated, _ = env.step(act(row))
            total, over = total + float(reward), terminated or truncated
    return total / episodes


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_complete(name: str) -> None:
    assert load_preset(name).evolution.generations > 1


def test_the_partly_observable_preset_shows_positions_to_a_network_with_memory(
    positions: EnvVersion,
) -> None:
    assert positions.interface.observation_size == 2
    params = load_preset(POSITIONS)
    assert state_size(build_network(params.network, positions.interface)) == 4


def test_a_policy_that_remembers_one_position_balances_it(positions: EnvVersion) -> None:
    def begin() -> Any:
        before: list[Any] = []

        def act(row: Any) -> int:
            velocity = row - before[-1] if before else np.zeros(2)
            before.append(row)
            return int(0.05 * row[0] + row[1] + 10 * velocity[1] + velocity[0] > 0)

        return act

    assert returns(positions, begin, 10) > 475


def test_no_line_through_the_positions_balances_it(positions: EnvVersion) -> None:
    """Every direction in steps of six degrees, from the origin and from beside it."""
    best = 0.0
    for angle in np.linspace(0, 2 * np.pi, 60, endpoint=False):
        for offset in (-0.1, 0.0, 0.1):
            weights = np.array([np.cos(angle), np.sin(angle)])
            act = lambda row, w=weights, b=offset: int(w @ row + b > 0)  # noqa: E731
            best = max(best, returns(positions, lambda act=act: act, 5))  # type: ignore[misc]
    assert best < 100
