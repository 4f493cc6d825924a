"""`srghn bench gate`: the time of a whole gate against a champion, and the share of playing.

Candidate and champion are networks that were fitted to a hand-written controller, so that episodes
are as long as those of evolved champions. No home and no ledger is needed.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.runs.presets import load_preset
from regression_suite.gate import judge
from srghn import seeding
from srghn.candidates.freeze import freeze
from srghn.config import EngineSettings, EvolutionParams, GateParams, RunParams
from srghn.envs import EnvVersion, pin
from srghn.evaluation.base import make_evaluator
from srghn.evolution.ancestry import Ancestry, genome_digest
from srghn.evolution.lineage import load
from srghn.evolution.loop import evolve
from srghn.evolution.registry import make_strategy
from srghn.networks import build_network

#: Margins that no bound reaches, so that every cell uses its whole budget.
NEVER: Mapping[str, Any] = {
    "superiority": False,
    "margin": 1e-6,
    "cell_margin": 1e-6,
    "tail_margin": 1e-6,
    "failure_margin": 1e-6,
    "cell_failure_margin": 1e-6,
}
EPISODES, EPOCHS = 30, 400
Controller = Callable[[Any, NDArray[np.float32]], int]


def balance(env: Any, observation: NDArray[np.float32]) -> int:
    """Push to the side to which the pole falls, and towards the middle of the track."""
    return int(observation @ np.array((0.1, 0.4, 1.0, 0.8)) > 0)


def land(env: Any, observation: NDArray[np.float32]) -> int:
    """Gymnasium's own heuristic for LunarLander."""
    from gymnasium.envs.box2d.lunar_lander import heuristic

    return int(heuristic(env.unwrapped, observation))  # type: ignore[no-untyped-call]


#: Preset -> the controller that candidate and champion imitate.
CONTROLLERS: dict[str, Controller] = {"cartpole": balance, "lunarlander": land}


@dataclass(frozen=True)
class Gate:
    """One gate: its paired `episodes`, wall-clock `seconds`, and CPU seconds with its children.

    `playing` is the share of the wall-clock time in which cells were played. `whole`: each cell
    used its whole budget; otherwise it stopped when it was decided.
    """

    world: str
    whole: bool
    episodes: int
    seconds: float
    cpu: float
    children: float
    playing: float
    verdict: str


def bench_gates(presets: list[str], say: Callable[[str], None]) -> list[Gate]:
    """Two gates of each preset: one that stops when decided, and one with every planned episode."""
    found = []
    for name in presets:
        with tempfile.TemporaryDirectory(prefix="srghn-bench-") as folder:
            say(f"{name}: fitting candidate and champion ...")
            bench = _prepare(name, Path(folder))
            for whole in (False, True):
                say(f"{name}: {'every planned episode' if whole else 'until decided'} ...")
                found.append(bench(whole))
    return found


def _prepare(name: str, base: Path) -> Callable[[bool], Gate]:
    preset, version, run = load_preset(name), pin(load_preset(name).env), base / "run"
    evolution = EvolutionParams(strategy="ga", generations=3, parents=4, children=3, episodes=1)
    params = preset.model_copy(update={"evolution": evolution})
    with make_evaluator(EngineSettings(), version, params.network) as evaluator:
        evolve(params, version, evaluator, run)
    folders = [_imitate(params, version, CONTROLLERS[name], run, base / str(k), k) for k in (0, 1)]

    def bench(whole: bool) -> Gate:
        rules = preset.gate.model_copy(update=dict(NEVER) if whole else {"superiority": False})
        return _measure(version, rules, folders, run, base / "out", whole)

    return bench


def _measure(
    version: EnvVersion, rules: GateParams, folders: list[Path], run: Path, out: Path, whole: bool
) -> Gate:
    mine, theirs = folders
    before, began = os.times(), time.perf_counter()
    verdict = judge(mine, version, version.modes[0], rules, out, incumbent_dir=theirs, run_dir=run)
    seconds, after = time.perf_counter() - began, os.times()
    timings = json.loads((out / "timings.json").read_bytes())
    return Gate(
        world=version.id,
        whole=whole,
        episodes=pq.read_metadata(out / "episodes.parquet").num_rows,
        seconds=round(seconds, 1),
        cpu=round(after.user + after.system - before.user - before.system, 1),
        children=round(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system,
            1,
        ),
        playing=round(timings["playing"] / seconds, 2),
        verdict=verdict.verdict,
    )


def _imitate(
    params: RunParams, version: EnvVersion, controller: Controller, run: Path, folder: Path, k: int
) -> Path:
    """A candidate's folder: a network fitted to a controller, with its own seeds."""
    import torch

    observations, actions = _demonstrate(version, controller, k)
    torch.manual_seed(k)
    network = build_network(params.network, version.interface)
    given, wanted = torch.from_numpy(observations), torch.from_numpy(actions)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(EPOCHS):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(given), wanted).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    weights = torch.nn.utils.parameters_to_vector(network.parameters()).detach().numpy()
    last = load(run)
    chain = tuple(last.chain(int(last.id[-1])))
    digest = make_strategy(params, version.interface).digest
    freeze(
        folder,
        network=network,
        weights=weights,
        genome=weights,
        interface=version.interface,
        env_version=version.to_json(),
        ancestry=Ancestry(digest, chain, genome_digest(weights)).to_json(),
        observations=observations[:64],
        manifest={
            "name": version.id,
            "generation": 3,
            "mode": version.modes[0],
            "env_fingerprint": version.fingerprint,
            "architecture_digest": digest,
            "params": params.model_dump(mode="json"),
        },
    )
    return folder


def _demonstrate(
    version: EnvVersion, controller: Controller, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A controller's observations (n, d) and actions (n,); a fifth of actions are replaced."""
    seen, done, draws = [], [], seeding.stream(k, "bench gate")
    choices = version.interface.choices[0]
    with version.make(version.modes[0]) as env:
        for seed in seeding.seeds(k, "bench gate", EPISODES).tolist():
            observation, over = env.reset(seed=seed)[0], False
            while not over:
                seen.append(observation)
                done.append(controller(env, observation))
                action = int(draws.integers(choices)) if draws.random() < 0.2 else done[-1]
                observation, _, terminated, truncated, _ = env.step(action)
                over = terminated or truncated
    return np.stack(seen), np.array(done, np.int64)
