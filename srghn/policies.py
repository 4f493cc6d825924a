"""Ready-made networks.

A network maps float32 observations (batch, observation_size) to raw outputs (batch, action_size);
the environment's interface turns outputs into actions. One with memory takes a state, too, and
gives (outputs, state).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from srghn.config import NetworkParams
from srghn.envs.interface import Interface
from srghn.errors import ConfigError
from srghn.networks import build_network
from srghn.params import nearest

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "sigmoid": nn.Sigmoid,
}


class MLP(nn.Module):
    """Linear layers with an activation between them; no hidden layer at all is allowed.

    Raises `ConfigError` for an unknown activation or a layer without units.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden: Sequence[int] = (8,),
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        sizes = _sizes([observation_size, *hidden, action_size])
        layers: list[nn.Module] = []
        for depth, (inputs, outputs) in enumerate(pairwise(sizes)):
            layers += [make_activation(activation)] if depth else []
            layers.append(nn.Linear(inputs, outputs))
        self.layers = nn.Sequential(*layers)

    def forward(self, obs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(obs)
        return outputs


class Point(nn.Module):
    """Its weights are a point (action_size,), its output for the observation 1: for functions."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(observation_size, action_size, bias=False)

    def forward(self, obs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(obs)
        return outputs


class ResidualMLP(nn.Module):
    """`blocks` of x + W2 act(W1 norm(x)) at one `width`, between an input and an output layer.

    Raises `ConfigError` for an unknown activation or a layer without units.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        width: int = 32,
        blocks: int = 2,
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        _sizes([observation_size, width, action_size])
        self.embed = nn.Linear(observation_size, width)
        self.blocks = nn.Sequential(*[_Block(width, activation) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, action_size)

    def forward(self, obs: Tensor) -> Tensor:
        outputs: Tensor = self.readout(self.norm(self.blocks(self.embed(obs))))
        return outputs


class GRU(nn.Module):
    """A gated recurrent cell of one `width` between observation and output (Cho et al. 2014).

    Keeps a state (batch, width) from step to step. Raises `ConfigError` for a layer without units.
    """

    def __init__(self, observation_size: int, action_size: int, width: int = 8) -> None:
        super().__init__()
        _sizes([observation_size, width, action_size])
        self.width = width
        self.cell = nn.GRUCell(observation_size, width)
        self.readout = nn.Linear(width, action_size)

    def initial_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, self.width)

    def forward(self, obs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        after = self.cell(obs, state)
        return self.readout(after), after


class LSTM(nn.Module):
    """A long short-term memory cell of one `width` between observation and output.

    Keeps two states (batch, width) from step to step. Raises `ConfigError` for a layer without
    units.
    """

    def __init__(self, observation_size: int, action_size: int, width: int = 8) -> None:
        super().__init__()
        _sizes([observation_size, width, action_size])
        self.width = width
        self.cell = nn.LSTMCell(observation_size, width)
        self.readout = nn.Linear(width, action_size)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(batch, self.width), torch.zeros(batch, self.width)

    def forward(
        self, obs: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden, cell = self.cell(obs, state)
        return self.readout(hidden), (hidden, cell)


class _Block(nn.Module):
    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.act = make_activation(activation)
        self.outer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        update: Tensor = self.outer(self.act(self.inner(self.norm(x))))
        return x + update


def make_activation(name: str) -> nn.Module:
    """A fresh activation by name; raises `ConfigError` naming the nearest known one."""
    if name not in ACTIVATIONS:
        raise ConfigError(f"unknown activation {name!r}; {nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def build_policy(params: NetworkParams, observation_size: int, action_size: int) -> nn.Module:
    """`build_network` for flat observations as they are and discrete actions."""
    face = Interface(
        observation_size, (None,), (None,), "discrete", choices=(action_size,), starts=(0,)
    )
    return build_network(params, face)


def _sizes(sizes: list[int]) -> list[int]:
    for size in sizes:
        if size < 1:
            raise ConfigError(f"every layer needs at least one unit, got sizes {sizes}")
    return sizes
