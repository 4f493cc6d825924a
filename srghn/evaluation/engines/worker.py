"""What runs in a worker: play a shard, answer with its returns.

As a program (`python -m srghn.evaluation.engines.worker FD`) it serves a `ProcessEvaluator`
through an inherited socket and ends when that goes away.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, TypeVar

from srghn.errors import SrghnError
from srghn.evaluation.base import Evaluation, Float32, Int64, WeightedPolicies, make_backend
from srghn.evaluation.policies.forward import describe

if TYPE_CHECKING:
    from srghn.evaluation.base import Backend
    from srghn.evaluation.engines.shards import Work

Answer = TypeVar("Answer")

#: What a worker says when it has imported what it needs, and when it has prepared.
HERE, READY = "here", "ready"
#: One thread a worker: there are as many workers as cores, and sums must not depend on threads.
SINGLE_THREADED = {
    name: "1"
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
}


class Player:
    """Keeps the backend, with its environments and compiled code, from call to call."""

    def __init__(self) -> None:
        self._key: tuple[str, ...] = ()
        self._backend: Backend | None = None

    def play(self, work: Work, indices: Int64, weights: Float32 | None) -> Evaluation:
        """Those individuals' episodes; weights are rebuilt from the recipe where none came."""
        if weights is None:
            assert work.recipe is not None
            weights = work.recipe.rebuild(indices)
        policies = WeightedPolicies(work.network, work.interface, weights)
        return self.prepare(work).evaluate(policies, work.task)

    def prepare(self, work: Work) -> Backend:
        """The backend for that work, made unless the last one fits.

        Raises `FingerprintMismatch` where a worker's packages are not those of the environment.
        """
        key = (work.backend, work.task.version.fingerprint, work.network.model_dump_json())
        if self._backend is None or key != self._key:
            if self._backend is not None:
                self._backend.close()
                self._backend = None
            work.task.version.check_installed()
            self._backend = make_backend(work.backend, work.task.version, work.network)
            self._key = key
        return self._backend


def serve(connection: Connection) -> None:
    """Answer until the other side hangs up.

    It says `HERE` first. The first message is the `Work`, answered by `READY`; a `Work` that comes
    later replaces it. Any other message is (indices, weights), answered by their `Evaluation` or by
    what went wrong.
    """
    connection.send(HERE)
    player, work = Player(), connection.recv()
    failure = _attempt(partial(player.prepare, work))
    connection.send(failure if isinstance(failure, Exception) else READY)
    while True:
        message = connection.recv()
        if isinstance(message, tuple):
            played = partial(player.play, work, *message)
            connection.send(_attempt(played))
        else:
            work = message


def _attempt(action: Callable[[], Answer]) -> Answer | Exception:
    """The action's result, or its error: user errors as they are, all others as text."""
    try:
        return action()
    except SrghnError as error:
        return error
    except Exception as error:  # noqa: BLE001 - anyone's code runs here; the shard is tried again
        return RuntimeError(describe(error))


def _end_with_parent(parent: int) -> None:
    """A parent that was killed cannot hang up while we play: look for it once a second."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    with suppress(EOFError):  # the other side hung up
        serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
