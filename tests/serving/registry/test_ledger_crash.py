"""A writer killed at any moment leaves a ledger whose history verifies and whose pointer agrees."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from serving.registry.ledger import Ledger
from serving.registry.states import State

WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from conftest import Steps
from serving.registry.ledger import Ledger
from serving.registry.records import Who
from srghn.files import sha256_bytes
import os, itertools
steps = Steps(Ledger(sys.argv[1]))
print("ready", flush=True)
for n in itertools.count():
    digest = sha256_bytes(f"{os.getpid()} {n}".encode())
    if steps.ledger.canary():
        steps.ledger.abort_canary(who=Who("writer", "left over"))
    if steps.ledger.champion() is None:
        steps.first(digest)
    else:
        steps.count = 1000 * n + os.getpid() * 10**7
        steps.second(digest)
        steps.ledger.rollback(who=Who("writer", "and back"))
        print("round", flush=True)
"""


def test_a_killed_writer_leaves_a_whole_ledger(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger(url).close()
    helpers = str(Path(__file__).parents[1])
    rng, events = random.Random(5), 0
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, url, helpers], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert [writer.stdout.readline() for _ in range(2)] == ["ready\n", "round\n"]
        time.sleep(rng.uniform(0, 0.4))
        assert writer.poll() is None, "the writer ended by itself"
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        ledger = Ledger(url)
        now = ledger.verify()
        assert now >= events
        events = now
        champion = ledger.champion()
        held = [v.version for v in ledger.versions() if v.state is State.CHAMPION]
        assert held == ([champion.version] if champion else [])
        assert len(ledger.pending()) == now
        ledger.close()
    assert events > 20  # a round is at least six
