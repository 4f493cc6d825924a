"""Ready-made policy networks, and any other `torch.nn.Module` by import path.

What the path names is a class or a function that gives a module: a function is how pretrained
weights get in. Parameters with `requires_grad=False` and buffers stay as they are to the bit.

A policy maps float32 observations (batch, observation_size) to raw outputs (batch, action_size);
the environment's interface turns outputs into actions. It must keep no state between calls.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from srghn.config import NetworkParams
from srghn.errors import FAILURES, ConfigError

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
        raise ConfigError(f"unknown activation {name!r}; {_hint(name, list(ACTIVATIONS))}")
    return ACTIVATIONS[name]()


def build_policy(params: NetworkParams, observation_size: int, action_size: int) -> nn.Module:
    """The policy of those parameters, in evaluation mode, checked once.

    The class or function is called with `observation_size`, `action_size` and the kwargs. The
    global random state is left as it was; the same parameters always give the same initial weights.

    Raises `ConfigError` naming the import path: nothing there, not a Module, arguments it does not
    take, another output shape, or state kept between calls.
    """
    make = _resolve(params.module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = _construct(make, params, observation_size, action_size).eval()
        _check_behaviour(module, params.module, observation_size, action_size)
    return module


def _resolve(path: str) -> Callable[..., nn.Module]:
    module_name, sign, name = path.partition(":")
    if not sign or not module_name or not name:
        raise ConfigError(f"network.module takes module:Class, got {path!r}")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"network.module {path!r}: cannot import {module_name!r} ({error}); install it or put "
            "its folder on PYTHONPATH"
        ) from error
    found = getattr(module, name, None)
    if found is None:
        classes = [n for n, v in vars(module).items() if _is_policy(v)]
        raise ConfigError(f"network.module {path!r}: no such class; {_hint(name, classes)}")
    if not (_is_policy(found) or inspect.isfunction(found)):
        raise ConfigError(
            f"network.module {path!r} must be a subclass of torch.nn.Module, or a function that "
            "gives a module"
        )
    make: Callable[..., nn.Module] = found
    return make


def _is_policy(found: object) -> bool:
    return inspect.isclass(found) and issubclass(found, nn.Module)


def _construct(
    make: Callable[..., nn.Module], params: NetworkParams, observation_size: int, action_size: int
) -> nn.Module:
    signature = inspect.signature(make)
    sizes = {"observation_size": observation_size, "action_size": action_size}
    keyword = [
        n for n in sizes if n in signature.parameters and signature.parameters[n].kind.value == 3
    ]
    places = [size for name, size in sizes.items() if name not in keyword]
    kwargs = {**{name: sizes[name] for name in keyword}, **params.kwargs}
    try:
        signature.bind(*places, **kwargs)
    except TypeError as error:
        taken = [n for n in list(signature.parameters)[len(places) :] if n not in sizes]
        raise ConfigError(
            f"network {params.module}: {error}; it is called with observation_size, action_size "
            f"and network.kwargs {params.kwargs}, and takes {', '.join(taken) or 'no keywords'}"
        ) from error
    try:
        module = make(*places, **kwargs)
    except FAILURES as error:
        raise ConfigError(
            f"network {params.module} cannot be built with network.kwargs {params.kwargs}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"network.module {params.module!r} must give a torch.nn.Module, got "
            f"{type(module).__name__}"
        )
    return module


def _check_behaviour(module: nn.Module, path: str, observation_size: int, action_size: int) -> None:
    """Run the module on one batch: shape, dtype, and that a row depends on that row alone."""
    obs = torch.linspace(-1, 1, 3 * observation_size).reshape(3, observation_size)
    try:
        with torch.no_grad():
            if _is_lazy(module):
                module(obs)
            before = {name: value.clone() for name, value in module.state_dict().items()}
            first, second, alone = module(obs), module(obs), module(obs[:1])
    except FAILURES as error:
        raise ConfigError(
            f"network {path} fails on observations of shape {tuple(obs.shape)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    _check_output(first, path, tuple(obs.shape), action_size)
    after = module.state_dict()
    moved = [name for name, value in before.items() if not torch.equal(value, after[name])]
    if moved or not torch.equal(first, second):
        what = f"its buffer {moved[0]!r} changed" if moved else "two equal calls differ"
        raise ConfigError(
            f"network {path} must keep no state between calls and draw nothing at random, but "
            f"{what}; compute everything from the observation"
        )
    if not torch.allclose(first[:1], alone, rtol=1e-4, atol=1e-5):
        raise ConfigError(
            f"network {path} must answer row by row, but an observation's output depends on the "
            "others in its batch; normalise over features, not over the batch"
        )


def _is_lazy(module: nn.Module) -> bool:
    """Whether its first call gives some layer its shape (`nn.LazyLinear` and its like)."""
    return any(is_lazy(p) for p in [*module.parameters(), *module.buffers()])


def _check_output(output: object, path: str, given: tuple[int, ...], action_size: int) -> None:
    shape = (given[0], action_size)
    if not isinstance(output, Tensor) or output.shape != shape:
        came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(
            f"network {path} must return a tensor of shape {shape} for observations of shape "
            f"{given}, got {came}; make its last layer {action_size} wide"
        )
    if output.dtype != torch.float32:
        raise ConfigError(
            f"network {path} must return float32, got {output.dtype}; cast its output"
        )


def _sizes(sizes: list[int]) -> list[int]:
    for size in sizes:
        if size < 1:
            raise ConfigError(f"every layer needs at least one unit, got sizes {sizes}")
    return sizes


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
