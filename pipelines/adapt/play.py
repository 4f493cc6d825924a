"""Short play in the sandbox, recorded as in service: return, length, and one observation each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.control.samples import step_of
from srghn import seeding
from srghn.candidates.candidate import Candidate, OnnxPolicy
from srghn.candidates.play import play_candidate
from srghn.envs import EnvVersion, Perturbation
from srghn.errors import FAILURES

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Episodes to compare.

    pairs     (n, 2) raw return and length of each
    observed  (k, 1 + d) step and observation of those with one; None: not recorded
    """

    pairs: Float
    observed: Float | None = None


def play(
    candidate: Candidate,
    world: EnvVersion,
    mode: str,
    count: int,
    seed: int,
    *,
    observe: bool,
    perturbation: Perturbation | None = None,
) -> Sample:
    """Play `count` episodes in a pinned world; `observe`: record one observation each (slower)."""
    if not observe:
        played = play_candidate(
            candidate, count, mode=mode, seed=seed, version=world, perturbation=perturbation
        )
        return Sample(np.stack([played.returns[0], played.lengths[0].astype(np.float64)], axis=1))
    policy, env = candidate.policy(), world.make(mode, perturbation)
    seeds = seeding.seeds(seed, "episode", count, mode)
    found = [_episode(env, policy, int(each), step_of(f"{seed}-{each}")) for each in seeds]
    env.close()
    pairs = np.array([pair for pair, _ in found])
    return Sample(pairs, together([row for _, row in found if row is not None]))


def together(rows: Sequence[Float]) -> Float:
    """Rows (1 + d,) as one array (k, 1 + d)."""
    return np.stack(rows) if rows else np.empty((0, 1))


def _episode(
    env: Any, policy: OnnxPolicy, seed: int, at: int
) -> tuple[tuple[float, float], Float | None]:
    """(return, length), and the step and observation at step `at`, or None if it ends before.

    A crash returns minus infinity.
    """
    total, length, over, kept = 0.0, 0, False, None
    try:
        observation, _ = env.reset(seed=seed)
        state = np.zeros((1, policy.state_size), np.float32)
        while not over:
            row = np.asarray(observation, np.float32)[None]
            if length == at:
                kept = np.concatenate([[float(at)], row[0].astype(np.float64)])
            actions, state = policy.step(row, state)
            action = actions[0]
            observation, reward, terminated, truncated, _ = env.step(
                action if action.ndim else action.item()
            )
            total, length, over = total + float(reward), length + 1, terminated or truncated
    except FAILURES:
        total = -np.inf
    return (total, float(length)), kept
