"""A world that moved under its name is refused wherever fitness or trust would be mixed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gymnasium.envs.classic_control.cartpole as cartpole_module
import pyarrow.parquet as pq
import pytest

from pipelines.runs.prepare import check, find_founder, pin_for
from pipelines.runs.runner import judge_again
from pipelines.runs.stages import STAGES
from pipelines.services.processes import child_environment
from serving.registry.records import Who
from srghn.candidates.candidate import Candidate
from srghn.config import EnvParams
from srghn.envs import EnvVersion, pin, pinning, verify
from srghn.errors import FingerprintMismatch, SrghnError
from tests.pipelines.conftest import Home, Tiny

PATCH = """
import gymnasium.envs.classic_control.cartpole as cartpole
made = cartpole.CartPoleEnv.__init__
def heavier(self, *args, **kwargs):
    made(self, *args, **kwargs)
    self.gravity = 9.81
cartpole.CartPoleEnv.__init__ = heavier
"""


@pytest.fixture
def heavier(monkeypatch: pytest.MonkeyPatch) -> None:
    """CartPole in this process, with another gravity under the same name."""
    made = cartpole_module.CartPoleEnv.__init__

    def patched(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        made(self, *args, **kwargs)
        self.gravity = 9.81

    monkeypatch.setattr(cartpole_module.CartPoleEnv, "__init__", patched)


def names_both(error: SrghnError, pinned: str) -> None:
    """The message names the pinned fingerprint, another one, and what to do."""
    said = str(error)
    found = set(re.findall(r"\b[0-9a-f]{64}\b", said))
    assert pinned in found
    assert len(found) == 2
    assert "srghn env pin" in said
    assert "srghn run --from scratch" in said
    assert "first differing step" in said


Step = Callable[[Home], object]
STEPS: dict[str, Step] = {
    "resume": lambda home: STAGES["evolve"](home.workspace, home.settings),
    "choose a finalist": lambda home: STAGES["evaluate"](home.workspace, home.settings),
    "approve": lambda home: home.release.approve(1, "test", "because"),
    "promote": lambda home: home.release.promote(1, "test", "because"),
}


@pytest.mark.usefixtures("heavier")
@pytest.mark.parametrize("step", STEPS)
def test_a_patched_gravity_is_refused(step: str, home: Home) -> None:
    ledger = home.release.ledger
    before, events = ledger.version(1), len(ledger.events())
    with pytest.raises(FingerprintMismatch) as caught:
        STEPS[step](home)
    names_both(caught.value, before.env_fingerprint)
    assert ledger.version(1) == before
    assert len(ledger.events()) == events


@pytest.mark.usefixtures("heavier")
def test_a_trial_in_a_moved_world_is_refused(home: Home) -> None:
    ledger = home.release.ledger
    digest = str(ledger.version(1).report_digest)
    ledger.approve(1, report_digest=digest, who=Who("test", "before it moved"))
    with pytest.raises(FingerprintMismatch):
        home.release.start_canary(1, "test", "because")
    assert ledger.version(1).state == "APPROVED"


@pytest.mark.usefixtures("heavier")
def test_a_new_attempt_in_a_moved_world_is_refused(home: Home) -> None:
    home.release.ledger.mark_stale(1, who=Who("test", "judge it again"))
    with pytest.raises(FingerprintMismatch):
        judge_again(home.settings, 1)
    assert home.release.ledger.version(1).state == "STALE"


def test_in_the_pinned_world_the_same_steps_are_taken(home: Home) -> None:
    for step in ("resume", "choose a finalist", "approve"):
        STEPS[step](home)
    champion = home.release.ledger.champion()
    assert champion is not None
    assert champion.version == 1


@pytest.mark.usefixtures("heavier")
def test_a_rollback_needs_no_world(home: Home) -> None:
    with pytest.raises(SrghnError, match="no champion to roll back from"):
        home.release.ledger.rollback(who=Who("test", "emergency"))


def test_a_record_of_another_world_is_not_the_versions(home: Home) -> None:
    release, other = home.release, "0" * 64
    digest = "d" * 64
    source = release.store.folder / release.ledger.version(1).digest
    source.rename(release.store.folder / digest)
    release.ledger.register(
        digest, env_fingerprint=other, mode="normal", run_id="x", manifest={}, who=Who("a", "r")
    )
    with pytest.raises(SrghnError, match="manifest"):
        release.require_world(2)


def test_verify_in_another_process_names_what_moved(home: Home, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(PATCH)
    pinned = home.release.ledger.version(1).env_fingerprint
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "env", "verify", pinned[:10]],
        env=child_environment(home.settings, {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    names_both(SrghnError(done.stderr), pinned)


def test_everything_that_a_run_leaves_names_its_world(finished: Home) -> None:
    workspace, version = finished.workspace, finished.release.ledger.version(1)
    tables = sorted(workspace.run.glob("*/*.parquet"))
    stored = finished.release.reports(str(version.report_digest)) / "verdict.json"
    named = {
        "record": json.loads((workspace.run / "run.json").read_text())["fingerprint"],
        "candidate": Candidate.load(workspace.candidate).env_fingerprint,
        "ledger": version.env_fingerprint,
        "verdict": json.loads(stored.read_text())["env_fingerprint"],
        "training": json.loads(workspace.evolution_metrics.read_text())["fingerprint"],
        "re-test": json.loads(workspace.evaluation_metrics.read_text())["env_fingerprint"],
        **{t.name: pq.read_schema(t).metadata[b"fingerprint"].decode() for t in tables},
    }
    assert len(tables) >= 2
    assert set(named.values()) == {EnvVersion.load(workspace.env_version).fingerprint}, named


def test_a_lineage_does_not_go_on_in_another_world(finished: Home, tiny: Tiny) -> None:
    digest = finished.release.ledger.version(1).digest
    other = pin(EnvParams(id="CartPole-v1"))
    with pytest.raises(FingerprintMismatch) as caught:
        find_founder(tiny(ancestor=digest), other, finished.settings)
    pinned = finished.release.ledger.version(1).env_fingerprint
    said = str(caught.value)
    assert pinned in said
    assert other.fingerprint in said
    assert "srghn run --from scratch" in said
    assert "became 'CartPole-v1'; " in said
    assert "more; restore what changed, or" in said


@pytest.fixture
def names_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was pinned before is as of an earlier release, which recorded no such package."""
    monkeypatch.setattr(pinning, "computing", lambda env: {"numba"})


@pytest.mark.usefixtures("names_numba")
def test_a_lineage_goes_on_in_a_version_that_names_fewer_packages(
    finished: Home, tiny: Tiny
) -> None:
    settings, first = finished.settings, finished.release.ledger.version(1)
    params, notes = tiny(ancestor=first.digest), list[str]()
    version = pin_for(settings, params, notes.append)
    assert version.fingerprint == first.env_fingerprint == check(settings, params).fingerprint
    assert find_founder(params, version, settings) is not None
    assert "before the version of numba was recorded" in notes[0]
    finished.release.require_world(1)
    afresh = pin_for(settings, tiny(), notes.append)
    assert "numba" in afresh.packages
    assert len(notes) == 1
    with pytest.raises(FingerprintMismatch, match=r"fewer packages; give EnvVersion\.load"):
        find_founder(params, afresh, settings)
    verify(afresh)


@pytest.mark.usefixtures("names_numba", "heavier")
def test_a_version_that_names_fewer_packages_and_moved_is_another(
    finished: Home, tiny: Tiny
) -> None:
    first = finished.release.ledger.version(1)
    params, notes = tiny(ancestor=first.digest), list[str]()
    version = pin_for(finished.settings, params, notes.append)
    assert "numba" in version.packages
    assert not notes
    with pytest.raises(FingerprintMismatch, match=rf"{first.env_fingerprint}.*--from scratch"):
        find_founder(params, version, finished.settings)
