"""The registered environments, Gymnasium's own by id, and users' own by import path."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from inspect import cleandoc
from typing import Any

import gymnasium as gym
from gymnasium.wrappers import TimeLimit

from srghn.envs import worlds
from srghn.envs.packages import BASE_PACKAGES, distributions, named_like
from srghn.errors import FAILURES, EnvVersionError, one_line
from srghn.start import OURS
from srghn.suites import shipped

HISTORY = "## version history"
#: The end of a Gymnasium id.
VERSIONED = re.compile(r"-v\d+\Z")


@dataclass(frozen=True)
class WorldSpec:
    """How an environment is built, and what is known of it before that.

    `build(mode, **kwargs)` gives the native environment. `packages` are the distributions that its
    id names (those that compute it are found at the pin), `extra` is the dependency group that it
    needs. `dynamics` maps the name of a perturbation to a function of (unwrapped environment,
    factor); `suite` names the file of what a gate plays where nobody chose another. `pooled` worlds
    also run on EnvPool, which brings its own physics. `scale` gives, for a time limit in steps, the
    range of returns and the highest return of a failed episode.
    """

    id: str
    build: Callable[..., worlds.Env]
    modes: tuple[str, ...] = ("normal",)
    packages: tuple[str, ...] = ()
    extra: str | None = None
    dynamics: worlds.Dynamics = field(default_factory=dict)
    suite: str = "anywhere"
    doc: str = ""
    pooled: bool = False
    scale: Callable[[int], worlds.Scale] | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """The suite's perturbations, as text, mild severities first."""
        return tuple(
            f"{cell.perturbation}:{severity:g}"
            for cell in shipped(self.suite).cells
            for severity in cell.severities
        )

    @property
    def history(self) -> str:
        """The section 'Version history' of the world's docstring; '' where it has none."""
        text = cleandoc(self.doc or self.build.__doc__ or "")
        start = text.lower().find(HISTORY)
        return text[start + len(HISTORY) :].split("\n##")[0].strip() if start >= 0 else ""

    def moving_packages(self, backend: str) -> dict[str, str]:
        """Distribution -> version, as far as known before it is played.

        Raises `EnvVersionError` naming the extra that brings what is missing.
        """
        own, extra = self.packages, None
        if backend == "envpool":  # the files that describe its bodies are a distribution of late
            own, extra = ("envpool", *named_like("envpool-assets")), "envpool"
        found = {}
        for name in (*BASE_PACKAGES, *own):
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError as error:
                raise self.missing(name, extra) from error
        return found

    def missing(self, what: str, extra: str | None = None) -> EnvVersionError:
        """The error for a package that this environment needs and that is not installed."""
        group = extra or self.extra
        command = f"pip install 'srghn[{group}]'" if group else f"pip install {what}"
        return EnvVersionError(f"{self.id} needs {what}, which is not installed: {command}")


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


_CARTPOLE: dict[str, Any] = {
    "dynamics": worlds.CARTPOLE,
    "suite": "cartpole",
    "pooled": True,
    "scale": worlds.cartpole_scale,
}
_LUNAR_LANDER: dict[str, Any] = {
    "extra": "box2d",
    "dynamics": worlds.LUNAR_LANDER,
    "suite": "lunar_lander",
    "pooled": True,
    "scale": worlds.lunar_lander_scale,
}
_ANT: dict[str, Any] = {
    "extra": "mujoco",
    "dynamics": worlds.ANT,
    "suite": "ant",
    "pooled": True,
    "scale": worlds.ant_scale,
}
_SPECS = (
    WorldSpec("CartPole-v1", worlds.cartpole, **_CARTPOLE),
    WorldSpec("CartPoleSwitch-v1", worlds.cartpole_switch, ("normal", "flipped"), **_CARTPOLE),
    WorldSpec("CartPoleRewired-v1", worlds.cartpole_rewired, _numbers(64), **_CARTPOLE),
    WorldSpec("LunarLander-v3", worlds.lunar_lander, **_LUNAR_LANDER),
    WorldSpec(
        "LunarLanderSwitch-v3", worlds.lunar_lander_switch, ("normal", "reversed"), **_LUNAR_LANDER
    ),
    WorldSpec("LunarLanderRewired-v3", worlds.lunar_lander_rewired, _numbers(12), **_LUNAR_LANDER),
    WorldSpec("Ant-v5", worlds.ant, **_ANT),
)


def registered() -> dict[str, WorldSpec]:
    """Every environment that comes with srghn, by id."""
    return {spec.id: spec for spec in _SPECS}


def find(world: str) -> WorldSpec:
    """The spec of a registered id, an id of Gymnasium's, `package:Id-v0`, or `module:Class`.

    `package:Id-v0` is Gymnasium's own form: the package is imported, and registers the id; it is
    pinned with the world. What `module:Class` names is called with the kwargs and gives a
    `gymnasium.Env`. It may carry three attributes: `modes` (names; it is then also given `mode=`),
    `perturbations` (as `WorldSpec.dynamics`) and `max_episode_steps`. Raises `EnvVersionError` that
    guesses what was meant.
    """
    known = registered()
    if world in known:
        return known[world]
    module, sign, name = world.partition(":")
    if sign and VERSIONED.search(name):
        return _of_package(world, module, name)
    if sign:
        return _imported(world)
    if world in gym.registry:
        return WorldSpec(world, lambda mode, **kwargs: worlds.make(world, **kwargs))
    raise EnvVersionError(_unknown(world, list(known)))


def _of_package(world: str, module: str, name: str) -> WorldSpec:
    load_module(module, "environment", world)
    if name not in gym.registry:
        here = [i for i, spec in gym.registry.items() if _root(spec) == module.partition(".")[0]]
        near = difflib.get_close_matches(name, here, n=1)
        hint = f"did you mean {module}:{near[0]}?" if near else f"it registers {len(here)} ids"
        raise EnvVersionError(f"environment {world!r}: {module} registers no {name!r}; {hint}")
    packages = {p: None for r in (module, _root(gym.registry[name])) for p in distributions(r)}
    doc = getattr(_entry(name), "__doc__", None) or ""
    return WorldSpec(
        world, lambda mode, **kwargs: worlds.make(name, **kwargs), packages=tuple(packages), doc=doc
    )


def _root(spec: Any) -> str:
    """The import package that a registered environment is made by."""
    entry = spec.entry_point
    module = entry if isinstance(entry, str) else getattr(entry, "__module__", "")
    return str(module).partition(":")[0].partition(".")[0]


def _entry(name: str) -> Any:
    """The class behind a registered id, or None where it cannot be imported."""
    entry = gym.registry[name].entry_point
    if not isinstance(entry, str):
        return entry
    module, _, attribute = entry.partition(":")
    try:
        return getattr(import_module(module), attribute, None)
    except FAILURES:  # building it will say why
        return None


def _imported(path: str) -> WorldSpec:
    target = load_object(path, "environment")
    modes = _modes(target, path)
    own_limit = getattr(target, "max_episode_steps", None)

    def build(mode: str, *, max_episode_steps: int | None = None, **kwargs: Any) -> worlds.Env:
        env: worlds.Env = target(**kwargs, mode=mode) if modes else target(**kwargs)
        limit = max_episode_steps or (own_limit if isinstance(own_limit, int) else None)
        return TimeLimit(env, limit) if limit else env

    return WorldSpec(
        path,
        build,
        modes or ("normal",),
        packages=named_like(path.partition(":")[0].partition(".")[0]),
        dynamics=getattr(target, "perturbations", {}),
        doc=target.__doc__ or "",
    )


def _modes(target: Any, path: str) -> tuple[str, ...]:
    """The names in an environment's attribute `modes`; raises `EnvVersionError` for any other."""
    given: Any = getattr(target, "modes", ())
    ordered = isinstance(given, Sequence | Mapping) and not isinstance(given, str)
    names = tuple(given) if ordered else ()
    named = all(name and isinstance(name, str) for name in names)
    if ordered and named and len(set(names)) == len(names):
        return names
    want = f"({given!r},)" if isinstance(given, str) else "('calm', 'windy')"
    raise EnvVersionError(
        f"environment {path!r}: modes must be a tuple of different names, such as {want}, got "
        f"{given!r}"
    )


def load_module(module_name: str, what: str, path: str) -> Any:
    """Import a module that a path names; raises `EnvVersionError` in one line."""
    try:
        return import_module(module_name)
    except FAILURES as error:
        raise EnvVersionError(
            f"cannot import {module_name!r} for {what} {path!r}: {one_line(error)}; "
            + (_taken(module_name) or "install it, or add its folder to PYTHONPATH")
        ) from error


def load_object(path: str, what: str) -> Any:
    """What an import path `module:name` names; raises `EnvVersionError` with the nearest name."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise EnvVersionError(f"{what} {path!r} is not an import path of the form module:name")
    module = load_module(module_name, what, path)
    if not hasattr(module, name):
        if taken := _taken(module_name):
            raise EnvVersionError(f"{what} {path!r}: {module_name} has no {name!r}; {taken}")
        near = difflib.get_close_matches(name, dir(module), n=1)
        hint = f"did you mean {module_name}:{near[0]}?" if near else "check the spelling"
        raise EnvVersionError(f"{what} {path!r}: {module_name} has no {name!r}; {hint}")
    return getattr(module, name)


def _taken(module_name: str) -> str | None:
    """What to do where a module has the name of one of our own packages, which are found first."""
    top = module_name.partition(".")[0]
    if top not in OURS:
        return None
    return f"srghn has a package {top!r} of its own, which is found first; rename yours"


def _unknown(world: str, known: list[str]) -> str:
    ids = [*known, *gym.registry]
    same = [i for i in ids if _base(i) == _base(world)]
    near = same[:1] or difflib.get_close_matches(world, ids, n=1)
    module, dot, name = world.rpartition(".")
    if not near and dot and all(part.isidentifier() for part in [*module.split("."), name]):
        near = [f"{module}:{name}"]
    elif not near and "/" in world:  # a namespace, which the package registers that brings it
        near = [f"PACKAGE:{world}"]
    hint = f"did you mean {near[0]}? " if near else ""
    return (
        f"unknown environment {world!r}; {hint}Registered: {', '.join(known)}; any other by its "
        "Gymnasium id, as package:Id-v0, or by import path module:Class"
    )


def _base(world: str) -> str:
    return world.lower().rpartition("-v")[0] or world.lower()
