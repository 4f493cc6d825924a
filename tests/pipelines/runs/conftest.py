from __future__ import annotations

from pathlib import Path

import pytest

from serving.settings import Settings
from tests.pipelines.conftest import home_at


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Those of an empty home."""
    return home_at(tmp_path / "home")


@pytest.fixture
def said() -> list[str]:
    """What the clock told people."""
    return []
