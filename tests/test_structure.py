"""The shape of the house: no circles, few loose modules, no long file."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.conftest import FIRST

ROOT = Path(__file__).parents[1]
PACKAGES = ("srghn", "regression_suite", "serving", "pipelines")
#: Modules that lie directly in `pipelines`, at most.
LOOSE = 9
#: Lines of the longest source file, at most.
LONGEST = 520


def files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(name: str, source: str, known: Mapping[str, str]) -> set[str]:
    """The modules that a source imports, wherever in it, types and late imports included.

    A name out of a package is the module that it names, if there is one, else the package.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in known else node.module)
    return {other for other in found if other in known and other != name}


def circle(texts: Mapping[str, str]) -> list[str]:
    """One circle of modules that import each other, first and last the same; empty without any."""
    graph = {name: imported(name, text, texts) for name, text in texts.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    found = circle({module(path): path.read_text() for path in files()})
    assert not found, " <- ".join(found)


def test_a_circle_would_be_found_however_it_is_hidden() -> None:
    late = "def f():\n    from pack.b import g"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack import a"
    assert set(circle({"pack.a": late, "pack.b": typed})) == {"pack.a", "pack.b"}
    assert not circle({"pack.a": late, "pack.b": "import json"})


def test_few_modules_lie_loose_in_pipelines() -> None:
    loose = [path.name for path in (ROOT / "pipelines").glob("*.py")]
    assert 0 < len(loose) <= LOOSE, loose


def test_no_source_file_is_long() -> None:
    long = {module(p): n for p in files() if (n := len(p.read_text().splitlines())) > LONGEST}
    assert not long
    assert len(files()) > 200


def cut_off(source: str) -> list[int]:
    """Lines of texts that stand alone: the second half of a message whose brackets are missing."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.JoinedStr)
    ]


def test_no_message_is_cut_in_two() -> None:
    assert cut_off('def f(a):\n    return f"one {a}, "\n    f"two {a}"\n') == [3]
    assert {
        str(path): found for path in files() if (found := cut_off(path.read_text("utf-8")))
    } == {}


def test_the_test_files_that_begin_first_are_there() -> None:
    assert [name for name in FIRST if not (ROOT / "tests" / name).is_file()] == []
