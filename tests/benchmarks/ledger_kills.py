"""Kill writers of a ledger with SIGKILL at each named boundary of their writes.

    python -m tests.benchmarks.ledger_kills --kills 500

Steps, groups of starts, outcomes, the state of a trial, an upgrade of a ledger of version 0.2.0,
and a restore. After each kill the whole ledger is verified, and all that was acknowledged must be
there. Prints how often each boundary was hit; ends with an error at the first unlawful ledger.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from serving.registry import backup
from serving.registry.ledger import Ledger
from srghn.quiet import be_quiet
from tests import old_homes
from tests.serving.registry.killing import (
    Yard,
    kill_live,
    kill_restore,
    kill_upgrade,
    spread,
)

#: So many kills share a ledger: each check verifies its whole history.
SHARED = 20


def fresh(folder: Path) -> Yard:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return Yard(folder)


def live(folder: Path, kills: int) -> Iterator[str]:
    """Kills of a writer; yields the names of the boundaries."""
    yard = fresh(folder)
    Ledger(yard.url).close()
    names = yard.names(yard.live)
    for n, number in enumerate(spread(len(names), kills)):
        if n % SHARED == 0:
            yard = fresh(folder)
            Ledger(yard.url).close()
        if kill_live(yard, [number]):
            yield f"live: {names[number - 1]}"


def migrating(folder: Path, old: Path, kills: int) -> Iterator[str]:
    yard = fresh(folder)
    shutil.copyfile(old, yard.file)
    names = yard.names(yard.migrate)
    for number in spread(len(names), kills):
        if kill_upgrade(yard, old, number):
            yield f"upgrade: {names[number - 1]}"


def restoring(folder: Path, kills: int) -> Iterator[str]:
    yard = fresh(folder)
    Ledger(yard.url).close()
    assert yard.run(yard.live, 0) == 0
    copy = backup.save(yard.url, yard.folder / "copies" / "ledger")
    names = yard.names(lambda: yard.put_back(copy))
    for number in spread(len(names), kills):
        if kill_restore(yard, copy, number):
            yield f"restore: {names[number - 1]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500, help="how many writers are killed")
    chosen = parser.parse_args()
    be_quiet()
    hit: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="srghn-ledger-kills-") as folder:
        root = Path(folder)
        old = old_homes.unpack("home-ledger", root / "old") / "ledger.db"
        tenth = max(1, chosen.kills // 10)
        for names in (
            migrating(root / "upgrade", old, tenth),
            restoring(root / "restore", tenth),
            live(root / "live", chosen.kills),
        ):
            for name in names:
                hit[name] += 1
                if hit.total() >= chosen.kills:
                    break
                if hit.total() % 50 == 0:
                    print(f"{hit.total()} kills, each ledger lawful", flush=True)  # noqa: T201
    for name, count in sorted(hit.items()):
        print(f"{count:5}  {name}")  # noqa: T201
    print(f"{hit.total()} kills at {len(hit)} boundaries, each ledger lawful")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
