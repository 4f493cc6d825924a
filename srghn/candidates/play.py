"""Playing with what was evolved: the observations a network meets, and whole episodes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from srghn import seeding
from srghn.candidates.candidate import Candidate, load_candidate
from srghn.config import RunParams
from srghn.envs import EnvVersion, Perturbation
from srghn.errors import ConfigError, expect
from srghn.evaluation.base import Evaluation, choose_backend, make_backend, other_interface
from srghn.evaluation.task import Task

if TYPE_CHECKING:
    from torch import nn

#: Observations kept with a candidate, and the actions it must give on them: at most and at least.
GOLDEN, LEAST_GOLDEN = 64, 16


def observe(
    version: EnvVersion,
    mode: str,
    network: nn.Module,
    seeds: NDArray[np.int64],
    episodes: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Observations (n, d) and states (n, state_size) that a network meets while it plays `seeds`.

    They are spread over its episodes, n at most `GOLDEN`; a network without memory has states of no
    values. Of `seeds` the first `episodes` are played, and more where episodes are so short that
    fewer than `LEAST_GOLDEN` observations were met.
    """
    import torch  # seconds, and playing a frozen candidate does not need it

    from srghn.memory import state_size

    met: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    kept = state_size(network)
    env = version.make(mode)
    for played, seed in enumerate(seeds):
        if episodes is not None and played >= episodes and len(met) >= LEAST_GOLDEN:
            break
        observation, _ = env.reset(seed=int(seed))
        over, state = False, torch.zeros(1, kept)
        while not over:
            met.append((np.asarray(observation, np.float32), state[0].numpy()))
            row = torch.from_numpy(met[-1][0][None])
            with torch.no_grad():
                outputs, state = network(row, state) if kept else (network(row), state)
            action = version.interface.decode(outputs.numpy())[0]
            observation, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
    env.close()
    chosen = np.unique(np.linspace(0, len(met) - 1, GOLDEN).astype(int))
    return np.stack([met[i][0] for i in chosen]), np.stack([met[i][1] for i in chosen])


def play_candidate(
    candidate: Candidate | Path | str,
    episodes: int = 100,
    *,
    mode: str | None = None,
    seed: int = 0,
    version: EnvVersion | None = None,
    perturbation: Perturbation | None = None,
) -> Evaluation:
    """Whole episodes of the policy as it is served: `returns` and `lengths` (1, episodes).

    The candidate's folder will do. `mode` and `version` default to those that it was evolved in;
    the episodes are drawn from `seed`, the mode and the candidate's digest, and are played
    perturbed, if asked. Raises `ArtefactError` if the policy file was changed, `ConfigError` for a
    mode that the environment does not have, `EvaluationError` for other observations or actions.
    """
    if isinstance(candidate, Path | str):
        candidate = load_candidate(candidate)
    expect(candidate, Candidate, "candidate", "give a candidate, or its folder")
    if not isinstance(episodes, int | np.integer) or episodes < 1:
        raise ConfigError(f"episodes: expected a whole number from 1 on, got {episodes!r}")
    own = EnvVersion.load(candidate.path / "env_version.json")
    version = expect(version or own, EnvVersion, "version", "srghn.pin makes one")
    if version.interface.for_clients() != own.interface.for_clients():
        raise other_interface(own.interface, version)
    mode = mode or candidate.mode
    network = RunParams.model_validate(candidate.manifest["params"]).network
    root = seeding.text_seed("play", candidate.digest, str(seed))
    seeds = seeding.seeds(root, "episode", episodes, mode)
    with make_backend(choose_backend(version, network), version, network) as backend:
        return backend.evaluate([candidate.policy()], Task(version, mode, seeds, perturbation))
