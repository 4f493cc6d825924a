"""Short play in the sandbox, recorded as in service: return, length, and one transition each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.control.samples import step_of
from srghn import seeding
from srghn.candidates.candidate import Candidate, OnnxPolicy
from srghn.candidates.play import play_candidate
from srghn.envs import EnvVersion, Perturbation
from srghn.errors import FAILURES
from srghn.interrupt import raise_interrupt

Float = NDArray[np.float64]
Seen = NDArray[np.floating[Any]]
#: Episodes that are played side by side.
LANES = 64


@dataclass(frozen=True)
class Sample:
    """Episodes to compare.

    pairs     (n, 2) raw return and length of each
    observed  (k, 1 + 2 d) step, observation and next observation of those with one; the last d are
              NaN if the episode ended before. None: not recorded
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
    whole: bool = True,
) -> Sample:
    """Play `count` episodes in a pinned world; `observe`: record one transition each (slower).

    Without `whole` an episode ends when its transition is recorded, so its return means nothing.
    """
    if not observe:
        played = play_candidate(
            candidate, count, mode=mode, seed=seed, version=world, perturbation=perturbation
        )
        return Sample(np.stack([played.returns[0], played.lengths[0].astype(np.float64)], axis=1))
    seeds = seeding.seeds(seed, "episode", count, mode)
    policy, found = candidate.policy(), list[Played]()
    envs = [world.make(mode, perturbation) for _ in range(min(LANES, count))]
    for first in range(0, count, LANES):
        chosen = [int(each) for each in seeds[first : first + LANES]]
        found += _abreast(envs[: len(chosen)], policy, chosen, seed, whole)
    for env in envs:
        env.close()
    pairs = np.array([(each.total, float(each.length)) for each in found])
    return Sample(pairs, together([row for each in found if (row := each.row) is not None]))


def together(rows: Sequence[Float]) -> Float:
    """Rows (1 + 2 d,) as one array (k, 1 + 2 d)."""
    return np.stack(rows) if rows else np.empty((0, 1))


def transition(step: int, observation: Seen, following: Seen | None) -> Float:
    """A row (1 + 2 d,) of `Sample.observed`."""
    missing = np.full(len(observation), np.nan) if following is None else following
    return np.concatenate([[float(step)], observation, missing]).astype(np.float64)


def moves(policy: OnnxPolicy, observed: Float) -> tuple[Float, Float]:
    """Observation and action (k, d + a), and next observation (k, d), of complete transitions.

    For a policy with memory a is 0, because its action does not follow from the observation.
    """
    size = policy.observation_size
    whole = observed[~np.isnan(observed[:, 1 + size :]).any(axis=1)]
    before, after = whole[:, 1 : 1 + size], whole[:, 1 + size :]
    if policy.state_size or not len(whole):
        return before, after
    actions = np.asarray(policy(before.astype(np.float32)), np.float64)
    return np.concatenate([before, actions.reshape(len(whole), -1)], axis=1), after


@dataclass
class Played:
    """One episode while it is played; `at` is the step whose transition is recorded."""

    at: int
    total: float = 0.0
    length: int = 0
    over: bool = False
    kept: list[Float] = field(default_factory=list)

    @property
    def row(self) -> Float | None:
        following = self.kept[1] if len(self.kept) > 1 else None
        return transition(self.at, self.kept[0], following) if self.kept else None

    def begin(self, env: Any, seed: int) -> Any:
        """Reset; returns the first observation, or None if the environment crashes."""
        try:
            return env.reset(seed=seed)[0]
        except FAILURES as error:
            raise_interrupt(error)
            self.total, self.over = -np.inf, True
            return None

    def take(self, env: Any, action: Any) -> Any:
        """Take one step; returns the next observation, or None after a crash (return -inf)."""
        try:
            chosen = action if action.ndim else action.item()
            observation, reward, terminated, truncated, _ = env.step(chosen)
        except FAILURES as error:
            raise_interrupt(error)
            self.total, self.over = -np.inf, True
            return None
        self.total, self.length = self.total + float(reward), self.length + 1
        self.over = bool(terminated or truncated)
        return observation


def _abreast(
    envs: Sequence[Any], policy: OnnxPolicy, seeds: list[int], seed: int, whole: bool
) -> list[Played]:
    """Play one episode in each environment, in lockstep."""
    found = [Played(step_of(f"{seed}-{each}")) for each in seeds]
    seen = np.zeros((len(seeds), policy.observation_size), np.float32)
    states = np.zeros((len(seeds), policy.state_size), np.float32)
    for lane, (env, each) in enumerate(zip(envs, seeds, strict=True)):
        first = found[lane].begin(env, each)
        if first is not None:
            seen[lane] = first
    while lanes := [lane for lane, each in enumerate(found) if not each.over]:
        actions, states[lanes] = policy.step(seen[lanes], states[lanes])
        for lane, action in zip(lanes, actions, strict=True):
            episode = found[lane]
            if episode.length - episode.at in (0, 1):
                episode.kept.append(seen[lane].astype(np.float64))
            following = episode.take(envs[lane], action)
            if following is not None:
                seen[lane] = following
            if not whole and episode.length > episode.at + 1:
                episode.over = True
    return found
