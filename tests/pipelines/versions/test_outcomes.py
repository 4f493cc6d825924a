"""`srghn outcomes`: what clients posted is checked, and the page and the suite stay in the home."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.versions import outcomes
from serving.registry.episode_log import EpisodeLog
from serving.registry.records import Outcome
from srghn.errors import ConfigError
from tests.pipelines.conftest import Home


def outcome(n: int, length: int = 9) -> Outcome:
    return Outcome(n, f"e{n}", 1, "champion", None, 9.0, length, True, True)


def test_outcomes_are_checked_by_row(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRGHN_HOME", str(home.settings.home))
    with pytest.raises(ConfigError, match="has no outcome yet"):
        outcomes.check_outcomes(home.settings, "policy")
    posted = [outcome(1), outcome(2)]
    monkeypatch.setattr(EpisodeLog, "outcomes", lambda *_, **__: posted)
    done = CliRunner().invoke(app, ["outcomes", "--json"])
    told = json.loads(done.stdout)
    assert done.exit_code == 0
    assert told["success"]
    assert (home.settings.home / "expectations" / "outcomes.json").is_file()
    done = CliRunner().invoke(app, ["outcomes"])
    assert {line.split("\t")[1] for line in done.stdout.splitlines()[:-1]} == {"holds"}
    posted.append(outcome(3, length=501))
    done = CliRunner().invoke(app, ["outcomes"])
    assert done.exit_code == 1
    assert "1 failing\tn 3, episode e3" in done.stdout
    page = home.settings.home / "data_docs" / "outcomes-policy.html"
    assert "an episode has 1 to 500 steps" in page.read_text()
