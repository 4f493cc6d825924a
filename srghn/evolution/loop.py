"""Evolve: ask, evaluate, tell, store. A run killed at any moment resumes to identical bytes.

A generation's result depends on the parameters, the world and the state before it, and every random
draw has a name, so a checkpoint holds no generator. A kill costs `SECONDS`, or the generation at
hand: what it left beyond the last checkpoint is dropped and made again. An exception or Ctrl-C
costs the generation at hand alone, unless it lands in the writing of the checkpoint.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from srghn import seeding
from srghn.config import RunParams
from srghn.envs.version import EnvVersion
from srghn.errors import expect, expect_function
from srghn.evaluation.base import (
    Crash,
    Evaluation,
    Evaluator,
    SeveralPolicies,
    WeightedPolicies,
)
from srghn.evaluation.task import Task
from srghn.evolution import lineage, metrics, run, selection, summary, tables
from srghn.evolution.base import F64, I64, NO_PARENT, Population, State, Strategy, asked, told
from srghn.evolution.budget import Budget
from srghn.evolution.ending import ASKED, End, ended
from srghn.evolution.genetic import GeneticState
from srghn.evolution.metrics import GenerationRecord
from srghn.evolution.one_thread import one_thread
from srghn.evolution.progress import TABLES, Progress, prune, restore, save
from srghn.evolution.racing import Heats, race
from srghn.evolution.registry import make_strategy
from srghn.evolution.run import Founder
from srghn.evolution.self_referential import BirthRecipe, policies_of
from srghn.files import sweep
from srghn.interrupt import interruptible

#: Between two checkpoints, where no part of the tables ends sooner.
SECONDS = 5.0


@interruptible()
@one_thread()  # set once, not in every generation
def evolve(
    params: RunParams,
    version: EnvVersion,
    evaluator: Evaluator,
    run_dir: Path | str,
    *,
    on_generation: Callable[[GenerationRecord], None] | None = None,
    on_champion: Callable[[GenerationRecord, Population], None] | None = None,
    stop: Callable[[GenerationRecord], bool] | None = None,
    founder: Founder | None = None,
) -> None:
    """Run `params.evolution.generations` generations in `run_dir`, or the remaining ones.

    `on_generation` is told of every generation, and `on_champion` also who was best in it, as a
    population of one. Then `stop` is asked whether it was the last one, then the budgets are
    (`evolution.seconds`, `evaluations`, `until`). A run that was so ended is finished, and evolving
    it again does nothing; `load_run(run_dir).end` says why it ended. An exception in any of them
    leaves the run as it was before that generation: evolve again to go on from there.

    The lineage's generation counter, and with it the world's schedule, goes on from the founder's.
    Raises `FingerprintMismatch` where the folder belongs to another world, `CheckpointError` where
    it belongs to other parameters or is held by another process, `ConfigError` for arguments of
    another kind and for a strategy whose `ask` or `tell` gives something else.
    """
    expect(params, RunParams, "params", "srghn.RunParams or load_params makes them")
    expect(version, EnvVersion, "version", "srghn.pin makes one")
    hint = "srghn.make_evaluator makes one"
    expect(evaluator, Evaluator, "evaluator", hint)  # type: ignore[type-abstract]
    if founder is not None:
        expect(founder, Founder, "founder", "srghn.founder_of(candidate, version) makes one")
    hooks = on_generation, on_champion, stop
    for name, hook in zip(("on_generation", "on_champion", "stop"), hooks, strict=True):
        expect_function(hook, f"evolve: {name}")
    run_dir, strategy = Path(run_dir), make_strategy(params, version.interface)
    selection.check_elites(params.evolution)
    run.check_founder(params, strategy, founder)
    if params.evolution.mode is not None:
        version.check_mode(params.evolution.mode)
    with run.locked(run_dir):
        sweep(run_dir)
        run.open_run(run_dir, run.describe(params, version, strategy, founder), version)
        before = ended(run_dir)
        loop = _Loop(params, version, evaluator, strategy, run_dir, *hooks, before)
        progress = restore(run_dir, strategy) or loop.begin(founder)
        prune(run_dir, progress)
        while progress.done < params.evolution.generations and progress.end is None:
            progress = loop.leg(progress)
        summary.write(run_dir, progress, version.fingerprint)


@dataclasses.dataclass(frozen=True)
class _Loop:
    params: RunParams
    version: EnvVersion
    evaluator: Evaluator
    strategy: Strategy[Any]
    run_dir: Path
    on_generation: Callable[[GenerationRecord], None] | None
    on_champion: Callable[[GenerationRecord, Population], None] | None
    stop: Callable[[GenerationRecord], bool] | None = None
    #: How the run ended, where it did and its last checkpoint was refused: it ends so again.
    before: End | None = None

    def begin(self, founder: Founder | None) -> Progress:
        seed = self.params.evolution.seed
        state = (
            self.strategy.init(seed)
            if founder is None
            else self.strategy.init(seed, founder.genomes, founder.generation + 1)
        )
        expect(state, self.strategy.state_type, f"{self.strategy.name}.init", "see Strategy")
        nobody = asked(self.strategy, state).take(np.array([], dtype=np.int64))
        return Progress(
            done=0,
            state=state,
            finalists=nobody,
            fitness=np.array([]),
            mode=self._mode(state.generation),
            evaluations=0,
            steps=0,
            parts={name: () for name in TABLES},
            pending={name: () for name in TABLES},
        )

    def _mode(self, generation: int) -> str:
        return self.params.evolution.mode or self.version.mode_at(generation)

    def leg(self, progress: Progress) -> Progress:
        """The generations up to the next checkpoint and, where it is due, a part of each table."""
        every = self.params.evolution.checkpoint_every
        stop = min(progress.done - progress.done % every + every, self._total)
        began, spent, first = time.monotonic(), progress.seconds, progress.done
        records: list[GenerationRecord] = []
        try:
            while progress.done < stop and progress.end is None:
                after, record = self._generation(progress)
                passed = time.monotonic() - began
                end = self._end(after, record, spent + passed)
                records.append(record)
                progress = dataclasses.replace(after, end=end, seconds=spent + passed)
                if passed >= SECONDS:
                    break
        finally:
            if made := progress.done - first:  # Ctrl-C may leave the record of one more
                progress = self._kept(progress, records[:made], progress.done == stop)
                save(self.run_dir, progress, timed=self.params.evolution.seconds is not None)
        return progress

    def _end(self, progress: Progress, record: GenerationRecord, seconds: float) -> End | None:
        if self.before is not None:
            return self.before if self.before.done == progress.done else None
        if self.stop is not None and self.stop(record):
            return End(progress.done, ASKED)
        budget = Budget(self.params, self.version, self.evaluator, self._weighted)
        return budget.spent(progress.done, progress.finalists, record, seconds)

    def _kept(self, progress: Progress, records: list[GenerationRecord], whole: bool) -> Progress:
        """With the new rows of the tables, in a part where one ends, and the best as finalists."""
        fingerprint, parts = self.version.fingerprint, progress.parts
        new = {
            "lineage": lineage.table(records, fingerprint),
            "generations": metrics.table(records, fingerprint),
        }
        pending = {k: (*progress.pending[k], new[k]) for k in TABLES}
        if whole or progress.end is not None:
            parts = {k: (*parts[k], tables.write(self.run_dir / k, pending[k])) for k in TABLES}
            pending = {k: () for k in TABLES}
        best = selection.rank(progress.fitness)[: self.params.evolution.parents]
        return dataclasses.replace(
            progress,
            finalists=progress.finalists.take(best),
            fitness=progress.fitness[best],
            parts=parts,
            pending=pending,
        )

    @property
    def _total(self) -> int:
        return self.params.evolution.generations

    def _generation(self, before: Progress) -> tuple[Progress, GenerationRecord]:
        generation = before.state.generation
        mode = self._mode(generation)
        population = asked(self.strategy, before.state)
        played, fitness = self._play(before.state, population, mode)
        after = dataclasses.replace(
            before,
            done=before.done + 1,
            state=told(self.strategy, before.state, population, fitness),
            finalists=population,  # all of them: which are the best, only a checkpoint asks
            fitness=fitness,
            mode=mode,
            evaluations=before.evaluations + int(np.count_nonzero(~np.isnan(played.returns))),
            steps=before.steps + int(played.lengths.sum()),
        )
        record = GenerationRecord(
            generation=generation,
            total=self._total,
            mode=mode,
            ids=population.ids,
            parents=population.parents,
            noise_seeds=population.noise_seeds,
            births=population.births,
            rates=population.rates,
            fitness=fitness,
            returns=played.returns,
            diversity=metrics.diversity(population.weights),
            crashes=len(played.crashes),
            first_crash=_told(played.crashes[0], population) if played.crashes else "",
            evaluations=after.evaluations,
            steps=after.steps,
        )
        if self.on_generation is not None:
            self.on_generation(record)
        if self.on_champion is not None:
            self.on_champion(record, population.take(selection.rank(fitness)[:1]))
        return after, record

    def _play(self, state: State, population: Population, mode: str) -> tuple[Evaluation, F64]:
        """What was played and fitness (n,): the generation's own episodes, the same for all."""
        evolution = self.params.evolution
        episodes = _episodes(state.generation, evolution.seed, evolution.episodes)
        task, policies = Task(self.version, mode, episodes), self._policies(state, population)
        if evolution.racing:
            heats = Heats(evolution.racing, evolution.racing_share)
            return race(self.evaluator, policies, task, heats)
        played = self.evaluator.evaluate(policies, task)
        return played, selection.clean(played.fitness)

    def _policies(self, state: State, population: Population) -> WeightedPolicies | SeveralPolicies:
        """Seeds of births for workers elsewhere where there are such, weights for all others."""
        encoding = self.strategy.encoding if self.evaluator.remote else None
        if encoding is None or not isinstance(state, GeneticState):
            return self._weighted(population)
        strangers = (population.parents == NO_PARENT) & (population.ids >= state.next_id)
        if strangers.any():
            return self._weighted(population)
        face, parts = self.version.interface, []
        for target, network in enumerate(self.params.networks):
            recipe = BirthRecipe.of(encoding, state, population, target)
            parts.append(WeightedPolicies(network, face, recipe=recipe))
        return parts[0] if len(parts) == 1 else SeveralPolicies(tuple(parts))

    def _weighted(self, population: Population) -> WeightedPolicies | SeveralPolicies:
        face = self.version.interface
        return policies_of(self.params, face, self.strategy.encoding, population)


def _told(crash: Crash, population: Population) -> str:
    individual = population.ids[crash.individual]
    return f"individual {individual}, seed {crash.seed}, step {crash.step}: {crash.message}"


@seeding.ahead
def _episodes(generation: int, seed: int, count: int) -> I64:
    return seeding.seeds(seed, "episode", count, generation)
