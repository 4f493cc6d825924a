"""The digests of the code that judged say what was imported."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from regression_suite.code import code_digests


@pytest.mark.parametrize("finder", ["importlib.metadata", "importlib_metadata"])
def test_packages_are_those_that_are_imported(
    finder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What an interrupted installation leaves has no name, or stands behind the whole package."""
    import_module(finder)
    before = code_digests()
    for folder, text in (("x.dist-info", ""), ("y.dist-info", "Name: numpy\nVersion: 0.1\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "METADATA").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    code_digests.cache_clear()
    try:
        assert code_digests() == before
    finally:
        code_digests.cache_clear()
