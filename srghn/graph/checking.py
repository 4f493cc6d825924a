"""Whether a traced graph is its module's: it gives the same outputs, and lacks no edge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from srghn.errors import FAILURES, GraphError, one_line
from srghn.graph.frozen import evolved_parameters

#: What a node may ask a tensor for that no change in place alters.
_SIZES = {"size", "shape", "dim", "ndim", "numel", "dtype", "device"}


def check_takes(module: nn.Module, example: tuple[Tensor, ...]) -> None:
    """Raise `GraphError` if the module fails on that input."""
    with _at_rest(module):
        _outputs(module, example)


def check_edges(module: nn.Module, traced: fx.GraphModule, example: tuple[Tensor, ...]) -> None:
    """Raise `GraphError` where the output depends on a change in place that no edge shows.

    In `y.mul_(2); return y` the graph leads from `y` to the output, past `mul_`.
    """
    watch = _Watch(traced)
    with _at_rest(module):
        _run(watch, module, example)
    for node in _used(traced.graph):
        if node in watch.misled:
            raise GraphError(
                f"{_name(module)} cannot be traced: {watch.misled[node].name!r} changes a tensor "
                "in place, and forward() goes on with that tensor by another name; go on with the "
                "result, as in y = y.mul(2) for y.mul_(2)"
            )


def check_runs(
    module: nn.Module, traced: fx.GraphModule, example: tuple[Tensor, ...]
) -> dict[str, bool]:
    """Which nodes give tensors rather than sizes or other plain values.

    Raises `GraphError` if the graph and the module give different outputs for the example or for
    `_other`, or if the module changes its parameters.
    """
    finder = _TensorFinder(traced)
    before = {name: p.detach().clone() for name, p in evolved_parameters(module)}
    with _at_rest(module):
        for inputs in (_other(example), example):
            try:
                expected = _outputs(module, inputs)
            except GraphError:
                if inputs is example:
                    raise
                continue  # such values this module does not take
            if not _equal(expected, _run(finder, module, inputs)):
                raise GraphError(
                    f"the traced graph of {_name(module)} and the module give different outputs: "
                    "forward() depends on more than its input's values; make it a pure function, "
                    "and ask isinstance(x, Tensor) where it asks type(x) is Tensor"
                )
    for name, parameter in evolved_parameters(module):
        if not torch.equal(before[name], parameter):
            raise GraphError(
                f"forward() of {_name(module)} changes its parameter {name!r}; leave parameters "
                "as they are, as in x @ (w * 0.5) for w.mul_(0.5)"
            )
    return finder.is_tensor


class _TensorFinder(fx.Interpreter):
    """Runs the graph and notes which nodes give tensors rather than sizes or other plain values."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.is_tensor: dict[str, bool] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        parts = result if isinstance(result, tuple | list) else (result,)
        self.is_tensor[n.name] = any(isinstance(p, Tensor) for p in parts)
        return result


class _Watch(fx.Interpreter):
    """Runs the graph and notes which nodes are given what another one has since changed in place.

    `misled` leads from such a node to the one that wrote last: the edge should come from there.
    """

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.misled: dict[fx.Node, fx.Node] = {}
        # who wrote what, by memory, in the order of `_count`
        self._writes: dict[int, list[tuple[int, fx.Node, Tensor]]] = {}
        self._count = 0
        # each node's tensors, and how many writes there had been when it gave them; kept, lest
        # memory be given out twice
        self._given: dict[fx.Node, list[tuple[Tensor, int]]] = {}

    def run_node(self, n: fx.Node) -> Any:
        taken = [pair for source in n.all_input_nodes for pair in self._given[source]]
        versions, known = [_version(tensor) for tensor, _ in taken], self._count
        result = super().run_node(n)
        tensors = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
        seen: dict[int, int] = {}
        for tensor, before in taken:
            seen[_memory(tensor)] = min(before, seen.get(_memory(tensor), before))
        same = versions == [_version(tensor) for tensor, _ in taken]
        if same and n.op != "output" and tensors and all(_memory(t) in seen for t in tensors):
            # a view: nothing was read, and it is as old as what it is a view of
            self._given[n] = [(tensor, seen[_memory(tensor)]) for tensor in tensors]
            return result
        if (n.args[1] if n.target is getattr else n.target) not in _SIZES:
            for tensor, before in taken:
                for count, writer, written in self._writes.get(_memory(tensor), ()):
                    if before < count <= known and _overlap(tensor, written):
                        self.misled[n] = writer
        for (tensor, _), version in zip(taken, versions, strict=True):
            if _version(tensor) != version:
                self._count += 1
                self._writes.setdefault(_memory(tensor), []).append((self._count, n, tensor))
        fresh = n.op == "get_attr"  # no edge leads to it, whoever wrote to the buffer
        self._given[n] = [(tensor, 0 if fresh else self._count) for tensor in tensors]
        return result


def _memory(tensor: Tensor) -> int:
    """The same number for all views of one memory."""
    strided = tensor.layout is torch.strided
    return int(tensor.untyped_storage()._cdata) if strided else id(tensor)


def _overlap(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one memory share an element: the halves of a chunk do not."""
    if one.layout is not torch.strided or one.dtype != other.dtype:
        return True
    places = torch.arange(one.untyped_storage().nbytes() // one.element_size())
    own, others = (
        torch.as_strided(places, each.size(), each.stride(), each.storage_offset()).flatten()
        for each in (one, other)
    )
    return bool(torch.isin(own, others).any())


def _version(tensor: Tensor) -> int:
    """A count that rises with every change in place; tensors of inference mode have none."""
    return 0 if tensor.is_inference() else tensor._version


def _used(graph: fx.Graph) -> list[fx.Node]:
    """The nodes from which an edge or several lead to the output, and the output."""
    used: dict[fx.Node, None] = {}
    for node in reversed(graph.nodes):
        if node.op == "output" or node in used:
            used.update(dict.fromkeys((node, *node.all_input_nodes)))
    return list(used)


@contextmanager
def _at_rest(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode: dropout must not make two equal runs differ."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.inference_mode(False), torch.no_grad():  # where changes in place are counted
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _other(example: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """An input like the example, from -2 to 2: zeros would hide what takes zero to zero."""
    return tuple(
        2 * torch.arange(1, e.numel() + 1).cos().reshape(e.shape).to(e)
        if e.is_floating_point()
        else e
        for e in example
    )


def _outputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    try:
        return module(*(each.clone() for each in inputs))
    except FAILURES as error:
        raise GraphError(
            f"{_name(module)} fails on an example of shape {list(inputs[0].shape)}: "
            f"{one_line(error)}; pass an input that the module takes"
        ) from error


def _run(graph: fx.Interpreter, module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    try:
        return graph.run(*(each.clone() for each in inputs))
    except FAILURES as error:
        raise GraphError(
            f"the traced graph of {_name(module)} fails where the module does not: "
            f"{one_line(error)}; write its forward() without conditions on its input's type"
        ) from error


def _equal(expected: Any, found: Any) -> bool:
    """Whether all tensors are the same, but for the rounding of operations in another order."""
    ours, theirs = pytree.tree_leaves(expected), pytree.tree_leaves(found)
    return len(ours) == len(theirs) and all(map(_alike, ours, theirs))


def _alike(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    finite = a[a.isfinite()].abs()
    size = float(finite.max()) if finite.numel() else 0.0
    return torch.allclose(a, b, atol=1e-5 * size, equal_nan=True)


def _name(module: nn.Module) -> str:
    return type(module).__name__
