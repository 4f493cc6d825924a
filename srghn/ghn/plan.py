"""What a graph means for tensor operations: index arrays and matrices, computed once per graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srghn.graph import CompGraph

Float32 = NDArray[np.float32]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Plan:
    """Nodes are in topological order, so each generation is a contiguous range.

    - `kinds` (nodes,): row of each node in the table of type embeddings;
    - `generations`: (first, end) of each;
    - `incoming`, `outgoing` (nodes, nodes): rows average a node's predecessors and successors;
    - `rows` (parameters,): node of each parameter tensor, in layout order;
    - `spans`: where each tensor's values lie in the flat vector.
    """

    kinds: Index
    generations: tuple[tuple[int, int], ...]
    incoming: Float32
    outgoing: Float32
    rows: Index
    spans: tuple[slice, ...]

    @property
    def widest(self) -> int:
        """Values in the largest tensor."""
        return max(int(span.stop - span.start) for span in self.spans)


def make_plan(graph: CompGraph, vocabulary: tuple[str, ...]) -> Plan:
    """`vocabulary` must hold every kind in the graph."""
    place = {node.name: i for i, node in enumerate(graph.nodes)}
    row = {kind: i for i, kind in enumerate(vocabulary)}
    incoming = np.zeros((len(place), len(place)), dtype=np.float32)
    for a, b in graph.edges:
        incoming[place[b], place[a]] = 1
    return Plan(
        kinds=np.array([row[n.kind] for n in graph.nodes], dtype=np.intp),
        generations=tuple((g[0], g[-1] + 1) for g in graph.generations),
        incoming=_averaging(incoming),
        outgoing=_averaging(incoming.T),
        rows=np.array([place[name] for name in graph.layout], dtype=np.intp),
        spans=tuple(graph.slices().values()),
    )


def _averaging(adjacency: Float32) -> Float32:
    degree = np.maximum(adjacency.sum(axis=1, keepdims=True), 1)
    return np.ascontiguousarray(adjacency / degree, dtype=np.float32)


def spread(
    rows: Float32, matrix: Float32, spans: tuple[slice, ...], bias: Float32 | None = None
) -> Float32:
    """Flat values (n, P): for tensor t the first values of `rows[:, t] @ matrix + bias`.

    rows (n, tensors, k); matrix (k, widest), shared, or (n, k, widest); bias (n, widest). One
    product a tensor, straight to its place: padding tensors to share one costs more than it saves.
    """
    flat = np.empty((len(rows), spans[-1].stop), dtype=np.float32)
    for t, span in enumerate(spans):
        size = span.stop - span.start
        np.matmul(rows[:, t : t + 1], matrix[..., :size], out=flat[:, None, span])
        if bias is not None:
            flat[:, span] += bias[:, :size]
    return flat
