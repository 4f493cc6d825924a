"""Who may import whom: the rooms of the house keep their doors."""

from __future__ import annotations

import ast
import subprocess
import sys
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
    "srghn.envs.layout",
    "srghn.errors",
    "srghn.files",
    "srghn.inference",
    "srghn.parents",
    "srghn.seeding",
)
#: Needed everywhere, and needing nothing but each other.
GROUND = {
    "srghn.errors",
    "srghn.files",
    "srghn.interrupt",
    "srghn.notebook",
    "srghn.old_params",
    "srghn.params",
    "srghn.parents",
    "srghn.provenance",
    "srghn.quiet",
    "srghn.seeding",
    "srghn.yaml_files",
}
KERNELS = {"srghn.compiled", "srghn.lanes"}
NETWORKS = {"srghn.memory", "srghn.networks", "srghn.policies"}
PARTS = GROUND | {"srghn.config", "srghn.suites"}
#: Room -> the other rooms of its package that it may import. Every room stands here.
ROOMS: dict[str, set[str]] = {
    **{room: GROUND for room in GROUND},
    "srghn.config": GROUND | {"srghn.suites"},
    "srghn.suites": GROUND,
    "srghn.compiled": set(),
    "srghn.lanes": {"srghn.compiled"},
    "srghn.memory": PARTS,
    "srghn.networks": PARTS | {"srghn.memory", "srghn.envs"},
    "srghn.policies": PARTS | {"srghn.networks", "srghn.envs"},
    "srghn.extras": GROUND,
    "srghn.start": set(),
    "srghn.inference": GROUND,
    "srghn.graph": GROUND,
    "srghn.envs": PARTS | {"srghn.start"},
    "srghn.ghn": PARTS | KERNELS | {"srghn.graph"},
    "srghn.evaluation": PARTS | KERNELS | NETWORKS | {"srghn.envs", "srghn.graph"},
    "srghn.evolution": PARTS
    | KERNELS
    | NETWORKS
    | {"srghn.envs", "srghn.graph", "srghn.ghn", "srghn.evaluation"},
    "srghn.candidates": PARTS
    | NETWORKS
    | {"srghn.envs", "srghn.graph", "srghn.evaluation", "srghn.evolution"},
    "serving.trial": set(),
    "serving.registry": {"serving.trial"},
    "serving.pages": {"serving.trial", "serving.registry"},
    "serving.client": set(),
    "serving.control": {"serving.trial", "serving.registry"},
    "serving.routes": {"serving.trial", "serving.registry", "serving.control", "serving.pages"},
    "regression_suite.report": set(),
    "pipelines.services": {
        "pipelines.adapt",
        "pipelines.runs",
        "pipelines.tracking",
        "pipelines.versions",
    },
    "pipelines.tracking": {"pipelines.runs", "pipelines.versions"},
    "pipelines.versions": {"pipelines.runs", "pipelines.tracking"},
    "pipelines.runs": {"pipelines.services", "pipelines.tracking", "pipelines.versions"},
    "pipelines.adapt": {"pipelines.runs", "pipelines.versions"},
    "pipelines.demo": {
        "pipelines.adapt",
        "pipelines.runs",
        "pipelines.services",
        "pipelines.versions",
    },
    "pipelines.lab": {"pipelines.adapt", "pipelines.runs"},
    "pipelines.commands": {
        "pipelines.adapt",
        "pipelines.demo",
        "pipelines.lab",
        "pipelines.runs",
        "pipelines.services",
        "pipelines.tracking",
        "pipelines.versions",
    },
    "pipelines.presets": set(),
    "regression_suite.calibration": set(),
    "regression_suite.known_bad": set(),
}
#: Room -> the files beside the rooms of its package that it may import; where it is missing, all.
BESIDE: dict[str, set[str]] = {
    "serving.trial": set(),
    "serving.client": set(),
    "serving.registry": {"settings"},
    "serving.control": {
        "actions", "counts", "layers", "limits", "metrics", "predictor", "schemas"
    },
    "serving.pages": {"auth", "http", "schemas", "service", "sessions"},
    **{room: {"progress", "stdout"} for room in ROOMS if room.startswith("pipelines.")},
}  # fmt: skip
#: Room -> the only packages beyond the standard library that it may import.
ALONE = {
    "srghn.inference": {"numpy", "srghn"},
    "serving.client": {"httpcore", "httpx", "serving"},
    "serving.trial": {"numpy", "pydantic", "msgspec", "cryptography", "srghn", "serving"},
}


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


def room(path: str) -> str | None:
    """The room of a file: a folder of its package, or in `srghn` a file too."""
    package, _, rest = path.partition("/")
    first, deeper, _ = rest.partition("/")
    if deeper:
        return f"{package}.{first}"
    name = first.removesuffix(".py")
    return f"{package}.{name}" if package == "srghn" and name != "__init__" else None


def file_beside(name: str) -> str | None:
    """The file directly in its package that a dotted name stands for, if it does."""
    package, _, file = name.partition(".")
    return file if (ROOT / package / f"{file}.py").exists() else None


def closed(path: str, names: list[str]) -> Iterator[str]:
    """Imports through a door between rooms that is not there."""
    here = room(path)
    if here not in ROOMS:
        return
    for name in names:
        top, _, rest = name.partition(".")
        there = f"{top}.{rest.partition('.')[0]}"
        same = here.startswith(f"{top}.")
        if same and there in ROOMS and there != here and there not in ROOMS[here]:
            yield name
        if same and here in BESIDE and file_beside(there) not in {None, *BESIDE[here]}:
            yield name
        if here in ALONE and top not in ALONE[here] | sys.stdlib_module_names:
            yield name


def broken(package: str, path: str, source: str) -> list[str]:
    """Imports of a file that the map forbids."""
    names = list(imports(source))
    found = [*closed(path, names)]
    for name in names:
        top = name.partition(".")[0]
        if top in FORBIDDEN[package] and (path, top) not in ALLOWED:
            found.append(name)
        if package == "serving" and top == "srghn" and not within(name, SERVING_MAY):
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


def test_the_map_knows_every_room() -> None:
    files = (path for package in PACKAGES for path in sources(package))
    rooms = {room(path.relative_to(ROOT).as_posix()) for path in files} - {None}
    assert rooms <= set(ROOMS), f"add to ROOMS: {rooms - set(ROOMS)}"


@pytest.mark.parametrize(
    ("package", "path", "source"),
    [
        ("srghn", "srghn/a.py", "def f():\n    import mlflow.tracking"),
        ("srghn", "srghn/graph/a.py", "from srghn.ghn import GHN"),
        ("srghn", "srghn/envs/a.py", "from srghn.evaluation.base import Evaluator"),
        ("srghn", "srghn/ghn/a.py", "from srghn.envs import pin"),
        ("srghn", "srghn/evolution/a.py", "from srghn.candidates.freeze import freeze"),
        ("srghn", "srghn/inference/a.py", "import scipy.stats"),
        ("srghn", "srghn/inference/a.py", "from srghn.config import RunParams"),
        ("srghn", "srghn/files.py", "from srghn.envs import pin"),
        ("serving", "serving/a.py", "from srghn.ghn.model import GHN"),
        ("serving", "serving/a.py", "import torch"),
        ("serving", "serving/trial/a.py", "from serving.registry.ledger import Ledger"),
        ("serving", "serving/trial/a.py", "import sqlalchemy"),
        ("serving", "serving/registry/a.py", "from serving.control import canary"),
        ("serving", "serving/control/a.py", "from serving.routes import canary"),
        ("serving", "serving/trial/a.py", "from serving.app import create_app"),
        ("serving", "serving/registry/a.py", "from serving.app import create_app"),
        ("serving", "serving/control/a.py", "from serving.app import create_app"),
        ("regression_suite", "regression_suite/a.py", "from pipelines import stages"),
        ("pipelines", "pipelines/runs/a.py", "from pipelines.commands import run"),
        ("pipelines", "pipelines/services/a.py", "import pipelines.lab.bench"),
        ("pipelines", "pipelines/runs/a.py", "from pipelines.cli import app"),
    ],
)
def test_a_forbidden_import_would_be_found(package: str, path: str, source: str) -> None:
    assert broken(package, path, source)


@pytest.mark.parametrize(
    ("modules", "slow"),
    [
        ("pipelines.cli, serving.app", {"torch", "mlflow", "prefect", "great_expectations"}),
        ("srghn.evolution.loop, pipelines.runs.stages", {"cma", "matplotlib", "mlflow", "prefect"}),
    ],
)
def test_nothing_slow_is_imported_before_it_is_needed(modules: str, slow: set[str]) -> None:
    check = f"import sys, {modules}; print(*{slow} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
