"""What the shell completes: presets, experiments, and the versions of the ledger."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress


def presets(incomplete: str) -> list[str]:
    """Presets by name."""
    from pipelines.runs.presets import presets

    return [name for name in presets() if name.startswith(incomplete)]


def experiments(incomplete: str) -> list[str]:
    """Experiments by name."""
    from pipelines.lab.names import EXPERIMENTS

    return [name for name in EXPERIMENTS if name.startswith(incomplete)]


def versions(incomplete: str) -> Iterator[tuple[str, str]]:
    """Versions by number, each with its state; none where the ledger cannot be read at once."""
    from serving.settings import load_settings

    url = load_settings().database_url
    path = url.removeprefix("sqlite:///")
    if path == url or not os.path.exists(path):
        return
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=0.2)) as ledger:
        for number, state in ledger.execute("SELECT version, state FROM versions ORDER BY version"):
            if str(number).startswith(incomplete):
                yield str(number), str(state)
