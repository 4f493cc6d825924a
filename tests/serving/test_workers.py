"""Several workers: one that is stuck is replaced, one that is slow or told to stop is not."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import workers
from serving.client import Client
from tests.serving.test_serving_process import RIGHT, begun, ready, wait_for

pytestmark = pytest.mark.services

BODY = b'{"observation": [0, 0, 1, 0]}'


class Server:
    """A server with two workers, of which one that is silent for 2 seconds is stuck."""

    def __init__(self, home: Any, url: str, parent: int) -> None:
        self.url, self.parent, self._home = url, parent, home

    @property
    def workers(self) -> set[int]:
        children = Path(f"/proc/{self.parent}/task/{self.parent}/children").read_text()
        return {int(pid) for pid in children.split()}

    @property
    def log(self) -> str:
        return str((self._home.settings.home / "server.log").read_text())

    def began(self) -> bool:
        return self.log.count("serving version 1") == 2

    def half(self) -> socket.socket:
        """A connection that has sent half of `BODY`."""
        host, port = self.url.removeprefix("http://").split(":")
        return begun((host, int(port)), BODY)


@pytest.fixture
def server(home: Any, running: Any) -> Iterator[Server]:
    home.first()
    told = {"SRGHN_LIMIT_STUCK_SECONDS": "2", "SRGHN_LIMIT_BODY_SECONDS": "60"}
    with running(home, "--workers", "2", environment=told) as (url, process):
        made = Server(home, url, process.pid)
        wait_for(ready(url))
        wait_for(made.began)
        yield made


def test_a_worker_that_is_stuck_is_replaced_and_the_others_answer(server: Server) -> None:
    before = server.workers
    stuck = min(before)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(server.url, deadline=60)) for _ in range(12)]
        assert [client.act(RIGHT) for client in clients] == [1] * 12  # each now has a connection
        os.kill(stuck, signal.SIGSTOP)
        new = httpx.post(f"{server.url}/v1/act", json={"observation": RIGHT}, timeout=60)
        assert new.status_code == 200
        assert [client.act(RIGHT) for client in clients] == [1] * 12  # some on a new connection
        wait_for(lambda: len(server.workers) == 2 and stuck not in server.workers)
    assert before - server.workers == {stuck}
    assert f"worker {stuck} showed no sign of life for 2 s and is killed" in server.log
    assert f"worker {stuck} ended; starting another" in server.log


def test_a_worker_that_finishes_its_requests_is_not_taken_for_stuck(server: Server) -> None:
    before = server.workers
    with server.half() as half:
        for worker in before:
            os.kill(worker, signal.SIGTERM)
        time.sleep(4)
        half.sendall(BODY[10:])
        assert half.recv(4096).startswith(b"HTTP/1.1 200")
    wait_for(lambda: len(server.workers) == 2 and not before & server.workers)
    assert "no sign of life" not in server.log


def test_a_worker_that_has_only_just_begun_stops_when_it_is_told_to() -> None:
    """It was killed half a minute later."""

    def supervised() -> None:
        workers.die_with_parent = lambda: time.sleep(1)  # type: ignore[assignment]
        workers.supervise(lambda beat: time.sleep(100), 1, 40, 100)

    parent = multiprocessing.get_context("fork").Process(target=supervised)
    parent.start()
    wait_for(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text)
    parent.terminate()
    parent.join(30)
    assert parent.exitcode == 0
    parent.close()


def test_a_worker_that_cannot_be_started_now_is_started_later(tmp_path: Path) -> None:
    """On a machine short of memory the server ended, with the workers that it still had."""
    begun, fork = tmp_path / "begun", os.fork

    def work(beat: Any) -> None:
        with begun.open("a") as file:
            file.write("x")
        if begun.stat().st_size > 1:
            time.sleep(100)

    def supervised() -> None:
        forks = iter([fork, lambda: os.open("/none", os.O_RDONLY)])
        workers.os.fork = lambda: next(forks, fork)()  # type: ignore[assignment]
        workers.supervise(work, 1, 40, 100)

    parent = multiprocessing.get_context("fork").Process(target=supervised)
    parent.start()
    wait_for(lambda: begun.exists() and begun.stat().st_size == 2)
    parent.terminate()
    parent.join(30)
    assert parent.exitcode == 0
    parent.close()


def test_a_server_that_can_start_no_worker_can_be_stopped() -> None:
    """It was told to while it could not fork, and took no notice until it could."""
    fork = os.fork

    def none() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return os.open("/none", os.O_RDONLY)

    def supervised() -> None:
        forks = iter([fork])
        workers.os.fork = lambda: next(forks, none)()  # type: ignore[assignment]
        workers.supervise(lambda beat: None, 1, 40, 100)

    parent = multiprocessing.get_context("fork").Process(target=supervised)
    parent.start()
    parent.join(30)
    parent.kill()
    parent.join()
    assert parent.exitcode == 0
    parent.close()


def test_a_server_that_was_stopped_whole_goes_on_with_its_workers(server: Server) -> None:
    """As by Ctrl-Z, or on a machine that was asleep."""
    before = server.workers
    together = [*before, server.parent]
    for process in together:
        os.kill(process, signal.SIGSTOP)
    time.sleep(4)
    for process in reversed(together):
        os.kill(process, signal.SIGCONT)
    time.sleep(2)
    assert server.workers == before
    assert httpx.get(f"{server.url}/health/ready").status_code == 200
    assert "no sign of life" not in server.log
