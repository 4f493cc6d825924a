"""Kill servers and commands with SIGKILL, at named boundaries of writes and at random moments.

    python -m tests.benchmarks.service_kills --kills 200

A server answers episodes and an operator's steps (weight, shadow, hold, mode, abort, rollback), and
commands take the same steps. After each kill the whole ledger is verified, and all that a client
was answered or a command printed must be there. Prints how often each boundary was hit; ends with
an error at the first unlawful ledger.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from srghn.quiet import be_quiet
from tests.serving.killing_service import (
    Stand,
    kill_command,
    kill_server,
    run_commands,
    server_boundaries,
)
from tests.serving.registry.killing import spread

#: Of ten kills of a server so many come at a random moment.
RANDOM = 3


def servers(stand: Stand, folder: Path) -> Iterator[str | None]:
    """Kills of a server; yields what it was killed at, None where it ended before."""
    begun, yard = time.monotonic(), stand.fresh(folder)
    seen = Counter(server_boundaries(stand, yard))
    seconds, rng = time.monotonic() - begun, np.random.default_rng(0)
    kinds = [name for name in sorted(seen) if not name.startswith("around a transaction")]
    for number in range(10**9):
        yard = stand.fresh(folder)
        if number % 10 < RANDOM:
            moment = float(rng.uniform(0, seconds))
            yield "at a random moment" if kill_server(stand, yard, 0, after=moment) else None
            continue
        kind = kinds[number % len(kinds)]
        fatal = int(rng.integers(1, 1 + max(1, round(0.7 * seen[kind]))))
        yield kind if kill_server(stand, yard, fatal, kind) else None


def typed(stand: Stand, folder: Path) -> Iterator[str | None]:
    """Kills of commands."""
    yard = stand.fresh(folder)
    names = yard.names(lambda: run_commands(stand, yard))
    for number in spread(len(names), 10**6):
        yard = stand.fresh(folder)
        yield names[number - 1] if kill_command(stand, yard, number) else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="three in five of servers")
    chosen = parser.parse_args()
    be_quiet()
    hit: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="srghn-service-kills-") as folder:
        stand = Stand.make(Path(folder))
        parts = (("server", servers, 0.6), ("command", typed, 0.4))
        for of, kills, share in parts:
            done = 0
            for name in kills(stand, Path(folder) / of):
                done += name is not None
                hit[f"{of}: {name or 'ended before it was killed'}"] += 1
                if done >= round(share * chosen.kills):
                    break
                if done and done % 20 == 0:
                    print(f"{done} {of}s killed, each ledger lawful", flush=True)  # noqa: T201
    for name, count in sorted(hit.items()):
        print(f"{count:5}  {name}")  # noqa: T201
    print(f"{chosen.kills} kills, each ledger lawful")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
