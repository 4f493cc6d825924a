"""What ONNX export cannot hold, written in other operations that give the same numbers.

The exporter turns `nn.GRU` and its like into a loop over time whose state it cannot type; a policy
takes one step at a time, so the loop is a few calls. And it knows attention of rank 4 alone.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_CELLS: dict[str, Any] = {
    "GRU": torch.gru_cell,
    "RNN_TANH": torch.rnn_tanh_cell,
    "RNN_RELU": torch.rnn_relu_cell,
    "LSTM": torch.lstm_cell,
}


class Unrolled(nn.Module):
    """The same numbers as one `nn.RNN`, `nn.GRU` or `nn.LSTM` on a batch of sequences."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, given: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        steps = given.transpose(0, 1) if self.layer.batch_first else given
        kept = self._begin(steps) if state is None else state
        pairs = [kept[0], kept[1]] if self.layer.mode == "LSTM" else [kept]
        values: list[Tensor] = list(steps.unbind(0))
        ends: list[list[Tensor]] = [[] for _ in pairs]
        for depth in range(self.layer.num_layers):
            now = [part[depth] for part in pairs]
            for at, value in enumerate(values):
                now = self._step(depth, value, now)
                values[at] = now[0]
            for end, part in zip(ends, now, strict=True):
                end.append(part)
        after = [torch.stack(end) for end in ends]
        outputs = torch.stack(values, 1 if self.layer.batch_first else 0)
        return outputs, tuple(after) if len(after) == 2 else after[0]

    def _step(self, depth: int, value: Tensor, state: list[Tensor]) -> list[Tensor]:
        weights: list[Any] = list(self.layer._flat_weights)
        each = len(weights) // self.layer.num_layers
        own = weights[depth * each : (depth + 1) * each]
        if self.layer.mode == "LSTM":
            return list(torch.lstm_cell(value, state, *own))
        return [_CELLS[self.layer.mode](value, state[0], *own)]

    def _begin(self, steps: Tensor) -> Any:
        zeros = steps.new_zeros((self.layer.num_layers, steps.shape[1], self.layer.hidden_size))
        return (zeros, zeros) if self.layer.mode == "LSTM" else zeros


def unrolled(network: nn.Module) -> nn.Module:
    """A copy with its recurrent layers written out; the network itself where it has none."""
    if not any(map(_plain, network.modules())):
        return network
    copied = copy.deepcopy(network)
    for parent in list(copied.modules()):
        for name, child in parent.named_children():
            if _plain(child) and not isinstance(parent, Unrolled):
                setattr(parent, name, Unrolled(child))  # type: ignore[arg-type]
    return copied


def _plain(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.RNNBase)
        and not module.bidirectional
        and not module.proj_size
        and module.mode in _CELLS
    )


class Rank4Attention(TorchFunctionMode):
    """Within it, scaled dot product attention of any rank is computed at rank 4."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        names = ("query", "key", "value", "attn_mask")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        rank = given["query"].dim()
        if rank >= 4:
            return func(*args, **kwargs)
        for name in names:
            if isinstance(given.get(name), Tensor):
                given[name] = given[name][(None,) * (4 - rank)]
        return func(**given)[(0,) * (4 - rank)]
