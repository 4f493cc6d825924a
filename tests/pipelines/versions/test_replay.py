"""A candidate is made again from its lineage, and its gate's episodes are played again."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.runs.stages import STAGES
from pipelines.runs.workspaces import Workspace, create_workspace
from pipelines.versions.lease import Lease
from pipelines.versions.release import Release
from pipelines.versions.replay import _close, replay
from regression_suite.descent import judge_lineage
from regression_suite.tables import read
from serving.settings import Settings
from srghn.candidates.candidate import Candidate
from srghn.candidates.individual import freeze_founder
from srghn.config import NetworkParams, Switch
from srghn.errors import (
    ArtefactError,
    ConfigError,
    FingerprintMismatch,
    LedgerError,
    ReplayMismatch,
)
from srghn.evolution import load_run
from srghn.evolution.ancestry import Ancestry
from srghn.evolution.base import NO_PARENT
from srghn.files import sha256_file
from tests.pipelines.conftest import Home, Tiny, home_at
from tests.pipelines.runs.test_moved_worlds import heavier

__all__ = ["heavier"]

EVERYTHING = [
    "genome that the lineage names",
    "genome",
    "policy",
    "the candidate's 150 gate episodes",
]


@dataclass(frozen=True)
class Clone:
    """What a fresh clone has after `dvc pull`: a candidate, the report beside it, no ledger."""

    settings: Settings
    data: Path

    @property
    def candidate(self) -> Path:
        return self.data / "candidate"


@pytest.fixture
def clone(finished: Home, tmp_path: Path) -> Clone:
    for name in ("candidate", "report"):
        shutil.copytree(finished.workspace.root / "data" / name, tmp_path / "data" / name)
    return Clone(home_at(tmp_path / "empty"), tmp_path / "data")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_version_is_made_again_to_the_bit(home: Home) -> None:
    result = replay(home.settings, "1")
    assert result.moved == ()
    assert [finding.what for finding in result.findings] == EVERYTHING
    assert all(finding.how == "bytes" and finding.equal for finding in result.findings)
    assert result.candidate == home.release.ledger.version(1).digest


@pytest.mark.parametrize("strategy", ["self-referential", "snes"])
def test_a_network_with_memory_is_made_again_to_the_bit(
    strategy: str, tiny: Tiny, tmp_path: Path
) -> None:
    """Its state goes from step to step in evolution, in the gate and in the replay alike.

    Of a search what it was told is compared with the run's tables.
    """
    network = NetworkParams(module="srghn.policies:GRU", kwargs={"width": 2})
    params = tiny(generations=2, strategy=strategy).model_copy(update={"network": network})
    settings = home_at(tmp_path / "home")
    workspace = create_workspace(settings, "gru", params)
    for stage in ("pin", "evolve", "evaluate", "gate"):
        STAGES[stage](workspace, settings)
    candidate = Candidate.load(workspace.candidate)
    assert candidate.policy().state_size == 2
    lineage, tables = judge_lineage(candidate, None), read(workspace.run)
    assert judge_lineage(candidate, tables) == lineage
    how = {"snes": "2 generations of search lead from"}.get(strategy, "births lead from")
    assert (lineage.outcome, how in lineage.reason) == ("passed", True)
    if strategy == "snes":
        tables.lineage.loc[0, "fitness"] += 1  # of nobody in the chain
        assert "another fitness of generation 0" in judge_lineage(candidate, tables).reason
    result = replay(settings, str(workspace.candidate))
    assert all(finding.how == "bytes" and finding.equal for finding in result.findings)
    assert result.findings[-1].what.endswith("gate episodes")


def test_a_folder_needs_no_ledger(clone: Clone) -> None:
    result = replay(clone.settings, str(clone.candidate))
    assert [finding.what for finding in result.findings] == EVERYTHING
    assert not clone.settings.home.exists()


def test_an_incumbent_plays_again_where_it_is_at_hand(home: Home, tiny: Tiny) -> None:
    """The second run's lineage begins in the first; its gate is against the first's candidate."""
    settings, champion = home.settings, Candidate.load(home.workspace.candidate)
    params = tiny(ancestor=champion.digest, generations=3, seed=8)
    second = create_workspace(settings, "second", params)
    Lease(incumbent=champion.digest).save(second.lease)
    for stage in ("pin", "evolve", "evaluate", "gate"):
        STAGES[stage](second, settings)
    chain = Ancestry.from_json((second.candidate / "ancestry.json").read_text()).chain
    before = Ancestry.from_json((champion.path / "ancestry.json").read_text()).chain
    assert chain[: len(before)] == before
    page = (second.report / "report.html").read_text()
    assert f"{len(chain)} births from the founder to" in page
    assert "fitness of each ancestor when born" in page
    result = replay(settings, str(second.candidate))
    played = ["the candidate's 220 gate episodes", "the incumbent's 220 gate episodes"]
    assert [finding.what for finding in result.findings] == [*EVERYTHING[:3], *played]
    shutil.rmtree(settings.home / "artefacts")
    alone = replay(settings, str(second.candidate))
    assert [finding.what for finding in alone.findings] == [*EVERYTHING[:3], played[0]]


def test_a_line_that_begins_at_a_newcomer_is_frozen_judged_and_replayed(
    tiny: Tiny, tmp_path: Path
) -> None:
    """The second run goes on from the first, the actions swap, and newcomers take over."""
    settings = home_at(tmp_path / "home")

    def run(name: str, **evolution: Any) -> Workspace:
        params = tiny(parents=2, children=6, newcomers=0.5, **evolution)
        later = params.env.model_copy(update={"schedule": (Switch(generation=15, mode="flipped"),)})
        workspace = create_workspace(settings, name, params.model_copy(update={"env": later}))
        for stage in ("pin", "evolve", "evaluate"):
            STAGES[stage](workspace, settings)
        return workspace

    first = run("first", generations=12)
    Release(settings).register(first.candidate, "first", first.params())
    champion = Candidate.load(first.candidate)
    for seed in range(2, 12):  # which seed: whether newcomers are better is chance
        second = run(f"second-{seed}", generations=10, seed=seed, ancestor=champion.digest)
        ancestry = Ancestry.from_json((second.candidate / "ancestry.json").read_text())
        if ancestry.chain[0].generation > champion.generation:
            break
    else:
        pytest.fail("no finalist descends from a newcomer")
    found = load_run(second.run)
    born = dict(zip(found.lineage.id.tolist(), found.lineage.noise_seed.tolist(), strict=True))
    assert [birth.noise_seed for birth in ancestry.chain] == [born[b.id] for b in ancestry.chain]
    assert found.lineage.parent[found.lineage.id == ancestry.chain[0].id][0] == NO_PARENT
    Lease(incumbent=champion.digest).save(second.lease)
    STAGES["gate"](second, settings)
    checks = json.loads((second.report / "verdict.json").read_text())["checks"]
    (lineage,) = [check for check in checks if check["name"] == "lineage"]
    assert lineage["outcome"] == "passed", lineage
    result = replay(settings, str(second.candidate))
    assert [finding.what for finding in result.findings][:3] == EVERYTHING[:3]
    founder = freeze_founder(found, tmp_path / "founder")
    assert founder.generation == ancestry.chain[0].generation
    assert replay(settings, str(founder.path)).findings[1].equal


def test_a_candidate_that_was_not_judged_says_so(clone: Clone) -> None:
    shutil.rmtree(clone.data / "report")
    result = replay(clone.settings, str(clone.candidate))
    assert result.unplayed == "it has not been judged"
    assert [finding.what for finding in result.findings] == EVERYTHING[:3]


def test_on_another_platform_it_is_compared_within_tolerance(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = Candidate.load(clone.candidate).manifest["platform"]
    here = {**recorded, "machine": "riscv64"}
    monkeypatch.setattr("pipelines.versions.replay.platform_note", lambda: here)
    result = replay(clone.settings, str(clone.candidate))
    assert result.moved == (f"machine: {recorded['machine']} then, riscv64 now",)
    hows = [finding.how for finding in result.findings]
    assert hows == ["bytes", "within tolerance", "within tolerance", "within tolerance"]
    assert "tolerance 0.0001" in result.findings[1].found
    assert result.to_dict()["platform"] == "another"


@pytest.mark.parametrize(
    ("recorded", "found", "equal"),
    [
        ([1.0, -np.inf], [1.00009, -np.inf], True),
        ([1.0, 2.0], [1.0, 2.0002], False),
        ([1.0, -np.inf], [1.0, 3.0], False),
        ([0, 1, 1], [0, 1, 0], False),
    ],
)
def test_a_tolerance_holds_for_every_number(
    recorded: list[float], found: list[float], equal: bool
) -> None:
    assert _close("x", recorded, found, 1e-4).equal == equal


@pytest.mark.parametrize(
    "name",
    [
        "candidate/genome.safetensors",
        "candidate/policy.onnx",
        "candidate/ancestry.json",
        "candidate/golden.json",
        "candidate/env_version.json",
        "candidate/manifest.json",
        "report/report.html",
        "report/report.json",
        "report/episodes.parquet",
        "report/verdict.json",
    ],
)
def test_a_flipped_bit_is_refused_and_the_file_named(name: str, clone: Clone) -> None:
    flip(clone.data / name)
    with pytest.raises(ArtefactError, match=Path(name).name):
        replay(clone.settings, str(clone.candidate))


def test_a_flipped_bit_in_what_the_ledger_keeps_is_named(home: Home) -> None:
    version = home.release.ledger.version(1)
    page = home.release.reports(str(version.report_digest)) / "report.html"
    flip(page)
    with pytest.raises(ArtefactError, match=str(page)):
        replay(home.settings, "1")
    manifest = home.release.store.folder / version.digest / "manifest.json"
    flip(manifest)
    with pytest.raises(ArtefactError, match=str(manifest)):
        replay(home.settings, "1")


def test_a_forged_lineage_does_not_lead_to_the_genome(clone: Clone) -> None:
    """Every digest fits, but one mutation seed is another."""
    path, manifest = clone.candidate / "ancestry.json", clone.candidate / "manifest.json"
    data = json.loads(path.read_text())
    data["chain"][-1][2] ^= 1
    path.write_text(json.dumps(data))
    record = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(record | {"lineage_digest": sha256_file(path)}))
    shutil.rmtree(clone.data / "report")
    with pytest.raises(ReplayMismatch, match="genome differs"):
        replay(clone.settings, str(clone.candidate))


def test_another_architecture_is_named(clone: Clone) -> None:
    manifest = clone.candidate / "manifest.json"
    record = json.loads(manifest.read_text())
    record["params"]["ghn"]["hidden"] = 5
    manifest.write_text(json.dumps(record))
    shutil.rmtree(clone.data / "report")
    with pytest.raises(ReplayMismatch, match=r"this lineage has architecture .*made by srghn"):
        replay(clone.settings, str(clone.candidate))


@pytest.mark.usefixtures("heavier")
def test_in_a_moved_world_the_genome_is_made_but_no_episode_played(clone: Clone) -> None:
    with pytest.raises(FingerprintMismatch, match=r"are as recorded, but .*srghn env pin"):
        replay(clone.settings, str(clone.candidate))


def test_what_is_not_there_is_named(home: Home) -> None:
    with pytest.raises(ConfigError, match=r"'nowhere' is neither a version's number"):
        replay(home.settings, "nowhere")
    with pytest.raises(LedgerError, match="no version 7"):
        replay(home.settings, "7")


def test_the_command_tells_what_was_compared(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRGHN_HOME", str(home.settings.home))
    page = home.release.report_page(1)
    assert page is not None
    printed = re.search(r"srghn (replay \d+)", page.read_text())
    assert printed is not None  # the report's own command, as it stands there
    said = CliRunner().invoke(app, printed[1].split())
    assert said.exit_code == 0, said.output
    assert "all as recorded" in said.stdout
    as_json = json.loads(CliRunner().invoke(app, ["replay", "1", "--json"]).stdout)
    assert as_json["platform"] == "same"
    assert [finding["what"] for finding in as_json["findings"]] == EVERYTHING
