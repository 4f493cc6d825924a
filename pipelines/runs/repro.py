"""`dvc repro` of one stage, by `python -m pipelines.runs.repro STAGE FILE [--no-run-cache]`.

Ends with the stage's own exit code, or with 128 and the number of the signal that killed it: `dvc
repro` itself ends with 255 and says neither. It ends with `FULL` if the disk had no room,
not even for a word. What else DVC fails of is left in FILE, in one line. Only DVC is imported, for
this comes before every stage.
"""

from __future__ import annotations

import logging
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

from srghn.errors import is_full

#: A process that a signal ended has this and the signal's number as its exit code, as in a shell.
SIGNALLED = 128
#: Exit code where it is DVC that failed.
DVC_FAILED = 255
#: What ends a process without a word, and leaves its exit code.
QUIT = "os._exit in the environment or the network"
#: Exit code of a stage, and of this, for which the disk had no room.
FULL = 28


def killed_by(code: int) -> signal.Signals | None:
    """The signal that an exit code tells of, whether Python or a shell noted it; None for none."""
    number = -code if code < 0 else code - SIGNALLED
    try:
        return signal.Signals(number)
    except ValueError:
        return None


def apart(stage: str) -> str:
    """What keeps a stage from ending with an environment that it plays."""
    return "; SRGHN_ENGINE=processes isolates that" if stage in ("evolve", "evaluate") else ""


def main(stage: str, said: Path, *, run_cache: bool) -> int:
    """Run a stage of the current folder unless nothing that it depends on has changed."""
    # Ctrl-C is the stage's to handle, and the command's. DVC would print a traceback of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from dvc.logger import set_loggers_level
    from dvc.repo import Repo

    with set_loggers_level(logging.CRITICAL):
        try:
            with Repo() as repo:
                repo.reproduce([stage], single_item=True, run_cache=run_cache)
        except Exception as error:  # noqa: BLE001  whatever it is, it is told in one line
            code = FULL if is_full(error) else _code_of_stage(error)
            if code is None:
                with suppress(OSError):  # the exit code tells that it failed, at least
                    said.parent.mkdir(parents=True, exist_ok=True)
                    said.write_text(_told(stage, error), encoding="utf-8")
            return DVC_FAILED if code is None else code
    return 0


def _code_of_stage(error: BaseException | None) -> int | None:
    """The exit code of a stage that failed, which DVC tells in words alone; None if it did not."""
    from dvc.stage.exceptions import StageCmdFailedError

    while error is not None:
        found = re.search(r"exited with (-?\d+)$", str(error))
        if isinstance(error, StageCmdFailedError) and found:
            code = int(found[1])
            return code if code >= 0 else SIGNALLED - code
        error = error.__cause__
    return None


def _told(stage: str, error: BaseException) -> str:
    """What DVC failed of; a stage that ended with 0 and made nothing is no fault of DVC's."""
    from dvc.output import OutputDoesNotExistError

    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, OutputDoesNotExistError):
            return f"stage {stage} ended before it was done: {QUIT} makes it end so{apart(stage)}"
        behind = behind.__cause__
    return f"DVC: {_words(error)}"


def _words(error: BaseException | None) -> str:
    """What an error and those behind it say, in one line."""
    said = []
    while error is not None:
        said.append(" ".join(str(error).split()) or type(error).__name__)
        error = error.__cause__
    return ": ".join(said)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), run_cache="--no-run-cache" not in sys.argv))
