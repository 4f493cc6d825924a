"""Who may import whom: the rooms of the house keep their doors."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("srghn", "regression_suite", "serving", "pipelines")
MLOPS = {"prefect", "mlflow", "dvc", "great_expectations", "fastapi", "dask", "distributed"}
#: Package -> what it must never import, at the top of a file or inside a function.
FORBIDDEN = {
    "srghn": {"regression_suite", "serving", "pipelines"} | MLOPS,
    "regression_suite": {"serving", "pipelines", "prefect", "mlflow", "dvc", "fastapi"},
    "serving": {"regression_suite", "pipelines", "prefect", "dvc", "torch", "gymnasium"},
    "pipelines": set(),
}
#: The exceptions, each one file.
ALLOWED = {("srghn/evaluation/engines/dask.py", "distributed")}
#: What the server may use of srghn: nothing that needs torch.
SERVING_MAY = (
    "srghn.candidates.candidate",
    "srghn.config",
    "srghn.errors",
    "srghn.files",
    "srghn.inference",
    "srghn.quiet",
    "srghn.seeding",
)
#: Within srghn an earlier layer never imports a later one.
LAYERS = ("graph", "ghn", "evolution")


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(source: str) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, modules: Iterable[str]) -> bool:
    """Whether a dotted name is one of the modules, or stands in one."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def broken(package: str, path: str, source: str) -> list[str]:
    """Imports of a file that the map forbids."""
    found = []
    for name in imports(source):
        parts = name.split(".")
        if parts[0] in FORBIDDEN[package] and (path, parts[0]) not in ALLOWED:
            found.append(name)
        if package == "serving" and parts[0] == "srghn" and not within(name, SERVING_MAY):
            found.append(name)
        if path.startswith("srghn/") and parts[0] == "srghn" and len(parts) > 1:
            room = path.split("/")[1]
            if room in LAYERS and parts[1] in LAYERS:
                found += [name] if LAYERS.index(parts[1]) > LAYERS.index(room) else []
            if room == "envs" and parts[1] in ("evaluation", *LAYERS):
                found.append(name)
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_imports_what_its_package_must_not(package: str) -> None:
    files = sources(package)
    assert files
    wrong = {}
    for path in files:
        short = path.relative_to(ROOT).as_posix()
        if names := broken(package, short, path.read_text()):
            wrong[short] = names
    assert not wrong


@pytest.mark.parametrize(
    ("package", "path", "source"),
    [
        ("srghn", "srghn/a.py", "def f():\n    import mlflow.tracking"),
        ("srghn", "srghn/graph/a.py", "from srghn.ghn import GHN"),
        ("srghn", "srghn/envs/a.py", "from srghn.evaluation.base import Evaluator"),
        ("serving", "serving/a.py", "from srghn.ghn.model import GHN"),
        ("serving", "serving/a.py", "import torch"),
        ("regression_suite", "regression_suite/a.py", "from pipelines import stages"),
    ],
)
def test_a_forbidden_import_would_be_found(package: str, path: str, source: str) -> None:
    assert broken(package, path, source)


def test_the_server_and_the_command_line_start_without_torch() -> None:
    import subprocess
    import sys

    check = (
        "import sys, pipelines.cli, serving.app; "
        "slow = {'torch', 'mlflow', 'prefect', 'great_expectations'} & set(sys.modules); "
        "sys.exit(f'imported: {slow}' if slow else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
