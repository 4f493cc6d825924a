"""`make fuzz`: 10,000 cases over all endpoints by Schemathesis, and walks from answer to answer."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.serving.conftest import Home, maker, run_server
from tests.serving.fuzzing import Fuzz, fuzzed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--walks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home", maker(Path(folder)))
        with fuzzed(home, run_server, options.seed) as fuzz:
            routes = len(list(fuzz.schema.get_all_operations()))
            fuzz.each(max(1, options.cases // (2 * routes) + 1), options.seed)
            report(f"{routes} routes", fuzz)
            fuzz.codes.clear()
            fuzz.stateful(options.walks, 20, options.seed)
            report("walks", fuzz)
            problems = fuzz.problems
        events = home.ledger.verify()
        home.ledger.close()
    sys.stdout.write(f"the ledger is whole: {events} events\n")
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


def report(name: str, fuzz: Fuzz) -> None:
    codes = ", ".join(f"{code}: {count}" for code, count in sorted(fuzz.codes.items()))
    total = sum(fuzz.codes.values())
    sys.stdout.write(f"{name}: {total} cases; {codes}; slowest {fuzz.slowest:.2f} s\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
