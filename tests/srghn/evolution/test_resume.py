"""A run killed at any moment, in the middle of a write too, ends in the same bytes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srghn.config import EngineSettings, EnvParams, NetworkParams, RunParams
from srghn.envs import EnvVersion, pin
from srghn.errors import (
    ArchitectureMismatch,
    CheckpointError,
    ConfigError,
    EvaluationError,
    FingerprintMismatch,
)
from srghn.evaluation.base import make_evaluator
from srghn.evolution import evolve, load_run, loop
from srghn.evolution.base import same_architecture
from srghn.evolution.checkpoint import CheckpointWarning
from srghn.evolution.metrics import GenerationRecord
from srghn.evolution.progress import rows
from srghn.evolution.run import RECORD, locked, read_record
from srghn.files import seal
from srghn.interrupt import interruptible
from tests.forks import forked

Play = Callable[..., None]
Contents = Callable[[Path], dict[str, bytes]]


def die_at_system_call(number: int, play: Play, params: RunParams, run_dir: Path) -> None:
    """Play, but be killed at the n-th sync or rename; a file about to be synced is left half."""
    made = 0

    def counted(call: Callable[..., Any], tear: bool) -> Callable[..., Any]:
        def wrapped(*args: Any) -> Any:
            nonlocal made
            made += 1
            if made == number:
                if tear and not os.path.isdir(f"/proc/self/fd/{args[0]}"):
                    os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args)

        return wrapped

    os.fsync = counted(os.fsync, tear=True)
    os.replace = counted(os.replace, tear=False)
    os.rename = counted(os.rename, tear=False)
    play(params, run_dir)


def survives(number: int, play: Play, params: RunParams, run_dir: Path) -> bool:
    child = forked(die_at_system_call, number, play, params, run_dir)
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode == 0


@pytest.mark.parametrize("seconds", [5.0, 0.0])
def test_killed_at_one_write_after_another(
    seconds: float, small_run: Any, play: Play, contents: Contents, finished: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Every seventh of the syncs and renames of this run, and of one that often saves."""
    monkeypatch.setattr(loop, "SECONDS", seconds)
    expected, number = contents(finished), 1
    while not survives(number, play, small_run(), run_dir := tmp_path / str(number)):
        play(small_run(), run_dir)
        assert contents(run_dir) == expected, f"killed at write {number}"
        number += 7
    assert number > 50  # four checkpoints, each of two tables and two files


def test_killed_again_and_again_at_random_moments(
    small_run: Any, play: Play, contents: Contents, finished: Path, tmp_path: Path
) -> None:
    """Ten kills; a run that arrives before its kill is compared, and another one begun."""
    rng, expected, kills, runs = np.random.default_rng(0), contents(finished), 0, 0
    started = time.monotonic()
    forked(play, small_run(), tmp_path / "alone").join()
    seconds = time.monotonic() - started
    while kills < 10:
        child = forked(play, small_run(), tmp_path / str(runs))
        child.join(rng.uniform(0, 0.8 * seconds))
        child.kill()
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)
        kills += child.exitcode == -signal.SIGKILL
        if child.exitcode == 0:
            assert contents(tmp_path / str(runs)) == expected
            runs += 1
    play(small_run(), tmp_path / str(runs))
    assert contents(tmp_path / str(runs)) == expected


@pytest.mark.parametrize("hook", ["on_generation", "stop"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_exception_costs_the_generation_at_hand_alone(
    hook: str, error: type[BaseException], small_run: Any, contents: Contents, finished: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Though the next checkpoint was seconds away, what was finished is kept; the rest is equal."""
    params, heard = small_run(), list[int]()

    def listen(record: GenerationRecord) -> None:
        heard.append(record.generation)
        if heard == [0, 1, 2, 3]:
            raise error

    version = pin(params.env)
    with make_evaluator(EngineSettings(), version, params.network) as evaluator:
        hooks: Any = {hook: listen}
        with pytest.raises(error):
            evolve(params, version, evaluator, tmp_path / "run", **hooks)
        kept = load_run(tmp_path / "run")
        assert kept.generations["generation"].to_pylist() == [0, 1, 2]
        evolve(params, version, evaluator, str(tmp_path / "run"), **hooks)
    assert heard == [0, 1, 2, 3, 3, 4, 5, 6]
    assert contents(tmp_path / "run") == contents(finished)


def test_a_start_that_was_refused_refuses_no_other(small_run: Any, tmp_path: Path) -> None:
    params = small_run()
    version = pin(params.env)
    bad = params.model_copy(
        update={"evolution": params.evolution.model_copy(update={"mode": "flippd"})}
    )
    other = NetworkParams(kwargs={"hidden": [5]})
    with make_evaluator(EngineSettings(), version, params.network) as evaluator:
        with pytest.raises(ConfigError, match="flippd"):
            evolve(bad, version, evaluator, tmp_path)
        with (
            make_evaluator(EngineSettings(), version, other) as strange,
            pytest.raises(EvaluationError),
        ):
            evolve(small_run(seed=2), version, strange, tmp_path)
        assert (tmp_path / "run.json").exists()  # of a start that evolved nothing
        evolve(params, version, evaluator, tmp_path)
    assert load_run(str(tmp_path)).progress.done == params.evolution.generations


def test_what_was_evolved_is_kept_though_its_checkpoints_are_gone(
    small_run: Any, play: Play, contents: Contents, tmp_path: Path
) -> None:
    play(small_run(checkpoint_every=2), tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "finalists.json").unlink()
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=r"evolution\.seed was \d, now is 2"):
        play(small_run(checkpoint_every=2, seed=2), tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "given"), [("version", "CartPole-v1"), ("evaluator", None), ("founder", "folder")]
)
def test_arguments_of_another_kind_are_refused_before_anything_is_written(
    name: str, given: Any, small_run: Any, tmp_path: Path
) -> None:
    params = small_run()
    version = pin(params.env)
    with make_evaluator(EngineSettings(), version, params.network) as evaluator:
        call: Any = {"version": version, "evaluator": evaluator, "run_dir": tmp_path / "run"}
        with pytest.raises(ConfigError, match=f"{name}: expected"):
            evolve(params, **(call | {name: given}))
    assert not (tmp_path / "run").exists()


def test_an_interrupt_within_compiled_code_is_one_outside() -> None:
    wrapped = SystemError("returned a result with an exception set")
    wrapped.__cause__ = SystemError("the same")
    wrapped.__cause__.__context__ = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt), interruptible():
        raise wrapped
    with pytest.raises(SystemError), interruptible():
        raise SystemError


def test_a_finished_run_is_left_as_it_is(
    small_run: Any, play: Play, contents: Contents, finished: Path
) -> None:
    before = contents(finished)
    play(small_run(), finished)
    assert contents(finished) == before


def stopped(params: RunParams, run_dir: Path, generation: int) -> list[int]:
    """Play, or go on, and be killed in this generation; gives the generations played."""
    version, played = pin(params.env), list[int]()

    class Stop(Exception):
        pass

    def stop(record: GenerationRecord) -> None:
        played.append(record.generation)
        if record.generation == generation:
            raise Stop

    with (
        make_evaluator(EngineSettings(), version, params.network) as evaluator,
        pytest.raises(Stop),
    ):
        evolve(params, version, evaluator, run_dir, on_generation=stop)
    return played


def kept(run_dir: Path) -> list[int]:
    return sorted(int(path.name) for path in (run_dir / "checkpoints").iterdir())


@pytest.fixture
def half(small_run: Any, tmp_path: Path) -> Path:
    """A run killed after four generations."""
    stopped(small_run(), run_dir := tmp_path / "half", generation=4)
    assert kept(run_dir) == [2, 4]
    return run_dir


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock asks for a checkpoint after every generation."""
    monkeypatch.setattr(loop, "SECONDS", 0.0)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("every", [3, 5, 100])
def test_a_kill_between_parts_costs_the_generation_at_hand(
    every: int, small_run: Any, play: Play, contents: Contents, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Killed in every generation; what an undisturbed run that heeds no clock leaves is left."""
    params, run_dir = small_run(checkpoint_every=every), tmp_path / "hasty"
    assert stopped(params, run_dir, 0) == [0]
    for generation in range(1, 7):
        assert stopped(params, run_dir, generation) == [generation - 1, generation]
    # killed as it wrote one that the clock will not ask for again
    (run_dir / "checkpoints" / ".00000099.tmp").mkdir()
    play(params, run_dir)
    monkeypatch.setattr(loop, "SECONDS", float("inf"))
    play(params, tmp_path / "calm")
    assert contents(run_dir) == contents(tmp_path / "calm")


@pytest.mark.usefixtures("hasty")
def test_between_parts_two_checkpoints_are_kept(small_run: Any, play: Play, tmp_path: Path) -> None:
    params = small_run(generations=9, checkpoint_every=4)
    found = {}
    for generation in range(1, 9):  # as this generation was being played
        stopped(params, tmp_path, generation)
        found[generation] = kept(tmp_path)
    assert [found[g] for g in range(1, 5)] == [[1], [1, 2], [2, 3], [4]]
    assert [found[g] for g in range(5, 9)] == [[4, 5], [4, 5, 6], [4, 6, 7], [4, 8]]
    play(params, tmp_path)
    assert kept(tmp_path) == [8, 9]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("torn", [1, 2])
def test_a_torn_checkpoint_between_parts_is_named_and_the_one_before_used(
    torn: int, small_run: Any, play: Play, contents: Contents, tmp_path: Path
) -> None:
    """With both of them torn, the one before is that at the end of a part."""
    params = small_run(checkpoint_every=4)
    stopped(params, tmp_path / "run", 6)
    assert kept(tmp_path / "run") == [4, 5, 6]
    for name in ("00000006", "00000005")[:torn]:
        state = tmp_path / "run" / "checkpoints" / name / "state.safetensors"
        state.write_bytes(state.read_bytes()[:-1])
    with pytest.warns(CheckpointWarning) as told:
        assert stopped(params, tmp_path / "run", 6) == [*range(6 - torn, 7)]
    assert len(told) == torn
    assert all(f"Resuming from 0000000{6 - torn} instead" in str(each.message) for each in told)
    play(params, tmp_path / "run")
    play(params, tmp_path / "undisturbed")
    assert contents(tmp_path / "run") == contents(tmp_path / "undisturbed")


@pytest.mark.usefixtures("hasty")
def test_a_run_is_read_up_to_its_last_checkpoint(
    small_run: Any, play: Play, tmp_path: Path
) -> None:
    """With the rows that are in no part yet; while it goes on, not those that came later."""
    params = small_run(checkpoint_every=4)
    stopped(params, tmp_path, 6)
    run = load_run(tmp_path)
    later = load_run(tmp_path)
    assert np.unique(run.lineage.generation).tolist() == [*range(6)]
    assert run.ancestry(int(run.finalists.ids[0])).chain
    shown = rows(tmp_path, "generations")
    assert shown is not None
    assert shown["generation"].to_pylist() == [*range(6)]
    play(params, tmp_path)
    assert np.array_equal(later.lineage.id, run.lineage.id)


OWN_NETWORK = """
import torch
from torch import nn

bent = torch.tanh

class Own(nn.Module):
    def __init__(self, observation_size, action_size):
        super().__init__()
        self.first, self.last = nn.Linear(observation_size, 2), nn.Linear(2, action_size)

    def forward(self, obs):
        return self.last(bent(self.first(obs)))
"""


@pytest.mark.parametrize("strategy", ["self-referential", "ga", "self-adaptive-ga", "snes"])
def test_a_run_is_not_read_with_another_network_of_the_same_shapes(
    strategy: str, small_run: Any, play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An own network that was edited meanwhile: the finalists would be other policies in it."""
    (tmp_path / "edited_network.py").write_text(OWN_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    own = NetworkParams(module="edited_network:Own", kwargs={})
    params = small_run(strategy=strategy).model_copy(update={"network": own})
    play(params, tmp_path / "run")
    assert load_run(tmp_path / "run").progress.done == 7
    monkeypatch.setattr(import_module("edited_network"), "bent", torch.relu)
    with pytest.raises(ArchitectureMismatch, match="put the network's code back") as refused:
        load_run(tmp_path / "run")
    assert "\n" not in str(refused.value)


def test_a_run_from_before_digests_had_a_graph_goes_on(
    small_run: Any, play: Play, tmp_path: Path
) -> None:
    params = small_run(strategy="ga")
    stopped(params, tmp_path, 5)
    record = read_record(tmp_path)
    record["architecture"], _, graph = record["architecture"].partition("+")
    assert len(record["architecture"]) == len(graph) == 64
    (tmp_path / RECORD).write_bytes(seal(record))
    play(params, tmp_path)
    assert load_run(tmp_path).progress.done == 7


def test_a_record_with_a_graph_is_not_of_a_network_that_has_none() -> None:
    assert same_architecture("policy", "policy+graph")
    assert same_architecture("policy+graph", "policy+graph")
    assert not same_architecture("policy+graph", "policy")
    assert not same_architecture("policy+graph", "policy+other")


def test_before_the_first_checkpoint_there_is_nothing_to_read(tmp_path: Path) -> None:
    assert rows(tmp_path, "generations") is None


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints/00000004/state.safetensors",
        "checkpoints/00000004/manifest.json",
        "lineage/00000002-00000003.parquet",
        "generations/00000002-00000003.parquet",
    ],
)
def test_a_flipped_bit_in_the_newest_is_named_and_the_one_before_used(
    small_run: Any, play: Play, contents: Contents, finished: Path, half: Path, name: str
) -> None:
    data = bytearray((half / name).read_bytes())
    data[len(data) // 2] ^= 4
    (half / name).write_bytes(data)
    with pytest.warns(CheckpointWarning, match=Path(name).name):
        play(small_run(), half)
    assert contents(half) == contents(finished)


@pytest.mark.parametrize("name", ["lineage/00000000-00000001.parquet", "run.json"])
def test_a_flipped_bit_in_what_every_checkpoint_needs_is_refused(
    small_run: Any, play: Play, half: Path, name: str
) -> None:
    data = bytearray((half / name).read_bytes())
    data[len(data) // 2] ^= 4
    (half / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=Path(name).name):
        play(small_run(), half)


def test_a_missing_record_beside_checkpoints_is_refused(
    small_run: Any, play: Play, half: Path
) -> None:
    (half / "run.json").unlink()
    with pytest.raises(CheckpointError, match=r"run\.json is missing"):
        play(small_run(), half)


def test_other_parameters_are_refused_and_named(small_run: Any, play: Play, half: Path) -> None:
    with pytest.raises(CheckpointError, match=r"evolution\.episodes was 2, now is 3"):
        play(small_run(episodes=3), half)


def test_parameters_of_later_stages_may_change(small_run: Any, play: Play, half: Path) -> None:
    params = small_run()
    gate = params.gate.model_copy(update={"episodes": 30})
    play(params.model_copy(update={"gate": gate}), half)


def test_another_world_is_refused_with_both_named(small_run: Any, play: Play, half: Path) -> None:
    params = small_run()
    other = params.model_copy(update={"env": EnvParams(id="CartPole-v1")})
    old, new = pin(params.env).fingerprint, pin(other.env).fingerprint
    with pytest.raises(FingerprintMismatch, match=rf"(?s){old}.*{new}.*srghn env pin"):
        play(other, half)


def test_a_version_that_names_more_packages_is_told_which_one_to_go_on_in(
    small_run: Any, half: Path
) -> None:
    params, older = small_run(), half / "env_version.json"
    version = EnvVersion.load(older)
    fuller = replace(version, packages={**version.packages, "numba": "1.0"})
    said = rf"fewer packages; give EnvVersion\.load\('{re.escape(str(older))}'\)"
    with (
        make_evaluator(EngineSettings(), fuller, params.network) as evaluator,
        pytest.raises(FingerprintMismatch, match=said),
    ):
        evolve(params, fuller, evaluator, half)


def test_another_platform_is_refused_and_named(
    small_run: Any, play: Play, half: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srghn.provenance.PACKAGES", ("numpy",))
    with pytest.raises(CheckpointError, match=r"platform\.torch was .* now is None"):
        play(small_run(), half)


def test_two_processes_never_evolve_in_one_folder(small_run: Any, play: Play, half: Path) -> None:
    with locked(half), pytest.raises(CheckpointError, match="another process"):
        play(small_run(), half)
    play(small_run(), half)


def test_a_finished_run_whose_last_checkpoint_is_spoilt_is_not_judged_by_an_earlier_one(
    small_run: Any, play: Play, contents: Contents, finished: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    (run_dir / "checkpoints" / "00000007" / "state.safetensors").write_bytes(b"")
    with pytest.warns(CheckpointWarning), pytest.raises(CheckpointError, match="last checkpoint"):
        load_run(run_dir)
    with pytest.warns(CheckpointWarning):
        play(small_run(), run_dir)
    assert contents(run_dir) == contents(finished)


def test_reading_a_run_that_has_no_checkpoint_says_so(half: Path) -> None:
    shutil.rmtree(half / "checkpoints")
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        load_run(half)
