"""A private PostgreSQL cluster that ends with the tests, and ledgers in it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def _as_other_user() -> dict[str, Any]:
    """PostgreSQL refuses to run as root; then it runs as `nobody`."""
    return {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}


@contextmanager
def cluster() -> Iterator[str]:
    binaries = BINARIES[-1].parent
    # In memory where there is room, as the tests' other folders are: it takes a disk two minutes to
    # remove a few hundred databases. A short path, for the socket's.
    root = os.environ.get("PYTEST_DEBUG_TEMPROOT", "/tmp")
    folder = Path(tempfile.mkdtemp(prefix="pg", dir=root))
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
        server.send_signal(signal.SIGQUIT)  # at once: nothing in it is kept
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(binaries: Path, port: int) -> None:
    for _ in range(200):
        command = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        if subprocess.run(command, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError("PostgreSQL did not start")


def new_database(cluster: str, of: str = "postgresql:///template1") -> str:
    """The URL of a new database, empty or a copy of the one at URL `of`, which nobody may use."""
    name, template = f"ledger_{os.urandom(4).hex()}", of.rpartition("/")[2]
    with psycopg.connect(cluster, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    return cluster.removesuffix("postgres") + name
