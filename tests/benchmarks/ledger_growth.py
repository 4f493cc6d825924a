"""How the ledger's calls slow down as it grows: from 2 versions to 1,000 and 1,000,000 starts.

    python -m tests.benchmarks.ledger_growth [--versions N --starts N] [--url postgresql://...]

Prints a table of median times and their ratio, measured in turns in one process, so that the load
of the machine falls on both alike. Exit code 1 if a ratio is above `--most` (default 3).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import insert, text

from serving.control.watch import ORDER, Watch
from serving.limits import Limits
from serving.registry import schema
from serving.registry.database import Database
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Start, Who
from serving.registry.states import State
from serving.routes.home import _home as show
from serving.routes.home import _version as look
from serving.service import Service
from serving.settings import Settings
from srghn.quiet import be_quiet
from tests.serving.conftest import Steps

CHUNK = 20_000
#: Of how many starts each keeps missing its outcome: some always run.
OPEN_EVERY = 997


class Grown:
    """A ledger with a champion, a trial and a past of so many versions and starts."""

    def __init__(self, url: str, home: Path, versions: int, starts: int) -> None:
        self.ledger = Ledger(Database(url, home=home))
        self.steps = Steps(self.ledger)
        self.steps.first()
        for _ in range(versions - 2):
            version = self.steps.register()
            self.steps.begin(version)
            self.steps.judge(version, "failed")
        self.trial = self.steps.canary(self.steps.approved()).epoch
        self._fill(starts)
        self.last = starts
        self.names = (f"new-{n}" for n in range(10**9))
        self.open: list[str] = []
        self.service = Service(Settings(home=home, database_url=url).resolved(), Limits())
        self.service.poll()
        self.watch = Watch(self.ledger)
        if url.startswith("postgresql"):  # which does so by itself, in time
            with self.ledger.database()._engine.connect() as connection:
                connection.execute(text("ANALYZE"))
                connection.commit()

    def _fill(self, starts: int) -> None:
        now = time.time()
        for begin in range(0, starts, CHUNK):
            chunk = [self._row(n, now) for n in range(begin + 1, min(starts, begin + CHUNK) + 1)]
            with self.ledger.database().write() as connection:
                connection.execute(insert(schema.starts), chunk)
        self.ledger.advance_trial(POLICY, self.trial, 0, max(0, starts - 100), {})
        self.ledger.advance_watch(POLICY, 0, max(0, starts - 100), ORDER)

    def _row(self, n: int, now: float) -> dict[str, object]:
        row = {
            "policy": POLICY, "trial": self.trial, "episode": f"old-{n}", "version": 1,
            "generation": 1, "arm": n % 2, "weight": 0.5, "started_at": now, "deadline": now,
            "moved": False,
        }  # fmt: skip
        ended = {
            "arrived": n, "ended_at": now, "return": 200.0, "length": 200, "terminated": True,
            "counted": True,
        }  # fmt: skip
        return {**row, **(dict.fromkeys(ended) if n % OPEN_EVERY == 0 else ended)}

    # ----------------------------------------------------------------- what is timed

    def begin(self) -> None:
        self.ledger.verify_served()

    def poll(self) -> None:
        self.ledger.expire()
        self.ledger.served()

    def page(self) -> None:
        self.ledger.served()
        self.ledger.versions(newest=True, limit=20)
        self.ledger.versions(POLICY, states=(State.PASSED, State.APPROVED), limit=20)
        self.ledger.events(newest=True, limit=40)

    def home(self) -> None:
        show(self.service, self.service.default)

    def one(self) -> None:
        look(self.service, self.ledger.version(2))

    def path(self) -> None:
        self.ledger.passed(1)
        self.ledger.verdict(1)
        self.ledger.events(1, limit=40)

    def start(self) -> None:
        name = next(self.names)
        self.ledger.start_episodes([Start(name, 1, trial=self.trial, deadline=time.time() + 60)])
        self.open.append(name)

    def outcome(self) -> None:
        if not self.open:
            self.start()
        self.ledger.record_outcome(POLICY, self.open.pop(), 200.0, 200, True, "client")

    def decision(self) -> None:
        state = self.ledger.trial_state(POLICY, self.trial)
        assert state is not None
        rows = self.ledger.resolved(POLICY, self.trial, max(0, self.last - 100), time.time(), 100)
        self.ledger.advance_trial(POLICY, self.trial, state.n, state.n + 1, {"n": len(rows)})

    def watched(self) -> None:
        self.watch.look()
        self.watch.view()

    def step(self) -> None:
        self.ledger.set_canary_weight(0.5, who=Who("bench", "as it was"))


CALLS = {
    "start of a server (verification)": Grown.begin,
    "poll": Grown.poll,
    "page": Grown.page,
    "the whole page /": Grown.home,
    "the page of a version": Grown.one,
    "path of a version": Grown.path,
    "start of an episode": Grown.start,
    "outcome": Grown.outcome,
    "trial decision, 100 episodes": Grown.decision,
    "look of the watch": Grown.watched,
    "step of the ledger": Grown.step,
}


def measure(small: Grown, large: Grown, rounds: int) -> Iterator[dict[str, object]]:
    """One row a call: median milliseconds of both, and their ratio."""
    for name, call in CALLS.items():
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for grown, seconds in zip((small, large), times, strict=True):
                seconds.append(_timed(call, grown))
        two, many = (1000 * statistics.median(seconds) for seconds in times)
        yield {"call": name, "small_ms": two, "large_ms": many, "ratio": many / two}


def _timed(call: Callable[[Grown], None], grown: Grown) -> float:
    began = time.perf_counter()
    call(grown)
    return time.perf_counter() - began


def _urls(server: str | None, folder: Path) -> tuple[str, str]:
    if server is None:
        return f"sqlite:///{folder / 'small' / 'l.db'}", f"sqlite:///{folder / 'large' / 'l.db'}"
    import psycopg

    names = [f"growth_{size}_{os.getpid()}" for size in ("small", "large")]
    with psycopg.connect(server, autocommit=True) as connection:
        for name in names:
            connection.execute(f"CREATE DATABASE {name}".encode())
    base = server.rpartition("/")[0]
    return f"{base}/{names[0]}", f"{base}/{names[1]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=1000)
    parser.add_argument("--starts", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--most", type=float, default=3.0, help="the largest ratio that is fine")
    parser.add_argument("--url", help="a PostgreSQL server's database; default SQLite files")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    be_quiet()
    with tempfile.TemporaryDirectory(prefix="srghn-growth-") as folder:
        two, many = _urls(chosen.url, Path(folder))
        small = Grown(two, Path(folder) / "small", 2, 200)
        large = Grown(many, Path(folder) / "large", chosen.versions, chosen.starts)
        rows = list(measure(small, large, chosen.rounds))
    for row in rows:
        line = "{call:34} {small_ms:9.2f} ms {large_ms:9.2f} ms {ratio:6.2f}"
        sys.stdout.write((json.dumps(row) if chosen.json else line.format(**row)) + "\n")
    return 0 if all(float(str(row["ratio"])) <= chosen.most for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
