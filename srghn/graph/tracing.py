"""`torch.nn.Module` -> `CompGraph`, by torch.fx, or by torch.export where that cannot.

Layers that torch defines are leaves: their parameters become a chain of nodes in data-flow order
(`weight`, then `bias`) of kinds such as `linear.weight` or `grucell.bias_hh`. Everything else is
traced through. A parameter-free operation becomes one node named for what it does, so `nn.Tanh()`,
`torch.tanh(x)` and `x.tanh()` are all of kind `tanh`.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from srghn.errors import GraphError, expect
from srghn.graph.building import build, parameters_used
from srghn.graph.comp_graph import CompGraph
from srghn.graph.frozen import evolved_parameters

_FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError)


def trace(module: nn.Module, *example: Tensor) -> CompGraph:
    """The computational graph of `module`, every parameter to be evolved in it exactly once.

    `example` is one valid input, such as float32 (1, observation_size), and the state of a module
    that keeps one; the module is run on it to check that the traced graph computes what the module
    computes. Parameters are laid out in
    `module.named_parameters()` order. Those with `requires_grad=False` are constants, and with the
    buffers make up the graph's `frozen` digest.

    Raises `GraphError` naming the module path: control flow that depends on data, a parameter that
    is shared, unused or empty, NaN or infinite weights, or an input the module does not take;
    `ConfigError` for what is no module, or no tensor.
    """
    hint = "call trace(module, example), where example is such as torch.zeros(1, 4)"
    expect(module, nn.Module, "module", hint)
    for each in example or (None,):
        expect(each, Tensor, "example", hint)
    _check_parameters(module)
    traced = _symbolic(module, example)
    uses = parameters_used(traced.graph, module)
    graph = build(traced.graph, module, uses, _check_runs(module, traced, example))
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


def _symbolic(module: nn.Module, example: tuple[Tensor, ...]) -> fx.GraphModule:
    """The module's operations: by torch.fx or, where Python decides by sizes, by torch.export."""
    tracer = _Tracer()
    try:
        traced = fx.GraphModule(module, tracer.trace(module, _defaults(module)))
    except (fx.proxy.TraceError, NotImplementedError, *_FAILURES) as error:
        if (exported := _exported(module, example)) is not None:
            return exported
        where = tracer.path[-1] if tracer.path else ""
        owner = module.get_submodule(where)
        raise GraphError(
            f"module {_path(where)} ({_name(owner)}) cannot be traced: {error}; write its "
            "forward() without control flow or conversions that depend on tensor values or sizes"
        ) from error
    traced.graph.eliminate_dead_code()  # a parameter whose result is dropped is not used
    return traced


def _exported(module: nn.Module, example: tuple[Tensor, ...]) -> fx.GraphModule | None:
    """The same by torch.export, whose graph holds every parameter by name; None where it fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.export.export(module, example, strict=False).module()
    except Exception:  # noqa: BLE001  it has errors of many kinds; torch.fx's is the one to tell
        return None
    assert isinstance(traced, fx.GraphModule)
    for node in traced.graph.nodes:
        if node.target == "_guards_fn":  # checks its inputs, and is no part of the network
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


class _TensorFinder(fx.Interpreter):
    """Runs the graph and notes which nodes give tensors rather than sizes or other plain values."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.is_tensor: dict[str, bool] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        parts = result if isinstance(result, tuple | list) else (result,)
        self.is_tensor[n.name] = any(isinstance(p, Tensor) for p in parts)
        return result


def _check_runs(
    module: nn.Module, traced: fx.GraphModule, example: tuple[Tensor, ...]
) -> dict[str, bool]:
    finder = _TensorFinder(traced)
    modes = {part: part.training for part in module.modules()}
    module.eval()  # dropout must not make two equal runs differ
    try:
        with torch.no_grad():
            expected, actual = module(*example), finder.run(*example)
    except _FAILURES as error:
        raise GraphError(
            f"{_name(module)} fails on an example of shape {list(example[0].shape)}: {error}; pass "
            "an input that the module takes"
        ) from error
    finally:
        for part, mode in modes.items():
            part.training = mode
    if not _equal(expected, actual):
        raise GraphError(
            f"the traced graph of {_name(module)} and the module give different outputs: forward() "
            "depends on more than its input; make it a pure function"
        )
    return finder.is_tensor


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.allclose(a, b, equal_nan=True)
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)


def _path(target: str) -> str:
    return repr(target) if target else "at the top"


def _name(module: nn.Module) -> str:
    return type(module).__name__
