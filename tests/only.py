"""Run a program as if only this package, with the extras named, were installed.

`python tests/only.py evolve,serve -c CODE` or `... -m MODULE ARGUMENTS`; the base is always there.
"""

from __future__ import annotations

import re
import runpy
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(extras: list[str]) -> list[Requirement]:
    """What pyproject.toml requires for the base and those extras, extras of extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [Requirement(line) for line in project["dependencies"]]
    todo, seen = [*extras], set[str]()
    while todo:
        extra = todo.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for line in project["optional-dependencies"][extra]:
            requirement = Requirement(line)
            if requirement.name == "srghn":
                todo += requirement.extras
            else:
                found.append(requirement)
    return found


def closure(requirements: list[Requirement]) -> set[str]:
    """Normalised names of the distributions that these requirements bring, all the way down."""
    names, todo = set[str](), [(r, extra) for r in requirements for extra in ("", *r.extras)]
    seen = set[tuple[str, str]]()
    while todo:
        requirement, extra = todo.pop()
        name = normal(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        names.add(name)
        for needed in map(Requirement, lines):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                todo += [(needed, more) for more in ("", *needed.extras)]
    return names


def blocked(extras: list[str]) -> set[str]:
    """Import names of every installed distribution that those extras do not bring."""
    # torch imports optree where its metadata are, as EnvPool brings them; it is not required
    allowed = closure(declared(extras)) | {"srghn", "optree"}
    return {
        module
        for module, distributions in packages_distributions().items()
        if not {normal(name) for name in distributions} & allowed
    }


class Without:
    """A finder that does not find some top-level modules, as if they were not installed."""

    def __init__(self, finder: Any, names: set[str]) -> None:
        self.finder, self.names = finder, names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] in self.names:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


def main() -> None:
    extras, kind, what, *arguments = sys.argv[1:]
    names = blocked([extra for extra in extras.split(",") if extra])
    for name in list(sys.modules):
        if name.partition(".")[0] in names:
            del sys.modules[name]
    sys.meta_path[:] = [Without(finder, names) for finder in sys.meta_path]
    sys.path[0] = str(ROOT)
    sys.argv = [what, *arguments]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "only", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()
