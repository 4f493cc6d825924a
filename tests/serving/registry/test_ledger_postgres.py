"""The same ledger on PostgreSQL, on a private cluster that ends with the test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from serving.registry.ledger import Ledger
from serving.registry.records import Who
from srghn.errors import LedgerError, TransitionRefused

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(not BINARIES, reason="PostgreSQL is not installed on this machine"),
]


def _as_other_user() -> dict[str, Any]:
    """PostgreSQL refuses to run as root; then it runs as `nobody`."""
    return {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    binaries = BINARIES[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody", "nogroup")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    run: dict[str, Any] = {**_as_other_user(), "cwd": folder, "check": True}
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "srghn", "-A", "trust", "--no-sync"],
        **run, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    server = subprocess.Popen(
        [binaries / "postgres", "-D", data, "-p", str(port), "-k", folder, "-h", "127.0.0.1",
         "-c", "fsync=off"],
        **_as_other_user(), cwd=folder, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        subprocess.run(
            [binaries / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-t", "0"], check=False,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        _wait(binaries, port)
        yield f"postgresql://srghn@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(binaries: Path, port: int) -> None:
    import time

    for _ in range(200):
        command = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        if subprocess.run(command, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError("PostgreSQL did not start")


@pytest.fixture
def postgres(cluster: str) -> Iterator[Ledger]:
    name = f"ledger_{os.urandom(4).hex()}"
    import psycopg

    with psycopg.connect(cluster, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    ledger = Ledger(cluster.removesuffix("postgres") + name)
    yield ledger
    ledger.close()


def test_the_whole_way_and_back(postgres: Ledger, steps: Any) -> None:
    mine = type(steps)(postgres)
    first = mine.first()
    second = mine.second()
    assert postgres.rollback(who=Who("ann", "back")).version == first
    with pytest.raises(TransitionRefused):
        mine.approve(second)
    assert postgres.verify() == len(postgres.events())
    again = Ledger(str(postgres._database._engine.url))
    assert again.champion() == postgres.champion()
    again.close()


def test_of_many_promoters_one_wins(postgres: Ledger, steps: Any) -> None:
    mine = type(steps)(postgres)
    mine.first()
    version = mine.approved()
    mine.play(mine.canary(version), 10.0, 490.0, 20)
    won: list[int] = []

    def promote(n: int) -> None:
        try:
            postgres.promote(version, expected_generation=1, who=Who(f"w{n}", "better"))
            won.append(n)
        except TransitionRefused:
            pass

    threads = [threading.Thread(target=promote, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    postgres.verify()


def test_history_is_append_only(postgres: Ledger, steps: Any) -> None:
    type(steps)(postgres).first()
    with (
        pytest.raises(LedgerError, match="append-only"),
        postgres._database.write() as connection,
    ):
        connection.execute(text("DELETE FROM events"))
    assert postgres.verify() == 5
