"""`torch.nn.Module` -> `CompGraph`, by torch.fx, or by torch.export where that cannot.

Layers that torch defines are leaves: their parameters become a chain of nodes in data-flow order
(`weight`, then `bias`) of kinds such as `linear.weight` or `grucell.bias_hh`. Everything else is
traced through. A parameter-free operation becomes one node named for what it does, so `nn.Tanh()`,
`torch.tanh(x)` and `x.tanh()` are all of kind `tanh`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from srghn.errors import FAILURES, GraphError, expect, one_line
from srghn.graph.building import build, parameters_used
from srghn.graph.checking import check_edges, check_runs, check_takes
from srghn.graph.comp_graph import CompGraph
from srghn.graph.frozen import evolved_parameters
from srghn.quiet import hushed


def trace(module: nn.Module, *example: Tensor) -> CompGraph:
    """The computational graph of `module`, every parameter to be evolved in it exactly once.

    `example` is one valid input, such as float32 (1, observation_size), and the state of a module
    that keeps one; the module is run on it, and on other values of its shape, to check that the
    traced graph computes what the module computes. Parameters are laid out in
    `module.named_parameters()` order. Those with `requires_grad=False` are constants, and with the
    buffers make up the graph's `frozen` digest.

    Raises `GraphError` naming the module path: control flow that depends on data, a parameter that
    is shared, unused, empty or changed, NaN or infinite weights, a change in place that no graph
    shows, or an input the module does not take; `ConfigError` for what is no module, or no tensor.
    """
    hint = "call trace(module, example), where example is such as torch.zeros(1, 4)"
    expect(module, nn.Module, "module", hint)
    for each in example or (None,):
        expect(each, Tensor, "example", hint)
    _check_parameters(module)
    traced, is_tensor = _traced(module, example)
    graph = build(traced.graph, module, parameters_used(traced.graph, module), is_tensor)
    missing = [n for n, _ in evolved_parameters(module) if n not in graph.layout]
    if missing:
        raise GraphError(
            f"parameter {missing[0]!r} of {_name(module)} is missing from the graph: forward() "
            "does not use it; use it or delete it"
        )
    return graph


class _Tracer(fx.Tracer):
    """Remembers which module it is in, so that an error can name it."""

    def __init__(self) -> None:
        super().__init__()
        self.path: list[str] = []

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        self.path.append(self.path_of_module(m))
        result = super().call_module(m, forward, args, kwargs)
        self.path.pop()  # kept when an error passes: that is where it came from
        return result


def _traced(
    module: nn.Module, example: tuple[Tensor, ...]
) -> tuple[fx.GraphModule, dict[str, bool]]:
    """The module's operations, and which of them give tensors.

    By torch.fx or, where Python decides by sizes or types or goes round an edge, by torch.export.
    """
    try:
        traced = _symbolic(module)
        check_edges(module, traced, example)
        traced.graph.eliminate_dead_code()  # a parameter whose result is dropped is not used
        return traced, check_runs(module, traced, example)
    except GraphError:  # which is the one to tell
        check_takes(module, example)
        for traced in _exported(module, example):
            with suppress(GraphError):
                check_edges(module, traced, example)
                return traced, check_runs(module, traced, example)
        raise


def _symbolic(module: nn.Module) -> fx.GraphModule:
    tracer = _Tracer()
    try:
        return fx.GraphModule(module, tracer.trace(module, _defaults(module)))
    except FAILURES as error:
        where = tracer.path[-1] if tracer.path else ""
        owner = module.get_submodule(where)
        raise GraphError(
            f"module {_path(where)} ({_name(owner)}) cannot be traced: {one_line(error)}; write "
            "its forward() without control flow or conversions that depend on tensor values, "
            "sizes or types; isinstance(x, Tensor) works, type(x) is Tensor does not"
        ) from error


def _exported(module: nn.Module, example: tuple[Tensor, ...]) -> Iterator[fx.GraphModule]:
    """The same by torch.export, whose graph holds every parameter by name; none where it fails.

    First as forward() says it, then with every change in place as an operation with a result.
    """
    for functional in (False, True):
        with suppress(*FAILURES):  # it has errors of many kinds; torch.fx's is the one to tell
            yield _export(module, example, functional)


def _export(module: nn.Module, example: tuple[Tensor, ...], functional: bool) -> fx.GraphModule:
    # with gradients some changes in place are forbidden
    with hushed(), torch.set_grad_enabled(not functional):
        program = torch.export.export(module, example, strict=False)
        traced = (program.run_decompositions({}) if functional else program).module()
    assert isinstance(traced, fx.GraphModule)
    for node in reversed(traced.graph.nodes):
        guard = node.target == "_guards_fn"  # checks its inputs, and is no part of the network
        unused = not node.users and node.op not in ("placeholder", "output")
        if guard or (functional and unused):  # such as what writes the input's new values back
            traced.graph.erase_node(node)
    traced.recompile()
    return traced


def _defaults(module: nn.Module) -> dict[str, Any]:
    """Optional arguments keep their defaults, so that control flow may depend on them."""
    parameters = inspect.signature(module.forward).parameters
    return {n: p.default for n, p in parameters.items() if p.default is not p.empty}


def _check_parameters(module: nn.Module) -> None:
    owners: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad:
            continue
        if id(parameter) in owners:
            raise GraphError(
                f"parameter {name!r} of {_name(module)} is shared with {owners[id(parameter)]!r}; "
                "give each its own tensor: a hypernetwork generates every tensor once"
            )
        owners[id(parameter)] = name
        if is_lazy(parameter):
            raise GraphError(
                f"parameter {name!r} of {_name(module)} has no shape yet; call the module once, "
                "then trace it"
            )
        if parameter.numel() == 0:
            raise GraphError(
                f"parameter {name!r} of {_name(module)} has shape {list(parameter.shape)} and "
                "holds no values; give that layer at least one unit, or leave it out"
            )
        if parameter.dtype != torch.float32:
            raise GraphError(
                f"parameter {name!r} of {_name(module)} is {parameter.dtype}; make it float32, as "
                "weights evolve, or freeze it (requires_grad=False)"
            )
        if not bool(torch.isfinite(parameter).all()):
            raise GraphError(
                f"parameter {name!r} of {_name(module)} holds NaN or infinite values; initialise it"
            )
    if not owners:
        frozen = any(True for _ in module.parameters())
        what = "only frozen parameters (requires_grad=False)" if frozen else "no parameters"
        raise GraphError(f"{_name(module)} has {what}: there is nothing to evolve")


def _path(target: str) -> str:
    return repr(target) if target else "at the top"


def _name(module: nn.Module) -> str:
    return type(module).__name__
