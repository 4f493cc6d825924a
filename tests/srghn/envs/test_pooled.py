"""EnvPool's worlds: other versions of the same names, where the extra is installed."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from srghn.config import EnvParams
from srghn.envs import default_cells, parse, pin, verify
from srghn.envs.packages import BASE_PACKAGES, named_like
from srghn.errors import ConfigError, EnvVersionError


def pooled(world: str) -> EnvParams:
    return EnvParams(id=world, backend="envpool")


@pytest.mark.parametrize("world", ["CartPoleSwitch-v1", "LunarLander-v3", "Ant-v5"])
def test_pooled_world_is_another_version_and_reproducible(world: str) -> None:
    pytest.importorskip("envpool", reason="needs srghn[envpool]", exc_type=ImportError)
    version = pin(pooled(world))
    verify(version)
    assert "envpool" in version.packages
    assets = set(named_like("envpool-assets"))  # a distribution of its own since 1.2
    assert set(version.packages) == {*BASE_PACKAGES, "envpool", *assets}
    assert version.fingerprint != pin(EnvParams(id=world)).fingerprint
    env = version.make(version.modes[-1])
    first, _ = env.reset(seed=7)
    other, _ = env.reset(seed=8)
    again, _ = env.reset(seed=7)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    names = {cell.name for cell in default_cells(version)}
    assert names == {"observation_noise", "action_drop"}
    with pytest.raises(ConfigError, match=r"known: observation_noise, .*action_delay, action_drop"):
        version.make(version.modes[0], parse("gravity:1.1"))


def test_missing_envpool_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    real = metadata.version

    def without(name: str) -> str:
        if name == "envpool":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", without)
    with pytest.raises(EnvVersionError, match=r"envpool.*pip install 'srghn\[envpool\]'"):
        pin(pooled("LunarLander-v3"))
    monkeypatch.undo()
    monkeypatch.setattr(metadata, "version", lambda n: "1" if n == "envpool" else real(n))
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(EnvVersionError, match=r"pip install 'srghn\[envpool\]'"):
        pin(pooled("LunarLander-v3"))


def test_a_world_that_envpool_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda n: "1" if n == "envpool" else real(n))
    with pytest.raises(
        EnvVersionError, match=r"does not run on backend envpool.*env\.backend=gymnasium"
    ):
        pin(pooled("Pendulum-v1"))
