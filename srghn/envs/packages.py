"""Which packages compute an environment: found from what it is made of, not from a list of ids.

Two sources say it, and neither depends on what else a process imported: the objects that a played
environment holds, and the names that its own code uses. A package that only draws is imported, but
not held, and not used outside of `render`; so it does not count.
"""

from __future__ import annotations

import dis
import inspect
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, cached_property
from importlib import metadata
from types import CodeType, FunctionType, ModuleType
from typing import Any

import gymnasium as gym

from srghn.errors import FAILURES
from srghn.start import OURS

#: Recorded of every environment.
BASE_PACKAGES = ("gymnasium", "numpy")
#: Import names that are not of an environment's own code; '' is that of what has no module.
KNOWN = {*BASE_PACKAGES, *sys.stdlib_module_names, "srghn", *OURS, ""}
#: Objects that are looked at, nearest first: a large environment repeats its classes.
MOST = 10_000
PLAIN = (str, bytes, int, float, complex, type(None))


def computing(env: gym.Env[Any, Any]) -> set[str]:
    """The distributions that compute an environment, which was played; not gymnasium and numpy.

    They are those of all classes in it, in its wrappers and in what these hold, and those that its
    own code names: the code of the packages of environment and wrappers, and any that no
    distribution brings. Of gymnasium's code only the classes of environment and wrappers are read.
    """
    waiting = _held(env)
    layers = {kind for each in waiting if _is(each, gym.Env) for kind in type(each).__mro__}
    own = {_top(kind) for kind in layers} - KNOWN

    def is_own(top: str) -> bool:
        return top in own or (top not in KNOWN and not distributions(top))

    tops: set[str] = set()
    done: dict[int, Any] = {}  # keeps them, so that no other object gets the same identity
    while waiting:
        value = waiting.pop()
        if id(value) in done:
            continue
        done[id(value)] = value
        tops.add(top := _top(value))
        waiting += value.__mro__ if _is(value, type) else type(value).__mro__
        if is_own(top) or (top == "gymnasium" and _is(value, type) and value in layers):
            waiting += vars(value).values() if _is(value, type) else ()
            for function in _functions(value):
                waiting += _used(function, is_own)
                tops |= {_first(name) for code in _codes(function) for name in _imports(code)}
    return {_canonical(name) for top in tops - KNOWN for name in distributions(top)}


def versions(names: Iterable[str], besides: Mapping[str, str]) -> dict[str, str]:
    """Distribution -> version of those that `besides` does not name in another spelling."""
    known = {_canonical(name) for name in besides}
    return {name: metadata.version(name) for name in sorted(set(names) - known)}


@cache
def named_like(package: str) -> tuple[str, ...]:
    """The distribution that has the import package's name, if it is installed as one."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return ()
    return () if package in BASE_PACKAGES else (package,)


@cache
def distributions(module: str) -> tuple[str, ...]:
    """The distributions that an import package comes from, whatever their names."""
    package = _first(module)
    return named_like(package) or tuple(
        sorted(set(_by_package().get(package, ())) - set(BASE_PACKAGES))
    )


@cache
def _by_package() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _first(module: str) -> str:
    return module.partition(".")[0]


def _top(value: Any) -> str:
    """The import package that a class, a function or an object's class is of; '' for none."""
    if _is(value, ModuleType):
        return _first(value.__name__)
    for each in (value, type(value)):
        if isinstance(module := _tried(getattr, each, "__module__"), str):
            return _first(module)
    return ""


def _is(value: Any, *kinds: type) -> bool:
    """`isinstance`, without asking the value itself, which may be a proxy."""
    return issubclass(type(value), kinds)


def _tried(read: Callable[..., Any], *given: Any) -> Any:
    """What is read from an object, which may be of any kind; None where that raises."""
    try:
        return read(*given)
    except FAILURES:
        return None


def _held(env: gym.Env[Any, Any]) -> list[Any]:
    """The environment, its wrappers and all that they hold, in attributes and containers."""
    found: dict[int, Any] = {}
    waiting: deque[Any] = deque([env])
    while isinstance(env, gym.Wrapper):
        waiting.append(env := env.env)
    while waiting and len(found) < MOST:
        value = waiting.popleft()
        if id(value) not in found and not _is(value, *PLAIN):
            found[id(value)] = value
            waiting.extend(_tried(_inside, value) or ())
    return list(found.values())


def _inside(value: Any) -> list[Any]:
    if _is(value, list, tuple, deque):
        return list(value)
    if _is(value, dict):
        return list(value.values())
    # a logger leads to all that there is in the process; what ours hold is recorded by name
    top = _top(value)
    if _is(value, type, ModuleType) or (top in KNOWN and top != "gymnasium"):
        return []
    return list(vars(value).values())


def _functions(value: Any) -> Iterator[FunctionType]:
    """The functions of a class, or the one that is given, but for those that draw."""
    for member in vars(value).values() if _is(value, type) else (value,):
        inner = {property: "fget", cached_property: "func"}.get(type(member))
        function = _tried(inspect.unwrap, getattr(member, inner) if inner else member)
        if isinstance(function, FunctionType) and not _draws(function.__name__):
            yield function


def _draws(name: str) -> bool:
    """Whether a function is one of Gymnasium's own for drawing, or a part of one by its name."""
    return name == "close" or "render" in name


def _codes(function: FunctionType) -> Iterator[CodeType]:
    """The code of a function and of those written inside it."""
    waiting = [function.__code__]
    while waiting:
        yield (code := waiting.pop())
        waiting += (each for each in code.co_consts if isinstance(each, CodeType))


@cache
def _imports(code: CodeType) -> frozenset[str]:
    """Modules that a function itself imports, by their whole names; relative ones are left out."""
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    return frozenset(
        str(step.argval)
        for level, _, step in zip(steps, steps[1:], steps[2:], strict=False)
        if step.opname == "IMPORT_NAME" and level.argval == 0
    )


def _used(function: FunctionType, is_own: Callable[[str], bool]) -> Iterator[Any]:
    """What a function's global names stand for, and what it takes from modules of its own."""
    names = {name for code in _codes(function) for name in code.co_names}
    scope = function.__globals__
    for name in names & scope.keys():
        yield (value := scope[name])
        if _is(value, ModuleType) and is_own(_top(value)):
            yield from (vars(value)[each] for each in names & vars(value).keys())
