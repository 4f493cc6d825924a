"""Evolvable = in the own graph, both ways; and the declared data flow is the real one."""

import numpy as np
import pytest
from numpy.typing import NDArray

from srghn.config import GHNParams
from srghn.ghn import GHN
from srghn.graph import CompGraph

Float32 = NDArray[np.float32]


def reach(graph: CompGraph, end: str) -> set[str]:
    """Names of the nodes from which data flows to `end`."""
    found = {end}
    while more := {a for a, b in graph.edges if b in found} - found:
        found |= more
    return found


def perturbed(ghn: GHN, genome: Float32, name: str) -> Float32:
    changed = genome.copy()
    part = changed[ghn.own_graph.slices()[name]]
    part += np.linspace(0.1, 0.4, len(part), dtype=np.float32)
    return changed


def test_the_genome_is_the_graphs_parameters_and_nothing_else(ghn: GHN) -> None:
    spans = list(ghn.own_graph.slices().values())
    assert spans[0].start == 0
    assert spans[-1].stop == ghn.genome_size == ghn.own_graph.size
    assert tuple(ghn.own_graph.slices()) == ghn.node_names


def test_every_parameter_in_the_graph_is_mutated(ghn: GHN) -> None:
    parent = ghn.init(0)[None]
    child, rates = ghn.mutate(parent, [1])
    assert rates.shape == (1, len(ghn.node_names))
    for name, span in ghn.own_graph.slices().items():
        assert (child[0, span] != parent[0, span]).all(), f"{name} is in the graph, and stays"


def test_what_is_in_the_graph_without_values_never_changes(ghn: GHN) -> None:
    fixed = {n.name for n in ghn.own_graph.nodes} - set(ghn.node_names)
    assert "basis" in fixed
    assert not fixed & set(ghn.node_names)
    before = ghn.basis.tobytes()
    genomes = ghn.init(0)[None]
    for generation in range(5):
        genomes, _ = ghn.mutate(genomes, [generation])
    assert ghn.basis.tobytes() == before
    with pytest.raises(ValueError, match="read-only"):
        ghn.basis[0, 0] = 1


@pytest.mark.parametrize("messages", ["generations", "synchronous"])
@pytest.mark.parametrize("head", ["dense", "chunked", "basis", "dct"])
@pytest.mark.parametrize("shapes", [False, True])
def test_a_tensor_matters_exactly_where_the_graph_says(
    small: CompGraph, head: str, messages: str, shapes: bool
) -> None:
    ghn = GHN(GHNParams(head=head, messages=messages, shapes=shapes), small)
    genome = ghn.mutate(ghn.init(2)[None], [9])[0][0]  # with biases that are not zero
    for name in ghn.node_names:
        other = perturbed(ghn, genome, name)
        both = np.stack([genome, other])
        weights = ghn.generate(both)
        steps = ghn.mutate(both, [4, 4])[0] - both
        moves_weights = not np.allclose(weights[0], weights[1], atol=1e-6)
        moves_update = not np.allclose(steps[0], steps[1], atol=1e-6)
        assert moves_weights == (name in reach(ghn.own_graph, "weights")), name
        assert moves_update == (name in reach(ghn.own_graph, "update")), name


def test_the_stochastic_branch_and_the_rate_head_evolve_too(ghn: GHN) -> None:
    for name in ("sigma.hidden.weight", "sigma.out.bias", "rate.weight", "rate.bias", "embed"):
        assert name in ghn.node_names
