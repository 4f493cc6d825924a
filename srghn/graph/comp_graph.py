"""A network as a graph of its parameter tensors and operations.

Nodes are parameter tensors, inputs, outputs and parameter-free operations; edges are data flow
(Zhang, Ren, Urtasun 2018; Pedersen et al. 2025, arXiv:2512.16406). Needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from srghn.errors import ArchitectureMismatch, GraphError
from srghn.files import canonical_json, sha256_bytes

FORMAT = 1


@dataclass(frozen=True)
class Node:
    """`kind` is the node's type; `shape` is a parameter tensor's shape, None for anything else."""

    name: str
    kind: str
    shape: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """Number of values in the tensor; 0 for a node that holds none."""
        return 0 if self.shape is None else prod(self.shape)


@dataclass(frozen=True)
class CompGraph:
    """An immutable, validated computational graph.

    `layout` names the parameter nodes in the order in which their values lie in a flat vector;
    `frozen` is the digest of the values that no genome fills ('' where there are none).
    Nodes are kept by topological generation and then name, and edges sorted, so equality, hash and
    `digest` do not depend on the order in which they were given.

    Raises `GraphError` for a repeated or missing node, a cycle, an empty tensor, a graph without
    nodes, or a layout that does not hold every parameter exactly once.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]
    layout: tuple[str, ...]
    frozen: str = ""

    def __post_init__(self) -> None:
        nodes, edges = tuple(self.nodes), tuple(sorted({(a, b) for a, b in self.edges}))
        _check_nodes(nodes)
        _check_edges({n.name for n in nodes}, edges)
        _check_layout(nodes, tuple(self.layout))
        depth = _depths([n.name for n in nodes], edges)
        ordered = tuple(sorted(nodes, key=lambda n: (depth[n.name], n.name)))
        object.__setattr__(self, "nodes", ordered)
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "layout", tuple(self.layout))

    @cached_property
    def parameters(self) -> tuple[Node, ...]:
        """Parameter nodes in the order of the flat weight vector."""
        by_name = {n.name: n for n in self.nodes}
        return tuple(by_name[name] for name in self.layout)

    @cached_property
    def size(self) -> int:
        """Values in the flat weight vector."""
        return sum(n.size for n in self.parameters)

    @cached_property
    def kinds(self) -> frozenset[str]:
        return frozenset(n.kind for n in self.nodes)

    @cached_property
    def generations(self) -> tuple[tuple[int, ...], ...]:
        """Indices into `nodes` by topological generation: predecessors lie in earlier ones."""
        depth = _depths([n.name for n in self.nodes], self.edges)
        rows: list[list[int]] = [[] for _ in range(max(depth.values()) + 1)]
        for index, node in enumerate(self.nodes):
            rows[depth[node.name]].append(index)
        return tuple(map(tuple, rows))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON form."""
        return sha256_bytes(canonical_json(self._data()))

    def slices(self) -> dict[str, slice]:
        """Where each parameter's values lie in the flat vector, row-major."""
        found, start = {}, 0
        for node in self.parameters:
            found[node.name] = slice(start, start + node.size)
            start += node.size
        return found

    def require(self, other: CompGraph, what: str) -> None:
        """Raise `ArchitectureMismatch` naming the first difference if `other` is not this graph."""
        if other != self:
            raise ArchitectureMismatch(
                f"{what} was made for another architecture: {first_difference(self, other)}; "
                "use the policy and hypernetwork parameters it was made with, or start a new run"
            )

    def to_json(self) -> str:
        """Canonical JSON; `from_json` is the inverse."""
        return canonical_json(self._data()).decode()

    @classmethod
    def from_json(cls, text: str) -> CompGraph:
        """Read `to_json`'s form; raises `GraphError` if it describes no valid graph."""
        try:
            data = json.loads(text)
            if not isinstance(data, dict) or data.get("format") != FORMAT:
                raise ValueError(f"expected an object of format {FORMAT}")
            return cls(
                nodes=tuple(_node(n) for n in data["nodes"]),
                edges=tuple((str(a), str(b)) for a, b in data["edges"]),
                layout=tuple(map(str, data["layout"])),
                frozen=str(data.get("frozen", "")),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise GraphError(
                f"not a graph written by CompGraph.to_json: {error!r}; trace the module again"
            ) from error

    def _data(self) -> dict[str, Any]:
        nodes = sorted(self.nodes, key=lambda n: n.name)
        return {
            "format": FORMAT,
            "nodes": [
                {
                    "name": n.name,
                    "kind": n.kind,
                    "shape": n.shape if n.shape is None else [*n.shape],
                }
                for n in nodes
            ],
            "edges": [list(e) for e in self.edges],
            "layout": list(self.layout),
            **({"frozen": self.frozen} if self.frozen else {}),
        }

    def __str__(self) -> str:
        """A table: one line a node with its generation, kind, shape and predecessors."""
        inputs: dict[str, list[str]] = {n.name: [] for n in self.nodes}
        for a, b in self.edges:
            inputs[b].append(a)
        wide = max(len(n.name) for n in self.nodes)
        kind = max(len(n.kind) for n in self.nodes)
        lines = [
            f"CompGraph {self.digest[:12]}: {len(self.nodes)} nodes, {len(self.edges)} edges, "
            f"{self.size} values in {len(self.layout)} parameters"
        ]
        for depth, members in enumerate(self.generations):
            for node in (self.nodes[i] for i in members):
                shape = "x".join(map(str, node.shape)) if node.shape else ""
                shape = "scalar" if node.shape == () else shape
                came = f"<- {', '.join(inputs[node.name])}" if inputs[node.name] else ""
                row = f"{depth:3}  {node.name:{wide}}  {node.kind:{kind}}  {shape:>10}  {came}"
                lines.append(row.rstrip())
        return "\n".join(lines)


def first_difference(a: CompGraph, b: CompGraph) -> str:
    """One line on the first thing in which two graphs differ: a parameter, a node, an edge."""
    for x, y in zip(a.parameters, b.parameters, strict=False):
        if x != y:
            return f"expected {_describe(x)}, found {_describe(y)}"
    if len(a.layout) != len(b.layout):
        return f"expected {len(a.layout)} parameter tensors, found {len(b.layout)}"
    nodes = sorted(set(a.nodes) ^ set(b.nodes), key=lambda n: n.name)
    edges = sorted(set(a.edges) ^ set(b.edges))
    if nodes:
        return f"{_describe(nodes[0])} is in only one of them"
    if edges:
        return f"the edge {edges[0][0]} -> {edges[0][1]} is in only one of them"
    if a.layout != b.layout:
        return "the parameters' order differs"
    return (
        "their frozen parameters or buffers hold other values" if a.frozen != b.frozen else "none"
    )


def _describe(node: Node) -> str:
    return f"{node.name} ({node.kind}{'' if node.shape is None else f' {list(node.shape)}'})"


def _node(data: Mapping[str, Any]) -> Node:
    shape = data["shape"]
    if shape is not None and not all(type(d) is int for d in shape):
        raise ValueError(f"shape of {data['name']!r} must be whole numbers, got {shape!r}")
    return Node(str(data["name"]), str(data["kind"]), None if shape is None else tuple(shape))


def _check_nodes(nodes: tuple[Node, ...]) -> None:
    if not nodes:
        raise GraphError("a graph needs at least one node; trace a module with parameters")
    seen: set[str] = set()
    for node in nodes:
        if not node.name or not node.kind:
            raise GraphError(f"every node needs a name and a kind, got {node!r}")
        if node.name in seen:
            raise GraphError(f"node {node.name!r} appears twice; names must be unique")
        seen.add(node.name)
        if node.shape is not None and node.size < 1:
            raise GraphError(
                f"parameter {node.name!r} has shape {list(node.shape)} and holds no values; "
                "give that layer at least one unit, or leave it out"
            )


def _check_edges(names: set[str], edges: Iterable[tuple[str, str]]) -> None:
    for a, b in edges:
        missing = [name for name in (a, b) if name not in names]
        if missing:
            raise GraphError(f"edge {a} -> {b} refers to {missing[0]!r}, which is not a node")


def _check_layout(nodes: tuple[Node, ...], layout: tuple[str, ...]) -> None:
    parameters = {n.name for n in nodes if n.shape is not None}
    repeated = sorted({name for name in layout if layout.count(name) > 1})
    wrong = repeated or sorted(parameters ^ set(layout))
    if wrong:
        raise GraphError(
            f"the layout must name every parameter node exactly once; {wrong[0]!r} is "
            f"{'repeated' if repeated else 'missing or no parameter'}"
        )


def _depths(names: list[str], edges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Length of the longest path from a source to each node; raises `GraphError` on a cycle."""
    after: dict[str, list[str]] = {name: [] for name in names}
    waiting = dict.fromkeys(names, 0)
    for a, b in edges:
        after[a].append(b)
        waiting[b] += 1
    depth = dict.fromkeys(names, 0)
    ready = [name for name in names if waiting[name] == 0]
    for name in ready:  # grows while it is read
        for follower in after[name]:
            depth[follower] = max(depth[follower], depth[name] + 1)
            waiting[follower] -= 1
            if waiting[follower] == 0:
                ready.append(follower)
    if len(ready) < len(names):
        stuck = sorted(name for name in names if waiting[name] > 0)
        raise GraphError(f"the graph has a cycle through {stuck[0]!r}; data must flow one way")
    return depth
