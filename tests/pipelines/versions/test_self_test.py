"""`srghn gate VERSION --self-test`: beside a version that passed, with nothing left behind."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.versions.self_test import RETRY, self_test
from regression_suite.known_bad import trial
from regression_suite.known_bad.makers import KNOWN_BAD
from serving.registry.records import Who
from srghn.errors import TransitionRefused
from tests.pipelines.conftest import Home


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two candidates stand for all of them, which tests/regression_suite judges."""
    named = [bad for bad in KNOWN_BAD if bad.name in ("tampered", "random")]
    monkeypatch.setattr(trial, "KNOWN_BAD", named)


def contents(folder: Path) -> dict[str, str]:
    """Every file but the ledger's own, which SQLite tidies as it reads: its events are counted."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in files
        if not p.name.endswith((".db", "-wal", "-shm"))
    }


def rules(home: Home, **changes: float) -> None:
    """Change the gate rules of the run."""
    params = home.workspace.params()
    gate = params.gate.model_copy(update=changes)
    home.workspace.params_file.write_text(params.model_copy(update={"gate": gate}).to_yaml())


def test_a_weak_world_is_told_and_the_home_is_as_it_was(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny version falls at once, so a random one is no worse: the self-test says so."""
    rules(home, margin=0.1)
    before, events = contents(home.settings.home), len(home.release.ledger.events())
    monkeypatch.setenv("SRGHN_HOME", str(home.settings.home))
    done = CliRunner().invoke(app, ["gate", "1", "--self-test", "--json"])
    told = json.loads(done.stdout)
    rows = {row["name"]: row for row in told["candidates"]}
    assert list(rows) == [trial.CONTROL, "random", "tampered", RETRY]
    assert rows[trial.CONTROL]["right"]
    assert rows["tampered"]["right"]
    assert not rows["random"]["right"]
    assert done.exit_code == 1
    assert not told["right"]
    assert len(home.release.ledger.events()) == events
    assert contents(home.settings.home) == before


def test_a_genome_that_failed_is_no_new_candidate_under_another_manifest(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "KNOWN_BAD", [])
    rules(home, min_return=400.0)
    row = self_test(home.settings, 1)[-1]
    assert (row.verdict, row.right) == ("refused", True)
    assert "has the genome of version 1, which is FAILED" in row.why


def test_only_a_version_that_passed_is_taken(home: Home) -> None:
    never = home.release.ledger.register(
        "f" * 64,
        env_fingerprint="e",
        mode="normal",
        run_id="x",
        manifest={"genome_digest": "a"},
        who=Who("test", "never judged"),
    )
    with pytest.raises(TransitionRefused, match="srghn candidates"):
        self_test(home.settings, never)
