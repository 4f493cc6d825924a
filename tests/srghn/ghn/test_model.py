"""The hypernetwork: births are pure functions of parent and seed, whatever the batch."""

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from srghn.config import GHNParams, RunParams
from srghn.errors import ArchitectureMismatch, ConfigError, GraphError
from srghn.ghn import GHN
from srghn.graph import CompGraph, Node, trace
from srghn.policies import MLP, ResidualMLP

HEADS = ("dense", "chunked", "basis", "dct")


def founders(ghn: GHN, count: int) -> np.ndarray:
    return np.stack([ghn.init(i) for i in range(count)])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("messages", ["generations", "synchronous"])
@pytest.mark.parametrize("net", [(4, 2, (8,)), (3, 1, ()), (5, 3, (7, 1, 9))], ids=str)
def test_a_birth_has_the_same_bytes_alone_and_in_any_batch(
    head: str, messages: str, net: tuple[int, int, tuple[int, ...]]
) -> None:
    graph = trace(MLP(*net), torch.zeros(1, net[0]))
    params = GHNParams(head=head, messages=messages, chunk=5, hidden=7, basis_width=3)
    ghn = GHN(params, graph, seed=0)
    parents, seeds = founders(ghn, 64), np.arange(64) + 100
    children, rates = ghn.mutate(parents, seeds)
    weights, own = ghn.generate(children), ghn.rates(parents)
    for size in (1, 2, 3, 7):
        for start in (0, 5, 57):
            rows = slice(start, start + size)
            some, some_rates = ghn.mutate(parents[rows], seeds[rows])
            assert some.tobytes() == children[rows].tobytes()
            assert some_rates.tobytes() == rates[rows].tobytes()
            assert ghn.generate(some).tobytes() == weights[rows].tobytes()
            assert ghn.rates(parents[rows]).tobytes() == own[rows].tobytes()


@pytest.mark.parametrize("head", HEADS)
def test_births_of_a_larger_policy_too(head: str) -> None:
    """Matrices large enough for other kernels, and for BLAS to think of threads."""
    graph = trace(MLP(105, 8, (64, 64)), torch.zeros(1, 105))
    ghn = GHN(GHNParams(head=head), graph)
    parents, seeds = founders(ghn, 64), np.arange(64)
    children, _ = ghn.mutate(parents, seeds)
    weights = ghn.generate(children)
    for rows in (slice(0, 1), slice(63, 64), slice(5, 8), slice(20, 33)):
        some, _ = ghn.mutate(parents[rows], seeds[rows])
        assert some.tobytes() == children[rows].tobytes()
        assert ghn.generate(some).tobytes() == weights[rows].tobytes()


def test_a_birth_has_the_same_bytes_whatever_the_number_of_blas_threads() -> None:
    program = (
        "import hashlib, sys, numpy as np\n"
        "from srghn.ghn import GHN, GHNParams; from srghn.graph import CompGraph\n"
        "graph = CompGraph.from_json(sys.stdin.read())\n"
        "for head in ('dense', 'chunked', 'basis', 'dct'):\n"
        "    ghn = GHN(GHNParams(head=head), graph)\n"
        "    c, _ = ghn.mutate(np.stack([ghn.init(i) for i in range(3)]), [1, 2, 3])\n"
        "    print(hashlib.sha256(c.tobytes() + ghn.generate(c).tobytes()).hexdigest())\n"
    )
    graph = trace(MLP(105, 8, (64, 64)), torch.zeros(1, 105)).to_json()
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            input=graph,
            env={"OPENBLAS_NUM_THREADS": threads, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "5")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().split()) == 4


def test_children_of_repeated_parents_by_index(ghn: GHN) -> None:
    parents, index, seeds = founders(ghn, 3), np.array([2, 0, 2, 1]), [5, 6, 7, 8]
    by_index, rates = ghn.mutate(parents, seeds, index=index)
    by_copy, copied_rates = ghn.mutate(parents[index], seeds)
    assert by_index.tobytes() == by_copy.tobytes()
    assert rates.tobytes() == copied_rates.tobytes()
    with pytest.raises(IndexError):
        ghn.mutate(parents, seeds, index=[0, 1, 2, 3])


def test_read_only_genomes_are_as_good_as_others(ghn: GHN) -> None:
    parents = founders(ghn, 2)
    made = ghn.generate(parents)
    parents.flags.writeable = False
    assert ghn.generate(parents).tobytes() == made.tobytes()


def test_rate_zero_gives_an_identical_child_and_any_other_does_not(ghn: GHN) -> None:
    parents = founders(ghn, 4)
    same, used = ghn.mutate(parents, range(4), rates=0)
    assert same.tobytes() == parents.tobytes()
    assert not used.any()
    other, _ = ghn.mutate(parents, range(4), rates=1e-3)
    assert (other != parents).any(axis=1).all()


def test_another_seed_or_another_parent_gives_another_child(ghn: GHN) -> None:
    parents = founders(ghn, 2)
    children, _ = ghn.mutate(parents[[0, 0, 1]], [1, 2, 1])
    assert len({child.tobytes() for child in children}) == 3
    steps = children - parents[[0, 0, 1]]
    assert len({step.tobytes() for step in steps}) == 3


def test_nan_stays_in_its_own_row(ghn: GHN) -> None:
    parents = founders(ghn, 3)
    clean_weights, (clean, _) = ghn.generate(parents), ghn.mutate(parents, [1, 2, 3])
    parents[1, :] = np.nan
    weights, (children, _) = ghn.generate(parents), ghn.mutate(parents, [1, 2, 3])
    for row in (0, 2):
        assert weights[row].tobytes() == clean_weights[row].tobytes()
        assert children[row].tobytes() == clean[row].tobytes()
    assert np.isnan(weights[1]).all()


def test_rates_stay_within_their_bounds_and_the_meta_floor_holds(small: CompGraph) -> None:
    params = GHNParams(rate_min=0.01, rate_max=0.3, meta_floor=0.8, rate_bounds="clip")
    ghn = GHN(params, small)
    extreme = founders(ghn, 2)
    bias = ghn.own_graph.slices()["rate.bias"]
    extreme[0, bias], extreme[1, bias] = 1000, -1000
    rates = ghn.rates(extreme)
    meta = [ghn.node_names.index(name) for name in ("rate.weight", "rate.bias")]
    rest = [i for i in range(len(ghn.node_names)) if i not in meta]
    np.testing.assert_allclose(rates[0, rest], 0.3, rtol=1e-6)
    np.testing.assert_allclose(rates[1, rest], 0.01, rtol=1e-6)
    assert (rates[:, meta] == np.float32(0.8)).all()
    low = GHN(params.model_copy(update={"meta_floor": 0.0}), small).rates(extreme)
    np.testing.assert_allclose(low[1], 0.01, rtol=1e-6)


def test_folded_rates_turn_back_at_their_bounds(small: CompGraph) -> None:
    ghn = GHN(GHNParams(rate_min=0.01, rate_max=1.0, initial_rate=0.1, meta_floor=0.0), small)
    genomes = np.repeat(founders(ghn, 1), 5, axis=0)
    slices = ghn.own_graph.slices()
    genomes[:, slices["rate.weight"]] = 0
    # whole widths of the range away from 0.1, and a little beyond a bound
    width = np.log(100)
    genomes[:, slices["rate.bias"]] = np.array(
        [[0.0], [2 * width], [-4 * width], [np.log(10) + 0.5], [-np.log(10) - 0.5]]
    )
    expected = np.array([0.1, 0.1, 0.1, np.exp(-0.5), 0.01 * np.exp(0.5)])
    np.testing.assert_allclose(
        ghn.rates(genomes), np.tile(expected[:, None], len(ghn.node_names)), rtol=1e-4
    )


def test_a_child_is_made_with_the_rates_of_its_own_head(small: CompGraph) -> None:
    ghn = GHN(GHNParams(mutator_decay=0.0), small)
    parents = founders(ghn, 1)
    children, used = ghn.mutate(np.repeat(parents, 6, axis=0), range(6))
    head = [i for i, name in enumerate(ghn.node_names) if name.startswith("rate.")]
    rest = [i for i in range(len(ghn.node_names)) if i not in head]
    assert len({row.tobytes() for row in used}) == 6  # not their mother's, which is one
    hybrid = parents.copy()  # the mother's body, the child's head
    slices = ghn.own_graph.slices()
    for name in ("rate.weight", "rate.bias"):
        hybrid[0, slices[name]] = children[0, slices[name]]
    np.testing.assert_allclose(ghn.rates(hybrid)[0, rest], used[0, rest], rtol=1e-5)


def test_mutator_decay_brings_the_nodes_together(small: CompGraph) -> None:
    ghn = GHN(GHNParams(mutator_decay=0.5, meta_floor=0.0, rate_min=1e-9, initial_rate=1e-8), small)
    parents = founders(ghn, 2)
    children, _ = ghn.mutate(parents, [1, 2])
    outside = np.ones(ghn.genome_size, dtype=bool)
    for name in ("rate.weight", "sigma.out.weight", "sigma.out.bias"):
        span = ghn.own_graph.slices()[name]
        np.testing.assert_allclose(children[:, span], 0.5 * parents[:, span], atol=1e-5)
        outside[span] = False
    np.testing.assert_allclose(children[:, outside], parents[:, outside], atol=1e-3)


def test_without_a_rate_step_or_weights_every_rate_is_the_initial_one(small: CompGraph) -> None:
    ghn = GHN(GHNParams(rate_step=0, mutator_decay=0.99, initial_rate=0.05, meta_floor=0), small)
    genomes = founders(ghn, 2)
    genomes[:, ghn.own_graph.slices()["rate.weight"]] = 0
    _, rates = ghn.mutate(genomes, [1, 2])
    assert np.allclose(rates, 0.05, rtol=0.2)


@pytest.mark.parametrize(
    "bad",
    [
        {"initial_rate": 0.9, "rate_max": 0.5},
        {"initial_rate": 1e-4},
        {"head": "sparse"},
        {"hiden": 4},
    ],
)
def test_parameters_out_of_bounds_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GHNParams.model_validate(bad)


def test_rates_can_be_given_per_tensor(ghn: GHN) -> None:
    parents = founders(ghn, 2)
    rates = np.zeros(len(ghn.node_names), dtype=np.float32)
    rates[0] = 0.5
    children, used = ghn.mutate(parents, [1, 2], rates=rates)
    first = ghn.own_graph.slices()[ghn.node_names[0]]
    assert (children != parents)[:, first].all()
    assert not (children != parents)[:, first.stop :].any()
    assert used.shape == (2, len(rates))
    with pytest.raises(ArchitectureMismatch, match="broadcast to"):
        ghn.mutate(parents, [1, 2], rates=[0.1, 0.2, 0.3])


@pytest.mark.parametrize("kind", ["float64", "narrow", "a list", "every other row"])
def test_children_are_put_where_they_fit_or_it_is_said_in_words(ghn: GHN, kind: str) -> None:
    parents = founders(ghn, 2)
    room = np.empty((2, ghn.genome_size), np.float32)
    assert ghn.mutate(parents, [1, 2], out=room)[0] is room
    np.testing.assert_array_equal(room, ghn.mutate(parents, [1, 2])[0])
    out: Any = {
        "float64": room.astype(np.float64),
        "narrow": room[:, 1:],
        "a list": room.tolist(),
        "every other row": np.empty((4, ghn.genome_size), np.float32)[::2],
    }[kind]
    with pytest.raises(ArchitectureMismatch, match="out must be a writable, contiguous float32"):
        ghn.mutate(parents, [1, 2], out=out)


def test_birth_decay_shrinks_every_weight(small: CompGraph) -> None:
    ghn = GHN(GHNParams(birth_decay=0.25), small)
    parents = founders(ghn, 2)
    children, _ = ghn.mutate(parents, [1, 2], rates=0)
    np.testing.assert_array_equal(children, parents * np.float32(0.75))


def test_output_gain_scales_the_policy(small: CompGraph) -> None:
    weights = [
        (ghn := GHN(GHNParams(output_gain=gain), small)).generate(founders(ghn, 2))
        for gain in (1.0, 0.25)
    ]
    np.testing.assert_allclose(weights[1], weights[0] * 0.25, rtol=1e-6)


def test_one_genome_generates_several_architectures(small: CompGraph) -> None:
    residual = trace(ResidualMLP(4, 2, width=6, blocks=1), torch.zeros(1, 4))
    ghn = GHN(GHNParams(), [small, residual])
    genomes = founders(ghn, 3)
    assert ghn.generate(genomes, 0).shape == (3, small.size)
    assert ghn.generate(genomes, 1).shape == (3, residual.size)
    assert ghn.generate(genomes, residual).tobytes() == ghn.generate(genomes, 1).tobytes()
    with pytest.raises(GraphError, match="targets 0 to 1, got 2"):
        ghn.generate(genomes, 2)


@pytest.mark.parametrize("head", ["chunked", "basis", "dct"])
@pytest.mark.parametrize("hidden", [(32,), (8, 8, 8, 8), (2,)], ids=str)
def test_widths_and_depths_never_seen(small: CompGraph, head: str, hidden: tuple[int, ...]) -> None:
    ghn = GHN(GHNParams(head=head), small)
    unseen = trace(MLP(4, 2, hidden), torch.zeros(1, 4))
    weights = ghn.generate(founders(ghn, 2), unseen)
    assert weights.shape == (2, unseen.size)
    assert np.isfinite(weights).all()
    assert weights.std() > 0.05


def test_the_dense_head_says_what_it_cannot_make(small: CompGraph) -> None:
    ghn = GHN(GHNParams(head="dense"), small)
    deeper = trace(MLP(4, 2, (5, 5)), torch.zeros(1, 4))
    assert ghn.generate(founders(ghn, 1), deeper).shape == (1, deeper.size)
    with pytest.raises(GraphError, match=r"'layers.0.weight' has 36 values, .*32.*'dct'"):
        ghn.generate(founders(ghn, 1), trace(MLP(4, 2, (9,)), torch.zeros(1, 4)))


def test_an_unknown_node_type_is_named(ghn: GHN) -> None:
    relu = trace(MLP(4, 2, (8,), "relu"), torch.zeros(1, 4))
    with pytest.raises(GraphError, match=r"'%layers_1' is of type 'relu'.*known: input.*tanh"):
        ghn.generate(founders(ghn, 1), relu)


def test_genomes_of_another_architecture_are_refused(ghn: GHN) -> None:
    other = np.zeros((2, ghn.genome_size + 1), dtype=np.float32)
    calls = (ghn.generate, ghn.rates, lambda g: ghn.mutate(g, [0, 1]))
    for call in calls:
        with pytest.raises(ArchitectureMismatch, match=rf"\(n, {ghn.genome_size}\), got"):
            call(other)
        with pytest.raises(ArchitectureMismatch, match=r"pass one genome as genome\[None\]"):
            call(ghn.init(0))  # a genome, not a population of one
        with pytest.raises(ArchitectureMismatch, match=r"must be an array .*, got CompGraph"):
            call(ghn.targets[0])


@pytest.mark.parametrize("seeds", [[1], [-1, 2], [0.5, 1.5], [[1, 2]]])
def test_bad_noise_seeds_are_refused(ghn: GHN, seeds: list[object]) -> None:
    with pytest.raises(ArchitectureMismatch, match="noise seed"):
        ghn.mutate(founders(ghn, 2), seeds)


def test_what_is_no_graph_is_no_target(ghn: GHN) -> None:
    network = MLP(4, 2, (8,))
    with pytest.raises(GraphError, match=r"targets 0 to 0, got MLP; .* srghn.trace"):
        ghn.generate(founders(ghn, 1), network)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="targets 0 to 0, got 1;"):
        ghn.generate(founders(ghn, 1), 1)
    for targets in (network, [network]):
        with pytest.raises(ConfigError, match=r"expected CompGraph, got MLP; srghn.trace"):
            GHN(GHNParams(), targets)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"expected GHNParams, got RunParams; give params.ghn"):
        GHN(RunParams(), ghn.targets)  # type: ignore[arg-type]


def test_a_target_needs_parameters() -> None:
    with pytest.raises(GraphError, match="parameters"):
        GHN(GHNParams(), CompGraph((Node("a", "input"),), (), ()))
    with pytest.raises(GraphError, match="parameters"):
        GHN(GHNParams(), [])


def test_the_digest_is_of_everything_a_genome_depends_on(small: CompGraph) -> None:
    base = GHN(GHNParams(), small, seed=0)
    wider = trace(MLP(4, 2, (9,)), torch.zeros(1, 4))
    others = [
        GHN(GHNParams(hidden=8), small, seed=0),
        GHN(GHNParams(meta_floor=0), small, seed=0),
        GHN(GHNParams(), small, seed=1),
        GHN(GHNParams(), wider, seed=0),
    ]
    assert GHN(GHNParams(), small, seed=0).digest == base.digest
    assert len({base.digest, *(g.digest for g in others)}) == 5


def test_pickled_it_is_small_and_comes_back_the_same(ghn: GHN) -> None:
    data = pickle.dumps(ghn)
    assert len(data) < 5000
    first, second = pickle.loads(data), pickle.loads(data)  # noqa: S301  our own bytes
    assert first is second  # made once a process
    assert first.digest == ghn.digest
    parents = founders(ghn, 2)
    assert first.mutate(parents, [1, 2])[0].tobytes() == ghn.mutate(parents, [1, 2])[0].tobytes()


def test_breeding_needs_no_torch() -> None:
    program = (
        "import sys; from srghn.ghn import GHN, GHNParams; from srghn.graph import CompGraph\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def drifted(births: int, **params: object) -> tuple[GHN, np.ndarray]:
    """A hundred lineages after so many births at a rate of a half, nobody chosen."""
    ghn = GHN(GHNParams(**params), trace(MLP(4, 2, (8,)), torch.zeros(1, 4)))
    genomes = founders(ghn, 100)
    for birth in range(births):
        genomes, _ = ghn.mutate(genomes, np.arange(100) + 1000 * birth, rates=0.5)
    return ghn, genomes


def test_weights_keep_the_spread_they_began_with_where_asked() -> None:
    ghn, kept = drifted(60, keep_spread=True)
    _, grown = drifted(60, keep_spread=False)
    for name in ("embed", "message.self", "decode.weight"):
        span = ghn.own_graph.slices()[name]
        began = founders(ghn, 100)[:, span].std()
        assert kept[:, span].std() == pytest.approx(began, rel=0.25), name
        assert grown[:, span].std() > 2 * began, name


def test_the_rate_head_is_its_own_and_loses_nothing_to_its_spread() -> None:
    ghn, kept = drifted(1, keep_spread=True, mutator_decay=0.0)
    span = ghn.own_graph.slices()["rate.weight"]
    _, plain = drifted(1, keep_spread=False, mutator_decay=0.0)
    assert kept[:, span].tobytes() == plain[:, span].tobytes()


def test_a_parameter_that_came_later_changes_no_digest_while_it_is_off() -> None:
    graph = trace(MLP(4, 2, (8,)), torch.zeros(1, 4))
    was = "332da30df92d7698f0f87ee5380b6bee03f782fae5f293fd2dcd2a566eeae1b8"
    assert GHN(GHNParams(), graph).digest == was
    for name in ("keep_spread", "stress", "shapes"):
        assert GHN(GHNParams(**{name: True}), graph).digest != was
    four, five = (GHN(GHNParams(head="dct", frequencies=n), graph).digest for n in (4, 5))
    assert four != five
    assert GHNParams().model_dump() == GHNParams(frequencies=4, shapes=False).model_dump()
    assert not {"frequencies", "shapes"} & set(GHNParams().model_dump())


def outputs_at(width: int, observations: np.ndarray, head: str) -> np.ndarray:
    """Of the networks (100, observations, 2) that founders make at one width."""
    ghn = GHN(GHNParams(head=head, chunk=16), trace(MLP(4, 2, (8,)), torch.zeros(1, 4)))
    weights = ghn.generate(founders(ghn, 100), trace(MLP(4, 2, (width,)), torch.zeros(1, 4)))
    first, bias, second, last = np.split(weights, np.cumsum([4 * width, width, 2 * width]), axis=1)
    layer = first.reshape(-1, width, 4) @ observations.T + bias[:, :, None]
    out = second.reshape(-1, 2, width) @ np.tanh(layer) / np.sqrt(width) + last[:, :, None]
    return np.asarray(out).transpose(0, 2, 1)


def test_the_dct_head_makes_nearly_one_function_at_every_width() -> None:
    """The sum over units grows with the square root of the width; without that they are alike."""
    observations = np.random.default_rng(0).standard_normal((50, 4))
    for head, alike in (("dct", True), ("chunked", False)):
        wide = outputs_at(64, observations, head)
        for width in (6, 12, 24):
            other = outputs_at(width, observations, head)
            correlation = np.corrcoef(wide.ravel(), other.ravel())[0, 1]
            assert (correlation > 0.99) == alike, (head, width, correlation)


def test_node_vectors_see_shapes_only_where_asked(small: CompGraph) -> None:
    """Width 8 and 16 give equal vectors otherwise, so the same coefficients."""
    wider = trace(MLP(4, 2, (16,)), torch.zeros(1, 4))
    for shapes in (False, True):
        ghn = GHN(GHNParams(head="dct", shapes=shapes), [small, wider])
        genomes = founders(ghn, 2)
        narrow, wide = (ghn._target(graph).plan for graph in (small, wider))
        same = ghn._vectors(genomes, narrow).tobytes() == ghn._vectors(genomes, wide).tobytes()
        assert same != shapes
