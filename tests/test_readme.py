"""README tells the truth: its Python runs, its parameters load, its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from pipelines.cli import app
from srghn.config import parse_params

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def srghn_lines() -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    asked = [line.removeprefix("$ ") for line in lines if line.startswith("$ srghn ")]
    return [shlex.split(line, comments=True)[1:] for line in asked]


@pytest.mark.parametrize("source", blocks("python"))
def test_python_runs(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(source, "README.md", "exec"), {})


@pytest.mark.parametrize("source", blocks("yaml"))
def test_parameters_load(source: str) -> None:
    parse_params(yaml.safe_load(source), "README.md")


def test_commands_and_options_exist() -> None:
    lines = srghn_lines()
    assert len(lines) >= 8
    for words in lines:
        command = get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts}
        asked = {word for word in words if word.startswith("--")}
        assert command.name != "srghn", words
        assert asked <= known, f"{command.name}: {asked - known}"
