"""A former champion is judged again in the world that there is now, and served if it passes."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipelines.runs.prepare import prepared
from pipelines.runs.stages import STAGES
from pipelines.runs.workspaces import create_workspace
from pipelines.versions.compare import compare
from pipelines.versions.recall import former_champions, judge, recall, served_world
from pipelines.versions.release import Release
from pipelines.versions.replay import replay
from serving.control.loading import load
from serving.registry.records import Who
from srghn.candidates.candidate import Candidate
from srghn.config import Returns, RunParams, Wrapper
from srghn.envs import pin
from srghn.errors import ConfigError, TransitionRefused
from srghn.evolution.ancestry import grow
from srghn.evolution.run import load_run
from tests.conftest import Srghn
from tests.pipelines.conftest import Home, Tiny
from tests.serving.conftest import Steps

ANN = Who("ann", "the world returned")


@pytest.fixture
def run(srghn_here: Srghn, home: Home) -> Srghn:
    """A command in the home, in this process."""
    place = {"SRGHN_HOME": str(home.settings.home)}
    return lambda *arguments: srghn_here(*arguments, env=place)


@pytest.fixture
def retired(home: Home, tiny: Tiny) -> Home:
    """The home with version 1 retired, and another candidate champion in its place."""
    release = home.release
    release.approve(1, "ann", "the first")
    workspace = create_workspace(home.settings, "second", tiny(seed=5))
    for stage in ("pin", "evolve", "evaluate"):
        STAGES[stage](workspace, home.settings)
    second = release.register(workspace.candidate, "second", workspace.params())
    steps = Steps(release.ledger)
    steps.begin(second)
    steps.judge(second)
    steps.approve(second)
    steps.play(steps.canary(second), 10.0, 490.0, 12)
    release.ledger.promote(second, expected_generation=1, who=ANN)
    return home


def easy(home: Home) -> None:
    """Make the gate of run `tiny` one that an equal candidate passes."""
    params = home.workspace.params()
    lenient = ("margin", "cell_margin", "tail_margin", "failure_margin", "cell_failure_margin")
    gate = params.gate.model_copy(update={"superiority": False, **dict.fromkeys(lenient, 0.95)})
    home.workspace.params_file.write_text(params.model_copy(update={"gate": gate}).to_yaml())


def test_a_recall_is_gated_approved_and_served_as_any_candidate(retired: Home, run: Srghn) -> None:
    easy(retired)
    release = retired.release
    done = run("recall", "1", "--mode", "normal", "--reason", "old motors", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    found = release.ledger.version(3)
    assert (told["version"], found.recall_of, found.mode) == (3, 1, "normal")
    assert told["verdict"]["mode"] == "normal"
    assert told["verdict"]["incumbent_digest"] == release.ledger.champion().digest  # type: ignore[union-attr]
    assert told["state"] == found.state == "PASSED"
    release.approve(3, "ann", "read it")
    assert release.ledger.canary().version == 3  # type: ignore[union-attr]
    assert load(release.ledger, release.store, 3).digest == found.digest
    assert release.ledger.verify()


def whole(home: Home, number: int) -> bool:
    """Whether a recall's workspace has all of its run and its candidate, and nothing lies about."""
    found = home.settings.workspaces / f"recall-{number}"
    pairs = (
        (home.workspace.run, found / "data" / "run"),
        (home.release.store.path(home.release.ledger.version(1).digest), found / "data/candidate"),
    )
    names = [[{str(p.relative_to(at)) for p in at.rglob("*")} for at in pair] for pair in pairs]
    left = list(home.settings.workspaces.glob(".recall*"))
    return all(one == other for one, other in names) and not left


def test_two_recalls_at_once_give_one_workspace(
    retired: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand and by the watch: each has copied all of it before the other gives it its name."""
    world, both = served_world(retired.release, "policy"), threading.Barrier(2, timeout=60)
    module = sys.modules["pipelines.versions.recall"]
    write = module.atomic_write

    def together(path: Path, data: str) -> None:
        write(path, data)
        both.wait()

    monkeypatch.setattr(module, "atomic_write", together)
    release = [Release(retired.settings) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        numbers = list(pool.map(lambda each: recall(each, 1, world, "normal", ANN), release))
    assert numbers == [3, 3]
    assert whole(retired, 3)


def test_two_that_replace_one_wreck_remove_nothing_whole(
    retired: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, both = served_world(retired.release, "policy"), threading.Barrier(2, timeout=60)
    number = recall(retired.release, 1, world, "normal", ANN)
    (retired.settings.workspaces / f"recall-{number}" / "params.yaml").unlink()
    module = sys.modules["pipelines.versions.recall"]
    sync, replace, replaced = module.sync_tree, module.replace, []

    def together(folder: Path) -> None:
        sync(folder)
        both.wait()

    def slowly(target: Path, aside: Path) -> None:
        replaced.append(target)
        time.sleep(0.5)
        replace(target, aside)

    monkeypatch.setattr(module, "sync_tree", together)
    monkeypatch.setattr(module, "replace", slowly)
    release = [Release(retired.settings) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        numbers = list(pool.map(lambda each: recall(each, 1, world, "normal", ANN), release))
    assert numbers == [number, number]
    assert len(replaced) == 1
    assert whole(retired, number)


@pytest.mark.parametrize("lacks", ["params.yaml", "data/candidate/manifest.json", "data/run"])
def test_what_two_recalls_left_that_fell_over_each_other_is_replaced(
    retired: Home, lacks: str
) -> None:
    world = served_world(retired.release, "policy")
    number = recall(retired.release, 1, world, "normal", ANN)
    found = retired.settings.workspaces / f"recall-{number}" / lacks
    shutil.rmtree(found) if found.is_dir() else found.unlink()
    assert recall(retired.release, 1, world, "normal", ANN) == number
    assert found.exists()
    assert whole(retired, number)


def test_the_workspace_of_a_version_that_a_restore_undid_is_replaced(retired: Home) -> None:
    """Its number was given anew, and the verdict on the other candidate was refused each time."""
    release, world = retired.release, served_world(retired.release, "policy")
    number = recall(release, 1, world, "normal", ANN)
    left = retired.settings.workspaces / f"recall-{number}" / "data" / "candidate"
    shutil.rmtree(left)
    shutil.copytree(release.store.path(release.ledger.version(2).digest), left)
    assert recall(release, 1, world, "normal", ANN) == number
    assert Candidate.load(left).digest == release.ledger.version(number).digest


def test_what_was_withdrawn_or_is_served_is_not_recalled(retired: Home) -> None:
    release = retired.release
    world = served_world(release, "policy")
    mode = release.ledger.version(2).mode
    with pytest.raises(TransitionRefused, match="is the candidate that is served"):
        recall(release, 2, world, mode, ANN)
    with pytest.raises(ConfigError, match="has no mode 'sideways'"):
        recall(release, 1, world, "sideways", ANN)
    assert [v.version for v in former_champions(release, "policy")] == [1]
    number = recall(release, 1, world, "normal", ANN)
    assert recall(release, 1, world, "normal", ANN) == number
    release.ledger.revoke(1, who=ANN)
    assert former_champions(release, "policy") == []
    with pytest.raises(TransitionRefused, match="only a retired champion"):
        recall(release, 1, world, "flipped", ANN)


def test_a_recall_to_another_pinned_world_loads(retired: Home) -> None:
    """One without a schedule: its candidate was evolved elsewhere, and judged and served there."""
    easy(retired)
    release = retired.release
    own = {"returns": Returns(low=-100.0, high=500.0), "failure_return": 100.0}
    params = retired.workspace.params().env.model_copy(update={"schedule": (), **own})
    other = pin(params)
    assert other.fingerprint != served_world(release, "policy").fingerprint
    other.save(retired.settings.home / "envs" / f"{other.fingerprint}.json")
    number = recall(release, 1, other, "normal", ANN)
    release.require_world(number)
    ranges = [release.canary_rules(version).return_low for version in (1, number)]
    assert ranges == [0.0, -100.0]
    verdict = judge(release, number, "manual")
    checks = {check.name: check for check in verdict.checks}
    assert checks["environment"].outcome == "passed"
    assert "recalled to" in checks["environment"].reason
    assert verdict.passed, verdict.summary
    found = load(release.ledger, release.store, number)
    assert (found.env_fingerprint, found.digest) == (
        other.fingerprint,
        release.ledger.version(1).digest,
    )


def test_a_recall_that_was_rejected_is_no_fresh_pass(retired: Home, run: Srghn) -> None:
    easy(retired)
    release = retired.release
    asked = ("recall", "1", "--mode", "normal", "--reason", "old motors")
    assert run(*asked).returncode == 0
    release.ledger.reject(3, who=ANN)
    events = len(release.ledger.events())
    refused = run(*asked)
    assert refused.returncode == 1
    assert "version 3, the recall of version 1 to that world and mode, was rejected" in (
        refused.stderr
    )
    assert len(release.ledger.events()) == events


def test_a_recall_is_replayed_and_compared_where_it_was_judged(retired: Home) -> None:
    """Not where its genome was evolved: there the same seeds are other episodes."""
    easy(retired)
    release, settings = retired.release, retired.settings
    sticky = Wrapper(
        path="gymnasium.wrappers:StickyAction", kwargs={"repeat_action_probability": 0.5}
    )
    params = retired.workspace.params().env
    other = pin(params.model_copy(update={"schedule": (), "wrappers": (sticky,)}))
    other.save(settings.home / "envs" / f"{other.fingerprint}.json")
    number = recall(release, 1, other, "flipped", ANN)
    judge(release, number, "manual")
    result = replay(settings, str(number))
    assert result.findings[-1].what.endswith("gate episodes")
    assert all(finding.how == "bytes" and finding.equal for finding in result.findings)
    page = compare(settings, str(number), "2").page
    told = json.loads((page.parent / "comparison.json").read_text())
    assert (told["fingerprint"], told["environment"]["mode"]) == (other.fingerprint, "flipped")


def test_a_run_is_founded_on_all_former_champions(retired: Home, tiny: Tiny) -> None:
    release = retired.release
    params: RunParams = prepared(retired.settings, tiny(generations=3, seed=9), "champions")
    first, second = (release.ledger.version(number).digest for number in (1, 2))
    assert (params.evolution.ancestor, params.evolution.companions) == (second, (first,))
    evolution = params.evolution.model_copy(update={"mode": "normal"})
    params = params.model_copy(update={"evolution": evolution})
    workspace = create_workspace(retired.settings, "third", params)
    for stage in ("pin", "evolve", "evaluate"):
        STAGES[stage](workspace, retired.settings)
    number = release.register(workspace.candidate, "third", params)
    assert release.ledger.version(number).mode == "normal"
    found = load_run(workspace.run)
    assert found.strategy.encoding is not None
    for row, individual in enumerate(found.finalists.ids):
        seeds = [ancestor.noise_seed for ancestor in found.ancestry(int(individual)).chain]
        assert np.array_equal(grow(found.strategy.encoding, seeds), found.finalists.genomes[row])
    roots = {found.lineage.chain(int(i))[0].id for i in found.lineage.id}
    assert roots == {0, 1}  # both founders were played
