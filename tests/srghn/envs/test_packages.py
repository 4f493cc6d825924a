"""What computes an environment is found and recorded, whatever its id, and nothing else is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from srghn.config import EnvParams
from srghn.envs import EnvVersion, packages, pin, verify
from srghn.envs.packages import BASE_PACKAGES, computing
from srghn.errors import EnvVersionError, FingerprintMismatch

Write = Callable[..., None]

WORLD = """
import gymnasium as gym
import numpy as np
{top}

class World(gym.Env{base}):
    observation_space = gym.spaces.Box(-9.0, 9.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    max_episode_steps = 5
    render_mode = None
    {field}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        {reset}
        return np.zeros(1, np.float32), {{}}

    def step(self, action):
        if self.render_mode == "human":
            self._render_frame()
        return np.ones(1, np.float32), {step}, False, False, {{}}

    def render(self):
        return self._render_frame()

    def _render_frame(self):
        {render}

    def close(self):
        {close}
"""
ENGINE = """
class Body:
    def __init__(self):
        self.weight = 1.0

class Mixin:
    pass

def move():
    return 1.0
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes modules, and distributions named otherwise than their one module, to be imported."""
    caches = packages.named_like, packages.distributions, packages._by_package
    monkeypatch.syspath_prepend(str(tmp_path))
    written = set()

    def add(module: str, source: str, distribution: str = "", version: str = "1.0") -> None:
        (tmp_path / f"{module}.py").write_text(dedent(source))
        written.add(module)
        if distribution:
            info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
            info.mkdir(exist_ok=True)
            name = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
            (info / "METADATA").write_text(name)
            (info / "top_level.txt").write_text(f"{module}\n")
        importlib.invalidate_caches()
        for cached in caches:
            cached.cache_clear()

    yield add
    for module in written:
        sys.modules.pop(module, None)
    for cached in caches:
        cached.cache_clear()


def world(**parts: str) -> str:
    """The source of an environment with these parts."""
    base = {"top": "", "base": "", "field": "", "reset": "pass", "step": "1.0"}
    return WORLD.format(**{**base, "render": "return None", "close": "pass", **parts})


def played(name: str, **kwargs: Any) -> gym.Env[Any, Any]:
    env: gym.Env[Any, Any] = gym.make(name, disable_env_checker=True, **kwargs)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    return env


@pytest.mark.parametrize(
    ("name", "needs", "found"),
    [
        ("CartPole-v1", None, set()),
        ("FrozenLake-v1", None, set()),
        ("Pendulum-v1", None, set()),
        ("LunarLander-v3", "Box2D", {"box2d"}),
        ("BipedalWalker-v3", "Box2D", {"box2d"}),
        ("CarRacing-v3", "Box2D", {"box2d", "pygame"}),  # its observations are drawn
        ("Ant-v5", "mujoco", {"mujoco"}),
        ("HalfCheetah-v5", "mujoco", {"mujoco"}),
        ("Hopper-v5", "mujoco", {"mujoco"}),
    ],
)
def test_physics_counts_and_drawing_does_not(name: str, needs: str | None, found: set[str]) -> None:
    for module in filter(None, (needs, "pygame")):  # imported, as by any other environment
        pytest.importorskip(module)
    env = played(name)
    again = computing(env)
    assert again == computing(env)
    # distributions of one module have several names: box2d-py, pygame-ce
    assert {each.removesuffix("-py").removesuffix("-ce") for each in again} == found
    env.close()


@pytest.mark.parametrize(
    "parts",
    [
        {"top": "import engine", "step": "engine.move()"},
        {"top": "from engine import move", "step": "move()"},
        {"top": "from engine import move", "step": "sum(move() for _ in range(1))"},
        {"top": "import engine", "base": ", engine.Mixin"},
        {"top": "import engine", "field": "body = engine.Body()"},
        {"reset": "import engine; engine.move()"},
        {"reset": "self.bodies = {'a': [__import__('engine').Body()]}"},
        {"top": "import helping", "step": "helping.help()"},
        {"top": "from helping import Helper", "step": "Helper().help()"},
        {"top": "from helping import cached", "step": "cached()"},
        {"reset": "self.drawn = __import__('engine').Body()", "render": "import engine"},
    ],
)  # fmt: skip
def test_what_an_own_environment_stands_on_is_recorded(write: Write, parts: dict[str, str]) -> None:
    write("engine", ENGINE, "fast-engine")
    write(
        "helping",
        """
        import functools
        import engine

        class Helper:
            @staticmethod
            def help():
                return engine.move()

        def help():
            return engine.move()

        @functools.lru_cache
        def cached():
            return engine.move()
        """,
    )
    write("own_world", world(**parts))
    version = pin(EnvParams(id="own_world:World"))
    assert set(version.packages) == {*BASE_PACKAGES, "fast-engine"}
    assert version.packages["fast-engine"] == "1.0"
    verify(version)


@pytest.mark.parametrize(
    "parts",
    [
        {"top": "import engine"},
        {"top": "import engine", "render": "engine.move()", "close": "engine.move()"},
        {"render": "import engine", "close": "import engine"},
        {"top": "import engine", "field": "def look(self) -> 'engine.Body': return None"},
    ],
)
def test_a_package_that_only_draws_is_none_of_it(write: Write, parts: dict[str, str]) -> None:
    write("engine", ENGINE, "fast-engine")
    write("own_world", world(**parts))
    importlib.import_module("engine")
    assert set(pin(EnvParams(id="own_world:World")).packages) == set(BASE_PACKAGES)


def test_wrappers_of_a_package_are_recorded(write: Write) -> None:
    write("around", "import gymnasium\nclass Around(gymnasium.Wrapper): pass", "wraps-around")
    version = pin(EnvParams(id="CartPole-v1", wrappers=("around:Around",)))
    assert set(version.packages) == {*BASE_PACKAGES, "wraps-around"}


def test_what_a_wrapper_of_gymnasiums_imports_for_its_work_is_recorded(write: Write) -> None:
    write("cv2", "def resize(*_, **__): raise NotImplementedError\nINTER_AREA = 3", "opencv-python")
    env = gym.Env[Any, Any]()
    env.observation_space = gym.spaces.Box(0, 255, (4, 4, 3), np.uint8)
    resized = gym.wrappers.ResizeObservation(env, (2, 2))
    assert "opencv-python" in computing(resized)


def test_the_distribution_of_an_own_module_is_found_by_what_it_brings(write: Write) -> None:
    write("own_world", world(), "my-worlds", "0.3")
    assert pin(EnvParams(id="own_world:World")).packages["my-worlds"] == "0.3"


def test_objects_of_any_kind_are_looked_at_without_harm(write: Write) -> None:
    odd = """
    class Odd:
        def __getattribute__(self, name):
            raise RuntimeError("not yours")
        def __eq__(self, other):
            raise RuntimeError("not yours")
        __hash__ = None
    """
    ring = "self.odd, self.me, self.log = Odd(), self, __import__('logging').getLogger()"
    write("own_world", world(top=dedent(odd), reset=ring))
    assert set(pin(EnvParams(id="own_world:World")).packages) == set(BASE_PACKAGES)


def test_another_version_of_the_physics_is_told(write: Write) -> None:
    write("engine", ENGINE, "fast-engine")
    write("own_world", world(top="import engine", step="engine.move()"))
    version = pin(EnvParams(id="own_world:World"))
    write("engine", ENGINE, "fast-engine", "1.1")
    with pytest.raises(FingerprintMismatch, match=r"packages.fast-engine: '1.0' became '1.1'"):
        verify(version)
    assert pin(version.params).fingerprint != version.fingerprint


def older(version: EnvVersion) -> EnvVersion:
    """The version as an earlier release recorded it."""
    return replace(version, packages={name: version.packages[name] for name in BASE_PACKAGES})


def test_a_version_that_names_fewer_packages_is_still_verified(
    write: Write, tmp_path: Path
) -> None:
    write("engine", ENGINE, "fast-engine")
    write("own_world", world(top="import engine", step="engine.move()"))
    version = pin(EnvParams(id="own_world:World"))
    before = older(version)
    assert before.fingerprint != version.fingerprint
    verify(before)
    before.save(tmp_path / "before.json")
    with pytest.raises(FingerprintMismatch, match=r"EnvVersion.load\('.*before.json'\)"):
        version.check_not_fuller(tmp_path / "before.json")
    before.check_not_fuller(tmp_path / "before.json")
    write("engine", ENGINE.replace("1.0", "2.0"), "fast-engine", "2.0")
    sys.modules.pop("engine")
    sys.modules.pop("own_world")
    with pytest.raises(FingerprintMismatch, match=r"behaviour.normal: .* step 1"):
        verify(before)
    moved = replace(before, packages={**before.packages, "numpy": "0.1"})
    with pytest.raises(FingerprintMismatch, match=r"packages.numpy: '0.1' became"):
        verify(moved)


def test_packages_that_are_not_installed_as_pinned_are_named(write: Write) -> None:
    write("engine", ENGINE, "fast-engine")
    version = replace(pin("CartPole-v1"), packages={"fast-engine": "1.0"})
    version.check_installed()
    for name, wanted, found in (("fast-engine", "1.1", "1.0"), ("slow-engine", "2", "none")):
        other = replace(version, packages={name: wanted})
        with pytest.raises(FingerprintMismatch, match=f"{name} {wanted}, .* has {found}; install"):
            other.check_installed()


def test_a_missing_package_of_gymnasiums_own_is_told_in_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lacks(**_: Any) -> Any:
        raise gym.error.DependencyNotInstalled('run `pip install "gymnasium[fast]"`')

    monkeypatch.setitem(
        gym.registry, "Lacks-v0", gym.envs.registration.EnvSpec("Lacks-v0", entry_point=lacks)
    )
    with pytest.raises(EnvVersionError) as caught:
        pin("Lacks-v0")
    assert str(caught.value) == 'Lacks-v0 lacks a package: run `pip install "gymnasium[fast]"`'
