"""How often a diagnosis is right: shifts to worlds that are pinned, and to worlds that are not.

`python -m pipelines.lab.diagnosing docs/results` writes `diagnosis.csv`, one row for each shift.
CartPole champions are evolved in a temporary folder. The worlds are CartPole with one constant
changed. Some are pinned, in both orders of actions. In the others the constant is at most half, or
at least twice, that of any pinned one. Service is `ENOUGH` episodes after the alarm, with one
observation of those that have one, compared as in `srghn diagnose`. A shift counts if the
champion's mean return fell so far that the watch would detect it.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.adapt.diagnose import ENOUGH, OBSERVED, PLAYED, compare_samples, conclude
from pipelines.adapt.play import Sample, play
from serving.trial.rules import TrialRules
from srghn import seeding
from srghn.candidates import choose_finalist, freeze_finalist
from srghn.candidates.candidate import Candidate
from srghn.config import EngineSettings, EvolutionParams, RunParams
from srghn.envs import EnvVersion, parse, pin
from srghn.evaluation.base import make_evaluator
from srghn.evolution.loop import evolve
from srghn.evolution.run import load_run

SEEDS, SHIFTS, POOL = (0, 1), 100, 600
FALL = 0.9  # share of the return in its own world
RULES = TrialRules()
MODES = ("normal", "flipped")
#: Factors of a constant: pinned ones, in both modes, and unknown ones, in mode normal.
KNOWN = ("", "pole_length:0.2", "pole_length:14")
UNKNOWN = (
    "pole_length:0.1", "pole_length:30", "pole_length:45", "pole_length:60", "gravity:2.8",
    "gravity:4", "gravity:9", "force:3", "force:4", "pole_mass:60",
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """CartPole in a mode, with one constant changed or none."""

    moved: str
    mode: str

    def __str__(self) -> str:
        return f"{self.moved or 'as it is'} {self.mode}"


def champion(seed: int, folder: Path, version: EnvVersion) -> Candidate:
    """A champion that was evolved in mode normal, whatever the schedule."""
    params = RunParams(evolution=EvolutionParams(seed=seed, mode="normal"))
    with make_evaluator(EngineSettings(), version, params.network) as evaluator:
        evolve(params, version, evaluator, folder / f"run{seed}")
        run = load_run(folder / f"run{seed}")
        choice = choose_finalist(run, evaluator, params.evaluate)
    return freeze_finalist(run, choice, folder / f"candidate{seed}")


def sample(candidate: Candidate, world: World, count: int, seed: int) -> Sample:
    """Episodes as recorded in service: return, length, one observation."""
    moved = parse(world.moved) if world.moved else None
    own = EnvVersion.load(candidate.path / "env_version.json")
    return play(candidate, own, world.mode, count, seed, observe=True, perturbation=moved)


@dataclass
class Sandbox:
    """`POOL` episodes of each pinned world; a diagnosis draws `PLAYED` of them."""

    candidate: Candidate
    pools: dict[World, Sample]

    def draw(self, world: World, draws: np.random.Generator) -> Sample:
        pool = self.pools[world]
        assert pool.observed is not None
        rows = draws.choice(len(pool.pairs), PLAYED, replace=False)
        share = PLAYED / len(pool.pairs)
        seen = draws.choice(len(pool.observed), round(share * len(pool.observed)), replace=False)
        return Sample(pool.pairs[rows], pool.observed[seen])


def shift(sandbox: Sandbox, world: World, seed: int) -> dict[str, Any]:
    """One shift to `world`, diagnosed against the pinned worlds."""
    service = sample(sandbox.candidate, world, ENOUGH, seeding.seed(seed, "service"))
    assert service.observed is not None
    if len(service.observed) < OBSERVED:
        service = replace(service, observed=None)
    evidence = []
    for each in sandbox.pools:
        draws = seeding.stream(seed, "sandbox", str(each))
        fit = compare_samples(service, sandbox.draw(each, draws), RULES, draws)
        evidence.append(fit.of(each.moved, "CartPole", each.mode))
    service_mean, pinned = float(service.pairs[:, 0].mean()), sandbox.pools
    found = conclude(evidence, ("", "normal"), ENOUGH, service_mean)
    named = "" if found.mode is None else str(World(str(found.env_fingerprint), found.mode))
    right = named == str(world) if world in pinned else found.found == "none"
    return {
        "world": str(world),
        "known": world in pinned,
        "mean_return": round(service_mean, 1),
        "observations": 0 if service.observed is None else len(service.observed),
        "diagnosis": found.found,
        "named": named,
        "right": right,
    }


def mean(candidate: Candidate, world: World) -> float:
    return float(sample(candidate, world, 50, 1).pairs[:, 0].mean())


def rows() -> Iterator[dict[str, Any]]:
    pinned = [World(each, mode) for each in KNOWN for mode in MODES]
    strange = [World(each, "normal") for each in UNKNOWN]
    version = pin(RunParams().env)
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            candidate = champion(seed, Path(folder), version)
            best = mean(candidate, World("", "normal"))
            pools = {each: sample(candidate, each, POOL, 2) for each in pinned}
            for those in (pinned, strange):
                fallen = [each for each in those if mean(candidate, each) < FALL * best]
                for order in range(SHIFTS // len(SEEDS)):
                    world = fallen[order % len(fallen)]
                    name = seeding.seed(seed, "shift", str(world), order)
                    yield {"champion": seed, **shift(Sandbox(candidate, pools), world, name)}


def main(folder: Path) -> None:
    found = list(rows())
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "diagnosis.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(found)
    for known in (True, False):
        those = [row for row in found if row["known"] is known]
        right, kind = sum(row["right"] for row in those), "known" if known else "unknown"
        sys.stderr.write(f"{kind}: {right} of {len(those)} right\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
