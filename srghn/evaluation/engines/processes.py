"""The engine over a pool of worker processes on this machine.

Workers are started once and kept. Each has one shard at a time; one that dies or exceeds its
deadline is replaced, and its shard goes back on the board. No single message waits long for a
worker that is stuck, and a worker that was dead before its shard came is no fault of the shard.
"""

from __future__ import annotations

import os
import pickle
import platform
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from srghn.config import EngineSettings, NetworkParams
from srghn.errors import EvaluationError, SrghnError, one_line
from srghn.evaluation.base import Evaluation, Progress, Remote, WeightedPolicies
from srghn.evaluation.engines.shards import Board, Shard, Shards, Work
from srghn.evaluation.engines.worker import HERE, READY, SINGLE_THREADED
from srghn.evaluation.task import Task

if TYPE_CHECKING:
    from srghn.envs.version import EnvVersion

#: Seconds a worker may take to import what it needs and say that it is here, and then to prepare.
START_DEADLINE = 120.0
#: Workers in a row that may end before they are ready, before we stop trying.
FAILED_STARTS = 3
#: Whole seconds within which a worker goes on taking, or giving, a message that has begun.
STALL = 10


class WorkerProcess:
    """One worker: its process, its socket, and the shard it has.

    ready   it may be given shards
    proven  it has answered one, or is from an earlier call: that it dies, or died in between, says
            nothing of how workers start, nor of a shard that it has not read
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", STALL, 0))
            self.process = subprocess.Popen(
                [sys.executable, "-m", "srghn.evaluation.engines.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **SINGLE_THREADED, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            self.connection = Connection(ours.detach())
        self.ready = self.proven = False
        self.shard: Shard | None = None
        self.until = time.monotonic() + START_DEADLINE
        self._work: Work | None = None

    def prepare(self, work: Work, message: bytes) -> None:
        """Send the pickled work, unless that is what it was sent last."""
        if self._work is not work:
            self.connection.send_bytes(message)
            self._work = work

    def exit_code(self) -> int:
        """That of a worker that hung up, which is about to end, or else is ended."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(STALL)
        self.process.kill()
        return self.process.wait()

    def end(self) -> None:
        """Kill it: a worker has nothing to save."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


class Pool:
    """Up to `count` workers, started when they are needed and kept from call to call."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.workers: list[WorkerProcess] = []
        self._failed_starts = 0
        self._work: Work | None = None
        self._message = b""

    def play(self, work: Work, board: Shards, deadline: float) -> None:
        """Play the board to its end; a shard may take `deadline` seconds.

        Raises what is a user's to mend, and `EvaluationError` where no worker starts.
        """
        if self._work is not work:
            self._work, self._message = work, pickle.dumps(work)
        for worker in self.workers:
            worker.proven = True
        try:
            while not board.finished:
                self._start(board)
                self._deal(work, board, deadline)
                self._collect(work, board, deadline)
        except BaseException:
            self.close()  # workers may still be busy with this call
            raise

    def _start(self, board: Shards) -> None:
        """Start missing workers."""
        while len(self.workers) < min(self.count, board.size):
            try:
                self.workers.append(WorkerProcess())
            except OSError as error:  # no memory, or no process or file more
                self._failed_start(one_line(error))

    def _deal(self, work: Work, board: Shards, deadline: float) -> None:
        """Give a waiting shard to each worker that is free."""
        for worker in list(self.workers):  # some may have died since the last call
            if board.waiting and worker.ready and worker.shard is None:
                worker.shard = board.waiting.popleft()
                worker.until = time.monotonic() + deadline
                try:
                    worker.prepare(work, self._message)
                    worker.connection.send((worker.shard.indices, board.weights(worker.shard)))
                except OSError:
                    self._replace(worker, board, "its worker died before it began", unread=True)

    def _collect(self, work: Work, board: Shards, deadline: float) -> None:
        """Wait until a worker answers, dies or exceeds its deadline."""
        waited_for = [w for w in self.workers if w.shard is not None or not w.ready]
        if not waited_for:  # all died; others are started before the next wait
            return
        patience = max(0.0, min(w.until for w in waited_for) - time.monotonic())
        answered = wait([w.connection for w in waited_for], timeout=patience)
        for worker in waited_for:
            if worker.connection in answered:
                self._receive(work, worker, board)
            elif time.monotonic() > worker.until:
                seconds = deadline if worker.ready else START_DEADLINE
                self._replace(worker, board, f"no answer within {seconds:g} s")

    def _receive(self, work: Work, worker: WorkerProcess, board: Shards) -> None:
        try:
            answer = worker.connection.recv()
        except (EOFError, OSError) as error:
            # a socket is reset, and not at its end, where the other side closed with bytes unread
            unread = isinstance(error, ConnectionResetError)
            reason = f"its worker ended with exit code {worker.exit_code()}"
            self._replace(worker, board, reason, unread)
            return
        if isinstance(answer, SrghnError):
            raise answer
        if worker.shard is None:
            self._welcome(work, worker, board, answer)
            return
        worker.proven = True
        shard, worker.shard = worker.shard, None
        if isinstance(answer, Exception):
            board.failed(shard, str(answer))
        else:
            board.done(shard, answer)

    def _welcome(self, work: Work, worker: WorkerProcess, board: Shards, answer: object) -> None:
        """Take a new worker's word: it is here, it is ready, or why it cannot be."""
        if answer == HERE:  # and only now reads what it is sent
            worker.until = time.monotonic() + START_DEADLINE
            try:
                worker.prepare(work, self._message)
            except OSError as error:
                self._replace(worker, board, one_line(error))
        elif answer == READY:
            worker.ready, self._failed_starts = True, 0
        else:
            self._replace(worker, board, str(answer))

    def _replace(
        self, worker: WorkerProcess, board: Shards, reason: str, unread: bool = False
    ) -> None:
        """End a worker; its shard, if it had one, goes back on the board.

        It is not the shard's failure if a worker had not read it, unless that has never been seen
        to work: else a shard that no worker can read would be dealt for ever.
        """
        worker.end()
        self.workers.remove(worker)
        if worker.shard is None:
            if not worker.proven:
                self._failed_start(reason)
        elif unread and worker.proven:
            board.waiting.appendleft(worker.shard)
        else:
            board.failed(worker.shard, reason)

    def _failed_start(self, reason: str) -> None:
        self._failed_starts += 1
        if self._failed_starts >= FAILED_STARTS:
            raise EvaluationError(
                f"{FAILED_STARTS} worker processes in a row ended before they were ready on "
                f"{platform.node()} ({reason}); to see why, run there "
                f"`{sys.executable} -c 'import srghn.evaluation.engines.worker'`"
            )

    def close(self) -> None:
        for worker in self.workers:
            worker.end()
        self.workers.clear()
        self._failed_starts = 0


class ProcessEvaluator(Remote):
    """`settings.workers` processes (0: one a core), each with the named backend."""

    def __init__(
        self, settings: EngineSettings, backend: str, version: EnvVersion, network: NetworkParams
    ) -> None:
        self.deadline = settings.shard_deadline
        self.backend, self.version, self.network = backend, version, network
        self._pool = Pool(settings.workers or len(os.sched_getaffinity(0)))

    @property
    def workers(self) -> list[WorkerProcess]:
        return self._pool.workers

    def describe(self) -> str:
        return f"{self.backend}, {self._pool.count} processes"

    def _elsewhere(
        self, policies: WeightedPolicies, task: Task, progress: Progress | None
    ) -> Evaluation:
        board = Board.plan(policies, task.seeds, progress, self._pool.count)
        self._pool.play(Work.of(self.backend, policies, task), board, self.deadline)
        return board.result()

    def close(self) -> None:
        self._pool.close()
