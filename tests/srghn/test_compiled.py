"""What kernels can call, and when they are compiled again."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import srghn
from srghn.compiled import KERNELS

PACKAGE = Path(srghn.__file__).parent
MARKS = {"compiled", "inlined", "intrinsic"}


def test_the_c_library_is_asked_whatever_was_imported_before() -> None:
    names = "sin", "a_function_that_nobody_wrote"
    code = f"from srghn.compiled import in_c_library; print(*map(in_c_library, {names}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


ASK = """
import numpy as np
from srghn.evaluation.backends.cartpole.kernel import sines_and_cosines
sines, cosines = sines_and_cosines(np.zeros(1))
print(sines[0], cosines[0], sum(sines_and_cosines.stats.cache_hits.values()))
"""


def ask(folder: Path) -> list[float]:
    """Sine and cosine of 0 by the kernel of a copied package, and how often its cache was used."""
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=folder, capture_output=True, text=True, check=True
    )
    return [float(word) for word in done.stdout.split()]


def test_a_kernel_is_compiled_again_when_a_file_that_it_calls_changes(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "srghn", ignore=shutil.ignore_patterns("__pycache__"))
    assert ask(tmp_path) == [0.0, 1.0, 0]
    assert ask(tmp_path) == [0.0, 1.0, 1]
    lanes = tmp_path / "srghn" / "lanes.py"
    before, call = lanes.read_text(), "builder.load(angle), sine, cosine]"
    assert call in before
    lanes.write_text(before.replace(call, "builder.load(angle), cosine, sine]"))
    assert ask(tmp_path) == [1.0, 0.0, 0]
    assert ask(tmp_path) == [1.0, 0.0, 1]


def decorated(tree: ast.Module) -> Iterator[Any]:
    for node in ast.walk(tree):
        marks = node.decorator_list if isinstance(node, ast.FunctionDef) else []
        if MARKS & {mark.id for mark in marks if isinstance(mark, ast.Name)}:
            yield node


def imported(tree: ast.Module) -> dict[str, str]:
    """Name in a module -> the module of this package that it is from."""
    return {
        alias.asname or alias.name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("srghn")
        for alias in node.names
    }


def compiled_files(path: Path) -> set[Path]:
    """The files whose text decides what a file's kernels do, its own included; none without any."""
    tree, found = ast.parse(path.read_text()), set()
    modules = imported(tree)
    for kernel in decorated(tree):
        found.add(path)
        nodes = (node for part in kernel.body for node in ast.walk(part))
        for name in {node.id for node in nodes if isinstance(node, ast.Name)} & set(modules):
            module = PACKAGE.parent.joinpath(*modules[name].split("."))
            found.add(module / "__init__.py" if module.is_dir() else module.with_suffix(".py"))
    return found


def test_every_file_that_decides_what_a_kernel_does_is_listed() -> None:
    listed = {path for pattern in KERNELS for path in PACKAGE.glob(pattern)}
    found = set().union(*(compiled_files(path) for path in PACKAGE.rglob("*.py")))
    assert PACKAGE / "lanes.py" in found
    missing = sorted(path.relative_to(PACKAGE).as_posix() for path in found - listed)
    assert not missing, f"add to srghn.compiled.KERNELS: {missing}"
    assert all(list(PACKAGE.glob(pattern)) for pattern in KERNELS)
