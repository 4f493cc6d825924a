"""The wheel works outside the checkout: everything it needs at run time is in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_its_data_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "pipelines/dvc.yaml" in names
    assert "pipelines/presets/cartpole-switch.yaml" in names
    assert any(name.startswith("regression_suite/report/templates/") for name in names)
    assert any(name.startswith("serving/pages/") for name in names)
    top = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert top == {"srghn", "regression_suite", "serving", "pipelines"}


def test_the_installed_wheel_prepares_a_run_far_from_the_checkout(
    wheel: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    shutil.unpack_archive(wheel, site, "zip")
    code = (
        "import sys, pipelines; from pathlib import Path\n"
        "from pipelines.runs.prepare import prepare\n"
        "from pipelines.runs.workspaces import create_workspace\n"
        "from serving.settings import load_settings\n"
        "assert Path(pipelines.__file__).is_relative_to(sys.argv[1]), pipelines.__file__\n"
        "settings = load_settings()\n"
        "params = prepare(settings, 'cartpole-switch', (), 'scratch')\n"
        "print(create_workspace(settings, 'a-run', params).root)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "SRGHN_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(site)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    root = Path(done.stdout.strip())
    assert (root / "dvc.yaml").read_text() == (ROOT / "dvc.yaml").read_text()
    assert (root / "params.yaml").exists()
