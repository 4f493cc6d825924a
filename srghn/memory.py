"""Networks that see normalised observations, several of them at once, or keep a state.

One network is one module, whatever it keeps: `(observations) -> outputs`, or, with `state_size`
above 0, `(observations, state) -> (outputs, state)`, the state float32 (batch, state_size) and
zeros when an episode begins. So evaluation, export and service carry one flat vector.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.utils import _pytree as pytree

from srghn.errors import ConfigError


class Normalise(nn.Module):
    """`(x - mean) / deviation`, elementwise in float32."""

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.tensor(mean, dtype=torch.float32))
        self.deviation = nn.Buffer(torch.tensor(deviation, dtype=torch.float32))

    def forward(self, obs: Tensor) -> Tensor:
        return (obs - self.mean) / self.deviation


class Stateful(nn.Module):
    """`(observations (n, d), state (n, state_size)) -> (outputs, state)` around another network."""

    state_size: int

    def __init__(self, network: nn.Module, normalise: Normalise | None) -> None:
        super().__init__()
        self.network = network
        self.normalise = normalise


class Stacked(Stateful):
    """Shows the network the last `frames` observations, oldest first; zeros before the first."""

    def __init__(
        self, network: nn.Module, normalise: Normalise | None, size: int, frames: int
    ) -> None:
        super().__init__(network, normalise)
        self.size, self.state_size = size, (frames - 1) * size

    def forward(self, obs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        latest = obs if self.normalise is None else self.normalise(obs)
        frames = torch.cat([state, latest], dim=1)
        return self.network(frames), frames[:, self.size :]


@dataclass(frozen=True)
class Part:
    """One tensor of a state: its shape without the batch, and at which place the batch stands."""

    shape: tuple[int, ...]
    batch_at: int


class Recurrent(Stateful):
    """A network with a state of its own, one tensor or a tree of them, as one flat vector."""

    def __init__(
        self, network: nn.Module, normalise: Normalise | None, tree: Any, parts: Sequence[Part]
    ) -> None:
        super().__init__(network, normalise)
        self.tree, self.parts = tree, tuple(parts)
        self.sizes = [prod(part.shape) for part in parts]
        self.ends = [sum(self.sizes[:at]) for at in range(len(parts) + 1)]
        self.state_size = self.ends[-1]

    def forward(self, obs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        seen = obs if self.normalise is None else self.normalise(obs)
        inner = [
            torch.movedim(state[:, start:stop].reshape((-1, *part.shape)), 0, part.batch_at)
            for part, start, stop in zip(self.parts, self.ends, self.ends[1:], strict=False)
        ]
        outputs, after = self.network(seen, pytree.tree_unflatten(inner, self.tree))
        rows = [
            torch.movedim(new, part.batch_at, 0).reshape((-1, size))
            for new, part, size in zip(
                _leaves(after, self.parts), self.parts, self.sizes, strict=True
            )
        ]
        return outputs, torch.cat(rows, dim=1)


class Joined(nn.Module):
    """A stateful network as a function of one matrix: `[observations | state]` in and out."""

    def __init__(self, network: Stateful, observation_size: int) -> None:
        super().__init__()
        self.network, self.size = network, observation_size

    def forward(self, rows: Tensor) -> Tensor:
        outputs, state = self.network(rows[:, : self.size], rows[:, self.size :])
        return torch.cat([outputs, state], dim=1)


def state_size(network: nn.Module) -> int:
    """Values that this network keeps between steps; 0 for one that keeps none."""
    return network.state_size if isinstance(network, Stateful) else 0


def keeps_state(module: nn.Module) -> bool:
    """Whether a module takes a state beside the observation, or says how one begins."""
    if callable(getattr(module, "initial_state", None)):
        return True
    return len(_positional(module)) > 1


def _positional(module: nn.Module) -> list[inspect.Parameter]:
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [p for p in inspect.signature(module.forward).parameters.values() if p.kind in kinds]


def recurrent(
    module: nn.Module, normalise: Normalise | None, observation_size: int, path: str
) -> Recurrent | None:
    """A module with memory as `Recurrent`, its state found by two calls with other batches.

    None where its second argument is no state: called without it, it gives a tensor. Raises
    `ConfigError` for a state that is no tensor or tuple of them, whose shape cannot be found, is
    not float32, or begins as other than zeros.
    """
    small, large = _states(module, observation_size, path)
    if small is None:
        return None
    leaves, tree = pytree.tree_flatten(small)
    if wrong := _container(small):
        raise ConfigError(
            f"network {path}: its state must be a tensor or a tuple of them, got a {wrong}, whose "
            "parts have no order of their own"
        )
    parts = [_part(a, b, path) for a, b in zip(leaves, pytree.tree_leaves(large), strict=True)]
    if not parts:
        raise ConfigError(f"network {path} gives an empty state; return (output, state)")
    wrapped = Recurrent(module, normalise, tree, parts)
    _check_start(module, wrapped, observation_size, path)
    return wrapped


def _container(state: Any) -> str:
    """The name of a type in a tree of tensors that is neither a tuple nor a list; '' for none."""
    if isinstance(state, tuple | list):
        return next(filter(None, map(_container, state)), "")
    return "" if pytree.tree_leaves(state) == [state] else type(state).__name__


def _states(module: nn.Module, observation_size: int, path: str) -> tuple[Any, Any]:
    """The module's state for batches of 3 and of 5 rows."""
    begin = getattr(module, "initial_state", None)
    if callable(begin):
        return begin(3), begin(5)
    if _positional(module)[1].default is inspect.Parameter.empty:
        raise ConfigError(
            f"network {path} takes a state, but does not say how it begins: add a method "
            "initial_state(batch) that returns zeros of its shape, or the default state=None"
        )
    answers = [module(torch.zeros(n, observation_size)) for n in (3, 5)]
    if all(isinstance(answer, Tensor) for answer in answers):
        return None, None
    for answer in answers:
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise ConfigError(
                f"network {path} takes a state and must return (output, state), got "
                f"{type(answer).__name__}"
            )
    return answers[0][1], answers[1][1]


def _part(small: Any, large: Any, path: str) -> Part:
    if not isinstance(small, Tensor) or small.dtype != torch.float32:
        found = small.dtype if isinstance(small, Tensor) else type(small).__name__
        raise ConfigError(f"network {path}: its state must be float32 tensors, got {found}")
    moved = [at for at, n in enumerate(small.shape) if (n, large.shape[at]) == (3, 5)]
    if len(moved) != 1:
        raise ConfigError(
            f"network {path}: its state has shape {tuple(small.shape)} for 3 observations and "
            f"{tuple(large.shape)} for 5; expected one dimension that is the batch"
        )
    at = moved[0]
    return Part((*small.shape[:at], *small.shape[at + 1 :]), at)


def _check_start(module: nn.Module, wrapped: Recurrent, observation_size: int, path: str) -> None:
    """Every episode begins with zeros, so that must be how the module begins, too."""
    begin = getattr(module, "initial_state", None)
    if callable(begin):
        same = not any(bool(leaf.any()) for leaf in pytree.tree_leaves(begin(3)))
    else:
        obs = torch.linspace(-1, 1, 3 * observation_size).reshape(3, observation_size)
        seen = obs if wrapped.normalise is None else wrapped.normalise(obs)
        expected = module(seen)[0]
        same = torch.equal(wrapped(obs, torch.zeros(3, wrapped.state_size))[0], expected)
    if not same:
        raise ConfigError(
            f"network {path}: its state must begin as zeros; learn a shift inside the network "
            "instead"
        )


def _leaves(state: Any, parts: Sequence[Part]) -> list[Any]:
    """The tensors of a state; also of one that a layer gave while it is being traced."""
    if isinstance(state, Proxy) and len(parts) > 1:
        given: Any = state
        return [given[at] for at in range(len(parts))]
    return list(pytree.tree_leaves(state))


#: Layers that are given a state and answer with one.
REMEMBERING = (nn.RNNBase, nn.RNNCellBase)


def notes(network: nn.Module, path: str) -> list[str]:
    """A warning about recurrent layers whose state is discarded at every step."""
    if state_size(network):
        return []
    return [
        f"network {path}: {type(part).__name__} at {name!r} starts from zeros at every step, since "
        "forward() takes and returns no state: it keeps no memory. Take (observation, state) and "
        "return (output, state) to keep one"
        for name, part in network.named_modules()
        if isinstance(part, REMEMBERING)
    ]
