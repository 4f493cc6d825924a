"""Networks that do not pickle: what makes them is found by its path, but they are not."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class Squashed(nn.Module):
    """Keeps a function without a name."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)
        self.squash = lambda x: torch.tanh(x)

    def forward(self, x: Tensor) -> Tensor:
        squashed: Tensor = self.squash(self.layer(x))
        return squashed


def local(inputs: int, outputs: int) -> nn.Module:
    """Of a class that only this function knows."""

    class Hidden(nn.Linear):
        pass

    return Hidden(inputs, outputs)


def normed(inputs: int, outputs: int) -> nn.Module:
    """Parametrised, and torch refuses to pickle that."""
    return nn.Sequential(weight_norm(nn.Linear(inputs, 4)), nn.Tanh(), nn.Linear(4, outputs))
