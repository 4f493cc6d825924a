"""The compiled LunarLander against Box2D's own bodies, step by step and bit for bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from srghn.evaluation.backends.lunar_lander.world import DRAWN, Fleet, draw, read_world, start_of

lunar_lander = pytest.importorskip("gymnasium.envs.box2d.lunar_lander", exc_type=ImportError)
ours = pytest.importorskip("srghn.evaluation.backends.lunar_lander.backend")

Pilot = Callable[[NDArray[np.float32], int], Any]

SETTINGS: list[dict[str, Any]] = [
    {},
    {"continuous": True},
    {"gravity": -11.9},
    {"gravity": -3.0, "enable_wind": True},
    {"enable_wind": True, "wind_power": 19.0, "turbulence_power": 1.9},
    {"continuous": True, "enable_wind": True},
]


def bodies(env: Any) -> NDArray[np.float32]:
    """(3, 8): origin, angle, velocity, angular velocity and centre of mass of each."""
    rows = []
    for body in (env.lander, *env.legs):
        turn = body.angularVelocity
        rows.append((*body.position, body.angle, *body.linearVelocity, turn, *body.worldCenter))
    return np.array(rows, dtype=np.float32)


def ours_of(lane: Any) -> NDArray[np.float32]:
    found = lane["frame"][:, :2], lane["now"][:, 2:], lane["velocity"], lane["now"][:, :2]
    return np.concatenate(found, axis=1)


def pilots(env: Any, rng: np.random.Generator) -> dict[str, Pilot]:
    """Gymnasium's, and some that bounce, tip over, slide, and fall fast onto any slope."""
    share, late, way = rng.random(), rng.integers(50), int(rng.integers(4))

    def heuristic(row: NDArray[np.float32], step: int) -> Any:
        return lunar_lander.heuristic(env, row)

    def idle(row: NDArray[np.float32], step: int) -> Any:
        return np.zeros(2, dtype=np.float32) if env.continuous else 0

    def noise(row: NDArray[np.float32], step: int) -> Any:
        some = rng.uniform(-1, 1, 2).astype(np.float32)
        return some if env.continuous else int(rng.integers(4))

    def push(row: NDArray[np.float32], step: int) -> Any:
        return np.array([0.2, way / 2 - 1], dtype=np.float32) if env.continuous else way

    def mixed(often: Pilot, seldom: Pilot, much: float) -> Pilot:
        return lambda row, step: (seldom if rng.random() < much else often)(row, step)

    return {
        "heuristic": heuristic,
        "noisy": mixed(heuristic, noise, 0.7 * share),
        "falling": mixed(idle, noise, 0.2 * share),
        "late": lambda row, step: (idle if step < late else heuristic)(row, step),
        "aside": mixed(heuristic, push, share),
        "dropped": lambda row, step: (heuristic if row[1] > 0.3 * share else noise)(row, step),
    }


@pytest.mark.parametrize("kwargs", SETTINGS, ids=str)
def test_every_step_is_box2ds(kwargs: dict[str, Any]) -> None:
    env: Any = gym.make("LunarLander-v3", **kwargs).unwrapped
    worlds, ends = read_world(env), Counter[str]()
    for seed in range(4):
        rng = np.random.default_rng(seed)
        for pilot in pilots(env, rng).values():
            ends[fly(env, worlds, seed, pilot)] += 1
    assert ends["crashed"] > 3
    assert ends["landed"] > 0 or kwargs.get("enable_wind")


def fly(
    env: Any, worlds: Any, seed: int, pilot: Pilot, meddle: Callable[[Any], None] | None = None
) -> str:
    """One episode in both; how it ended. With `meddle`, which is given the lane, it goes on."""
    fleet, lanes = Fleet(worlds, 1), np.zeros(1, dtype=np.int64)
    row, _ = env.reset(seed=seed)
    fleet.begin(0, start_of(worlds, seed))
    lane = fleet.lanes[0]
    assert row.tobytes() == fleet.rows[0].tobytes()
    for step in range(400):
        action = pilot(row, step)
        if meddle is not None:
            meddle(lane)
        rewards, ended = fleet.fly(lanes, ours._engines(np.array([action]), env.continuous))
        row, reward, over, _, _ = env.step(action)
        assert row.tobytes() == fleet.rows[0].tobytes()
        assert bodies(env).tobytes() == ours_of(lane).tobytes()
        assert (reward, over) == (rewards[0], ended[0])
        assert [leg.ground_contact for leg in env.legs] == lane["grounded"].tolist()
        assert [body.awake for body in (env.lander, *env.legs)] == lane["awake"].tolist()
        assert env.world.contactCount == lane["count"]
        if over and (meddle is None or not lane["awake"].any() or abs(row[0]) > 1.5):
            return "landed" if reward == 100 else "crashed"
    return "cut"


def test_what_no_engine_can_do_is_box2ds_too() -> None:
    """Landers are thrown, at up to hundreds of metres a second, and some of their bodies sleep."""
    env: Any = gym.make("LunarLander-v3").unwrapped
    worlds, rng, seen = read_world(env), np.random.default_rng(5), Counter[str]()

    def meddle(lane: Any) -> None:
        thrown, slept = rng.random(2) < 0.03
        velocity = np.float32(rng.normal(size=3) * 10 ** rng.uniform(-1, 1.5, 3))
        asleep = rng.permutation([True, True, False]) & slept
        for b, body in enumerate((env.lander, *env.legs)):
            if thrown:
                x, y, body.angularVelocity = velocity.tolist()
                body.linearVelocity = x, y
                lane["velocity"][b], lane["awake"][b] = velocity, True
            if asleep[b] and body.awake:
                body.awake = False
                lane["velocity"][b], lane["still"][b], lane["awake"][b] = 0, 0, False
                seen["slept"] += 1
        seen["thrown"] += thrown

    for seed in range(20):
        seen[fly(env, worlds, seed, lambda row, step: 0, meddle)] += 1
    assert min(seen["slept"], seen["thrown"], seen["landed"] + seen["crashed"]) > 5


def test_lanes_do_not_disturb_each_other() -> None:
    worlds = read_world(gym.make("LunarLander-v3").unwrapped)
    engines = np.tile(np.array([[0.0, 1.0, 1.0]]), (37, 1))
    together, alone = Fleet(worlds, 37), Fleet(worlds, 1)
    for lane in range(37):
        together.begin(lane, start_of(worlds, lane))
    rows = []
    for step in range(120):
        running = np.arange(37)[np.arange(37) % 5 != step % 2]  # some rest in every second step
        together.fly(running, engines[running])
        rows.append(together.rows.copy())
    grounded = 0
    for lane in range(37):
        alone.begin(0, start_of(worlds, lane))
        for step, row in enumerate(rows):
            if lane % 5 != step % 2:
                alone.fly(np.zeros(1, dtype=np.int64), engines[:1])
            assert alone.rows[0].tobytes() == row[lane].tobytes()
            grounded += alone.lanes[0]["grounded"].any()
    assert grounded > 100


def test_the_stream_is_that_of_single_draws() -> None:
    worlds = read_world(gym.make("LunarLander-v3").unwrapped)
    blocks, single = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(2):
        for number in draw(blocks, worlds):
            assert number == single.uniform(-1.0, +1.0) / lunar_lander.SCALE
    assert draw(blocks, worlds).shape == (DRAWN,)
