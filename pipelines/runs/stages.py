"""The stages of the pipeline as plain functions: paths in, paths out, nothing else touched.

`dvc.yaml` runs them as `python -m pipelines.runs.stages NAME` in a workspace's root; Prefect runs
the same through DVC. Each may be killed at any moment and started again.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.progress import REFRESH_SECONDS, bar, share_bar, spinner
from pipelines.runs.prepare import find_founder
from pipelines.runs.workspaces import Workspace
from pipelines.services.processes import extend_import_path
from serving.settings import Settings, load_settings
from srghn import seeding
from srghn.candidates.candidate import Candidate
from srghn.config import RunParams
from srghn.envs import EnvVersion, verify
from srghn.errors import SrghnError
from srghn.files import atomic_write, canonical_json, sha256_bytes
from srghn.parents import die_with_parent
from srghn.quiet import be_quiet

#: Observations kept with a candidate, and the actions it must give on them.
GOLDEN = 64


def pin(workspace: Workspace, settings: Settings) -> None:
    """Pin the environment version that the parameters describe, and keep it in the home folder."""
    from pipelines.runs.worlds import keep
    from srghn.envs import pin as pin_env

    version = pin_env(workspace.params().env)
    version.save(workspace.env_version)
    keep(settings, version)


def evolve(workspace: Workspace, settings: Settings) -> None:
    """Evolve in the sandbox, or go on from the last checkpoint.

    DVC keeps `data/run` between runs of the stage. What is there for other parameters, which DVC
    calls for when they changed, belongs to another run and makes room. Raises
    `FingerprintMismatch` where the installed world is no longer the pinned one.
    """
    from srghn.evaluation.base import make_evaluator
    from srghn.evolution.loop import evolve as run_evolution
    from srghn.evolution.metrics import GenerationRecord

    params, version = workspace.params(), EnvVersion.load(workspace.env_version)
    verify(version)
    founder = find_founder(params, version, settings)
    _make_room(workspace, params, version)
    with (
        make_evaluator(settings, version, params.network) as evaluator,
        bar("evolve", params.evolution.generations) as update,
    ):
        first, shown = founder.generation + 1 if founder else 0, 0.0

        def tell(record: GenerationRecord) -> None:
            nonlocal shown
            done, now = record.generation - first + 1, time.monotonic()
            if now - shown >= REFRESH_SECONDS or done == record.total:
                note = f"{record.mode}  best {record.best:.1f}  rate {record.rate:.3f}"
                note += f"  {record.crashes} crashed" if record.crashes else ""
                update(done, note)
                shown = now

        run_evolution(
            params, version, evaluator, workspace.run, on_generation=tell, founder=founder
        )
    shutil.copyfile(workspace.run / "metrics.json", workspace.evolution_metrics)


def evaluate(workspace: Workspace, settings: Settings) -> None:
    """Play the finalists again on fresh seeds and freeze the best as the candidate.

    Fitness in training is the best of many and so too good: the winner's curse. The mean over
    fresh episodes is what the candidate's record says, and who is frozen is decided by it.
    """
    from srghn.candidates.freeze import freeze, load_weights
    from srghn.evolution.run import load_run
    from srghn.networks import build_network

    run, params = load_run(workspace.run), workspace.params()
    version, interface = run.version, run.version.interface
    verify(version)
    count = min(params.evaluate.finalists, len(run.finalists))
    finalists = run.finalists.take(np.arange(count))
    best, validation = choose_finalist(finalists.weights, version, run.mode, params, settings)
    individual, weights = int(finalists.ids[best]), finalists.weights[best]
    seeds = seeding.seeds(params.evolution.seed, "golden", 4)
    network = build_network(params.network, interface)
    with spinner("freeze the candidate"):
        observations, states = meet(version, run.mode, load_weights(network, weights), seeds)
        candidate = freeze(
            workspace.candidate,
            network=network,
            weights=weights,
            genome=finalists.genomes[best],
            interface=interface,
            env_version=version.to_json(),
            ancestry=run.ancestry(individual).to_json(),
            observations=observations,
            states=states,
            manifest={
                "name": version.id,
                "generation": run.generation,
                "mode": run.mode,
                "env_fingerprint": version.fingerprint,
                "architecture_digest": run.strategy.digest,
                "params": {**run.record["params"], "evaluate": params.evaluate.model_dump()},
                "training_fitness": float(run.fitness[best]),
                "validation": validation,
            },
        )
        named = {"candidate": candidate.digest, "env_fingerprint": version.fingerprint}
    atomic_write(
        workspace.evaluation_metrics,
        json.dumps({**validation, "finalist": best, **named}, indent=1),
    )


def choose_finalist(
    weights: NDArray[np.float32],
    version: EnvVersion,
    mode: str,
    params: RunParams,
    settings: Settings,
) -> tuple[int, dict[str, Any]]:
    """Row of the finalist to freeze, of `weights` (finalists, parameters), and how it did.

    See `EvaluateParams`: the best mean return, and among equals the best worst cell. The perturbed
    cells are the gate's kinds on other seeds; they cost nothing where `cell_episodes` is 0.
    """
    from srghn.envs import default_cells
    from srghn.evaluation.base import WeightedPolicies, make_evaluator
    from srghn.evaluation.task import Task

    rules, root = params.evaluate, params.evolution.seed
    cells = default_cells(version) if rules.cell_episodes else ()
    policies = WeightedPolicies(params.network, version.interface, weights)
    seeds = seeding.seeds(root, "finalist", rules.episodes)
    with (
        make_evaluator(settings, version, params.network) as evaluator,
        bar("re-test finalists", 1 + len(cells)) as update,
    ):
        mean = evaluator.evaluate(policies, Task(version, mode, seeds)).fitness
        update(1, f"best {mean.max():.1f}")
        worst = np.full(len(weights), np.inf)
        for index, cell in enumerate(cells):
            episodes = seeding.seeds(root, "finalist-cell", rules.cell_episodes, str(cell))
            played = evaluator.evaluate(policies, Task(version, mode, episodes, cell))
            worst = np.minimum(worst, played.fitness)
            update(2 + index, str(cell))
    equals = mean >= mean.max() - rules.tolerance * abs(mean.max())
    best = int(np.argmax(np.where(equals, worst, -np.inf)))
    record: dict[str, Any] = {"mean": float(mean[best]), "episodes": rules.episodes}
    if cells:
        record["worst_cell"] = float(worst[best])
    return best, record


def gate(workspace: Workspace, settings: Settings) -> None:
    """Judge the candidate against the incumbent that the parameters name, and write the report."""
    from regression_suite.gate import judge
    from serving.registry.artefacts import ArtefactStore

    params = workspace.params().gate
    incumbent = None
    if params.incumbent is not None:
        incumbent = ArtefactStore(settings.home / "artefacts").path(params.incumbent)
    candidate = Candidate.load(workspace.candidate)
    with share_bar("gate") as progress:
        verdict = judge(
            workspace.candidate,
            EnvVersion.load(workspace.env_version),
            candidate.mode,
            params,
            workspace.report,
            incumbent_dir=incumbent,
            run_dir=workspace.run,
            progress=progress,
        )
    metrics = {
        "passed": verdict.passed,
        "env_fingerprint": verdict.env_fingerprint,
        "checks": {c.name: c.value for c in verdict.checks if c.value is not None},
    }
    atomic_write(workspace.verdict_metrics, json.dumps(metrics, indent=1, default=float))


def meet(
    version: EnvVersion, mode: str, network: Any, seeds: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Observations (n, d) and states (n, state_size) that a network meets while it plays `seeds`.

    They are spread over its episodes; a network without memory has states of no values.
    """
    import torch

    from srghn.memory import state_size

    met, kept = [], state_size(network)
    env = version.make(mode)
    for seed in seeds:
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


def _make_room(workspace: Workspace, params: RunParams, version: EnvVersion) -> None:
    """Remove a run of other parameters or of another world; one of these goes on."""
    from srghn.evolution.run import RECORD, SECTIONS, read_record

    if not (workspace.run / RECORD).exists():
        return
    record = read_record(workspace.run)
    wanted = params.model_dump(mode="json", include=SECTIONS)
    same = sha256_bytes(canonical_json(record["params"])) == sha256_bytes(canonical_json(wanted))
    if not same or record["fingerprint"] != version.fingerprint:
        shutil.rmtree(workspace.run)


#: What takes seconds to import, done under a spinner before the stage begins.
HEAVY = {
    "pin": ("srghn.envs.pinning",),
    "evolve": ("srghn.evolution.loop",),
    "evaluate": ("srghn.evolution.loop", "srghn.candidates.freeze"),
    "gate": ("regression_suite.gate",),
}
STAGES: dict[str, Callable[[Workspace, Settings], None]] = {
    "pin": pin,
    "evolve": evolve,
    "evaluate": evaluate,
    "gate": gate,
}


def main(name: str) -> int:
    """Run one stage in the current folder; a user's error is one line, left for the flow too."""
    be_quiet()
    die_with_parent()
    extend_import_path()
    workspace = Workspace(Path.cwd())
    with spinner(f"{name}: loading"):
        for module in HEAVY[name]:
            import_module(module)
    try:
        STAGES[name](workspace, load_settings())
    except SrghnError as error:
        sys.stderr.write(f"{name}: {error}\n")
        if workspace.error.parent.is_dir():
            atomic_write(workspace.error, str(error))
        return error.exit_code
    except Exception:
        if workspace.error.parent.is_dir():
            atomic_write(workspace.error, traceback.format_exc())
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
