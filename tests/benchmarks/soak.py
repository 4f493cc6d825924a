"""`make soak`: 20 minutes at half of what the server answers, then SIGTERM.

Fails if resident memory grows by more than 2% after the fifth minute, if the last minute's p99 is
above 1.2 times the first's, if an answer is not 200, or if a request under way at the end is
dropped. The machine's load is told beside it: a p99 is the machine's as much as the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.serving.conftest import Home, maker, run_server
from tests.serving.soaking import Soak, soak
from tests.serving.test_serving_process import ready, wait_for


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0, help="of a minute")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--share", type=float, default=0.5, help="of what it answers at most")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home", maker(Path(folder)))
        home.first()
        with run_server(home) as (url, process):
            wait_for(ready(url))
            found = asyncio.run(soak(url, process, **vars(options)))
        home.ledger.verify()
        home.ledger.close()
    tell(found)
    return 1 if problems(found) else 0


def tell(found: Soak) -> None:
    out = sys.stdout
    out.write(
        "| minute | answers | not 200 | p99 ms | memory MiB | load |\n|---|---|---|---|---|---|\n"
    )
    for one in found.minutes:
        out.write(
            f"| {one.number} | {one.answers} | {one.wrong} | {one.p99_ms:.1f} | {one.memory:.1f} | "
            f"{one.load:.1f} |\n"
        )
    out.write(
        f"\n{found.rate:.0f} requests a second; memory {found.growth:+.1%} after the fifth minute; "
        f"p99 of the last minute {found.slowing:.2f} times the first's; at SIGTERM "
        f"{found.under_way} under way, {found.dropped} dropped, exit code {found.code}\n"
    )
    out.writelines(f"{count} times {text}\n" for text, count in found.said.items())
    out.writelines(f"FAILED: {problem}\n" for problem in problems(found))


def problems(found: Soak) -> list[str]:
    wrong = sum(minute.wrong for minute in found.minutes)
    said = {
        f"memory grew by {found.growth:.1%}, at most 2% is fine": found.growth > 0.02,
        f"p99 grew to {found.slowing:.2f} times, at most 1.2 is fine": found.slowing > 1.2,
        f"{wrong} answers were not 200": wrong > 0,
        f"{found.dropped} requests were dropped at the end": found.dropped > 0,
        f"it ended with code {found.code}": found.code != 0,
    }
    return [text for text, failed in said.items() if failed]


if __name__ == "__main__":
    sys.exit(main())
