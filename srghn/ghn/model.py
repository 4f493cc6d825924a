"""The Self-Referential Graph HyperNetwork (Pedersen et al. 2025, arXiv:2512.16406)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srghn.config import GHNParams
from srghn.errors import ArchitectureMismatch, GraphError, expect
from srghn.files import canonical_json, sha256_bytes
from srghn.ghn import kernels
from srghn.ghn.heads import Head, make_head
from srghn.ghn.noise import Float32, birth_noise, fixed_basis
from srghn.ghn.own import ELASTIC, RATE_HEAD, own_graph, own_kinds, own_tensors
from srghn.ghn.plan import Plan, make_plan
from srghn.graph import CompGraph
from srghn.seeding import CODES, stream

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class _Target:
    plan: Plan
    head: Head


class GHN:
    """Generates the weights of its targets, and the mutations of its own copies.

    Genomes are flat float32 vectors, and every method takes and gives whole populations of them.
    Nothing here changes after construction, and nothing is random but `init` and `mutate`, by the
    seeds given to them. What one individual gets has the same bytes alone and in any batch.

        ghn = GHN(GHNParams(), trace(policy, example))
        parents = np.stack([ghn.init(i) for i in range(8)])
        children, rates = ghn.mutate(parents, noise_seeds=np.arange(8))
        weights = ghn.generate(children)

    `targets` is one graph or several: one genome makes the weights of each. `seed` (by default
    `params.basis_seed`) fixes the random basis and nothing else.

    Raises `GraphError` for a target without parameters.
    """

    def __init__(
        self,
        params: GHNParams,
        targets: CompGraph | Iterable[CompGraph],
        seed: int | None = None,
    ) -> None:
        self.params = expect(params, GHNParams, "params", "give params.ghn")
        self.targets = tuple(targets) if isinstance(targets, Iterable) else (targets,)
        for target in self.targets:
            expect(target, CompGraph, "targets", "srghn.trace(module, example) makes one")
        self.seed = params.basis_seed if seed is None else int(seed)
        if not self.targets or any(t.size == 0 for t in self.targets):
            raise GraphError("a hypernetwork needs targets that have parameters; got one without")
        kinds = own_kinds(params).union(*(t.kinds for t in self.targets))
        self.vocabulary = tuple(sorted(kinds))
        self.largest = max(node.size for t in self.targets for node in t.parameters)
        self._tensors = own_tensors(params, len(self.vocabulary), self.largest)
        self.own_graph = own_graph(self._tensors, params.head)
        self.genome_size = self.own_graph.size
        self.node_names = self.own_graph.layout
        slices = self.own_graph.slices()
        starts = {name: span.start for name, span in slices.items()}
        self._messages, self._sigma = starts["message.self"], starts["sigma.hidden.weight"]
        self._own_plan = make_plan(self.own_graph, self.vocabulary, params.shapes)
        self._scales = np.array([t.scale for t in self._tensors], dtype=np.float32)
        self._kept = np.full(self.genome_size, 1 - params.birth_decay, dtype=np.float32)
        for name in ELASTIC:
            self._kept[slices[name]] = 1 - max(params.mutator_decay, params.birth_decay)
        held = (*RATE_HEAD, *ELASTIC)
        self._steady = np.array([params.keep_spread and t.name not in held for t in self._tensors])
        self.basis = fixed_basis(self.seed, params.basis_width, self._own_plan.widest)
        bounds = params.initial_rate, params.rate_min, params.rate_max
        limits = (*map(np.float32, np.log(bounds)), params.rate_bounds == "fold")
        floors = np.array([params.meta_floor * (t.name in RATE_HEAD) for t in self._tensors])
        self._rate_head = starts["rate.weight"], limits, floors.astype(np.float32)
        self._decoder = (
            starts["decode.position" if params.head == "chunked" else "decode.weight"],
            slices["decode.bias"].stop - starts["decode.bias"],
            self.seed,
        )
        self._known: dict[str, _Target] = {}  # by digest

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what genomes of this hypernetwork depend on: parameters, targets, basis."""
        described = {
            "params": _described(self.params),
            "vocabulary": list(self.vocabulary),
            "targets": [t.digest for t in self.targets],
            "own": self.own_graph.digest,
            "seed": self.seed,
        }
        return sha256_bytes(canonical_json(described))

    def init(self, seed: int) -> Float32:
        """A founder's genome (genome_size,): weights normal, biases zero."""
        draws = stream(seed, "founder").standard_normal(self.genome_size, dtype=np.float32)
        deviation = np.array([0 if t.starts_at_zero else t.scale for t in self._tensors])
        sizes = [node.size for node in self.own_graph.parameters]
        drawn = draws * np.repeat(deviation.astype(np.float32), sizes)
        return drawn + np.float32(0)  # no negative zeros, which adding nothing would change

    def generate(self, genomes: ArrayLike, target: int | CompGraph = 0) -> Float32:
        """Policy weights (n, P) of genomes (n, genome_size), for a known target or another graph.

        They are multiplied by `params.output_gain`, which is 1 by default and not in the paper.
        Weights lie in the target's layout order. A graph that is not among the targets may have
        widths and depths never seen, as long as its node types are known. Raises `GraphError` for
        an unknown node type, `ArchitectureMismatch` for genomes of another size.
        """
        made = self._target(self._graph(target))
        checked = self._checked(genomes)
        weights: Float32 = made.head(checked, self._vectors(checked, made.plan))
        if self.params.output_gain != 1:
            weights *= np.float32(self.params.output_gain)
        return weights

    def mutate(
        self,
        parents: ArrayLike,
        noise_seeds: ArrayLike,
        *,
        index: ArrayLike | None = None,
        rates: ArrayLike | None = None,
        out: Float32 | None = None,
    ) -> tuple[Float32, Float32]:
        """Children (n, genome_size), and the mutation rates (n, parameters) that made them.

        Child i copies parent `index[i]` (by default parent i) and adds what that parent's
        stochastic branch draws with `noise_seeds[i]`, scaled by a rate for each tensor of the
        genome and by that tensor's standard deviation at initialisation. The parent's rates scale
        the step of the rate head, and the child's own, by the head so changed, all the rest: what
        is selected is the rate that made it (Beyer and Schwefel 2002; in the paper the parent's
        rates do). A rate has no unit; at .1 a founder's step has .075 of that deviation.
        `rates`, a number or an array that broadcasts to (n, parameters), replaces them all: a rate
        of zero gives an identical child. With `birth_decay`, every weight first loses that share;
        what tells nodes' rates and noise apart loses `mutator_decay`, unless rates are given. Both
        decays are not in the paper.
        `out` (n, genome_size) float32 is where the children are put, by default an array of their
        own. Raises `ArchitectureMismatch` for arguments that do not fit.
        """
        genomes = self._checked(parents)
        seeds = _checked_seeds(noise_seeds)
        rows = np.arange(len(genomes))
        if index is not None:
            rows = rows[np.asarray(index, dtype=np.intp)]  # refuses rows that there are not
        if len(rows) != len(seeds):
            raise ArchitectureMismatch(
                f"mutate needs one noise seed for each child, got {len(seeds)} seeds for "
                f"{len(rows)} children"
            )
        vectors = self._vectors(genomes, self._own_plan)
        width = self.params.basis_width
        sigma = _softplus(kernels.deviations(genomes, self._sigma, width, vectors))
        if rates is None:
            kept, used = self._kept, np.empty((len(rows), len(self.node_names)), dtype=np.float32)
        else:
            kept = np.full_like(self._kept, 1 - self.params.birth_decay)
            used = self._broadcast(rates, len(rows))
        shape = len(rows), self.genome_size
        children = np.empty(shape, np.float32) if out is None else _checked_out(out, shape)
        kernels.births(
            genomes,
            rows,
            kept,
            self._steady,
            birth_noise(seeds, sigma.shape[1:]),
            sigma,
            self._scales,
            vectors,
            self.basis,
            self._own_plan.bounds,
            used,
            self._least(seeds),
            (self.node_names.index(RATE_HEAD[0]), *self._rate_head, rates is None),
            children,
        )
        return children, used

    def _least(self, seeds: Int64) -> Float32:
        """The least rates (n,) that births' seeds name: 0 by code 0, then from `rate_min` (code 1)
        to `rate_max` in equal steps of the logarithm. Not in the paper.
        """
        least = np.zeros(len(seeds), dtype=np.float32)
        if self.params.stress:
            codes = seeds % CODES
            low, high = np.log([self.params.rate_min, self.params.rate_max])
            named = np.exp(low + (codes - 1) / (CODES - 2) * (high - low)).astype(np.float32)
            least[codes > 0] = named[codes > 0]
        return least

    def rates(self, genomes: ArrayLike) -> Float32:
        """The mutation rates (n, parameters) of these genomes; columns are `node_names`.

        They scale the mutations of the rate head alone (the last two columns, at least
        `meta_floor`). All other tensors of a child have the child's own, which lie around them.
        """
        checked = self._checked(genomes)
        vectors, (start, limits, floors) = self._vectors(checked, self._own_plan), self._rate_head
        rates: Float32 = kernels.mutation_rates(checked, start, vectors, limits, floors)
        return rates

    def _vectors(self, genomes: Float32, plan: Plan) -> Float32:
        """Vectors (n, parameters, hidden) of a graph's parameter nodes, in layout order."""
        vectors: Float32 = kernels.node_vectors(
            genomes,
            self.params.hidden,
            self._messages,
            (plan.kinds, plan.incoming, plan.outgoing, plan.rows, plan.sizes),
            self.params.rounds,
            self.params.messages == "generations",
        )
        return vectors

    def _graph(self, target: int | CompGraph) -> CompGraph:
        if isinstance(target, CompGraph):
            return target
        if target not in range(len(self.targets)):
            got = target if isinstance(target, int | np.integer) else type(target).__name__
            raise GraphError(
                f"there are targets 0 to {len(self.targets) - 1}, got {got}; pass one of them, "
                "or a CompGraph, which srghn.trace(module, example) makes"
            )
        return self.targets[target]

    def _target(self, graph: CompGraph) -> _Target:
        if graph.digest not in self._known:
            self._check_target(graph)
            plan = make_plan(graph, self.vocabulary, self.params.shapes)
            self._known[graph.digest] = _Target(plan, make_head(self.params, plan, *self._decoder))
        return self._known[graph.digest]

    def _check_target(self, graph: CompGraph) -> None:
        known = set(self.vocabulary)
        unknown = [node for node in graph.nodes if node.kind not in known]
        if unknown:
            usable = ", ".join(kind for kind in self.vocabulary if not kind.startswith("ghn."))
            raise GraphError(
                f"node {unknown[0].name!r} is of type {unknown[0].kind!r}, which this hypernetwork "
                f"does not know (known: {usable}); build the hypernetwork with a target that "
                "has this type"
            )
        widest = max(graph.parameters, key=lambda node: node.size)
        if self.params.head == "dense" and widest.size > self.largest:
            raise GraphError(
                f"parameter {widest.name!r} has {widest.size} values, the dense head generates at "
                f"most {self.largest} for one tensor; use ghn.head 'dct', 'chunked' or 'basis', or "
                "build the hypernetwork with a target as large"
            )

    def _checked(self, genomes: ArrayLike) -> Float32:
        try:
            array = np.ascontiguousarray(genomes, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise ArchitectureMismatch(
                f"genomes must be an array (n, {self.genome_size}), got {type(genomes).__name__}"
            ) from error
        if not array.flags.writeable:
            array = array.copy()  # kernels are compiled for writable arrays
        if array.ndim != 2 or array.shape[1] != self.genome_size:
            cause = (
                "pass one genome as genome[None]"
                if array.shape == (self.genome_size,)
                else "they were made for other policy or hypernetwork parameters; use those, or "
                "start a new run"
            )
            raise ArchitectureMismatch(
                f"genomes must have shape (n, {self.genome_size}), got {array.shape}: {cause}"
            )
        return array

    def _broadcast(self, rates: ArrayLike, n: int) -> Float32:
        shape = (n, len(self.node_names))
        try:
            return np.array(np.broadcast_to(np.asarray(rates, dtype=np.float32), shape))
        except ValueError as error:
            raise ArchitectureMismatch(
                f"rates must be a number or broadcast to (children, parameters) {shape}, "
                f"got shape {np.shape(rates)}"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its recipe, and made once a process however often it arrives."""
        return _remade, (self.params, self.targets, self.seed)

    def __repr__(self) -> str:
        sizes = ", ".join(str(target.size) for target in self.targets)
        plural = "" if len(self.targets) == 1 else "s"
        return (
            f"GHN({self.params.head} head, genome of {self.genome_size}, "
            f"{len(self.targets)} target{plural} of {sizes})"
        )


#: Parameters that came after 0.2, and the value at which a genome means what it meant there.
_LATER = {"keep_spread": False, "stress": False}


def _described(params: GHNParams) -> dict[str, Any]:
    """The contents of a digest; later parameters only where they change a genome's meaning."""
    data = params.model_dump(mode="json")
    return {k: v for k, v in data.items() if k not in _LATER or v != _LATER[k]}


@lru_cache(maxsize=8)
def _remade(params: GHNParams, targets: tuple[CompGraph, ...], seed: int) -> GHN:
    return GHN(params, targets, seed)


def _softplus(values: Float32) -> Float32:
    """log(1 + exp(x)), in a way that never overflows."""
    positive: Float32 = np.maximum(values, 0) + np.log(1 + np.exp(-np.abs(values)))
    return positive


def _checked_out(out: Float32, shape: tuple[int, int]) -> Float32:
    """`out`, if children fit into it: no kernel looks where it writes."""
    fits = isinstance(out, np.ndarray) and out.dtype == np.float32 and out.shape == shape
    if not (fits and out.flags.c_contiguous and out.flags.writeable):
        got = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ArchitectureMismatch(
            f"out must be a writable, contiguous float32 array {shape}, got {got}; leave it out or "
            f"give np.empty({shape}, np.float32)"
        )
    return out


def _checked_seeds(noise_seeds: ArrayLike) -> Int64:
    seeds = np.asarray(noise_seeds)
    if seeds.ndim != 1 or seeds.dtype.kind not in "iu" or (seeds.size and seeds.min() < 0):
        raise ArchitectureMismatch(
            f"noise seeds must be non-negative integers of shape (n,), got {seeds.dtype} of shape "
            f"{seeds.shape}; use srghn.seeding.seed"
        )
    return seeds.astype(np.int64)
