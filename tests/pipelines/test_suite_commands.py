"""`srghn suite`: show, check and new."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.runs.workspaces import Workspace
from srghn.errors import ConfigError, SrghnError
from srghn.yaml_files import parse_yaml

Run = Callable[..., Result]


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `srghn suite ARGS...` in an empty folder; errors are raised."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        done = CliRunner().invoke(app, ["suite", *arguments])
        if isinstance(done.exception, SrghnError):
            raise done.exception
        return done

    return run


def test_what_is_shown_is_a_suite_that_judges_alike(suite: Run, tmp_path: Path) -> None:
    shown = suite("show", "cartpole").stdout
    assert parse_yaml(shown, "shown")["rules"]["episodes"] == 600
    (tmp_path / "shown.yaml").write_text(shown)
    digests = [
        json.loads(suite("show", "cartpole", *sets, "--json").stdout)["digest"]
        for sets in ((), ("--set", "gate.suite=shown.yaml"))
    ]
    assert digests[0] == digests[1]
    assert digests[0] in shown


def test_a_new_suite_passes_its_check_and_is_never_overwritten(suite: Run, tmp_path: Path) -> None:
    assert "srghn suite check mine.yaml" in suite("new", "mine.yaml", "--preset", "cartpole").stdout
    done = suite("check", "mine.yaml", "--preset", "cartpole", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0
    assert {cell["verdict"] for cell in found["cells"]} == {"acts"}
    assert found["cells"][0] == {
        "name": "primary", "planned": 600, "binding": True, "verdict": "acts", "why": "",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"mine.yaml is there already"):
        suite("new", "mine.yaml")


def test_a_broken_cell_fails_the_check(suite: Run, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "name: s\ncells: [{perturbation: 'nowhere:Nothing', severities: [1]}]\n"
    )
    done = suite("check", "s.yaml", "--preset", "cartpole")
    assert done.exit_code == 1
    assert "nowhere:Nothing:1" in done.stdout
    assert "broken" in done.stdout


def test_a_checkout_that_only_names_its_suite_is_refused(tmp_path: Path) -> None:
    """DVC would not see the file change."""
    (tmp_path / "s.yaml").write_text("name: s\n")
    (tmp_path / "params.yaml").write_text("gate: {suite: s.yaml}\n")
    with pytest.raises(ConfigError, match=r"put its contents there: srghn suite show"):
        Workspace(tmp_path).params()
