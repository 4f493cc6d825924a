"""The documents tell the truth: Python runs, parameters load, commands and links exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from pipelines.cli import app
from serving.limits import Limits
from serving.settings import Settings
from srghn.config import parse_params

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
#: Pages whose Python continues from block to block, and is run as one program.
WITH_PYTHON = [page for page in PAGES if "\n```python\n" in page.read_text()]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """The words after `srghn` of every command line in a page's console blocks."""
    for line in (line for block in blocks(page, "console") for line in block.splitlines()):
        if line.startswith("$ srghn "):
            yield shlex.split(line.removeprefix("$ "), comments=True)[1:]


def named(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("page", WITH_PYTHON, ids=named)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that begins with the name of a file is that file, which later ones may import."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, Any] = {}
    for source in blocks(page, "python"):
        if file := re.match(r"# (\w+\.py)\n", source):
            (tmp_path / file[1]).write_text(source)
        exec(compile(source, page.name, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_parameters_load(page: Path) -> None:
    for source in blocks(page, "yaml"):
        parse_params(yaml.safe_load(source), page.name)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_and_options_exist(page: Path) -> None:
    for words in commands(page):
        command = get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts}
        asked = {word for word in words if word.startswith("--")}
        assert command.name != "srghn", words
        assert asked <= known, f"{command.name}: {asked - known}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_setting_is_in_the_documents() -> None:
    settings = (ROOT / "docs" / "settings.md").read_text()
    limits = (ROOT / "docs" / "serving.md").read_text()
    missing = [n for n in Settings.model_fields if f"`SRGHN_{n.upper()}`" not in settings]
    missing += [n for n in Limits.model_fields if f"`{n}`" not in limits]
    assert missing == []


def test_readme_is_short_and_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 200
    assert len([*commands(ROOT / "README.md")]) >= 8
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in text, f"README does not lead to {page.name}"
