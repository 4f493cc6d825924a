"""Does the installed package work under this Python? Run by `make smoke`, without pytest.

Needs the extras `serve` and `client`; the library's part runs where torch can be imported, and says
so where it cannot.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path


def command(*words: str) -> str:
    """What `srghn` with these words prints; raises if it fails."""
    program = Path(sys.executable).with_name("srghn")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_command_line() -> None:
    assert command("--version").split() == ["srghn", version("srghn")]
    assert "--cron" in command("schedule", "add", "--help")


def check_ledger() -> None:
    """A new ledger, read back through the command line and by the server's own modules."""
    assert "champion" in command("status")
    command("history")
    importlib.import_module("serving.app")


def check_library() -> bool:
    """Evolve two generations of CartPole; False without torch."""
    try:
        importlib.import_module("torch")
    except (ImportError, OSError):
        return False
    import srghn

    params = srghn.RunParams(evolution=srghn.EvolutionParams(generations=2, episodes=2))
    world = srghn.pin(params.env)
    with srghn.make_evaluator(srghn.EngineSettings(), world, params.network) as evaluator:
        srghn.evolve(params, world, evaluator, Path("run"))
    assert srghn.load_run(Path("run")).generation == 1
    return True


def main() -> None:
    root = Path(__file__).parents[1]
    installed = Path(importlib.import_module("srghn").__file__ or "")
    assert not installed.is_relative_to(root / "srghn"), "the checkout was imported"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["SRGHN_HOME"] = str(Path(folder) / "home")
        check_command_line()
        check_ledger()
        library = "ok" if check_library() else "skipped: no torch"
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    sys.stdout.write(f"Python {here}: command line ok, ledger and server ok, library {library}\n")


if __name__ == "__main__":
    main()
