"""The hypernetwork's own tensors and its own graph: what it is made of, and so what evolves.

The genome is laid out by this graph's parameter nodes, so a tensor is part of the genome if and
only if it is a parameter of the graph. The fixed random basis is a node without values: it is
there, messages pass it, and nothing ever changes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from srghn.config import GHNParams
from srghn.graph import CompGraph, Node

#: The rate head's own tensors, to which the meta floor applies. Not in the paper.
RATE_HEAD = ("rate.weight", "rate.bias")
#: What makes one node's steps unlike another's, to which the mutator decay applies. Left alone,
#: it only ever grows, until each birth draws its rates again and inherits nothing of them. Not in
#: the paper.
ELASTIC = ("rate.weight", "sigma.out.weight", "sigma.out.bias")


@dataclass(frozen=True)
class Tensor:
    """`scale` is a weight's standard deviation at initialisation, and the unit of its mutations.

    Biases start at zero and mutate in the unit of the weights beside them, but for that of the rate
    head: it is the level that all rates share, and `rate_step` is its unit.
    """

    name: str
    shape: tuple[int, ...]
    scale: float
    after: tuple[str, ...]

    @property
    def starts_at_zero(self) -> bool:
        return self.name.endswith("bias")


#: Nodes that hold no values: name -> what they come after.
_FIXED = {
    "node types": (),
    "basis": ("sigma.out.bias",),
    "update": ("basis", "rate.bias"),
}


def own_tensors(params: GHNParams, kinds: int, largest: int) -> tuple[Tensor, ...]:
    """Every evolvable tensor, in genome order.

    The kernels rely on it: a bias lies right behind its weight, the three message matrices lie side
    by side, right behind what sees shapes if anything does, and the rate head is last.

    `kinds` is the number of node types, `largest` the most values in one tensor of any target
    (the width P_max of the dense head).
    """
    h, unit = params.hidden, params.hidden**-0.5
    messages = ("message.self", "message.forward", "message.backward")
    vector = ("message.bias",)
    seen = (Tensor("shape.weight", (2, h), 1.0, ("shapes",)),) if params.shapes else ()
    known = ("embed", *(tensor.name for tensor in seen))
    return (
        Tensor("embed", (kinds, h), 1.0, ("node types",)),
        *seen,
        *(Tensor(name, (h, h), unit, known) for name in messages),
        Tensor("message.bias", (h,), unit, messages),
        *_decoder(params, largest, vector),
        Tensor("sigma.hidden.weight", (h, h), unit, vector),
        Tensor("sigma.hidden.bias", (h,), unit, ("sigma.hidden.weight",)),
        Tensor("sigma.out.weight", (h, params.basis_width), unit, ("sigma.hidden.bias",)),
        Tensor("sigma.out.bias", (params.basis_width,), unit, ("sigma.out.weight",)),
        Tensor("rate.weight", (h, 1), unit, vector),
        Tensor("rate.bias", (1,), params.rate_step, ("rate.weight",)),
    )


def _decoder(params: GHNParams, largest: int, vector: tuple[str, ...]) -> tuple[Tensor, ...]:
    h, unit = params.hidden, params.hidden**-0.5
    width = {
        "dense": largest,
        "chunked": params.chunk,
        "basis": params.basis_width,
        "dct": params.frequencies**2,
    }[params.head]
    chunks = Tensor("decode.position", (h, h), unit, ("chunk positions", *vector))
    before = (chunks,) if params.head == "chunked" else ()
    return (
        *before,
        Tensor("decode.weight", (h, width), unit, (chunks.name,) if before else vector),
        Tensor("decode.bias", (width,), unit, ("decode.weight",)),
    )


def own_graph(tensors: tuple[Tensor, ...], head: str) -> CompGraph:
    """The graph of those tensors and of what is fixed; every node has a type of its own.

    Differs from targets, where nodes of the same kind share a type.
    """
    fixed = dict(_FIXED)
    if any(t.name == "shape.weight" for t in tensors):
        fixed["shapes"] = ()
    if head == "chunked":
        fixed["chunk positions"] = ()
    last = "decode.bias"
    if spread := {"basis": "decode basis", "dct": "cosines"}.get(head):
        fixed[spread], last = (last,), spread
    fixed["weights"] = (last,)
    after = {t.name: t.after for t in tensors} | fixed
    shapes = {t.name: t.shape for t in tensors}
    return CompGraph(
        nodes=tuple(Node(name, f"ghn.{name}", shapes.get(name)) for name in after),
        edges=tuple((a, b) for b, sources in after.items() for a in sources),
        layout=tuple(t.name for t in tensors),
    )


def own_kinds(params: GHNParams) -> frozenset[str]:
    """Node types of the own graph; they depend on the kind of head alone."""
    return own_graph(own_tensors(params, 1, 1), params.head).kinds
