"""What every algorithm is: `init`, `ask`, `tell` over a frozen state of arrays and scalars.

Fitness is maximised. A strategy holds hyper-parameters only; all that changes is in its state, so a
run is resumed from the state alone, and every random draw is named by (seed, generation, row).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from srghn.errors import ArchitectureMismatch, CheckpointError, ConfigError, expect

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: The parent of an individual that has none.
NO_PARENT = -1


@dataclass(frozen=True)
class Population:
    """Individuals in rows; all arrays have the same length n.

    genomes      (n, G) float32, what is inherited
    weights      (n, P) float32, the policies' weights, flat
    ids          (n,) int64, unique within a run and increasing with birth
    parents      (n,) int64, the parent's id, or `NO_PARENT` for a founder
    noise_seeds  (n,) int64, the seed of the birth; for a founder the seed of its genome
    births       (n,) int64, the generation of birth
    rates        (n, nodes) float32, the mutation rates that the birth was made with, for each of
                 `Strategy.node_names`; of one without a birth, those of its own genome

    A rate scales a step. Of a hypernetwork it has no unit: a tensor's step has a standard deviation
    of the rate times what the mother's noise head says (about .75 in a founder) times the tensor's
    own deviation at initialisation. Of weights mutated directly, the one rate is the step's
    standard deviation, in the unit of the weights.
    """

    genomes: F32
    weights: F32
    ids: I64
    parents: I64
    noise_seeds: I64
    births: I64
    rates: F32

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        sizes = f"genome {self.genomes.shape[1]}, weights {self.weights.shape[1]}"
        return f"Population({len(self)} individuals, {sizes})"

    def take(self, rows: I64) -> Population:
        """The individuals at `rows`, in that order."""
        return Population(*(array[rows] for array in vars(self).values()))


@dataclass(frozen=True)
class State:
    """What an algorithm knows between generations; subclasses add arrays and scalars only.

    seed        root seed of the run
    generation  the generation that `ask` will make, counted along the lineage
    next_id     the id of the next individual to be born
    """

    seed: int
    generation: int
    next_id: int


S = TypeVar("S", bound=State)


class Encoding(Protocol):
    """Genomes: how they begin, become weights and are mutated. `srghn.ghn.GHN` is one.

    Rows are independent: the same bytes alone or in a batch.
    """

    @property
    def genome_size(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def node_names(self) -> Sequence[str]: ...

    def init(self, seed: int) -> F32:
        """A founder's genome, (G,)."""
        ...

    def generate(self, genomes: F32) -> F32:
        """Policy weights (n, P) of genomes (n, G)."""
        ...

    def mutate(
        self, parents: F32, noise_seeds: I64, *, index: I64 | None = None, out: F32 | None = None
    ) -> tuple[F32, F32]:
        """(children (n, G), the rates that scaled their steps (n, nodes)), one per noise seed.

        Child i is of parent `index[i]`, by default of parent i; `out` is where children are put.
        """
        ...

    def rates(self, genomes: F32) -> F32:
        """The rates (n, nodes) that these genomes encode.

        Those of their children lie around them, where rates are inherited with variation.
        """
        ...


class Strategy(Protocol[S]):
    """An evolutionary algorithm.

    name         as in `STRATEGIES`
    digest       of everything that decides what a genome means; a genome made under another
                 digest cannot be used
    state_type   the class of its state
    node_names   names of the columns of `Population.rates`: a hypernetwork's own tensors, or
                 'sigma' alone
    encoding     genomes as pure functions of their births; None for algorithms that draw
                 individuals from a distribution: their genomes are the policies' weights, and are
                 made again by telling a fresh state what the first one was told
    """

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def state_type(self) -> type[S]: ...
    @property
    def node_names(self) -> tuple[str, ...]: ...
    @property
    def encoding(self) -> Encoding | None: ...

    def init(self, seed: int, genome: F32 | None = None, generation: int = 0) -> S:
        """The state before `generation`: from fresh founders, or from an earlier genome (G,).

        Raises `ArchitectureMismatch` for a genome of another size.
        """
        ...

    def ask(self, state: S) -> Population:
        """The individuals to evaluate now. Pure: the same state gives the same bytes."""
        ...

    def tell(self, state: S, population: Population, fitness: F64) -> S:
        """The next generation's state; `population` is what `ask(state)` gave, fitness is (n,).

        Fitness that is not finite ranks last.
        """
        ...


#: The element type and the dimensions of each array of a `Population`.
_ARRAYS = {name: (np.float32, 2) for name in ("genomes", "weights", "rates")} | {
    name: (np.int64, 1) for name in ("ids", "parents", "noise_seeds", "births")
}


def asked(strategy: Strategy[S], state: S) -> Population:
    """What `ask` gives; raises `ConfigError` for anything but a `Population` as it is documented.

    At least one individual, arrays of one length and of their types, a rate for each of
    `node_names`, ids that differ, and weights without NaN.
    """
    name, hint = f"{strategy.name}.ask", "see srghn.evolution.Population"
    given = expect(strategy.ask(state), Population, name, hint)
    if fault := _fault(given, len(strategy.node_names)):
        raise ConfigError(f"{name}: {fault}; {hint}")
    return given


def _fault(population: Population, nodes: int) -> str:
    """What is wrong with it, in words; empty where nothing is."""
    for field, (kind, dimensions) in _ARRAYS.items():
        array = getattr(population, field)
        if not isinstance(array, np.ndarray):
            return f"{field} must be an array, got {type(array).__name__}"
        if array.dtype != kind or array.ndim != dimensions:
            shape = "(n,)" if dimensions == 1 else "(n, columns)"
            return f"{field} must be {kind.__name__} {shape}, got {array.dtype} {array.shape}"
    lengths = {field: len(getattr(population, field)) for field in _ARRAYS}
    count = len(population)
    if count == 0 or set(lengths.values()) != {count}:
        told = ", ".join(f"{field} {length}" for field, length in lengths.items())
        return f"expected arrays of one length, 1 or more, got {told}"
    if population.rates.shape[1] != nodes:
        return f"rates must have a column for each of {nodes} nodes, got {population.rates.shape}"
    if (different := len(np.unique(population.ids))) < count:
        return f"expected ids that differ, got {different} for {count} individuals"
    if len(bad := np.flatnonzero(np.isnan(population.weights).any(axis=1))):
        return f"weights must be numbers, got NaN in {len(bad)} rows of {count}, first in {bad[0]}"
    return ""


def told(strategy: Strategy[S], state: S, population: Population, fitness: F64) -> S:
    """What `tell` gives; raises `ConfigError` for anything but the next generation's state."""
    name = f"{strategy.name}.tell"
    given = strategy.tell(state, population, fitness)
    after = expect(given, strategy.state_type, name, "see srghn.evolution.Strategy")
    if after.generation != state.generation + 1:
        raise ConfigError(
            f"{name}: expected a state of generation {state.generation + 1}, got "
            f"{after.generation}; a strategy counts its generations"
        )
    return after


def same_architecture(recorded: str, now: str) -> bool:
    """Whether a strategy's digest is the one on record, which before 0.3 had no graph."""
    return recorded in (now, now.partition("+")[0])


def check_told(population: Population, fitness: F64) -> None:
    """Raise `ValueError` unless fitness is an array with one number per individual."""
    if not isinstance(fitness, np.ndarray):
        raise ValueError(
            f"tell takes an array of shape ({len(population)},), got a {type(fitness).__name__}; "
            "use np.asarray(fitness, dtype=float), or srghn.evolution.Search, which takes lists"
        )
    if fitness.shape != (len(population),):
        raise ValueError(
            f"tell takes one fitness per individual, shape ({len(population)},), "
            f"got {fitness.shape}; average over episodes first"
        )


def check_genome(genome: F32, size: int) -> None:
    """Raise `ArchitectureMismatch` unless the genome has the size that the strategy works on."""
    if genome.shape != (size,):
        raise ArchitectureMismatch(
            f"this run's genomes have shape ({size},), the genome to start from has "
            f"{genome.shape}: it was made for another policy or strategy; use its own parameters, "
            "or start a new lineage without an ancestor"
        )


def pack(state: State) -> tuple[dict[str, NDArray[Any]], dict[str, int | str | bool]]:
    """A state as (arrays, scalars), for a checkpoint; floats travel as 0-d arrays, to the bit."""
    arrays: dict[str, NDArray[Any]] = {}
    scalars: dict[str, int | str | bool] = {}
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        if isinstance(value, np.ndarray | float):
            arrays[field.name] = np.asarray(value)
        elif isinstance(value, int | str):
            scalars[field.name] = value
        else:
            raise TypeError(
                f"{type(state).__name__}.{field.name} must be an array, int, float, bool or str "
                f"to be kept in a checkpoint, got {type(value).__name__}"
            )
    return arrays, scalars


def unpack(state_type: type[S], arrays: dict[str, NDArray[Any]], scalars: dict[str, Any]) -> S:
    """The inverse of `pack`; raises `CheckpointError` where the fields are not the type's own."""
    values: dict[str, Any] = {**arrays, **scalars}
    expected = {field.name: field.type for field in dataclasses.fields(state_type)}
    if set(values) != set(expected):
        raise CheckpointError(
            f"a checkpoint of {state_type.__name__} holds {sorted(expected)}, this one has "
            f"{sorted(values)}: it was written by another version or strategy; start a new run"
        )
    floats = {name for name, kind in expected.items() if kind in ("float", float)}
    values = {k: float(v) if k in floats else v for k, v in values.items()}
    return state_type(**values)
