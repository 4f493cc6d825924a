"""Selection that responds to a sharp drop of fitness. Not in the paper.

stress   until fitness is back, each birth has a least mutation rate, which its seed names. Rates
         are drawn over the whole range at first, and then near those at which survivors were born:
         so a run learns which steps lead out of a drop
newcomers  until fitness is back, part of a generation's births are new founders. What has evolved
           for the environment before is a poor start in another, and crowds out better ones
memory   the best survivor from before a drop is stored, and all that are stored compete for one
         generation. It helps where environments return to a former mode; elsewhere it does nothing

A birth is still a pure function of (parent genome, seed), and who is stored is an individual of the
lineage like any other, so lineages are rebuilt as ever.
"""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np

from srghn.errors import ConfigError
from srghn.evolution.alarm import Alarm
from srghn.evolution.base import F32, F64, I64, NO_PARENT, Encoding, Population, told
from srghn.evolution.genetic import Genetic, GeneticState
from srghn.evolution.selection import clean
from srghn.seeding import CODES, stream

#: Individuals stored, and newcomers' share of births, where parameters leave it to the strategy:
#: chosen on worlds that change many times (docs/results/lasting.md).
MEMORY, NEWCOMERS = 8, 0.5
#: Rates of survivors born under stress that are remembered, share of births that use them, and how
#: far from them a birth's is drawn, in codes.
LEARNT, USED, AROUND = 64, 0.75, 16


@dataclass(frozen=True)
class AlertState(GeneticState):
    """level, low, on  the `Alarm`
    learnt  (at most LEARNT,) int64, codes of the births under stress that survived
    recall  whether those stored compete in this generation

    From `stored_genomes` to `stored_rates`: those stored, oldest first, as in `Population`.
    """

    level: float
    low: float
    last: float
    usual: float
    on: bool
    learnt: I64
    recall: bool
    stored_genomes: F32
    stored_ids: I64
    stored_parents: I64
    stored_noise_seeds: I64
    stored_births: I64
    stored_rates: F32

    def sources(self) -> tuple[I64, F32]:
        ids, genomes = super().sources()
        return np.append(ids, self.stored_ids), np.concatenate([genomes, self.stored_genomes])


@dataclass(frozen=True)
class Alert:
    """A `Genetic` with an alarm: stores up to `memory` individuals; births follow `stress`.

    `newcomers` of a generation's births are new founders while the alarm is raised.

    Raises `ConfigError` for a subclass of `Genetic` that it cannot ask so, or whose state is more.
    """

    genetic: Genetic
    memory: int
    stress: bool
    newcomers: int = 0

    state_type = AlertState

    def __post_init__(self) -> None:
        own = f"evolution.strategy: {type(self.genetic).__name__}"
        off = "or set evolution.memory and evolution.newcomers to 0, and ghn.stress to false"
        try:
            inspect.signature(self.genetic.ask).bind(None, None, 0)
        except TypeError:
            raise ConfigError(
                f"{own}.ask must take (state, codes=None, immigrants=None) and hand them to "
                f"Genetic.ask, for the response to a drop of fitness; {off}"
            ) from None
        if (kind := self.genetic.state_type) is not GeneticState:
            raise ConfigError(
                f"{own}.state_type must be GeneticState, got {kind.__name__}, for the response to "
                "a drop of fitness adds to it; implement init, ask and tell around a Genetic, as "
                f"srghn/evolution/restart.py does, {off}"
            )

    @property
    def name(self) -> str:
        return self.genetic.name

    @property
    def encoding(self) -> Encoding:
        return self.genetic.encoding

    @property
    def digest(self) -> str:
        return self.genetic.digest

    @property
    def node_names(self) -> tuple[str, ...]:
        return self.genetic.node_names

    def init(self, seed: int, genome: F32 | None = None, generation: int = 0) -> AlertState:
        first = self.genetic.init(seed, genome, generation)
        nobody = {f"stored_{name}": value[:0] for name, value in _individuals(first).items()}
        none = np.array([], dtype=np.int64)
        return AlertState(**vars(first), **vars(Alarm()), learnt=none, recall=False, **nobody)

    def ask(self, state: AlertState) -> Population:
        """The population of `Genetic`; in a recall generation also the stored individuals."""
        strangers = max(self.newcomers if state.on else 0, self.genetic.immigrants)
        codes = _codes(state, self.genetic.brood(strangers)) if self.stress else None
        asked = self.genetic.ask(state, codes, strangers)
        if not state.recall:
            return asked
        there = np.isin(state.stored_ids, asked.ids)
        back = {name: getattr(state, f"stored_{name}")[~there] for name in _individuals(state)}
        guests = Population(**back, weights=self.encoding.generate(back["genomes"]))
        behind = int((asked.ids < state.next_id).sum())
        return Population(
            **{
                name: np.concatenate([array[:behind], getattr(guests, name), array[behind:]])
                for name, array in vars(asked).items()
            }
        )

    def tell(self, state: AlertState, population: Population, fitness: F64) -> AlertState:
        # an own `tell` may give a plain GeneticState
        after = dataclasses.replace(state, **vars(told(self.genetic, state, population, fitness)))
        before = Alarm(state.level, state.low, state.last, state.usual, state.on)
        alarm = before.after(clean(fitness))
        dropped = alarm.on and not before.on
        after = dataclasses.replace(
            after, **vars(alarm), learnt=_learnt(state, after), recall=dropped and self.memory > 0
        )
        return self._stored(state, after) if after.recall else after

    def _stored(self, state: AlertState, after: AlertState) -> AlertState:
        """`after` with the best survivor of `state` stored, from before its fitness dropped."""
        if state.ids[0] in state.stored_ids or state.births[0] == state.generation:
            return after
        kept = {
            f"stored_{name}": np.concatenate([getattr(state, f"stored_{name}"), own[:1]])
            for name, own in _individuals(state).items()
        }
        last: dict[str, Any] = {k: v[-self.memory :] for k, v in kept.items()}
        return dataclasses.replace(after, **last)


def _individuals(state: GeneticState) -> dict[str, Any]:
    names = ("genomes", "ids", "parents", "noise_seeds", "births", "rates")
    return {name: getattr(state, name) for name in names}


def _codes(state: AlertState, count: int) -> I64:
    """The code (count,) of each birth: 0 at rest, under stress one that names its least rate."""
    if not state.on:
        return np.zeros(count, dtype=np.int64)
    draws = stream(state.seed, "stress", state.generation)
    codes = draws.integers(1, CODES, count)
    if not len(state.learnt):
        return codes
    known = state.learnt[draws.integers(0, len(state.learnt), count)]
    near = np.clip(known + draws.integers(-AROUND, AROUND + 1, count), 1, CODES - 1)
    return np.where(draws.random(count) < USED, near, codes)


def _learnt(state: AlertState, after: AlertState) -> I64:
    """Codes that worked, those of this generation's births that survived at the end."""
    if not state.on:
        return state.learnt
    born = (after.births == state.generation) & (after.parents != NO_PARENT)
    codes = after.noise_seeds[born] % CODES
    return np.concatenate([state.learnt, codes[codes > 0]])[-LEARNT:]
