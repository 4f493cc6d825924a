"""A graph as the kernels need it: index arrays and matrices, computed once per graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srghn.graph import CompGraph

Index = NDArray[np.intp]


@dataclass(frozen=True)
class Plan:
    """Nodes are in topological order.

    - `kinds` (nodes,): row of each node in the table of type embeddings;
    - `incoming`, `outgoing`: (starts (nodes + 1,), nodes (edges,)), of each node in turn its
      predecessors and its successors;
    - `rows` (parameters,): node of each parameter tensor, in layout order;
    - `bounds` (parameters + 1,): where each tensor's values begin and end in the flat vector.
    """

    kinds: Index
    incoming: tuple[Index, Index]
    outgoing: tuple[Index, Index]
    rows: Index
    bounds: Index

    @property
    def widest(self) -> int:
        """Values in the largest tensor."""
        return int(np.diff(self.bounds).max())


def make_plan(graph: CompGraph, vocabulary: tuple[str, ...]) -> Plan:
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
    )


def _neighbours(nodes: int, edges: list[tuple[int, int]]) -> tuple[Index, Index]:
    pairs = np.array(sorted(edges), dtype=np.intp).reshape(-1, 2)
    return np.searchsorted(pairs[:, 0], np.arange(nodes + 1)), pairs[:, 1].copy()
