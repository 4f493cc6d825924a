"""A light distribution: each extra is enough for what it promises, and says what it lacks."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from srghn.extras import EXTRAS, MissingExtra, needed
from tests.test_import_map import imports

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def only(
    extras: str, kind: str, *words: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run code or a module with the base and those extras, every other distribution blocked."""
    command = [sys.executable, str(ROOT / "tests" / "only.py"), extras, kind, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def library_example() -> str:
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if "evolve(" in block)
    return str(block)


def test_the_library_example_runs_with_nothing_but_the_extra_evolve(tmp_path: Path) -> None:
    code = library_example() + "\nimport sys; print(sorted({'mlflow', 'pandas'} & {*sys.modules}))"
    done = only("evolve", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")


def test_the_server_imports_with_nothing_but_the_extra_serve() -> None:
    code = "import serving.app, serving.serve, sys; print('torch' in sys.modules)"
    done = only("serve", "-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


def test_the_server_starts_with_nothing_but_the_extra_serve(tmp_path: Path) -> None:
    """As far as its socket: nobody has this address (RFC 5737)."""
    words = ("serve", "--host", "203.0.113.1", "--without-tokens")
    done = only("serve", "-m", "srghn.start", *words, cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("srghn: cannot listen on 203.0.113.1:8000: "), done.stderr


def test_each_package_that_the_server_imports_is_of_the_base_or_of_a_known_extra() -> None:
    """So that one which is missing is named with its extra, after an update too."""
    base = {"numpy", "pydantic", "pydantic_settings", "yaml", "typer", "rich"}
    files = sorted((ROOT / "serving").rglob("*.py"))
    tops = {name.partition(".")[0] for file in files for name in imports(file.read_text())}
    tracing = {"opentelemetry"}  # which says itself what to install
    assert tops - sys.stdlib_module_names - {"srghn", "serving"} <= base | tracing | {*EXTRAS}


def test_a_blocked_package_is_not_found() -> None:
    done = only("", "-c", "import torch")
    assert done.returncode == 1
    assert "No module named 'torch'" in done.stderr
    assert only("evolve", "-c", "import torch").returncode == 0


@pytest.mark.parametrize("words", [("--version",), ("--help",), ("run", "--help")])
def test_the_command_line_starts_with_the_base_alone(words: tuple[str, ...]) -> None:
    done = only("", "-m", "srghn.start", *words)
    assert done.returncode == 0, done.stderr
    assert "srghn" in done.stdout


@pytest.mark.parametrize(
    ("installed", "command", "extra"),
    [
        ("", "status", "serve"),
        ("", "serve", "serve"),
        ("serve", "env list", "evolve"),
        ("evolve,serve", "experiment functions-2d --quick", "pipeline"),
    ],
)
def test_a_command_that_lacks_its_extra_says_which(
    installed: str, command: str, extra: str, tmp_path: Path
) -> None:
    done = only(installed, "-m", "srghn.start", *command.split(), cwd=tmp_path)
    assert done.returncode == 3
    assert f"pip install 'srghn[{extra}]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_name_of_the_library_that_lacks_its_extra_says_which() -> None:
    done = only("", "-c", "import srghn\nsrghn.GHN")
    assert "MissingExtra: srghn.GHN needs the package" in done.stderr
    assert "pip install 'srghn[evolve]'" in done.stderr
    assert issubclass(MissingExtra, ImportError)


def test_the_error_of_a_missing_extra_comes_back_whole_from_another_process() -> None:
    error = MissingExtra("srghn.GHN", ModuleNotFoundError("...", name="torch.nn"), "evolve")
    error.add_note("on a worker")
    sent = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    for each in (sent, copy.copy(error), copy.deepcopy(error)):
        assert type(each) is MissingExtra
        assert (str(each), each.__notes__) == (str(error), ["on a worker"])


def test_a_module_that_is_no_extras_is_told_as_it_is() -> None:
    assert needed(ModuleNotFoundError("No module named 'mine'", name="mine.worlds")) is None
    assert needed(ModuleNotFoundError("...", name="torch.nn")) == "evolve"


def test_the_extras_that_errors_name_exist_and_all_holds_them() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(EXTRAS.values()) <= set(extras)
    inside = set(re.findall(r"[\w]+", extras["all"][0])) | {"evolve", "serve", "client", "all"}
    assert set(extras) - inside == {"envpool", "worlds"}
    base = " ".join(PROJECT["dependencies"])
    assert not any(name in base for name in ("torch", "mlflow", "prefect", "plotly"))
