"""A real server in its own process: swaps under load, several workers, a clean end, a busy port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.serve import _bind
from srghn.errors import ServiceError

pytestmark = pytest.mark.services

RIGHT, LEFT = [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, -1.0, 0.0]


def wait_for(check: Callable[[], Any], seconds: float = 120) -> None:
    """Only what never comes is given up: a busy machine takes its time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if check():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def ready(url: str) -> Callable[[], bool]:
    """Asked by plain HTTP: reading all certificates at each look would slow the start down."""
    return lambda: httpx.get(f"{url}/health/ready", verify=False).status_code == 200


def begun(address: tuple[str, int], body: bytes) -> socket.socket:
    """A connection with a request of which the server waits for the body's rest: it said so."""
    opened = socket.create_connection(address, timeout=60)
    head = b"POST /v1/act HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    opened.sendall(head % len(body))
    assert opened.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
    opened.sendall(body[:10])
    return opened


class Load(threading.Thread):
    """One keep-alive client that asks for batches, until stopped."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url, self.stop = url, threading.Event()
        self.errors: list[str] = []
        self.answers: list[tuple[int, int]] = []

    def run(self) -> None:
        body = {"observations": [RIGHT, LEFT] * 16}
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self.stop.is_set():
                try:
                    answer = client.post("/v1/act/batch", json=body)
                except httpx.HTTPError as error:
                    self.errors.append(repr(error))
                    continue
                if answer.status_code != 200:
                    self.errors.append(answer.text)
                    continue
                content = answer.json()
                self.answers.append((content["version"], content["generation"]))
                # a champion of odd version pushes right, of even version left: a batch that mixed
                # versions would mix these
                expected = [1, 0] * 16 if content["version"] % 2 else [0, 1] * 16
                if content["actions"] != expected:
                    self.errors.append(f"version {content['version']}: {content['actions']}")


def test_many_swaps_drop_no_request_and_mix_no_batch(home: Any, running: Any) -> None:
    home.first()
    told = {"SRGHN_UNBLIND": "true"}  # answers tell their version while a trial runs, too
    with running(home, environment=told) as (url, _):
        wait_for(ready(url))
        clients = [Load(url) for _ in range(4)]
        for client in clients:
            client.start()
        last = 1
        for number in range(2, 6):
            last = home.second(bias=float(number), flip=number % 2 == 0)
            # a client has had its answer, not only who asks for readiness
            wait_for(lambda: any((last, last) in client.answers for client in clients))  # noqa: B023
        for client in clients:
            client.stop.set()
        for client in clients:
            client.join()
    assert [error for client in clients for error in client.errors] == []
    seen = {version for client in clients for version, _ in client.answers}
    assert seen == set(range(1, last + 1))
    for client in clients:
        generations = [generation for _, generation in client.answers]
        assert generations == sorted(generations)
    assert home.ledger.verify()


def test_several_workers_follow_one_ledger(home: Any, running: Any) -> None:
    home.first()
    with running(home, "--workers", "2") as (url, _):
        wait_for(ready(url))
        second = home.second(bias=2.0)

        def all_follow() -> bool:
            answers = [httpx.get(f"{url}/health/ready").json() for _ in range(20)]
            return all(answer.get("version") == second for answer in answers)

        wait_for(all_follow)
        for n in range(20):
            httpx.post(f"{url}/v1/act", json={"observation": RIGHT, "episode_id": f"e{n % 3}"})
        text = httpx.get(f"{url}/metrics").text
        assert 'srghn_inference_requests_total{code="200",route="champion"} 20.0' in text
        assert "srghn_champion_generation 2.0" in text


def test_it_ends_cleanly_on_sigterm_and_finishes_what_was_begun(home: Any, running: Any) -> None:
    home.first()
    with running(home) as (url, process):
        wait_for(ready(url))
        host, port = url.removeprefix("http://").split(":")
        body = b'{"observation": [0, 0, 1, 0]}'
        with begun((host, int(port)), body) as half:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            half.sendall(body[10:])
            answer = half.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200")
        assert process.wait(120) == 0


def _failure(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "srghn.start", "serve", *options]
    variables = {**os.environ, "SRGHN_HOME": str(home)}
    return subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_busy_port_is_one_clear_line(home: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = _failure(home.settings.home, "--port", str(port))
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("nohost.invalid", "give --host an address of this machine"),
        ("x" * 70, "give --host an address of this machine"),
        ("192.0.2.1", "give --host an address of this machine"),  # of no machine at all
    ],
)
def test_a_host_that_is_not_this_machine_is_no_busy_port(host: str, words: str) -> None:
    with pytest.raises(ServiceError, match=f"cannot listen on {host}:0: .*; {words}") as told:
        _bind(host, 0)
    assert "stop what uses it" not in str(told.value)


def test_a_corrupted_ledger_is_one_clear_line(home: Any) -> None:
    home.ledger.close()
    file = home.settings.home / "ledger.db"
    file.write_bytes(b"this is no database, and long enough to be taken for one" * 10)
    before = file.read_bytes()
    done = _failure(home.settings.home, "--port", "0")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert str(file) in done.stderr
    assert "file is not a database" in done.stderr
    assert file.read_bytes() == before


@pytest.mark.parametrize("options", [("--port", "70000"), ("--port", "-1")])
def test_a_port_out_of_range_is_one_clear_line(home: Any, options: tuple[str, ...]) -> None:
    done = _failure(home.settings.home, *options)
    assert done.returncode == 3
    assert "SRGHN_PORT" in done.stderr
    assert done.stderr.count("\n") == 1


def test_server_processes_end_with_the_one_that_was_killed(home: Any, running: Any) -> None:
    home.first()
    with running(home, "--workers", "2") as (url, process):
        wait_for(ready(url))
        process.kill()
        process.wait()
        host, port = url.removeprefix("http://").split(":")

        def free() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex((host, int(port))) != 0

        wait_for(free)
