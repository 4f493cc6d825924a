"""Text files are UTF-8 whatever the locale: every call that opens one says so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("srghn", "regression_suite", "serving", "pipelines")


def silent(source: str) -> Iterator[int]:
    """Lines of calls that open a text file and leave its encoding to the locale."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(k.arg == "encoding" for k in node.keywords):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        builtin = isinstance(node.func, ast.Name) and node.func.id == "open"
        if name == "read_text" and not node.args:
            yield node.lineno
        if name == "write_text" and len(node.args) == 1:
            yield node.lineno
        modes = node.args[1:2] if builtin else node.args[:1]
        texts = [m.value for m in modes if isinstance(m, ast.Constant) and isinstance(m.value, str)]
        if (builtin and not modes) or ((name == "open" or builtin) and _text(texts)):
            yield node.lineno


def _text(modes: list[str]) -> bool:
    return any(set(mode) <= set("rwaxt+") and "b" not in mode for mode in modes)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_text_file_is_opened_as_utf8(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in files
        for line in silent(path.read_text(encoding="utf-8"))
    }
    assert found == set()


@pytest.mark.parametrize(
    "source",
    ["p.read_text()", "p.write_text(x)", "p.open('w')", "open('file')", "open('file', 'a')"],
)
def test_a_call_that_leaves_it_open_is_found(source: str) -> None:
    assert list(silent(source)) == [1]


@pytest.mark.parametrize(
    "source", ["p.read_text('utf-8')", "p.open('rb')", "p.open('w', encoding='utf-8')"]
)
def test_a_call_that_says_it_is_not(source: str) -> None:
    assert list(silent(source)) == []
