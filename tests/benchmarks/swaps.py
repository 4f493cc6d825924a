"""`make swaps`: 100 champion swaps under 32 connections, and a worker killed meanwhile."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.serving.conftest import Home, maker, run_server
from tests.serving.swapping import problems, swap


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home", maker(Path(folder)))
        seen = swap(home, run_server, swaps=options.swaps, connections=options.connections)
        home.ledger.verify()
        home.ledger.close()
    sys.stdout.write(
        f"{options.swaps} swaps, {options.connections} connections, {time.monotonic() - begun:.0f} "
        f"s: {sum(seen.codes.values())} answers, all but {seen.codes.total() - seen.codes[200]} of "
        f"them 200, of {len(seen.champions)} generations; {seen.episodes} episodes, {seen.across} "
        f"of them across a swap; {seen.cut} connections cut by the killed worker\n"
    )
    found = problems(seen, options.connections)
    sys.stdout.writelines(f"{problem}\n" for problem in found[:20])
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
