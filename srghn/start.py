"""The command `srghn`: makes this distribution's own packages importable, then hands over.

A folder called `pipelines`, `serving` or `regression_suite` on someone's PYTHONPATH would be
imported instead of ours. Nobody else uses the name `srghn`, so the command begins here.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path

#: Packages of this distribution whose names others use too.
OURS = ("pipelines", "regression_suite", "serving")


def ours_first() -> None:
    """Where another folder hides one of our packages, put ours first, for child processes too."""
    root = str(Path(__file__).resolve().parents[1])
    if all(_found(name, root) for name in OURS):
        return
    sys.path.insert(0, root)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *([before] if before else [])])


def _found(name: str, root: str) -> bool:
    spec = PathFinder.find_spec(name)
    return spec is not None and Path(spec.origin or "").resolve().is_relative_to(root)


def main() -> None:
    """Entry point of the command `srghn`."""
    try:
        ours_first()
        import_module("pipelines.cli").main()
    except KeyboardInterrupt:  # during the imports, which take seconds on a busy machine
        sys.stderr.write("srghn: stopped\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
