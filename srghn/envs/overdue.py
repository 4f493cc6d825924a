"""Says which call of an environment has not returned: one that hangs is told from one that is slow.

Nothing ends such a call, which runs in this process: a person can, who knows which it is. Native
code that keeps Python's lock while it hangs cannot be told of.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import gymnasium as gym

#: A call that takes longer is named, and again whenever it has taken twice as long. If it is all
#: calls together that do, their pace is told in the same way.
SECONDS = 10.0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


class Overdue:
    """While it is entered, a thread looks at how long the call that runs has taken.

    It writes to stderr, and ends when this is left.
    """

    def __init__(
        self, name: str, seconds: float | None = None, say: Callable[[str], None] = _say
    ) -> None:
        self._name, self._seconds, self._say = name, seconds or SECONDS, say
        self._now: tuple[str, float] | None = None
        self._done, self._most = 0, 0
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._look, name="srghn-overdue", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()

    def expect(self, calls: int) -> None:
        """How many calls there will be at most; their pace is told where these take long."""
        self._most = calls

    @contextmanager
    def during(self, call: str) -> Iterator[None]:
        """Name what runs inside."""
        self._now = (call, time.monotonic())
        try:
            yield
        finally:
            self._now = None
            self._done += 1

    def watched(self, env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        """The environment, whose resets and steps are named by seed and number."""
        return _Watched(env, self)

    def _look(self) -> None:
        told, after = None, self._seconds
        begun, pace_after = time.monotonic(), self._seconds
        while not self._left.wait(self._seconds / 20):
            now, spent = self._now, time.monotonic() - begun
            alone = now is not None and time.monotonic() - now[1] >= self._seconds
            if self._done < self._most and spent >= pace_after and not alone:
                self._say(
                    f"{self._name}: {self._done} of at most {self._most} calls of the environment "
                    f"in {spent:.0f} s"
                )
                pace_after = 2 * spent
            if now is None:
                continue
            if now is not told:
                after = self._seconds
            took = time.monotonic() - now[1]
            if took >= after:
                self._say(
                    f"{self._name}: {now[0]} has not returned for {took:.0f} s; this goes on until "
                    "it does, or until you press Ctrl-C"
                )
                told, after = now, 2 * took


class _Watched(gym.Wrapper[Any, Any, Any, Any]):
    def __init__(self, env: gym.Env[Any, Any], overdue: Overdue) -> None:
        super().__init__(env)
        self._overdue = overdue
        self._reset, self._step = "", 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._reset, self._step = f"reset(seed={seed})", 0
        with self._overdue.during(self._reset):
            return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self._step += 1
        with self._overdue.during(f"step {self._step} after {self._reset}"):
            return self.env.step(action)
