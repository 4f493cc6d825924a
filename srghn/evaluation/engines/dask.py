"""The engine over a Dask cluster, by the scheduler's address.

A Dask worker plays its shards in a process of its own, as the process pool does: an individual that
ends or hangs it costs that process and not the Dask worker, and its shard comes back as failed. If
a Dask worker itself is lost, Dask plays its shards elsewhere.
"""

from __future__ import annotations

import atexit
import pickle
import threading
from collections.abc import Collection
from concurrent.futures import CancelledError
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import distributed
from distributed.comm.addressing import get_address_host_port

from srghn.config import EngineSettings, NetworkParams
from srghn.errors import ConfigError, ServiceError, SrghnError
from srghn.evaluation.base import (
    Evaluation,
    Float32,
    Int64,
    Progress,
    Remote,
    WeightedPolicies,
)
from srghn.evaluation.engines.processes import Pool
from srghn.evaluation.engines.shards import Alone, Board, Shard, Work
from srghn.evaluation.task import Task

if TYPE_CHECKING:
    from srghn.envs.version import EnvVersion

# distributed is only partly typed
Client: Any = distributed.Client
Future = Any
wait: Any = distributed.wait

#: Seconds to wait for the scheduler, and for a first or another worker.
PATIENCE = 60.0


class DaskEvaluator(Remote):
    """Every worker of the cluster at `settings.dask_address`, each with the named backend.

    Workers need this package installed, and one thread each: `dask worker ADDRESS --nthreads 1`.
    """

    def __init__(
        self, settings: EngineSettings, backend: str, version: EnvVersion, network: NetworkParams
    ) -> None:
        if not settings.dask_address:
            raise ConfigError(
                "the engine 'dask' needs a scheduler's address, got none; start `dask scheduler` "
                "and set SRGHN_DASK_ADDRESS=tcp://HOST:8786"
            )
        self.address, self.deadline = settings.dask_address, settings.shard_deadline
        self.backend, self.version, self.network = backend, version, network

    def describe(self) -> str:
        return f"{self.backend}, Dask at {self.address}"

    @cached_property
    def client(self) -> Any:
        try:
            get_address_host_port(self.address, strict=True)  # a client that fails may hang later
            return Client(self.address, timeout=PATIENCE, set_as_default=False)
        except ValueError as error:
            raise ConfigError(
                f"SRGHN_DASK_ADDRESS must be like tcp://HOST:8786, got {self.address!r}: {error}"
            ) from error
        except (OSError, TimeoutError) as error:
            raise ServiceError(
                f"no Dask scheduler answers at {self.address} ({error}); start `dask scheduler`, "
                "or set SRGHN_DASK_ADDRESS to the one that runs"
            ) from error

    def _elsewhere(
        self, policies: WeightedPolicies, task: Task, progress: Progress | None
    ) -> Evaluation:
        try:
            return self._evaluate(policies, task, progress)
        except (CancelledError, OSError) as error:
            self.close()
            raise ServiceError(
                f"the Dask scheduler at {self.address} went away ({type(error).__name__}); start "
                "it and its workers again, then the run: it resumes from its last checkpoint"
            ) from error

    def _evaluate(
        self, policies: WeightedPolicies, task: Task, progress: Progress | None
    ) -> Evaluation:
        free = self._workers()
        board = Board.plan(policies, task.seeds, progress, len(free))
        work = Work.of(self.backend, policies, task)
        # a task of its own, so that each worker is sent the work once and a lost copy is remade
        shared = self.client.submit(pickle.loads, pickle.dumps(work), pure=False)
        running: dict[Future, tuple[Shard, str]] = {}
        done: list[Future] = []
        try:
            while not board.finished:
                while board.waiting and free:
                    shard, worker = board.waiting.popleft(), free.pop()
                    running[self._submit(shared, board, shard, worker)] = shard, worker
                # let go only now: Dask holds back for 10 ms what is to be sent after such a message
                done.clear()
                done += self._first(running)
                free += [self._take(future, running, board) for future in done]
        finally:
            self.client.cancel([shared, *running])
        return board.result()

    def _workers(self) -> list[str]:
        """The addresses of those there are now; waits for a first one."""
        while True:
            try:
                self.client.wait_for_workers(1, timeout=PATIENCE)
            except TimeoutError as error:
                raise ServiceError(
                    f"the Dask scheduler at {self.address} has had no worker for {PATIENCE:g} s; "
                    f"start one: dask worker {self.address} --nthreads 1"
                ) from error
            if found := list(self.client.nthreads()):  # the only one may have left since
                return found

    def _submit(self, shared: Future, board: Board, shard: Shard, worker: str) -> Future:
        """Left to Dask, shards would gather where the work's data lies."""
        return self.client.submit(
            _play, shared, shard.indices, board.weights(shard), self.deadline,
            workers=[worker], allow_other_workers=True, pure=False,
        )  # fmt: skip

    def _first(self, running: Collection[Future]) -> list[Future]:
        """The shards that came back, at least one."""
        while True:
            try:
                with self.client.as_current():
                    return list(wait(list(running), PATIENCE, "FIRST_COMPLETED").done)
            except TimeoutError:
                self._workers()

    def _take(self, future: Future, running: dict[Future, tuple[Shard, str]], board: Board) -> str:
        """Put a shard's answer, or its lack, on the board; the worker that it was dealt to."""
        shard, worker = running.pop(future)
        error = future.exception() if future.status == "error" else None
        if isinstance(error, SrghnError):
            raise error
        if isinstance(error, ImportError):  # a world's own would be its episode's crash
            raise ServiceError(
                f"a worker of {self.address} cannot read its task ({error}); install this version "
                "of srghn with its extra 'dask' there, and your environment's package"
            ) from error
        if error is not None:
            board.failed(shard, f"{type(error).__name__}: {error}")
        elif future.status != "finished":
            board.failed(shard, f"Dask calls it {future.status}")
        elif isinstance(answer := future.result(), str):
            board.failed(shard, answer)
        else:
            board.done(shard, answer)
        return worker

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()
            del self.client


def _play(work: Work, indices: Int64, weights: Float32 | None, deadline: float) -> Evaluation | str:
    """One shard, on a Dask worker: its result, or why it has none."""
    board = Alone(indices, weights)
    with _playing:
        _pool().play(work, board, deadline)
    assert board.answer is not None
    return board.answer


@lru_cache(maxsize=1)
def _pool() -> Pool:
    """The one process of this Dask worker, kept from shard to shard; it ends with the worker."""
    pool = Pool(1)
    atexit.register(pool.close)
    return pool


#: A Dask worker with several threads still plays one shard at a time.
_playing = threading.Lock()
