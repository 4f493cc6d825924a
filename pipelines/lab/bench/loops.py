"""The plain loop: one environment, one policy, one step after the other.

It is the baseline of every ratio, with a torch policy and with a numpy one. The limits are here
too: the environment alone, the policy alone, MuJoCo's step alone. The loops are as lean as
possible: Gymnasium's environment without its checker, and no code of this project.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from pipelines.lab.bench.works import Work
from srghn.evaluation.backends.gymnasium import LANES
from srghn.evaluation.base import Float32
from srghn.evaluation.policies.forward import MLPForward, make_forward
from srghn.policies import build_policy

#: Plays at least this many steps of a work, and returns the number played.
Play = Callable[[int], int]
Policy = Callable[[Float32], Any]


def torch_loop(work: Work) -> Play:
    """The plain loop with each individual in turn as a `torch.nn.Module`."""
    face = work.version.interface
    module = build_policy(work.network, face.observation_size, face.action_size)
    box = face.action_kind == "box"

    def act(row: Any) -> Any:
        outputs = module(torch.from_numpy(row).float())
        return outputs.clip(-1, 1).numpy() if box else int(outputs.argmax())

    def policies() -> Iterator[Policy]:
        for flat in torch.from_numpy(work.population.dense()):
            torch.nn.utils.vector_to_parameters(flat, module.parameters())
            yield act

    return _loop(work, policies)


def numpy_loop(work: Work) -> Play:
    """The plain loop with each individual in NumPy, for MLPs with tanh."""

    def policies() -> Iterator[Policy]:
        for layers in _layers(work):
            yield _numpy_policy(work, layers)

    return _loop(work, policies)


def _layers(work: Work) -> Iterator[list[tuple[Float32, Float32]]]:
    """Each individual's (weight (out, in), bias (out,)) by layer."""
    face = work.version.interface
    sizes = [face.observation_size, *work.network.kwargs["hidden"], face.action_size]
    for flat in work.population.dense():
        layers, at = [], 0
        for n_in, n_out in itertools.pairwise(sizes):
            end = at + n_in * n_out
            layers.append((flat[at:end].reshape(n_out, n_in), flat[end : end + n_out]))
            at = end + n_out
        yield layers


def _numpy_policy(work: Work, layers: list[tuple[Float32, Float32]]) -> Policy:
    box = work.version.interface.action_kind == "box"
    (*hidden, (last, last_bias)) = layers

    def act(row: Any) -> Any:
        row = row.astype(np.float32)
        for weight, bias in hidden:
            row = np.tanh(weight @ row + bias)
        outputs = last @ row + last_bias
        return np.clip(outputs, -1, 1) if box else int(outputs.argmax())

    return act


def _make(work: Work) -> gym.Env[Any, Any]:
    return gym.make(work.env, disable_env_checker=True, **work.kwargs)


def _loop(work: Work, policies: Callable[[], Iterator[Policy]]) -> Play:
    env = _make(work)

    def play(least: int) -> int:
        steps = 0
        with torch.no_grad():
            while steps < least:
                for policy in policies():
                    steps += _episode(env, policy, int(work.seeds[0]))
                    if steps >= least:
                        break
        return steps

    return play


def _episode(env: gym.Env[Any, Any], policy: Policy, seed: int) -> int:
    row, _ = env.reset(seed=seed)
    steps, over = 0, False
    while not over:
        row, _, terminated, truncated, _ = env.step(policy(row))
        over = terminated or truncated
        steps += 1
    return steps


def _recorded(work: Work, least: int = 2000) -> list[list[Any]]:
    """Actions of whole episodes, of at least `least` steps together."""
    env, episodes = _make(work), []
    for layers in _layers(work):
        policy = _numpy_policy(work, layers)
        actions: list[Any] = []

        def record(row: Float32, policy: Policy = policy, actions: list[Any] = actions) -> Any:
            actions.append(policy(row))
            return actions[-1]

        _episode(env, record, int(work.seeds[0]))
        episodes.append(actions)
        if sum(map(len, episodes)) >= least:
            break
    return episodes


def environment_alone(work: Work) -> Play:
    """The environment without a policy: recorded actions replayed."""
    episodes = _recorded(work)
    env = _make(work)
    return _replay(episodes, lambda: env.reset(seed=int(work.seeds[0])), env.step)


def mujoco_alone(work: Work) -> Play:
    """`mj_step` without rewards or observations, on the recorded actions."""
    import mujoco

    episodes = _recorded(work)
    env: Any = _make(work).unwrapped
    model, data, skip = env.model, env.data, env.frame_skip

    def step(action: Any) -> None:
        data.ctrl[:] = action
        mujoco.mj_step(model, data, skip)

    return _replay(episodes, lambda: env.reset(seed=int(work.seeds[0])), step)


def _replay(
    episodes: list[list[Any]], reset: Callable[[], Any], step: Callable[[Any], Any]
) -> Play:
    def play(least: int) -> int:
        steps = 0
        while steps < least:
            for actions in episodes:
                reset()
                for action in actions:
                    step(action)
                steps += len(actions)
                if steps >= least:
                    break
        return steps

    return play


def cartpole_alone(work: Work) -> Play:
    """CartPole's physics, compiled, on 2048 states at once, without a policy."""
    from srghn.evaluation.backends.cartpole.vectorised import step
    from srghn.evaluation.backends.cartpole.world import World

    world = World.of(work.version.make(work.version.modes[0]))
    assert world is not None
    state, force, lanes = np.zeros((4, 2048)), np.tile(world.forces, 1024), np.arange(2048)

    def play(least: int) -> int:
        for _ in range(0, least, 2048):
            state[:] = 0.01
            sine, cosine = np.sin(state[2]), np.cos(state[2])
            step(state, lanes, force, sine, cosine, world.physics)
        return -(-least // 2048) * 2048

    return play


def policy_alone(work: Work) -> Play:
    """Our forward pass for all lanes, without an environment."""
    forward = make_forward(work.population, work.version.interface, LANES)
    rows = np.zeros((LANES, work.version.interface.observation_size), dtype=np.float32)
    for lane in range(LANES):
        forward.assign(lane, lane % work.individuals)

    def play(least: int) -> int:
        with forward:
            for _ in range(0, least, LANES):
                forward(rows)
        return -(-least // LANES) * LANES

    return play


def has_numpy_policy(work: Work) -> bool:
    return MLPForward.fits(work.population)
