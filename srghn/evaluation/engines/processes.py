"""The engine over a pool of worker processes on this machine.

Workers are started once and kept. Each has one shard at a time; one that dies or exceeds its
deadline is replaced, and its shard goes back on the board.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from functools import cached_property
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from srghn.config import EngineSettings, NetworkParams
from srghn.errors import EvaluationError, SrghnError
from srghn.evaluation.base import (
    Backend,
    Evaluation,
    Evaluator,
    Float32,
    Policies,
    Progress,
    WeightedPolicies,
    check_call,
    make_backend,
)
from srghn.evaluation.engines.shards import Board, Shard, Work
from srghn.evaluation.engines.worker import SINGLE_THREADED
from srghn.evaluation.task import Task

if TYPE_CHECKING:
    from srghn.envs.version import EnvVersion

#: Seconds a worker may take to import what it needs and say that it is there.
START_DEADLINE = 120.0
#: Workers in a row that may end before they are ready, before we stop trying.
FAILED_STARTS = 3


class WorkerProcess:
    """One worker: its process, its socket, and the shard it has."""

    def __init__(self, work: Work, message: bytes) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "srghn.evaluation.engines.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **SINGLE_THREADED, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self.connection = Connection(ours.detach())
        self.ready = False
        self.shard: Shard | None = None
        self.until = time.monotonic() + START_DEADLINE
        self._work = work
        self.connection.send_bytes(message)

    def send(self, work: Work, message: bytes, weights: Float32 | None) -> None:
        """Send its shard, and before the first one of another call the pickled work itself."""
        assert self.shard is not None
        if self._work is not work:
            self.connection.send_bytes(message)
            self._work = work
        self.connection.send((self.shard.indices, weights))

    def end(self) -> None:
        """Kill it: a worker has nothing to save."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


class ProcessEvaluator(Evaluator):
    """`settings.workers` processes (0: one a core), each with the named backend."""

    remote = True

    def __init__(
        self, settings: EngineSettings, backend: str, version: EnvVersion, network: NetworkParams
    ) -> None:
        self.count = settings.workers or len(os.sched_getaffinity(0))
        self.deadline = settings.shard_deadline
        self.backend, self.version, self.network = backend, version, network
        self.workers: list[WorkerProcess] = []
        self._failed_starts = 0

    def describe(self) -> str:
        return f"{self.backend}, {self.count} processes"

    def evaluate(
        self, policies: Policies, task: Task, progress: Progress | None = None
    ) -> Evaluation:
        check_call(self.version, self.network, policies, task)
        if not isinstance(policies, WeightedPolicies):  # callables need not pickle
            return self._local.evaluate(policies, task, progress)
        work = Work.of(self.backend, policies, task)
        board = Board.plan(policies, task.seeds, progress, self.count)
        message = pickle.dumps(work)
        try:
            while not board.finished:
                self._deal(work, message, board)
                self._collect(board)
        except BaseException:
            self.close()  # workers may still be busy with this call
            raise
        return board.result()

    @cached_property
    def _local(self) -> Backend:
        return make_backend(self.backend, self.version, self.network)

    def _deal(self, work: Work, message: bytes, board: Board) -> None:
        """Start missing workers, and give a waiting shard to each that is free."""
        while len(self.workers) < min(self.count, len(board.policies)):
            self.workers.append(WorkerProcess(work, message))
        for worker in list(self.workers):  # some may have died since the last call
            if board.waiting and worker.ready and worker.shard is None:
                worker.shard = board.waiting.popleft()
                worker.until = time.monotonic() + self.deadline
                try:
                    worker.send(work, message, board.weights(worker.shard))
                except OSError:
                    self._replace(worker, board, "its worker died before it began")

    def _collect(self, board: Board) -> None:
        """Wait until a worker answers, dies or exceeds its deadline."""
        waited_for = [w for w in self.workers if w.shard is not None or not w.ready]
        if not waited_for:  # all died; others are started before the next wait
            return
        patience = max(0.0, min(w.until for w in waited_for) - time.monotonic())
        answered = wait([w.connection for w in waited_for], timeout=patience)
        for worker in waited_for:
            if worker.connection in answered:
                self._receive(worker, board)
            elif time.monotonic() > worker.until:
                self._replace(worker, board, f"no answer within {self.deadline:g} s")

    def _receive(self, worker: WorkerProcess, board: Board) -> None:
        try:
            answer = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(worker, board, f"its worker ended with exit code {worker.process.wait()}")
            return
        if isinstance(answer, SrghnError):
            raise answer
        if not worker.ready and answer == "ready":
            worker.ready, self._failed_starts = True, 0
            return
        if worker.shard is None:
            self._replace(worker, board, str(answer))
            return
        shard, worker.shard = worker.shard, None
        if isinstance(answer, Exception):
            board.failed(shard, str(answer))
        else:
            board.done(shard, answer)

    def _replace(self, worker: WorkerProcess, board: Board, reason: str) -> None:
        """End a worker; its shard, if it had one, goes back on the board."""
        worker.end()
        self.workers.remove(worker)
        if worker.shard is not None:
            board.failed(worker.shard, reason)
        elif not worker.ready:
            self._failed_starts += 1
            if self._failed_starts == FAILED_STARTS:
                raise EvaluationError(
                    f"{FAILED_STARTS} worker processes in a row ended before they were ready "
                    f"({reason}); to see why, run "
                    f"`{sys.executable} -m srghn.evaluation.engines.worker 0`"
                )

    def close(self) -> None:
        for worker in self.workers:
            worker.end()
        self.workers.clear()
