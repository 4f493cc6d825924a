"""A run killed at any moment ends in the same population, lineage and candidate.

`python -m tests.benchmarks.kills --runs 100` does the same a hundred times.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from srghn.errors import CheckpointError
from srghn.evolution.checkpoint import CheckpointWarning
from tests.pipelines.conftest import Tiny, home_at
from tests.pipelines.killing import Outcome, Yard, outcome, trial

TRIALS = 4


@pytest.fixture(scope="module")
def yard(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Yard:
    folder = tmp_path_factory.mktemp("yard")
    return Yard(folder, home_at(folder / "home"), tiny())


@pytest.fixture(scope="module")
def undisturbed(yard: Yard) -> tuple[Outcome, float, int]:
    return yard.undisturbed()


@pytest.mark.slow
def test_killed_runs_end_in_the_same_bytes(
    yard: Yard, undisturbed: tuple[Outcome, float, int]
) -> None:
    expected, seconds, calls = undisturbed
    assert calls > 60
    kills = 0
    for number in range(TRIALS):
        killed, found = trial(yard, number, seconds, calls)
        assert found == expected, f"trial {number}"
        kills += killed
    assert kills >= TRIALS // 2


def test_a_run_killed_again_and_again_still_arrives(
    yard: Yard, undisturbed: tuple[Outcome, float, int]
) -> None:
    expected, _, _ = undisturbed
    workspace = yard.workspace("again")
    for number in (20, 9, 14, 31):
        assert yard.kill_in_write(workspace, number)
    assert yard.finish(workspace) == expected


def test_another_run_is_another_outcome(
    yard: Yard, undisturbed: tuple[Outcome, float, int], tiny: Tiny
) -> None:
    """That the outcomes are equal means something: another seed's is not."""
    other = Yard(yard.folder, yard.settings, tiny(seed=4))
    files, digest = other.finish(other.workspace("other"))
    assert digest != undisturbed[0][1]
    assert files["run.json"] != undisturbed[0][0]["run.json"]


def test_a_torn_checkpoint_is_told_and_the_one_before_used(
    yard: Yard, undisturbed: tuple[Outcome, float, int], tmp_path: Path
) -> None:
    workspace = yard.workspace("torn")
    yard.kill_in_write(workspace, 40)
    newest = sorted((workspace.run / "checkpoints").glob("[0-9]*"))[-1]
    state = newest / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.warns(CheckpointWarning, match=r"state\.safetensors.*Resuming from 0"):
        yard._finish(workspace)
    assert outcome(workspace) == undisturbed[0]


def test_with_no_good_checkpoint_left_nothing_is_made_up(yard: Yard) -> None:
    workspace = yard.workspace("hopeless")
    yard.kill_in_write(workspace, 40)
    for state in (workspace.run / "checkpoints").rglob("manifest.json"):
        state.write_bytes(b"{}")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be used"):
        yard._finish(workspace)
    shutil.rmtree(workspace.root)
