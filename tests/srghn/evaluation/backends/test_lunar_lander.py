"""LunarLander's backend against Gymnasium's environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from srghn.config import EnvParams, NetworkParams
from srghn.envs import EnvVersion, Perturbation, pin
from srghn.evaluation.backends.lunar_lander.world import draw, read_world
from srghn.evaluation.base import (
    Evaluation,
    Float32,
    PolicyFunction,
    WeightedPolicies,
    choose_backend,
    make_backend,
)
from srghn.evaluation.task import Task
from srghn.seeding import seeds, stream
from tests.srghn.evaluation.alike import same

lunar_lander = pytest.importorskip("gymnasium.envs.box2d.lunar_lander", exc_type=ImportError)
ours = pytest.importorskip("srghn.evaluation.backends.lunar_lander.backend")

POLICY = NetworkParams(kwargs={"hidden": [4], "activation": "tanh"})


def population(version: EnvVersion, size: int) -> WeightedPolicies:
    face = version.interface
    count = 4 * (face.observation_size + 1) + 5 * face.action_size
    weights = stream(2, "test").normal(size=(size, count)).astype(np.float32)
    return WeightedPolicies(POLICY, face, weights)


def play(name: str, version: EnvVersion, policies: Any, *args: Any) -> Evaluation:
    mode, chosen, perturbation = args
    with make_backend(name, version, POLICY) as backend:
        return backend.evaluate(policies, Task(version, mode, chosen, perturbation))


def heuristics(version: EnvVersion, order: tuple[int, ...] | None = None) -> list[PolicyFunction]:
    """Gymnasium's own pilot, and two that often do nothing instead, as the observation has it."""
    env = version.make("normal")

    def pilot(share: float) -> PolicyFunction:
        def act(observations: Float32) -> NDArray[Any]:
            rows = [lunar_lander.heuristic(env, row) for row in observations]
            answer = np.array(rows, dtype=np.float32 if env.unwrapped.continuous else np.int64)  # type: ignore[attr-defined]
            chance = observations[:, 0] * 1e4 % 1.0
            answer[chance < share] = 0
            return answer if order is None else np.array(order)[answer]

        return act

    return [pilot(share) for share in (0.0, 0.2, 0.4)]


@pytest.mark.parametrize(
    ("kwargs", "perturbation"),
    [
        ({}, None),
        ({"continuous": True}, None),
        ({"gravity": -3.0, "max_episode_steps": 150}, None),
        ({"enable_wind": True, "wind_power": 19.0, "turbulence_power": 1.9}, None),
        ({"continuous": True, "enable_wind": True}, None),
        ({}, Perturbation("gravity", 0.8)),
        ({}, Perturbation("wind", 0.5)),
        ({}, Perturbation("observation_noise", 0.1)),
        ({}, Perturbation("action_drop", 0.5)),
    ],
)
def test_returns_are_gymnasiums(kwargs: dict[str, Any], perturbation: Perturbation | None) -> None:
    version = pin(EnvParams(id="LunarLander-v3", kwargs={"max_episode_steps": 300, **kwargs}))
    assert choose_backend(version, POLICY) == "lunar-lander"
    for policies, episodes in ((population(version, 30), 3), (heuristics(version), 2)):
        call = version, policies, "normal", seeds(3, "test", episodes), perturbation
        found, expected = play("lunar-lander", *call), play("gymnasium", *call)
        assert same(found, expected)
        assert len(np.unique(found.returns)) > found.returns.size / 2


def test_starts_are_kept_for_the_same_seeds_only() -> None:
    version = pin(EnvParams(id="LunarLander-v3", kwargs={"max_episode_steps": 100}))
    policies, first, second = population(version, 3), seeds(7, "test", 4), seeds(8, "test", 4)
    with make_backend("lunar-lander", version, POLICY) as backend:
        for chosen in (first, first, second, first, first[:2]):
            found = backend.evaluate(policies, Task(version, "normal", chosen))
            assert same(found, play("lunar-lander", version, policies, "normal", chosen, None))


def test_an_interrupt_amid_a_draw_of_noise_changes_nothing_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The noise of a start is kept from call to call."""
    version = pin(EnvParams(id="LunarLander-v3"))
    task = Task(version, "normal", seeds(7, "test", 3))
    pilots = heuristics(version)

    drawn = 0

    def stopped(*args: Any) -> Any:
        nonlocal drawn
        noise, drawn = draw(*args), drawn + 1
        if drawn == len(task.seeds) + 1:  # the first that is not of a start
            raise KeyboardInterrupt
        return noise

    with make_backend("lunar-lander", version, POLICY) as backend:
        backend.evaluate(pilots, Task(version, "normal", seeds(8, "test", 1)))
        monkeypatch.setattr("srghn.evaluation.backends.lunar_lander.world.draw", stopped)
        with pytest.raises(KeyboardInterrupt):
            backend.evaluate(pilots, task)
        found = backend.evaluate(pilots, task)
    assert drawn > len(task.seeds) + 1
    assert same(found, play("gymnasium", version, pilots, "normal", task.seeds, None))


@pytest.mark.parametrize("mode", ["normal", "reversed"])
def test_modes_are_gymnasiums(mode: str) -> None:
    version = pin(EnvParams(id="LunarLanderSwitch-v3"))
    assert choose_backend(version, POLICY) == "lunar-lander"
    pilots = heuristics(version, (3, 2, 1, 0) if mode == "reversed" else None)
    call = version, pilots, mode, seeds(5, "test", 2), None
    found = play("lunar-lander", *call)
    assert same(found, play("gymnasium", *call))
    assert found.returns[0].min() > 150
    other = "normal" if mode == "reversed" else "reversed"
    assert not same(found, play("lunar-lander", version, pilots, other, *call[3:]))


def watched(pilot: PolicyFunction, seen: list[bytes]) -> PolicyFunction:
    """The same pilot; `seen` gets the observations that it is asked about."""

    def act(observations: Float32) -> NDArray[Any]:
        seen.extend(row.tobytes() for row in observations if row.any())
        return pilot(observations)

    return act


@pytest.mark.parametrize("continuous", [False, True])
def test_every_observation_is_gymnasiums_to_every_kind_of_end(continuous: bool) -> None:
    """Landings, crashes, flights off the screen and episodes cut at the limit are among them."""
    kwargs = {"continuous": continuous, "max_episode_steps": 200}
    version = pin(EnvParams(id="LunarLander-v3", kwargs=kwargs))
    chosen = seeds(4, "test", 8)
    seen: list[bytes] = []
    pilots = [watched(pilot, seen) for pilot in (*heuristics(version), away(version))]
    found = play("lunar-lander", version, pilots, "normal", chosen, None)
    expected, ends = [], set()
    env = version.make("normal")
    for i, pilot in enumerate((*heuristics(version), away(version))):
        for k, seed in enumerate(chosen.tolist()):
            rows, total, last = alone(env, pilot, seed)
            assert (found.returns[i, k], found.lengths[i, k]) == (total, len(rows))
            expected += rows
            ends.add((last, abs(np.frombuffer(rows[-1], np.float32)[0]) > 0.97))
    assert sorted(expected) == sorted(seen)
    assert ends >= {("landed", False), ("crashed", False), ("crashed", True), ("cut", False)}


def away(version: EnvVersion) -> PolicyFunction:
    """Always up and aside."""
    box = version.interface.action_kind == "box"
    answer = np.array([1.0, 0.6], dtype=np.float32) if box else np.int64(2)
    return lambda observations: np.array([answer] * len(observations))


def alone(
    env: gym.Env[Any, Any], pilot: PolicyFunction, seed: int
) -> tuple[list[bytes], float, str]:
    """One episode: the observations acted on, the return, and how it ended."""
    row, _ = env.reset(seed=seed)
    rows, total, over, reward, terminated = [], 0.0, False, 0.0, False
    while not over:
        rows.append(row.tobytes())
        row, step_reward, terminated, truncated, _ = env.step(pilot(row[None])[0])
        reward = float(step_reward)
        total, over = total + reward, terminated or truncated
    return rows, total, "cut" if not terminated else "landed" if reward == 100 else "crashed"


def test_company_changes_nothing() -> None:
    version = pin(EnvParams(id="LunarLander-v3"))
    policies, chosen = population(version, 150), seeds(6, "test", 2)
    whole = play("lunar-lander", version, policies, "normal", chosen, None)
    assert whole.returns.size > 2 * 128
    few = WeightedPolicies(POLICY, policies.interface, policies.take(np.array([140, 3, 77])))
    part = play("lunar-lander", version, few, "normal", chosen[::-1], None)
    assert part.returns.tobytes() == whole.returns[[140, 3, 77], ::-1].tobytes()


def test_a_backend_is_used_again_and_again() -> None:
    version = pin(EnvParams(id="LunarLander-v3"))
    policies, chosen = population(version, 5), seeds(6, "test", 2)
    with make_backend("lunar-lander", version, POLICY) as backend:
        first = backend.evaluate(policies, Task(version, "normal", chosen))
        wind = Perturbation("wind", 1.0)
        blown = backend.evaluate(policies, Task(version, "normal", chosen, wind))
        again = backend.evaluate(policies, Task(version, "normal", chosen))
    assert same(first, again)
    assert not same(first, blown)


CHECKED = ("inverse_mass", "friction", "center", "speed", "motor", "main", "side", "gain", "scale")


def tampered(field: str) -> Callable[[Any], Any]:
    """`read_world` with one constant a little off."""

    def read(env: Any) -> Any:
        worlds = read_world(env)
        worlds[field] = worlds[field] * (1 + 1e-6)
        return worlds

    return read


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("field", CHECKED)
def test_one_unlike_constant_is_seen(field: str, continuous: bool) -> None:
    """What the backend's comparison with a real environment is worth."""
    env = gym.make("LunarLander-v3", continuous=continuous).unwrapped
    assert ours._equal(env, read_world(env))
    assert not ours._equal(env, tampered(field)(env))


def test_where_box2d_is_another_the_general_backend_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    version = pin(EnvParams(id="LunarLander-v3", kwargs={"max_episode_steps": 60}))
    call = version, population(version, 4), "normal", seeds(3, "test", 2), None
    expected = play("gymnasium", *call)
    monkeypatch.setattr(ours, "read_world", tampered("inverse_mass"))
    assert choose_backend(version, POLICY) == "gymnasium"
    assert same(play("lunar-lander", *call), expected)


@pytest.mark.parametrize("constant", ["MAIN_ENGINE_POWER", "SIDE_ENGINE_AWAY", "LEG_SPRING_TORQUE"])
def test_what_gymnasium_changes_is_read(constant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    version = pin(EnvParams(id="LunarLander-v3", kwargs={"max_episode_steps": 100}))
    call = version, population(version, 4), "normal", seeds(3, "test", 2), None
    before = play("lunar-lander", *call)
    monkeypatch.setattr(lunar_lander, constant, getattr(lunar_lander, constant) * 1.5)
    assert choose_backend(version, POLICY) == "lunar-lander"
    found = play("lunar-lander", *call)
    assert same(found, play("gymnasium", *call))
    assert not same(found, before)


def test_nan_costs_its_own_episodes() -> None:
    version = pin(EnvParams(id="LunarLander-v3", kwargs={"max_episode_steps": 20}))
    policies = population(version, 3)
    weights = policies.dense()
    weights[1] = np.nan
    broken = WeightedPolicies(POLICY, version.interface, weights)
    call = "normal", seeds(3, "test", 2), None
    found = play("lunar-lander", version, broken, *call)
    assert np.isneginf(found.fitness).tolist() == [False, True, False]
    assert [crash.individual for crash in found.crashes] == [1, 1]
    assert same(found, play("gymnasium", version, broken, *call))


def test_other_worlds_go_elsewhere() -> None:
    wrapper = "gymnasium.wrappers:FlattenObservation"
    drawn = EnvParams(id="LunarLander-v3", kwargs={"render_mode": "rgb_array"})
    for params in (drawn, EnvParams(id="LunarLander-v3", wrappers=(wrapper,))):
        assert choose_backend(pin(params), POLICY) == "gymnasium"


def test_without_glibc_it_steps_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "in_c_library", lambda name: False)
    assert choose_backend(pin(EnvParams(id="LunarLander-v3")), POLICY) == "gymnasium"


def test_a_lander_of_other_parts_goes_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    env = pin(EnvParams(id="LunarLander-v3")).make("normal")
    assert ours.LunarLanderBackend.read(env) is not None
    octagon = [(-14, 5), (-5, 14), (5, 14), (14, 5), (14, -5), (5, -14), (-5, -14), (-14, -5)]
    monkeypatch.setattr(lunar_lander, "LANDER_POLY", octagon)
    assert ours.LunarLanderBackend.read(env) is None
