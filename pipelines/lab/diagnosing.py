"""How often a diagnosis is right: shifts to worlds that are pinned, and to worlds that are not.

`python -m pipelines.lab.diagnosing docs/results` writes `diagnosis.csv`, two rows for each shift.
CartPole champions are evolved in a temporary folder. The worlds are CartPole with one change. Some
are pinned, in both orders of actions. The others have a constant at most half, or at least twice,
that of any pinned one, or a delay or noise that no pinned one has, also in both orders. A shift
counts if the champion's mean return falls so far that the watch would detect it; no other case is
left out. Each is diagnosed as in service: after `ENOUGH` episodes, and while several worlds fit,
after twice as many. One row uses the observations of service, one only returns and lengths.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from pipelines.adapt.diagnose import (
    ENOUGH,
    MOST,
    OBSERVED,
    PLAYED,
    Diagnosis,
    Fit,
    compare_samples,
    conclude,
)
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

SEEDS, POOL = (0, 1), 2 * PLAYED
#: Shifts of each champion to pinned worlds, and to unknown ones.
KNOWN_SHIFTS, UNKNOWN_SHIFTS = 50, 52
FALL = 0.9  # share of the return in its own world
RULES = TrialRules()
MODES = ("normal", "flipped")
#: Pinned and unknown worlds: the factor of a constant, a delay, or noise; all in both modes.
KNOWN = ("", "pole_length:0.2", "pole_length:14")
UNKNOWN = (
    "pole_length:0.1", "pole_length:30", "pole_length:45", "pole_length:60", "gravity:2.8",
    "gravity:4", "gravity:9", "force:3", "force:4", "pole_mass:60", "action_delay:3",
    "action_noise:0.3", "observation_noise:0.5",
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

    def fits(self, service: Sample, seed: int) -> list[tuple[World, Fit]]:
        """How each pinned world explains service."""
        policy, found = self.candidate.policy(), []
        for each in self.pools:
            draws = seeding.stream(seed, "sandbox", str(each))
            fit = compare_samples(service, self.draw(each, draws), RULES, draws, policy)
            found.append((each, fit))
        return found


def shift(sandbox: Sandbox, world: World, seed: int) -> list[dict[str, Any]]:
    """One shift to `world`, diagnosed until one answer is left or `MOST` episodes are used.

    Returns a row with observations and a row without.
    """
    service, rows = sample(sandbox.candidate, world, ENOUGH, seeding.seed(seed, "service")), []
    open_ = {"returns and observations": True, "returns": False}
    while open_:
        count, fits = len(service.pairs), sandbox.fits(_kept(service), seed)
        for evidence, observed in list(open_.items()):
            found = _conclude(fits, service, observed)
            if found.found != "ambiguous" or count >= MOST:
                del open_[evidence]
                rows.append(_row(sandbox, world, evidence, found))
        if open_:
            seeds = seeding.seed(seed, "service", count)
            service = both(service, sample(sandbox.candidate, world, count, seeds))
    return rows


def _conclude(fits: list[tuple[World, Fit]], service: Sample, observed: bool) -> Diagnosis:
    evidence = [
        (fit if observed else replace(fit, p_observed=None)).of(each.moved, "CartPole", each.mode)
        for each, fit in fits
    ]
    mean = float(service.pairs[:, 0].mean())
    return conclude(evidence, ("", "normal"), len(service.pairs), mean)


def _row(sandbox: Sandbox, world: World, evidence: str, found: Diagnosis) -> dict[str, Any]:
    named = "" if found.mode is None else str(World(str(found.env_fingerprint), found.mode))
    known = world in sandbox.pools
    return {
        "world": str(world),
        "known": known,
        "evidence": evidence,
        "mean_return": round(found.mean, 1),
        "episodes": found.episodes,
        "diagnosis": found.found,
        "named": named,
        "right": named == str(world) if known else found.found == "none",
    }


def both(first: Sample, second: Sample) -> Sample:
    assert first.observed is not None
    assert second.observed is not None
    pairs = np.concatenate([first.pairs, second.pairs])
    return Sample(pairs, np.concatenate([first.observed, second.observed]))


def _kept(service: Sample) -> Sample:
    """As service has it: too few observations are none."""
    assert service.observed is not None
    return service if len(service.observed) >= OBSERVED else replace(service, observed=None)


def mean(candidate: Candidate, world: World) -> float:
    return float(sample(candidate, world, 50, 1).pairs[:, 0].mean())


def rows() -> Iterator[dict[str, Any]]:
    pinned = [World(each, mode) for each in KNOWN for mode in MODES]
    strange = [World(each, mode) for each in UNKNOWN for mode in MODES]
    version = pin(RunParams().env)
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            candidate = champion(seed, Path(folder), version)
            best = mean(candidate, World("", "normal"))
            pools = {each: sample(candidate, each, POOL, 2) for each in pinned}
            for those, shifts in ((pinned, KNOWN_SHIFTS), (strange, UNKNOWN_SHIFTS)):
                fallen = [each for each in those if mean(candidate, each) < FALL * best]
                for order in range(shifts):
                    world = fallen[order % len(fallen)]
                    name = seeding.seed(seed, "shift", str(world), order)
                    for found in shift(Sandbox(candidate, pools), world, name):
                        yield {"champion": seed, **found}


def main(folder: Path) -> None:
    found = list(rows())
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "diagnosis.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(found)
    draw(found, folder / "diagnosis.svg")
    for line in counted(found):
        sys.stderr.write(f"{line}\n")


def draw(found: Sequence[dict[str, Any]], path: Path) -> None:
    """Write an SVG: how many shifts to each world were diagnosed right, by evidence."""
    names = list(dict.fromkeys(str(row["world"]) for row in found))
    with mpl.rc_context({"svg.hashsalt": "srghn", "svg.fonttype": "none", "font.size": 8.0}):
        figure = Figure(figsize=(7.0, 0.24 * len(names) + 0.8), layout="constrained")
        axes = figure.subplots()
        for place, (evidence, colour) in enumerate(
            (("returns and observations", "#2f6f9f"), ("returns", "#c2571a"))
        ):
            those = [row for row in found if row["evidence"] == evidence]
            shares = [_share(those, name) for name in names]
            axes.barh(np.arange(len(names)) + 0.4 * place, shares, 0.38, color=colour)
            axes.plot([], [], color=colour, linewidth=5, label=f"by {evidence}")
        axes.set_yticks(np.arange(len(names)) + 0.2, names)
        axes.invert_yaxis()
        axes.set_xlabel("share of shifts diagnosed right")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _share(rows: Sequence[dict[str, Any]], world: str) -> float:
    right = [bool(row["right"]) for row in rows if row["world"] == world]
    return sum(right) / len(right)


def counted(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """How many are right, by evidence and kind, and the worlds in which some are not."""
    for evidence in ("returns and observations", "returns"):
        for known in (True, False):
            those = [r for r in found if r["known"] is known and r["evidence"] == evidence]
            right, kind = sum(row["right"] for row in those), "known" if known else "unknown"
            yield f"{evidence}, {kind}: {right} of {len(those)} right"
            wrong = Counter(
                f"{row['world']}: {row['diagnosis']} {row['named']}".strip()
                for row in those
                if not row["right"]
            )
            yield from (f"  {count} x {name}" for name, count in wrong.most_common())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
