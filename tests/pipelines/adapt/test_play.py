"""Episodes that a diagnosis plays in the sandbox."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines.adapt.play import Played


class Interrupted:
    """An environment whose compiled code is interrupted, as numba tells it."""

    def reset(self, *, seed: int) -> Any:
        raise SystemError("a function returned a result with an exception set") from (
            KeyboardInterrupt()
        )

    def step(self, action: Any) -> Any:
        return self.reset(seed=action)


class Broken(Interrupted):
    def reset(self, *, seed: int) -> Any:
        raise SystemError("a world's own")


def test_an_interrupt_in_compiled_code_is_no_crash() -> None:
    episode = Played(at=0)
    with pytest.raises(KeyboardInterrupt):
        episode.begin(Interrupted(), 0)
    with pytest.raises(KeyboardInterrupt):
        episode.take(Interrupted(), np.array(0))
    assert not episode.over


def test_what_an_environment_raises_is_a_crash() -> None:
    episode = Played(at=0)
    assert episode.begin(Broken(), 0) is None
    assert (episode.total, episode.over) == (-np.inf, True)
