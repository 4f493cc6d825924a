"""CMA-ES (Hansen 2016, arXiv:1604.00772) by the pycma package, on the policy's weights.

pycma keeps its state in an object meant to be pickled. Here the object lives for one call: it is
made afresh from the arrays that its equations move, so that a run resumes without unpickling. A
test holds that this gives what an undisturbed pycma object gives, to the bit.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from srghn import seeding
from srghn.config import Params, RunParams
from srghn.envs.interface import Interface
from srghn.errors import ConfigError
from srghn.evolution.base import F32, F64, Population, State, check_told
from srghn.evolution.direct import PolicyWeights, drawn
from srghn.evolution.one_thread import one_thread
from srghn.evolution.options import options
from srghn.evolution.selection import clean

#: Beyond this many weights one decomposition of the covariance matrix takes many seconds.
LARGEST = 3000


class CMAOptions(Params):
    sigma: float = Field(0.5, gt=0, description="initial step size")


@dataclass(frozen=True)
class CMAState(State):
    """The moving part of pycma's object after `tell`.

    mean, path_c, path_sigma (P,); covariance, basis (P, P) and axes (P,) of its last decomposition;
    sigma; `told` generations; `decomposed` is the generation of that decomposition.
    """

    mean: F64
    path_c: F64
    path_sigma: F64
    covariance: F64
    basis: F64
    axes: F64
    sigma: float
    told: int
    decomposed: int


@dataclass(frozen=True)
class CMAES:
    layout: PolicyWeights
    options: CMAOptions
    population_size: int

    name = "cmaes"
    state_type = CMAState
    node_names = ("sigma",)
    encoding = None

    @property
    def digest(self) -> str:
        return self.layout.digest(self.name)

    def init(self, seed: int, genome: F32 | None = None, generation: int = 0) -> CMAState:
        mean = self.layout.start(seed, genome)
        size = len(mean)
        return CMAState(
            seed=seed,
            generation=generation,
            next_id=0,
            mean=mean.astype(np.float64),
            path_c=np.zeros(size),
            path_sigma=np.zeros(size),
            covariance=np.eye(size),
            basis=np.eye(size),
            axes=np.ones(size),
            sigma=self.options.sigma,
            told=0,
            decomposed=0,
        )

    @one_thread()
    def ask(self, state: CMAState) -> Population:
        weights = np.array(self._asked(state)[1], dtype=np.float32)
        return drawn(state, weights, state.sigma)

    @one_thread()
    def tell(self, state: CMAState, population: Population, fitness: F64) -> CMAState:
        """pycma uses ranks alone, so it is told ranks, equal ones for equal fitness."""
        check_told(population, fitness)
        es, solutions = self._asked(state)
        cleaned = clean(fitness)
        es.tell(solutions, np.unique(-cleaned, return_inverse=True)[1].astype(float).tolist())
        return dataclasses.replace(
            state,
            generation=state.generation + 1,
            next_id=state.next_id + len(population),
            mean=np.array(es.mean),
            path_c=np.array(es.pc),
            path_sigma=np.array(es.adapt_sigma.ps),
            covariance=np.array(es.sm.C),
            basis=np.array(es.sm.B),
            axes=np.array(es.sm.D),
            sigma=float(es.sigma),
            told=es.countiter,
            decomposed=es.sm.last_update,
        )

    def _asked(self, state: CMAState) -> tuple[Any, list[F64]]:
        """pycma's object as `tell` left it, after one more `ask` on this generation's own noise."""
        es = make_pycma(state.mean, state.sigma, self.population_size)
        es.sigma0 = self.options.sigma
        if state.told:
            self._restore(es, state)
        noise = seeding.stream(state.seed, "birth", state.generation)
        es.sm.randn = lambda *shape: noise.standard_normal(shape)
        return es, es.ask()

    def _restore(self, es: Any, state: CMAState) -> None:
        import cma

        es.pc, es.countiter = np.array(state.path_c), state.told
        es.mean_old = es.mean  # tell only hands it on
        es.sm.C, es.sm.B = np.array(state.covariance), np.array(state.basis)
        es.sm.D = np.array(state.axes)
        es.sm.count_tell, es.sm.last_update = state.told, state.decomposed
        es._updateBDfromSM(es.sm)
        es.timer = cma.utilities.utils.ElapsedWCTime()  # made by the first ask of an object's life
        es.adapt_sigma.initialize(es)
        es.adapt_sigma.ps = np.array(state.path_sigma)
        es.adapt_sigma._ps_updated_iteration = state.told


def make_pycma(mean: F64, sigma: float, population_size: int) -> Any:
    """A quiet pycma object that touches no global random state.

    It adapts its step by path length whatever the number of weights: pycma's other rule, its own
    choice from 300 weights on, keeps more than `CMAState` does.

    Nor does it change coordinates where the covariance is badly conditioned, as near an optimum:
    the change would live in the object alone, and be lost from one generation to the next.
    """
    import cma  # not above: it loads matplotlib, and most processes that evolve need neither

    quiet = {
        "popsize": population_size,
        "verbose": -9,
        "seed": np.nan,
        "conditioncov_alleviate": False,
        "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA,
    }
    return cma.CMAEvolutionStrategy(mean, sigma, quiet)


def cmaes(params: RunParams, interface: Interface) -> CMAES:
    chosen = options(CMAOptions, params.evolution)
    layout = PolicyWeights(params.network, interface)
    if layout.size > LARGEST:
        raise ConfigError(
            f"evolution.strategy: cmaes decomposes a {layout.size} x {layout.size} matrix every "
            f"generation; use it for up to {LARGEST} weights, or choose openes"
        )
    size = params.evolution.parents * (1 + params.evolution.children)
    return CMAES(layout, chosen, size)
