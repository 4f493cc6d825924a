"""Runs for a policy by its name, and for worlds whose observations or actions are others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.runs.stages import STAGES
from pipelines.runs.target import Target
from pipelines.runs.work import Request, open_run
from pipelines.runs.workspaces import Workspace, create_workspace
from pipelines.versions.judge import judge_version
from pipelines.versions.release import Release
from serving.registry.states import State
from srghn.config import RunParams
from srghn.errors import ConfigError, TransitionRefused
from tests.conftest import Srghn
from tests.pipelines.conftest import Home, Tiny

#: CartPole with one more number in its observations: the time.
TIMED = {"wrappers": ["gymnasium.wrappers:TimeAwareObservation"]}


def changed(tiny: Tiny, **env: Any) -> RunParams:
    """The tiny run in another world."""
    params = tiny(generations=2).model_dump(mode="json")
    return RunParams.model_validate({**params, "env": env})


@pytest.fixture
def served(home: Home) -> Home:
    """Version 1 is the champion of the default policy."""
    home.release.approve(home.version, "ann", "the first")
    return home


def test_another_interface_is_refused_before_anything_is_computed(
    served: Home, tiny: Tiny, srghn_here: Srghn, tmp_path: Path
) -> None:
    preset = tmp_path / "timed.yaml"
    preset.write_text(changed(tiny, **TIMED).to_yaml())
    before = sorted(served.settings.workspaces.iterdir())
    settings = {"SRGHN_HOME": str(served.settings.home)}
    refused = srghn_here("run", "--preset", str(preset), env=settings)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == (
        "srghn: policy 'policy' is served with observations of 4 numbers, the candidate has 5; "
        "make another policy: srghn run --policy NAME, or let it succeed: srghn run --successor"
    )
    planned = ("schedule", "add", "nightly", "--cron", "0 3 * * *", "--preset", str(preset))
    assert "srghn run --policy NAME" in srghn_here(*planned, env=settings).stderr
    assert sorted(served.settings.workspaces.iterdir()) == before
    named = srghn_here(*planned, "--policy", "timed", "--json", env=settings)
    assert json.loads(named.stdout)["policy"] == "timed"
    succeeds = srghn_here(*planned, "--successor", "--json", env=settings)
    assert succeeds.returncode == 0, succeeds.stderr
    assert json.loads(succeeds.stdout)["successor"] is True
    shown = srghn_here("schedule", "show", "nightly", "--json", env=settings)
    assert json.loads(shown.stdout)["successor"] is True


def test_other_actions_have_no_successor(served: Home, tiny: Tiny) -> None:
    release = served.release
    interface = dict(release.ledger.interface() or {})
    three = {**interface, "choices": [3], "starts": [0]}
    with pytest.raises(TransitionRefused, match="clients do not know the new actions"):
        release.require_interface(Target(successor=True), three)
    release.require_interface(Target("other"), three)


def finished_run(home: Home, run_id: str, params: RunParams, target: Target) -> Workspace:
    workspace = create_workspace(home.settings, run_id, params, target)
    for stage in ("pin", "evolve", "evaluate"):
        STAGES[stage](workspace, home.settings)
    return workspace


def test_a_successor_is_judged_by_absolute_bars_and_goes_on_trial(served: Home, tiny: Tiny) -> None:
    target, params = Target(successor=True), changed(tiny, **TIMED)
    opened = open_run(served.settings, Request(params, target=target))
    assert isinstance(opened, Workspace)
    assert opened.params().evolution.ancestor is None  # the champion sees other things
    workspace = finished_run(served, "timed", params, target)
    release: Release = served.release
    assert workspace.target == target
    version = release.register(workspace.candidate, "timed", params, target)
    verdict = judge_version(release, version, workspace, "timed", sit=STAGES["gate"])
    assert verdict.passed, verdict.summary
    assert verdict.incumbent_digest is None
    assert release.approve(version, "ann", "it sees more") is State.CANARY
    champion = release.ledger.champion()
    assert champion is not None
    assert champion.version == served.version


def test_a_candidate_made_before_the_first_champion_does_not_wedge(home: Home, tiny: Tiny) -> None:
    """It waited for its gate while one of another interface became champion."""
    workspace = finished_run(home, "timed", changed(tiny, **TIMED), Target())
    release = home.release
    version = release.register(workspace.candidate, "timed", workspace.params())
    release.approve(home.version, "ann", "the first")
    with pytest.raises(TransitionRefused, match="observations of 4 numbers, the candidate has 5"):
        judge_version(release, version, workspace, "timed", sit=STAGES["gate"])
    assert release.ledger.version(version).state is State.REGISTERED


def test_a_policy_of_its_own_has_its_own_champion(
    served: Home, tiny: Tiny, srghn_here: Srghn
) -> None:
    target, params = Target("timed"), changed(tiny, **TIMED)
    workspace = finished_run(served, "timed", params, target)
    release: Release = served.release
    version = release.register(workspace.candidate, "timed", params, target)
    assert judge_version(release, version, workspace, "timed", sit=STAGES["gate"]).passed
    assert release.approve(version, "ann", "the first of its name") is State.CHAMPION
    env = {"SRGHN_HOME": str(served.settings.home)}
    shown = json.loads(srghn_here("status", "--policy", "timed", "--json", env=env).stdout)
    assert shown["champion"]["version"] == version
    shown = json.loads(srghn_here("status", "--json", env=env).stdout)
    assert shown["champion"]["version"] == served.version
    listed = srghn_here("candidates", "--policy", "timed", "--json", env=env).stdout
    assert [found["version"] for found in json.loads(listed)] == [version]
    events = json.loads(srghn_here("history", "--policy", "timed", "--json", env=env).stdout)
    assert {event["policy"] for event in events} == {"timed"}
    refused = srghn_here("rollback", "--policy", "timed", "--reason", "back", env=env)
    assert "no retired champion is left" in refused.stderr
    unknown = srghn_here("status", "--policy", "leg", env=env)
    assert "there is no policy 'leg'; the ledger holds policy, timed" in unknown.stderr
    assert release.ledger.verify()


def test_a_name_is_checked_in_one_line(srghn_here: Srghn) -> None:
    refused = srghn_here("run", "--policy", "My Robot")
    assert refused.returncode == 3
    assert refused.stderr.strip() == (
        "srghn: a policy's name is 1 to 100 of a-z 0-9 _ . -, beginning and ending with a letter "
        "or digit, got 'My Robot'"
    )
    with pytest.raises(ConfigError, match=r"got '\.\./x'"):
        Target("../x")
