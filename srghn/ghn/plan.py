"""A graph as the kernels need it: index arrays and matrices, computed once per graph."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srghn.ghn.noise import Float32
from srghn.graph import CompGraph

Index = NDArray[np.intp]


@dataclass(frozen=True)
class Plan:
    """Nodes are in topological order.

    - `kinds` (nodes,): row of each node in the table of type embeddings;
    - `incoming`, `outgoing`: (starts (nodes + 1,), nodes (edges,)), of each node in turn its
      predecessors and its successors;
    - `rows` (parameters,): node of each parameter tensor, in layout order;
    - `bounds` (parameters + 1,): where each tensor's values begin and end in the flat vector;
    - `shapes`: of each parameter tensor, in layout order;
    - `sizes` (nodes, 2): what a node's vector sees of its tensor's shape; (nodes, 0) for nothing.
    """

    kinds: Index
    incoming: tuple[Index, Index]
    outgoing: tuple[Index, Index]
    rows: Index
    bounds: Index
    shapes: tuple[tuple[int, ...], ...]
    sizes: Float32

    @property
    def widest(self) -> int:
        """Values in the largest tensor."""
        return int(np.diff(self.bounds).max())


def make_plan(graph: CompGraph, vocabulary: tuple[str, ...], sees_shapes: bool = False) -> Plan:
    """`vocabulary` must hold every kind in the graph."""
    place = {node.name: i for i, node in enumerate(graph.nodes)}
    row = {kind: i for i, kind in enumerate(vocabulary)}
    edges = [(place[a], place[b]) for a, b in graph.edges]
    return Plan(
        kinds=np.array([row[n.kind] for n in graph.nodes], dtype=np.intp),
        incoming=_neighbours(len(place), [(b, a) for a, b in edges]),
        outgoing=_neighbours(len(place), edges),
        rows=np.array([place[name] for name in graph.layout], dtype=np.intp),
        bounds=np.array([0, *(span.stop for span in graph.slices().values())], dtype=np.intp),
        shapes=tuple(node.shape or () for node in graph.parameters),
        sizes=_sizes(graph) if sees_shapes else np.zeros((len(place), 0), dtype=np.float32),
    )


def _sizes(graph: CompGraph) -> Float32:
    """(nodes, 2): log2 of a tensor's outputs and of its inputs, in quarters; 0 where it has none.

    The first dimension counts as outputs, all others together as inputs, as in torch's layers.
    Differs from GHN-2 (Knyazev et al. 2021, arXiv:2110.13100), which looks up an embedding of the
    nearest size it knows: a logarithm puts a size never seen between those that were.
    """
    shapes = [node.shape or () for node in graph.nodes]
    counts = [(math.prod(shape[:1]), math.prod(shape[1:])) for shape in shapes]
    return (np.log2(np.array(counts, dtype=np.float64)) / 4).astype(np.float32)


def _neighbours(nodes: int, edges: list[tuple[int, int]]) -> tuple[Index, Index]:
    pairs = np.array(sorted(edges), dtype=np.intp).reshape(-1, 2)
    return np.searchsorted(pairs[:, 0], np.arange(nodes + 1)), pairs[:, 1].copy()
