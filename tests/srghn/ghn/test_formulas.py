"""Against the formulas written out one node and one individual at a time."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from srghn.config import GHNParams
from srghn.ghn import GHN
from srghn.ghn.noise import birth_noise, fixed_basis
from srghn.graph import CompGraph, Node, trace
from srghn.policies import ResidualMLP

Float = NDArray[np.float64]


def tensors_of(ghn: GHN, genome: NDArray[np.float32]) -> dict[str, Float]:
    return {
        node.name: genome[ghn.own_graph.slices()[node.name]].astype(float).reshape(node.shape)
        for node in ghn.own_graph.parameters
    }


def vectors_by_hand(ghn: GHN, t: dict[str, Float], graph: CompGraph) -> dict[str, Float]:
    before: dict[str, list[str]] = {n.name: [] for n in graph.nodes}
    after: dict[str, list[str]] = {n.name: [] for n in graph.nodes}
    for a, b in graph.edges:
        before[b].append(a)
        after[a].append(b)
    h = {n.name: t["embed"][ghn.vocabulary.index(n.kind)] for n in graph.nodes}
    if ghn.params.shapes:
        h = {n.name: h[n.name] + sizes_by_hand(n) @ t["shape.weight"] for n in graph.nodes}

    def heard(sources: list[str], vectors: dict[str, Float]) -> Float:
        return (
            np.mean([vectors[s] for s in sources], axis=0)
            if sources
            else np.zeros(len(t["message.bias"]))
        )

    for _ in range(ghn.params.rounds):
        if ghn.params.messages == "synchronous":
            h = {
                n: np.tanh(
                    h[n] @ t["message.self"]
                    + heard(before[n], h) @ t["message.forward"]
                    + heard(after[n], h) @ t["message.backward"]
                    + t["message.bias"]
                )
                for n in h
            }
            continue
        for order, sources, weight in (
            (graph.nodes, before, "message.forward"),
            (graph.nodes[::-1], after, "message.backward"),
        ):
            new: dict[str, Float] = {}
            for node in order:
                own = h[node.name] @ t["message.self"] + t["message.bias"]
                new[node.name] = np.tanh(own + heard(sources[node.name], new) @ t[weight])
            h = new
    return h


def sizes_by_hand(node: Node) -> Float:
    outputs = 1 if not node.shape else node.shape[0]
    inputs = max(node.size, 1) // outputs
    return np.log2([outputs, inputs]) / 4


def cosines_by_hand(coefficients: Float, shape: tuple[int, ...], frequencies: int) -> Float:
    """Value by value: coefficient (a, b) is of frequency a over outputs and b over inputs."""
    inputs = shape[1] if len(shape) > 1 else 1
    pairs = [(a, b) for a in range(frequencies) for b in range(frequencies)]
    if len(shape) == 1:
        pairs = [(a, 0) for a in range(frequencies)]
    pairs.sort(key=lambda pair: (pair[0] + pair[1], pair))
    gain = 2 / np.sqrt(inputs) if len(shape) > 1 else 1.0
    values = np.zeros((shape[0], inputs))
    for o in range(shape[0]):
        for i in range(inputs):
            for c, (a, b) in zip(coefficients, pairs, strict=False):
                if a < shape[0] and b < inputs:
                    one = np.cos(np.pi * a * (o + 0.5) / shape[0]) * np.sqrt(2 if a else 1)
                    two = np.cos(np.pi * b * (i + 0.5) / inputs) * np.sqrt(2 if b else 1)
                    values[o, i] += gain * c * one * two / np.sqrt(len(pairs))
    return values.ravel()


def weights_by_hand(ghn: GHN, t: dict[str, Float], graph: CompGraph) -> Float:
    h, parts = vectors_by_hand(ghn, t, graph), []
    for node in graph.parameters:
        v = h[node.name]
        if ghn.params.head == "dense":
            out = (v @ t["decode.weight"] + t["decode.bias"])[: node.size]
        elif ghn.params.head == "basis":
            basis = fixed_basis(ghn.seed, ghn.params.basis_width, node.size)
            out = (v @ t["decode.weight"] + t["decode.bias"]) @ basis
        elif ghn.params.head == "dct":
            coefficients = v @ t["decode.weight"] + t["decode.bias"]
            out = cosines_by_hand(coefficients, node.shape or (), ghn.params.frequencies)
        else:
            chunks, width = -(-node.size // ghn.params.chunk), ghn.params.hidden
            rows = []
            for place in range(chunks):
                half = (width + 1) // 2
                angles = place * 1000.0 ** -(np.arange(half) / half)
                wave = np.stack([np.sin(angles), np.cos(angles)], axis=1).ravel()[:width]
                z = np.tanh(v + wave @ t["decode.position"])
                rows.append(z @ t["decode.weight"] + t["decode.bias"])
            out = np.concatenate(rows)[: node.size]
        parts.append(out * ghn.params.output_gain)
    return np.concatenate(parts)


@pytest.mark.parametrize("head", ["dense", "chunked", "basis", "dct"])
@pytest.mark.parametrize("messages", ["generations", "synchronous"])
@pytest.mark.parametrize(
    ("hidden", "width", "steady", "shapes"),
    [
        (16, 16, True, False),
        (16, 16, False, True),
        (5, 7, True, True),
        (17, 16, True, False),
        (32, 19, False, True),
    ],
)
def test_birth_follows_the_formulas(
    head: str, messages: str, hidden: int, width: int, steady: bool, shapes: bool
) -> None:
    """Of vectors as wide as a register, of part of one, of more than one and of two."""
    graph = trace_residual()
    params = GHNParams(
        hidden=hidden,
        basis_width=width,
        head=head,
        messages=messages,
        rounds=2,
        chunk=5,
        output_gain=0.7,
        birth_decay=0.25,
        mutator_decay=0.3,
        keep_spread=steady,
        shapes=shapes,
        frequencies=3,
    )
    ghn = GHN(params, graph, seed=11)
    parent = ghn.mutate(ghn.init(0)[None], [3])[0][0]
    t = tensors_of(ghn, parent)
    np.testing.assert_allclose(
        ghn.generate(parent[None])[0], weights_by_hand(ghn, t, graph), atol=2e-5
    )

    child, rates = ghn.mutate(parent[None], [5])
    made, h = tensors_of(ghn, child[0]), vectors_by_hand(ghn, t, ghn.own_graph)
    noise = birth_noise(np.array([5]), (len(ghn.node_names), params.basis_width))[0]
    for row, node in enumerate(ghn.own_graph.parameters):
        v = h[node.name]
        floored = node.name.startswith("rate.")
        own = rate_by_hand(params, v @ t["rate.weight"] + t["rate.bias"], floored)
        childs = rate_by_hand(params, v @ made["rate.weight"] + made["rate.bias"], floored)
        assert rates[0, row] == pytest.approx(childs, rel=1e-4)
        rate = own if floored else childs  # the rate head comes first
        inner = np.tanh(v @ t["sigma.hidden.weight"] + t["sigma.hidden.bias"])
        sigma = np.log1p(np.exp(inner @ t["sigma.out.weight"] + t["sigma.out.bias"]))
        unit = {"embed": 1.0, "shape.weight": 1.0, "rate.bias": params.rate_step}.get(
            node.name, params.hidden**-0.5
        )
        elastic = node.name in ("rate.weight", "sigma.out.weight", "sigma.out.bias")
        kept = 1 - (params.mutator_decay if elastic else params.birth_decay)
        if steady and not (elastic or floored):
            added = rate**2 * np.mean(sigma**2)
            kept *= np.sqrt(max(1 - added, 0))
            rate /= max(np.sqrt(added), 1)
        basis = fixed_basis(11, params.basis_width, node.size)
        span = ghn.own_graph.slices()[node.name]
        expected = kept * parent[span] + rate * unit * (sigma * noise[row]) @ basis
        np.testing.assert_allclose(child[0, span], expected, atol=2e-5)


def rate_by_hand(params: GHNParams, logarithm: np.ndarray, is_head: bool) -> float:
    """Between two mirrors: step by step back from whichever bound was crossed."""
    low, high = np.log(params.rate_min), np.log(params.rate_max)
    level = float(np.log(params.initial_rate) + logarithm[0])
    while not low <= level <= high:
        level = 2 * high - level if level > high else 2 * low - level
    return max(float(np.exp(level)), params.meta_floor if is_head else 0.0)


def trace_residual() -> CompGraph:
    """Branches and joins, so that averages over several neighbours are tested."""
    return trace(ResidualMLP(3, 2, width=4, blocks=2), torch.zeros(1, 3))


def test_noise_is_one_philox_generator_a_seed() -> None:
    """So many draws that some are from the tail, and many from where a layer crosses the curve."""
    seeds = np.array([0, 7, 2**63 - 1])
    noise = birth_noise(seeds, (3, 20_000))
    for row, seed in zip(noise, seeds, strict=True):
        generator = np.random.Generator(np.random.Philox(key=int(seed)))
        assert np.abs(row).max() > 3.7
        assert row.tobytes() == generator.standard_normal((3, 20_000), dtype=np.float32).tobytes()
    assert birth_noise(seeds[:0], (3,)).shape == (0, 3)


def test_a_longer_basis_begins_with_the_shorter_one() -> None:
    short, long = fixed_basis(1, 16, 10), fixed_basis(1, 16, 5000)
    assert long[:, :10].tobytes() == short.tobytes()
    assert long.std() == pytest.approx(0.25, rel=0.02)
    assert fixed_basis(2, 16, 10).tobytes() != short.tobytes()


def test_messages_by_generation_tell_deep_layers_apart() -> None:
    """Three synchronous rounds reach three edges; a sweep reaches every node."""
    names = [f"n{i:02}" for i in range(14)]
    nodes = [Node("in", "input"), *(Node(n, "linear.bias", (3,)) for n in names)]
    order = ["in", *names]
    graph = CompGraph(tuple(nodes), tuple(pairwise(order)), tuple(names))

    def middle_layers_alike(messages: str, rounds: int) -> bool:
        ghn = GHN(GHNParams(messages=messages, rounds=rounds), graph)
        weights = ghn.generate(ghn.init(0)[None])[0].reshape(len(names), 3)
        return bool(np.allclose(weights[6], weights[7], atol=1e-7))

    assert middle_layers_alike("synchronous", 3)
    assert not middle_layers_alike("generations", 1)
