"""Networks as graphs: `trace(module, example)` gives the `CompGraph` a hypernetwork works on.

>>> import torch
>>> from srghn.graph import trace
>>> from srghn.policies import MLP
>>> print(trace(MLP(4, 2), torch.zeros(1, 4)))
CompGraph e59090e7b247: 7 nodes, 6 edges, 58 values in 4 parameters
  0  %obs             input
  1  layers.0.weight  linear.weight         8x4  <- %obs
  2  layers.0.bias    linear.bias             8  <- layers.0.weight
  3  %layers_1        tanh                       <- layers.0.bias
  4  layers.2.weight  linear.weight         2x8  <- %layers_1
  5  layers.2.bias    linear.bias             2  <- layers.2.weight
  6  %output          output                     <- layers.2.bias
"""

from typing import TYPE_CHECKING, Any

from srghn.graph.comp_graph import CompGraph, Node

if TYPE_CHECKING:
    from srghn.graph.tracing import trace

__all__ = ["CompGraph", "Node", "trace"]


def __getattr__(name: str) -> Any:
    """Import `trace` when it is first used: it needs torch, and workers that only breed do not."""
    if name == "trace":
        from srghn.graph.tracing import trace

        return trace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
