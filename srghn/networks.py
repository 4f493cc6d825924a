"""A network by import path: built, checked, and adapted to its environment version.

What the path names is a class or a function that gives a module: a function is how pretrained
weights get in. Parameters with `requires_grad=False` and buffers stay as they are to the bit.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from srghn.config import NetworkParams
from srghn.envs.interface import Interface
from srghn.errors import FAILURES, ConfigError, one_line
from srghn.memory import Normalise, Stacked, Stateful, keeps_state, recurrent, state_size
from srghn.params import nearest


def build_network(params: NetworkParams, interface: Interface) -> nn.Module:
    """The network of those parameters for that interface, in evaluation mode, checked once.

    A module that keeps no state, sees observations as they are and one at a time is given as it is;
    any other stands in a `srghn.memory` module. The global random state is left as it was; the same
    parameters always give the same initial weights.

    Raises `ConfigError` naming the import path: nothing there, not a Module, arguments it does not
    take, another output shape, randomness, weights that are not float32, or state that is not given
    and returned.
    """
    make, size = _resolve(params.module), interface.observation_size
    normalise = (
        Normalise(interface.observation_mean, interface.observation_deviation)
        if interface.observation_mean
        else None
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        module = _construct(make, params, size * params.stack, interface.action_size).eval()
        try:
            network = _prepared(module, params, normalise, size).eval()
        except FAILURES as error:
            raise _failed(error, params.module, (3, size * params.stack)) from error
        _check_behaviour(network, params.module, size, interface.action_size)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise ConfigError(
                f"network {params.module}: parameter {name!r} is {parameter.dtype}; make it "
                "float32, as weights evolve, or freeze it (requires_grad=False)"
            )
    return network


def _prepared(
    module: nn.Module, params: NetworkParams, normalise: Normalise | None, size: int
) -> nn.Module:
    """The module with its memory, its stack of observations and its normalising."""
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            where = f"at {name!r} " if name else ""
            raise ConfigError(
                f"network {params.module} is {where}compiled by TorchScript, which cannot be "
                "traced; name the Python module it was compiled from"
            )
    if _is_lazy(module):
        module(torch.zeros(3, size * params.stack))
    remembering = recurrent(module, normalise, size, params.module) if keeps_state(module) else None
    if remembering is not None:
        if params.stack > 1:
            raise ConfigError(
                f"network {params.module} keeps a state of its own; leave out network.stack"
            )
        return remembering
    if params.stack > 1:
        return Stacked(module, normalise, size, params.stack)
    return module if normalise is None else nn.Sequential(normalise, module)


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
    except FAILURES as error:  # its own code failed, or ended the program
        raise ConfigError(
            f"network.module {path!r}: {module_name!r} failed while it was imported, with "
            f"{type(error).__name__}: {one_line(error)}"
        ) from error
    found = getattr(module, name, None)
    if found is None:
        classes = [n for n, v in vars(module).items() if _is_policy(v)]
        raise ConfigError(f"network.module {path!r}: no such class; {nearest(name, classes)}")
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


def _check_behaviour(network: nn.Module, path: str, observation_size: int, actions: int) -> None:
    """Run the network on a batch and on one row: shapes, dtype, and that a row stands for itself.

    What has no sound numbers is refused before what is not deterministic: NaN equals nothing.
    """
    kept = state_size(network)
    rows = torch.linspace(-1, 1, 3 * (observation_size + kept)).reshape(3, -1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    if undefined := [name for name, value in before.items() if value.isnan().any()]:
        raise ConfigError(
            f"network {path}: {undefined[0]!r} holds NaN when it is built; give it finite values"
        )
    given = rows.clone()
    first = _checked(network, path, given, observation_size, actions)
    second = _checked(network, path, given, observation_size, actions)
    alone = _checked(network, path, rows[:1].clone(), observation_size, actions)
    after = network.state_dict()
    moved = [name for name, value in before.items() if not torch.equal(value, after[name])]
    same = all(map(torch.equal, first, second))
    if not moved and not same and not torch.equal(given, rows):
        raise ConfigError(
            f"network {path} changes its input in place, so that a second call sees another; "
            "write to a copy: obs.clone()"
        )
    if moved or not same:
        what = f"its buffer {moved[0]!r} changed" if moved else "two equal calls differ"
        raise ConfigError(
            f"network {path} must be deterministic and keep no hidden state, but {what}; compute "
            "everything from the observation, or take (observation, state) and return (output, "
            "state)"
        )
    for whole, one in zip(first, alone, strict=True):
        if not torch.allclose(whole[:1], one, rtol=1e-4, atol=1e-5):
            raise ConfigError(
                f"network {path}: an observation's output depends on the others in its batch; "
                "normalise over features, not over the batch"
            )


def _checked(
    network: nn.Module, path: str, rows: Tensor, observation_size: int, actions: int
) -> tuple[Tensor, Tensor]:
    """What `_ask` gives, if it has the shapes and types that it must have, and no NaN."""
    count, kept = len(rows), rows.shape[1] - observation_size
    try:
        outputs, state = _ask(network, rows, observation_size)
    except FAILURES as error:
        raise _failed(error, path, (count, observation_size)) from error
    _check_output(outputs, path, (count, observation_size), actions)
    _check_state(state, path, (count, kept))
    if outputs.isnan().any() or state.isnan().any():
        raise ConfigError(
            f"network {path} gives NaN for observations of -1 to 1, with the weights that it is "
            "built with; keep log, sqrt and divisions to numbers for which they are defined"
        )
    return outputs.clone(), state.clone()


def _ask(network: nn.Module, rows: Tensor, observation_size: int) -> tuple[Any, Tensor]:
    """Output and state after one step from `[observations | state]` (n, size + state)."""
    obs, state = rows[:, :observation_size], rows[:, observation_size:]
    if not isinstance(network, Stateful):
        return network(obs), state
    outputs, after = network(obs, state)
    return outputs, after


def _failed(error: BaseException, path: str, shape: tuple[int, ...]) -> ConfigError:
    if isinstance(error, ConfigError):
        return error
    return ConfigError(
        f"network {path} fails on observations of shape {shape}: {type(error).__name__}: "
        f"{one_line(error)}"
    )


def _check_state(state: Tensor, path: str, shape: tuple[int, int]) -> None:
    if state.shape != shape or state.dtype != torch.float32:
        raise ConfigError(
            f"network {path} must return a state like the one it was given, {shape} float32 in "
            f"all, got {tuple(state.shape)} {state.dtype}"
        )


def _is_lazy(module: nn.Module) -> bool:
    """Whether its first call gives some layer its shape (`nn.LazyLinear` and its like)."""
    return any(is_lazy(p) for p in [*module.parameters(), *module.buffers()])


def _check_output(output: object, path: str, given: tuple[int, ...], action_size: int) -> None:
    shape = (given[0], action_size)
    if not isinstance(output, Tensor) or output.shape != shape:
        came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        remedy = f"make its last layer {action_size} wide"
        if not isinstance(output, Tensor):
            remedy = "return the tensor itself; actions are decoded from it"
        elif output.dim() < 2:
            remedy = "keep the batch: squeeze() without a dimension drops each that is 1 long"
        raise ConfigError(
            f"network {path} must return a tensor of shape {shape} for observations of shape "
            f"{given}, got {came}; {remedy}"
        )
    if output.dtype != torch.float32:
        raise ConfigError(
            f"network {path} must return float32, got {output.dtype}; cast its output"
        )
