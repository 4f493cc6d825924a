"""Arms start in a random order; cells are played until they are decided, or as planned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from regression_suite.arena import BATCH, Arena, Decided, distinct_seeds
from regression_suite.suite import Cell
from srghn import seeding
from srghn.candidates.candidate import OnnxPolicy
from srghn.config import EnvParams, NetworkParams, Returns
from srghn.envs import EnvVersion, pin
from srghn.envs.registry import load_object
from srghn.evaluation.base import make_backend
from srghn.evaluation.task import Task
from tests.regression_suite.conftest import linear_onnx


class Fading(CartPoleEnv):
    """From its second hundred of resets on, of any of them, the track gets shorter and shorter."""

    resets = 0

    def reset(self, **options: Any) -> Any:
        type(self).resets += 1
        self.x_threshold = 2.4 / (1 + max(0, type(self).resets - 100) / 100)
        return super().reset(**options)


def test_one_policy_is_no_better_than_itself_where_the_world_wears_out() -> None:
    """Played one arm after the other, its first copy is better by 25 steps."""
    world = EnvParams(
        id=f"{__name__}:Fading",
        kwargs={"max_episode_steps": 500},
        returns=Returns(low=0, high=500),
        failure_return=100,
    )
    version, wearing = pin(world), load_object(world.id, "environment")
    policy = OnnxPolicy.from_bytes(linear_onnx((0.0, 0.0, 0.3, 1.0)), "one")
    with make_backend("gymnasium", version, NetworkParams()) as backend:
        wearing.resets = 100
        arena = Arena(policy, policy, version, backend, root=1)
        played = arena.batch(Cell("primary", "primary", "normal", 50), 0, 50)
        wearing.resets = 100
        apart = backend.evaluate([policy, policy], Task(version, "normal", played.seeds)).returns
    assert played.incumbent_returns is not None
    assert abs(np.mean(played.returns - played.incumbent_returns)) < 10
    assert np.mean(apart[0] - apart[1]) > 20


def lengths(version: EnvVersion, cells: Sequence[Cell], decided: Decided) -> list[int]:
    policy = OnnxPolicy.from_bytes(linear_onnx((0.0, 0.0, 0.0, 0.0), 1.0), "falls at once")
    with make_backend("gymnasium", version, NetworkParams()) as backend:
        played = Arena(policy, policy, version, backend, root=1).play(cells, decided)
    assert all(len(set(part.seeds.tolist())) == len(part) for part in played)
    return [len(part) for part in played]


def test_a_cell_is_played_as_planned_unless_it_is_decided_before(version: EnvVersion) -> None:
    """What decided cells saved goes to undecided ones, but for those that decide nothing."""
    cells = [
        Cell("primary", "primary", "normal", 170),
        Cell("other", "perturbed", "normal", 120),
        Cell("shown", "mode", "flipped", 70, binding=False),
    ]
    assert lengths(version, cells, lambda played, whole: False) == [170, 120, 70]
    assert lengths(version, cells, lambda played, whole: True) == [50, 50, 50]
    first = lengths(version, cells, lambda played, whole: played.cell.name == "primary")
    assert first == [50, 240, 70]
    enough = lengths(version, cells, lambda played, whole: len(played) >= 150)
    assert enough == [150, 140, 70]
    shown = lengths(version, cells, lambda played, whole: not played.cell.binding)
    assert shown == [170, 120, 50]


def test_progress_counts_what_was_played_and_ends_with_the_last_undecided_cell(
    version: EnvVersion,
) -> None:
    cells = [Cell("primary", "primary", "normal", 170), Cell("other", "mode", "flipped", 120)]
    policy = OnnxPolicy.from_bytes(linear_onnx((0.0, 0.0, 0.0, 0.0), 1.0), "falls at once")
    told: list[tuple[int, int]] = []
    with make_backend("gymnasium", version, NetworkParams()) as backend:
        Arena(policy, policy, version, backend, root=1).play(
            cells,
            lambda played, whole: played.cell.name == "primary",
            lambda done, total, note: told.append((done, total)),
        )
    assert told == [(50, 290), (170, 290), (220, 290), (270, 290), (290, 290), (290, 290)]


def test_no_seed_is_drawn_twice_in_a_cell_and_all_others_are_as_they_were() -> None:
    """Of this root's first 600 draws two are alike: that failed the candidate for good."""
    drawn = seeding.seeds(15330, "gate", 601, "primary").tolist()
    assert len(set(drawn[:600])) == 599
    found = distinct_seeds(15330, "primary", 600).tolist()
    assert found == list(dict.fromkeys(drawn))
    batches = [distinct_seeds(15330, "primary", n + BATCH)[n:] for n in range(0, 600, BATCH)]
    assert np.concatenate(batches).tolist() == found
    plain = seeding.seeds(1, "gate", 600, "primary")
    np.testing.assert_array_equal(distinct_seeds(1, "primary", 600), plain)


def test_the_arena_plays_a_seed_once(version: EnvVersion) -> None:
    policy = OnnxPolicy.from_bytes(linear_onnx((0.0, 0.0, 0.0, 0.0), 1.0), "falls at once")
    with make_backend("gymnasium", version, NetworkParams()) as backend:
        arena = Arena(policy, None, version, backend, root=15330)
        played = arena.batch(Cell("primary", "primary", "normal", 600), 0, 600)
    assert len(set(played.seeds.tolist())) == 600
