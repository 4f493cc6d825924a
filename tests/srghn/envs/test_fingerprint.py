"""A world that changed under its name is caught, and what moved is named."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys

import gymnasium.envs.classic_control.cartpole as cartpole_module
import numpy as np
import pytest

from srghn.config import EnvParams
from srghn.envs import EnvVersion, diff, pin, verify
from srghn.envs.fingerprint import SEEDS, Behaviour, _coarse, first_difference, observe
from srghn.errors import EnvVersionError, FingerprintMismatch


@pytest.fixture
def pinned() -> EnvVersion:
    return pin(EnvParams(id="CartPoleSwitch-v1"))


def patch_cartpole(monkeypatch: pytest.MonkeyPatch, **constants: float) -> None:
    original = cartpole_module.CartPoleEnv.__init__

    def patched(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        original(self, *args, **kwargs)
        for name, value in constants.items():
            setattr(self, name, value)

    monkeypatch.setattr(cartpole_module.CartPoleEnv, "__init__", patched)


def test_the_same_world_verifies(pinned: EnvVersion) -> None:
    verify(pinned)


@pytest.mark.parametrize(
    ("name", "value"), [("gravity", 9.81), ("masspole", 0.1001), ("tau", 0.0201), ("length", 0.51)]
)
def test_a_patched_constant_is_named_with_its_first_step(
    name: str, value: float, pinned: EnvVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_cartpole(monkeypatch, **{name: value})
    with pytest.raises(FingerprintMismatch) as caught:
        verify(pinned)
    message = str(caught.value)
    assert pinned.fingerprint in message
    assert len(re.findall(r"\b[0-9a-f]{64}\b", message)) == 2
    assert "srghn env pin" in message
    for mode in ("normal", "flipped"):
        assert re.search(
            rf"behaviour\.{mode}: \w+ became \w+, first differing step: seed 0, step \d", message
        )
    assert "\n" not in message


def test_the_named_step_is_the_first_that_differs(
    pinned: EnvVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, reset = cartpole_module.CartPoleEnv.step, cartpole_module.CartPoleEnv.reset

    def counting_reset(self, **kwargs):  # type: ignore[no-untyped-def]
        self.count = 0
        return reset(self, **kwargs)

    def poorer_from_seven(self, action):  # type: ignore[no-untyped-def]
        observation, reward, *rest = step(self, action)
        self.count += 1
        return observation, reward * (0.5 if self.count >= 7 else 1.0), *rest

    monkeypatch.setattr(cartpole_module.CartPoleEnv, "reset", counting_reset)
    monkeypatch.setattr(cartpole_module.CartPoleEnv, "step", poorer_from_seven)
    moved = pin(EnvParams(id="CartPoleSwitch-v1"))
    for mode in moved.modes:
        assert first_difference(pinned.behaviour[mode], moved.behaviour[mode]) == (0, 7)


def test_an_upgraded_package_is_named_with_both_versions(
    pinned: EnvVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import metadata

    real = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "9.9.9" if name == "gymnasium" else real(name)
    )
    then = pinned.packages["gymnasium"]
    with pytest.raises(
        FingerprintMismatch, match=rf"packages.gymnasium: '{re.escape(then)}' became '9.9.9'"
    ):
        verify(pinned)


def test_diff_of_two_worlds_names_every_field(pinned: EnvVersion) -> None:
    other = pin(
        EnvParams.model_validate(
            {
                "id": "CartPoleSwitch-v1",
                "kwargs": {"max_episode_steps": 100},
                "schedule": [{"generation": 3, "mode": "flipped"}],
            }
        )
    )
    lines = diff(pinned, other)
    assert [line.split(":")[0].split(".")[0] for line in lines] == [
        "kwargs", "schedule", "max_episode_steps",
    ]  # fmt: skip
    assert "max_episode_steps: 500 became 100" in lines
    assert diff(pinned, pinned) == []


def test_first_difference_is_in_order_of_seed_and_step() -> None:
    a = Behaviour({"2": "a" * 24, "10": "b" * 24})
    assert first_difference(a, a) is None
    assert first_difference(a, Behaviour({"2": "a" * 24, "10": "b" * 16 + "c" * 8})) == (10, 2)
    assert first_difference(a, Behaviour({"2": "a" * 16, "10": "x" * 24})) == (2, 2)
    assert first_difference(a, Behaviour({"10": "b" * 24})) == (2, 0)


def test_the_last_bit_of_a_float_is_not_another_world() -> None:
    values = np.random.default_rng(0).standard_normal(20000).astype(np.float32)
    nudged = np.nextafter(values, np.float32(np.inf))
    changed = np.count_nonzero(_coarse(values) != _coarse(nudged))
    assert changed < len(values) / 50  # only where a rounding boundary lies between
    assert np.count_nonzero(_coarse(values) != _coarse(values * np.float32(1.0001))) > 19000
    np.testing.assert_array_equal(_coarse(np.float32([0.0])), _coarse(np.float32([-0.0])))


def test_a_tampered_digest_is_not_that_of_its_steps(pinned: EnvVersion) -> None:
    data = pinned.behaviour["normal"].to_dict()
    assert Behaviour.from_dict(data) == pinned.behaviour["normal"]
    with pytest.raises(ValueError, match="does not match its steps"):
        Behaviour.from_dict({**data, "digest": "0" * 64})


def test_observing_twice_gives_the_same_record(pinned: EnvVersion) -> None:
    worlds = [pinned.make("normal") for _ in range(6)]
    first, seen = observe(*worlds[:2], pinned.interface, "x")
    again, _ = observe(*worlds[2:4], pinned.interface, "x")
    assert first == again == pinned.behaviour["normal"]
    assert set(first.steps) == {str(seed) for seed in SEEDS}
    assert seen.shape == (sum(len(s) for s in first.steps.values()) // 8, 4)
    wrong = dataclasses.replace(pinned.interface, observation_size=5)
    with pytest.raises(EnvVersionError, match=r"\(4,\).*\(5,\)"):
        observe(*worlds[4:], wrong, "x")


@pytest.mark.parametrize("world", ["CartPoleSwitch-v1", "Pendulum-v1"])
def test_a_processor_with_other_vector_units_has_the_same_fingerprint(world: str) -> None:
    """NumPy's sine differs in the last bit between vector widths; a world does not."""
    from numpy._core._multiarray_umath import __cpu_dispatch__

    code = (
        "from srghn.config import EnvParams; from srghn.envs import pin\n"
        f"print(pin(EnvParams(id={world!r})).fingerprint)"
    )
    narrow = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(__cpu_dispatch__)}
    found = subprocess.run(
        [sys.executable, "-c", code], env=narrow, check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == pin(EnvParams(id=world)).fingerprint
