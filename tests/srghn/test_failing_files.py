"""A file named by its import path that fails while it is imported is told in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from srghn.errors import ConfigError
from srghn.evolution.registry import _factory
from srghn.networks import _resolve


@pytest.mark.parametrize("load", [_resolve, _factory], ids=["network", "strategy"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def broken(:\n", "SyntaxError: "),
        ("unknown_name\n", "NameError: name 'unknown_name' is not defined"),
        ("raise RuntimeError('no licence')\n", "RuntimeError: no licence"),
        ("import sys\nsys.exit(0)\n", "SystemExit: 0"),
    ],
)
def test_a_file_that_fails_is_told_in_one_line(
    load: Callable[[str], Any],
    text: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "failing_file.py").write_text(text)
    with pytest.raises(ConfigError, match="failed while it was imported") as told:
        load("failing_file:thing")
    assert said in str(told.value)
    assert "\n" not in str(told.value)
