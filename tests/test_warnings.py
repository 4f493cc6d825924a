"""What the tests make of warnings: `filterwarnings` in pyproject.toml, as pytest applies it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = """
import gc, warnings

def deprecated(module):
    warnings.warn_explicit("old", DeprecationWarning, "file.py", 1, module=module)

def test_fails_by_a_file_left_open(tmp_path):
    open(tmp_path / "left", "w")
    gc.collect()

def test_fails_by_a_deprecation_of_ours():
    deprecated("serving.app")

def test_passes_with_a_deprecation_of_another_package():
    deprecated("another.package")

def test_passes_with_box2d():
    import Box2D
"""


def test_what_is_left_open_and_what_we_deprecate_are_errors(tmp_path: Path) -> None:
    (tmp_path / "test_made.py").write_text(TESTS)
    config = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *config, "-p", "no:cacheprovider", "-n0", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    said = done.stdout + done.stderr
    failed = {
        line.split()[1].split("::")[1] for line in said.splitlines() if line.startswith("FAILED ")
    }
    assert failed == {"test_fails_by_a_file_left_open", "test_fails_by_a_deprecation_of_ours"}, said
    assert "2 failed, 2 passed" in said
