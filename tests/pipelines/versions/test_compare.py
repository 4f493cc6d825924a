"""`srghn compare`: versions of the ledger and folders, with nothing left in the ledger."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from srghn.errors import ConfigError
from tests.pipelines.conftest import Home


def test_a_version_is_compared_with_a_folder(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRGHN_HOME", str(home.settings.home))
    events = len(home.release.ledger.events())
    folder = str(home.workspace.candidate)
    done = CliRunner().invoke(app, ["compare", "1", folder, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["difference"]["value"] == 0
    assert told["page"].startswith(str(home.settings.home / "comparisons"))
    assert len(home.release.ledger.events()) == events
    for what in ("nowhere", str(home.settings.home)):
        refused = CliRunner().invoke(app, ["compare", "1", what])
        assert isinstance(refused.exception, ConfigError)
        assert "which holds a manifest.json" in str(refused.exception)
