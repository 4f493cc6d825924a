"""What kernels can call."""

from __future__ import annotations

import subprocess
import sys


def test_the_c_library_is_asked_whatever_was_imported_before() -> None:
    names = "sin", "a_function_that_nobody_wrote"
    code = f"from srghn.compiled import in_c_library; print(*map(in_c_library, {names}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
