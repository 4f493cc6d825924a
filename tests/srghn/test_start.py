"""A folder on PYTHONPATH that has the name of one of our packages does not take its place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from srghn.envs.registry import load_object
from srghn.errors import EnvVersionError
from srghn.start import OURS, main


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    tmp_path = tmp_path / "theirs"
    for name in OURS:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "__init__.py").write_text("HERE = True\n")
    return tmp_path


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, *words]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder.parent, check=False
    )


def test_the_command_finds_our_packages_and_so_do_its_children(theirs: Path) -> None:
    assert "No module named" in run(theirs, "-c", "import pipelines.cli").stderr
    done = run(theirs, "-m", "srghn.start", "--version")
    assert (done.returncode, done.stdout[:6]) == (0, "srghn "), done.stderr
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import serving.app'])"
    done = run(theirs, "-c", f"from srghn.start import ours_first; ours_first(); {child}")
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_during_the_imports_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They take seconds on a busy machine; the command itself handles what comes after them."""

    def stopped(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("srghn.start.import_module", stopped)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert capsys.readouterr().err == "srghn: stopped\n"


def test_nothing_changes_where_no_folder_hides_ours(tmp_path: Path) -> None:
    code = (
        "import os, sys; from srghn.start import ours_first; before = [*sys.path]; ours_first(); "
        "print(sys.path == before, os.environ['PYTHONPATH'])"
    )
    assert run(tmp_path, "-c", code).stdout.split() == ["True", str(tmp_path)]


@pytest.mark.parametrize("path", ["serving.worlds:Mine", "serving:Mine"])
def test_a_world_in_a_module_with_our_name_is_refused_with_that_reason(path: str) -> None:
    with pytest.raises(EnvVersionError, match=r"srghn has a package 'serving' of its own.*rename"):
        load_object(path, "env.id")
