"""Kill runs with SIGKILL at random moments and in the middle of writes, and finish each of them.

    python -m tests.benchmarks.kills --runs 100

Prints how many of the killed runs ended in the very bytes of the undisturbed one: final population,
lineage and candidate. Exit code 1 unless all of them did.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from serving.settings import Settings
from srghn.config import load_params, parse_params
from srghn.quiet import be_quiet
from tests.pipelines.killing import Yard, trial
from tests.tiny import tiny_params

SMALL = {**tiny_params(), "evaluate": {"finalists": 2, "episodes": 4, "cell_episodes": 0}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="how many are killed")
    parser.add_argument("--params", type=Path, help="a parameter file; default a tiny run")
    chosen = parser.parse_args()
    be_quiet()
    params = load_params(chosen.params) if chosen.params else parse_params(SMALL, "tiny")
    with tempfile.TemporaryDirectory(prefix="srghn-kills-") as folder:
        yard = Yard(Path(folder), Settings(home=Path(folder) / "home").resolved(), params)
        expected, seconds, calls = yard.undisturbed()
        print(f"undisturbed: {seconds:.2f} s, {calls} syncs and renames")  # noqa: T201
        killed = equal = number = 0
        while killed < chosen.runs:
            hit, found = trial(yard, number, seconds, calls)
            number += 1
            killed += hit
            equal += hit and found == expected
            if hit and killed % 10 == 0:
                print(f"{equal} of {killed} killed runs ended in the same bytes")  # noqa: T201
    return 0 if equal == killed else 1


if __name__ == "__main__":
    sys.exit(main())
