"""One run of one arm: evolves, tests the champions, and measures each phase."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.lab.experiments.spec import Experiment, Outcome, Recovery
from pipelines.lab.experiments.unseen import Unseen
from serving.settings import Settings
from srghn import seeding
from srghn.config import RunParams
from srghn.envs import EnvVersion, pin
from srghn.evaluation.base import Evaluator
from srghn.evaluation.several import make_run_evaluator
from srghn.evaluation.task import Task
from srghn.evolution import GenerationRecord, evolve, tables
from srghn.evolution.base import Population
from srghn.evolution.registry import make_strategy
from srghn.evolution.self_referential import policies_of
from srghn.files import atomic_write, canonical_json, sha256_bytes

#: Generations after a switch in which the mutation rate's peak is measured.
PEAK_WITHIN = 50
#: `test_every`, `tested` and `until_solved` of an `Experiment` that does not say them.
DEFAULT_RULES = [1, "all", False]


@dataclass(frozen=True)
class Phase:
    """Lineage generations `start` to `end` (not included), all in one mode."""

    mode: str
    start: int
    end: int


def phases(params: RunParams, version: EnvVersion) -> list[Phase]:
    """The phases between switches."""
    total = params.evolution.generations
    starts = [0, *(s.generation for s in params.env.schedule if 0 < s.generation < total)]
    return [
        Phase(version.mode_at(start), start, end)
        for start, end in zip(starts, [*starts[1:], total], strict=True)
    ]


class Champions:
    """Tests each generation's champion, who is best by fitness, on fixed episodes.

    Champions are tested in the present mode, every `Experiment.test_every` generations, until one
    has solved the phase. At the end of a phase the champion is tested in every mode, or in fewer
    (`Experiment.tested`), and with each of the networks that were not evolved. A score is the mean
    return; where several networks are evolved, that of the worst. Results are appended to a file;
    after a kill some may be there twice, with equal values.
    """

    def __init__(
        self, inner: Evaluator, experiment: Experiment, params: RunParams, version: EnvVersion,
        file: Path,
    ) -> None:  # fmt: skip
        self.inner, self.experiment = inner, experiment
        self.params, self.version, self.file = params, version, file
        self.phases = phases(params, version)
        self.seeds = seeding.seeds(0, "champion-test", experiment.test_episodes)
        self.solved: dict[int, int] = {}  # phase -> first generation that solved it
        for generation, scores in sorted(_mended(file).items()):
            if scores[version.mode_at(generation)] >= experiment.solved:
                self.solved.setdefault(_phase_of(self.phases, generation), generation)
        self.near = experiment.solved - abs(experiment.solved) / 2  # below this, no test
        self.encoding = make_strategy(params, version.interface).encoding
        networks = experiment.networks
        self.unseen = Unseen(networks, params, version, self.encoding) if networks else None

    def heard(self, record: GenerationRecord, champion: Population) -> None:
        """Test the champion of the generation that has just been evaluated."""
        here = _phase_of(self.phases, record.generation)
        last = record.generation + 1 == self.phases[here].end
        if last:
            modes = self._at_the_end(here)
        elif here not in self.solved and record.best >= self.near and self._due(record):
            modes = (record.mode,)
        else:
            return
        scores = {mode: self._score(mode, record, champion) for mode in modes}
        if last and self.unseen is not None:
            task = Task(self.version, record.mode, self.seeds)
            scores |= self.unseen.scores(champion.genomes, task)
        if scores[record.mode] >= self.experiment.solved:
            self.solved.setdefault(here, record.generation)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"generation": record.generation, "scores": scores}) + "\n")

    def _due(self, record: GenerationRecord) -> bool:
        return (record.generation + 1) % self.experiment.test_every == 0

    def over(self, record: GenerationRecord) -> bool:
        """Whether the run may end here: its last phase is solved, if that is to be its end."""
        first = self.solved.get(len(self.phases) - 1, record.total)
        return self.experiment.until_solved and record.generation >= first

    def _at_the_end(self, phase: int) -> tuple[str, ...]:
        if self.experiment.tested == "all":
            return self.version.modes
        if self.experiment.tested == "own":
            return (self.phases[phase].mode,)
        return tuple(dict.fromkeys(p.mode for p in self.phases[phase : phase + 2]))

    def _score(self, mode: str, record: GenerationRecord, champion: Population) -> float:
        if not self.experiment.test_episodes and mode == record.mode:
            return record.best
        seeds = self.seeds if len(self.seeds) else np.zeros(1, dtype=np.int64)
        policies = policies_of(self.params, self.version.interface, self.encoding, champion)
        played = self.inner.evaluate(policies, Task(self.version, mode, seeds))
        return float(played.returns.reshape(-1, len(seeds)).mean(axis=1).min())


def _phase_of(stretches: list[Phase], generation: int) -> int:
    return next(k for k, phase in enumerate(stretches) if generation < phase.end)


def read_tests(file: Path) -> dict[int, dict[str, float]]:
    """Generation -> mode -> the champion's test score; an incomplete last line is ignored."""
    found: dict[int, dict[str, float]] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        found.setdefault(entry["generation"], {}).update(entry["scores"])
    return found


def _mended(file: Path) -> dict[int, dict[str, float]]:
    """As `read_tests`; also removes an incomplete last line from the file."""
    tests = read_tests(file)
    lines = [json.dumps({"generation": g, "scores": scores}) for g, scores in tests.items()]
    atomic_write(file, "".join(f"{line}\n" for line in lines))
    return tests


def folder_of(experiment: Experiment, arm: str, seed: int, out: Path) -> Path:
    """A run's folder. Other parameters, and another way to test or end it, give another folder."""
    params = experiment.params(arm, seed).model_dump(mode="json")
    decides = [params, experiment.solved, experiment.test_episodes]
    decides += [experiment.networks] if experiment.networks else []
    rules = [experiment.test_every, experiment.tested, experiment.until_solved]
    decides += [rules] if rules != DEFAULT_RULES else []
    digest = sha256_bytes(canonical_json(decides))
    return out / "runs" / f"{arm.replace(' ', '-')}-{seed}-{digest[:8]}"


def play(experiment: Experiment, arm: str, seed: int, folder: Path) -> Outcome:
    """Run one arm with one seed in `folder`, or resume it there."""
    params = experiment.params(arm, seed)
    version = pin(params.env)
    folder.mkdir(parents=True, exist_ok=True)
    tests = folder / "champions.jsonl"
    with make_run_evaluator(Settings(), version, params) as inner:
        champions = Champions(inner, experiment, params, version, tests)
        evolve(
            params,
            version,
            inner,
            folder / "run",
            on_champion=champions.heard,
            stop=champions.over,
        )
    return outcome(experiment, arm, seed, folder, phases(params, version))


def curves(folder: Path) -> pd.DataFrame:
    """The generations table of a run."""
    frame: pd.DataFrame = tables.read(folder / "run" / "generations").to_pandas()
    return frame


def outcome(
    experiment: Experiment, arm: str, seed: int, folder: Path, stretches: list[Phase]
) -> Outcome:
    frame, tests = curves(folder), read_tests(folder / "champions.jsonl")
    found = []
    for number, phase in enumerate(stretches):
        own = {g: tests[g] for g in sorted(tests) if phase.start <= g < phase.end}
        solved = [g for g, scores in own.items() if scores[phase.mode] >= experiment.solved]
        found.append(_recovery(frame, number, phase, solved, own[max(own)]))
    return Outcome(arm, seed, tuple(found))


def _recovery(
    frame: pd.DataFrame, number: int, phase: Phase, solved: list[int], scores: dict[str, float]
) -> Recovery:
    rates = frame["rate"].to_numpy()[phase.start : phase.end]
    spent = frame["evaluations"].to_numpy()
    before = int(spent[phase.start - 1]) if phase.start else 0
    first = solved[0] if solved else None
    return Recovery(
        phase=number,
        mode=phase.mode,
        start=phase.start,
        generations=None if first is None else first - phase.start,
        evaluations=None if first is None else int(spent[first]) - before,
        peak=float(rates[:PEAK_WITHIN].max()),
        rest=float(np.median(rates[-max(len(rates) // 10, 1) :])),
        scores=scores,
    )
