"""A killed server and a killed command lose nothing that they acknowledged.

`make kills` does the same 200 times, and 300 times on the ledger alone.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.serving.killing_service import Stand, kill_command, kill_server, server_boundaries


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Stand:
    return Stand.make(tmp_path_factory.mktemp("stand"))


def test_a_server_passes_every_kind_of_boundary_and_what_it_said_is_kept(
    stand: Stand, tmp_path: Path
) -> None:
    seen = Counter(server_boundaries(stand, stand.fresh(tmp_path / "home")))
    wanted = ("around a group's statement: before", "before commit", "after UPDATE compared SET")
    assert all(seen[name] >= 2 for name in wanted), seen
    assert seen["after INSERT INTO events"] >= 9


@pytest.mark.parametrize(
    ("kind", "fatal"), [("around a group's statement: after", 9), ("after INSERT INTO events", 3)]
)
def test_a_server_killed_in_a_write_loses_nothing_acknowledged(
    stand: Stand, tmp_path: Path, kind: str, fatal: int
) -> None:
    assert kill_server(stand, stand.fresh(tmp_path / "home"), fatal, kind)


def test_a_command_killed_in_a_write_loses_nothing_printed(stand: Stand, tmp_path: Path) -> None:
    assert kill_command(stand, stand.fresh(tmp_path / "home"), 30)
