"""A torch module mapped over lanes, each with its own weights, and recorded once.

`torch.func.vmap` gives one call for all lanes, but walks the module in Python on every step, which
costs more than the arithmetic; so its operations are recorded. Matrix products may add up in an
order that depends on where in memory a lane lies: what is used here was seen to give the same
bytes for a lane wherever it is, or else the module is called lane by lane.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from srghn.config import NetworkParams
from srghn.envs.interface import Interface
from srghn.graph.frozen import evolved_parameters
from srghn.memory import REMEMBERING, Joined, Stateful, state_size
from srghn.networks import build_network

#: (weights of all lanes by parameter, observations (lanes, size)) -> outputs (lanes, action_size)
Call = Callable[[Sequence[Tensor], Tensor], Tensor]
_ATEN: Any = torch.ops.aten
#: Floats in 64 bytes, the widest unit in which processors load.
_ALIGNMENT = 16
#: Operations whose result may be the tensor they were given, seen through another shape.
_VIEWS = (
    _ATEN.expand.default,
    _ATEN.view.default,
    _ATEN._unsafe_view.default,
    _ATEN.permute.default,
)
#: Operations that are methods of tensors with the same arguments; others are called as recorded.
_METHODS = {
    getattr(getattr(_ATEN, name), overload): getattr(Tensor, name)
    for overload, names in {
        "default": "bmm clone exp expand neg permute relu relu_ sigmoid sigmoid_ tanh tanh_ "
        "unsqueeze view",
        "Tensor": "add add_ div mul mul_ sub",
        "Scalar": "add mul sub",
        "int": "select transpose",
        "dim": "squeeze",
    }.items()
    for name in names.split()
}
#: What a call costs grows with its lanes, used or not, from about the cost of these.
FEWER_LANES = (8, 32)


class LaneWeights:
    """Room for one set of parameters a lane; each tensor begins at an aligned address."""

    def __init__(self, shapes: Sequence[torch.Size], lanes: int) -> None:
        self.sizes = [math.prod(shape) for shape in shapes]
        self._padded = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in self.sizes]
        self.rows = torch.zeros((lanes, sum(self._padded)))
        self.tensors = [
            part[:, :size].view((lanes, *shape))
            for part, size, shape in zip(self._parts(self.rows), self.sizes, shapes, strict=True)
        ]

    def _parts(self, rows: Tensor) -> tuple[Tensor, ...]:
        return torch.split(rows, self._padded, dim=1)

    def spread(self, flat: Tensor) -> Tensor:
        """Flat weights (n, parameters) as n rows in the layout of `rows`."""
        rows = torch.zeros((len(flat), self.rows.shape[1]))
        pieces = torch.split(flat, self.sizes, dim=1)
        for part, piece in zip(self._parts(rows), pieces, strict=True):
            part[:, : piece.shape[1]] = piece
        return rows


class MappedModule:
    """One architecture for a fixed number of lanes. `shapes` are its parameters', in order.

    Where it keeps a state, the columns after the observation's and after the outputs' are it.
    """

    def __init__(self, network: NetworkParams, interface: Interface, lanes: int) -> None:
        self.lanes = lanes
        self.module: nn.Module = build_network(network, interface)
        observation_size = interface.observation_size
        self.state_size = state_size(self.module)
        if isinstance(self.module, Stateful):
            self.module = Joined(self.module, observation_size)
            observation_size += self.state_size
        self.names, parameters = zip(*evolved_parameters(self.module), strict=True)
        self.shapes: list[torch.Size] = [parameter.shape for parameter in parameters]
        self._call = self._fastest(observation_size)

    def room(self) -> LaneWeights:
        return LaneWeights(self.shapes, self.lanes)

    @torch.no_grad()
    def __call__(self, weights: Sequence[Tensor], observations: Tensor, used: list[int]) -> Tensor:
        """Outputs (lanes, action_size), of which only those of the `used` lanes mean anything."""
        if self._call is not None:
            return self._call(weights, observations)
        # copies lie at aligned addresses, whichever the lane
        rows = [self._one([w[lane].clone() for w in weights], observations[lane]) for lane in used]
        outputs = torch.zeros((self.lanes, *rows[0].shape))
        outputs[used] = torch.stack(rows)
        return outputs

    def _one(self, weights: Sequence[Tensor], observation: Tensor) -> Tensor:
        parameters = dict(zip(self.names, weights, strict=True))
        row = (observation.clone()[None],)
        outputs: Tensor = functional_call(self.module, parameters, row)[0]
        return outputs

    @torch.no_grad()
    def _fastest(self, observation_size: int) -> Call | None:
        """The first record of the mapped module that treats all lanes alike, if there is one."""

        room, observations = self.room(), torch.zeros((self.lanes, observation_size))
        one: Any = self._one
        if any(isinstance(part, REMEMBERING) for part in self.module.modules()):
            # a recurrent layer can be mapped only as the operations it consists of
            one = make_fx(lambda weights, row: self._one(weights, row))(
                [tensor[0] for tensor in room.tensors], observations[0]
            )

        def mapped(weights: Sequence[Tensor], observations: Tensor) -> Tensor:
            outputs: Tensor = vmap(one)(weights, observations)
            return outputs

        for sums_in_order in (False, True):
            try:
                recorded = make_fx(mapped)(room.tensors, observations)
            except RuntimeError:  # control flow that depends on data cannot be mapped
                return None
            _drop_products_with_one(recorded)
            if sums_in_order:
                _put_sums_in_order(recorded)
            _call_directly(recorded)
            if self._impartial(recorded, observation_size):
                return recorded
        return None

    def _impartial(self, call: Call, observation_size: int) -> bool:
        """Whether lanes that change places take their outputs with them, bit for bit."""
        generator = torch.Generator().manual_seed(0)
        flat, observations = self._trial(observation_size, generator)
        room = self.room()
        room.rows[:] = room.spread(flat)
        expected = call(room.tensors, observations)
        for _ in range(4):
            order = torch.randperm(self.lanes, generator=generator)
            room.rows[:] = room.spread(flat[order])
            if not torch.equal(call(room.tensors, observations[order]), expected[order]):
                return False
        return True

    def agrees(self, fewer: MappedModule, observation_size: int) -> bool:
        """Whether the same architecture for fewer lanes gives each lane the same bytes."""
        if self._call is None or fewer._call is None:
            return False
        generator = torch.Generator().manual_seed(0)
        room, few, used = self.room(), fewer.room(), list(range(fewer.lanes))
        for _ in range(4):
            flat, observations = self._trial(observation_size, generator)
            room.rows[:] = room.spread(flat)
            few.rows[:] = room.rows[: fewer.lanes]
            expected = self(room.tensors, observations, used)[: fewer.lanes]
            if not torch.equal(fewer(few.tensors, observations[: fewer.lanes], used), expected):
                return False
        return True

    def _trial(self, observation_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Flat weights and observations of all lanes, at random."""
        size = sum(math.prod(shape) for shape in self.shapes)
        flat = torch.randn((self.lanes, size), generator=generator)
        return flat, torch.randn((self.lanes, observation_size), generator=generator)


def _drop_products_with_one(recorded: Any) -> None:
    """Take out the `bias * 1` that a mapped linear layer is recorded with."""
    for node in recorded.graph.nodes:
        # a whole number cannot change the other factor's type
        if node.target is torch.ops.aten.mul.Scalar and repr(node.args[1]) == "1":
            node.replace_all_uses_with(node.args[0])
            recorded.graph.erase_node(node)
    recorded.recompile()


def _put_sums_in_order(recorded: Any) -> None:
    """Replace every batched matrix product in a record by products that are then added up."""
    for node in recorded.graph.nodes:
        if node.target is torch.ops.aten.bmm.default:
            node.target = _products_and_sums
    recorded.recompile()


def _products_and_sums(a: Tensor, b: Tensor) -> Tensor:
    return (a.unsqueeze(3) * b.unsqueeze(1)).sum(2)


def _call_directly(recorded: Any) -> None:
    """Leave out views that change nothing, and call operations as methods of tensors.

    `torch.ops.aten.bmm.default(a, b)` and `a.bmm(b)` are one operation, with the same bytes; the
    first costs several times as much before it begins, which is most of a small network's time.
    """
    for node in recorded.graph.nodes:
        if node.target in _VIEWS and _same_layout(node, node.args[0]):
            node.replace_all_uses_with(node.args[0])
            recorded.graph.erase_node(node)
        elif node.target in _METHODS:
            node.target = _METHODS[node.target]
    recorded.recompile()


def _same_layout(view: Any, source: Any) -> bool:
    """Whether a view has the shape and the strides of the tensor it looks at."""
    ours, theirs = view.meta.get("tensor_meta"), source.meta.get("tensor_meta")
    if ours is None or theirs is None:
        return False
    return bool(ours.shape == theirs.shape and ours.stride == theirs.stride)


@lru_cache(maxsize=4)
def mapped_modules(network: str, interface: Interface, lanes: int) -> tuple[MappedModule, ...]:
    """The module of `NetworkParams` given as JSON for `lanes` lanes, after ones for fewer.

    Those are for the end of a batch, when only its longest episodes go on; there are none where
    they would not give a lane the very bytes that the largest gives it. Recorded once a process.
    """
    params = NetworkParams.model_validate_json(network)
    largest = MappedModule(params, interface, lanes)
    fewer = [MappedModule(params, interface, few) for few in FEWER_LANES if few < lanes]
    seen = interface.observation_size + largest.state_size
    return (*(m for m in fewer if largest.agrees(m, seen)), largest)
