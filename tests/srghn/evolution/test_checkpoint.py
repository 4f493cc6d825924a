import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from srghn.errors import CheckpointError
from srghn.evolution.checkpoint import (
    Checkpoint,
    CheckpointWarning,
    newest,
    prune,
    read,
    steps,
    write,
)


def make(step: int) -> Checkpoint:
    arrays = {
        "genomes": np.full((2, 3), step, dtype=np.float32),
        "ids": np.arange(2, dtype=np.int64),
        "best": np.array(step / 3),
    }
    return Checkpoint(step, arrays, {"strategy": "ga", "generation": step})


def anything(_: Checkpoint) -> None:
    """A check that every checkpoint passes."""


def test_round_trip_to_the_bit(tmp_path: Path) -> None:
    checkpoint = make(7)
    back = read(write(tmp_path, checkpoint))
    assert (back.step, back.meta) == (7, checkpoint.meta)
    for name, array in checkpoint.arrays.items():
        assert (back.arrays[name].dtype, back.arrays[name].shape) == (array.dtype, array.shape)
        assert back.arrays[name].tobytes() == array.tobytes()


def kept(folder: Path) -> list[int]:
    return [int(path.name) for path in steps(folder)]


def test_two_of_a_kind_are_kept_and_the_newest_is_used(tmp_path: Path) -> None:
    """Lasting are 3, 6 and 9; what is in between goes as soon as the next of them is there."""
    found = {}
    for step in range(1, 11):
        write(tmp_path, make(step))
        prune(tmp_path, step, range(3, step + 1, 3))
        found[step] = kept(tmp_path)
    assert [found[step] for step in (1, 2, 3)] == [[1], [1, 2], [3]]
    assert [found[step] for step in (4, 5, 6)] == [[3, 4], [3, 4, 5], [3, 6]]
    assert [found[step] for step in (7, 8, 9)] == [[3, 6, 7], [3, 6, 7, 8], [6, 9]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = newest(tmp_path, anything)
    assert found is not None
    assert found.step == 10


def test_refused_ones_ahead_go_and_so_does_what_a_kill_left_aside(tmp_path: Path) -> None:
    for step in (2, 4, 6, 7, 8):
        write(tmp_path, make(step))
    (tmp_path / ".00000009.tmp").mkdir()
    prune(tmp_path, 5, [4])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000004"]
    for step in (5, 6, 7):
        write(tmp_path, make(step))
        prune(tmp_path, step, [4])
    assert kept(tmp_path) == [4, 6, 7]


def test_one_that_a_run_at_work_removes_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, make(1))
    gone = write(tmp_path, make(2))
    listed = steps(tmp_path)
    shutil.rmtree(gone)
    monkeypatch.setattr("srghn.evolution.checkpoint.steps", lambda folder: listed)
    with warnings.catch_warnings(action="error"):
        found = newest(tmp_path, anything)
    assert found is not None
    assert found.step == 1


def test_nothing_yet_is_not_an_error(tmp_path: Path) -> None:
    assert newest(tmp_path / "absent", anything) is None


@pytest.mark.parametrize("name", ["state.safetensors", "manifest.json"])
def test_any_flipped_bit_is_refused_and_the_one_before_used(tmp_path: Path, name: str) -> None:
    write(tmp_path, make(1))
    path = write(tmp_path, make(2)) / name
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(good)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=name):
            read(path.parent)
    with pytest.warns(CheckpointWarning, match=name):
        found = newest(tmp_path, anything)
    assert found is not None
    assert found.step == 1
    assert read(write(tmp_path, make(2))).step == 2  # written again over the bad one


@pytest.mark.parametrize("name", ["state.safetensors", "manifest.json"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_torn_file_is_refused(tmp_path: Path, name: str, share: float) -> None:
    path = write(tmp_path, make(2)) / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(CheckpointError, match=name):
        read(path.parent)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, make(2))
    (path / "state.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"state\.safetensors"):
        read(path)


def test_none_left_is_an_error_that_names_every_one(tmp_path: Path) -> None:
    for step in (1, 2):
        (write(tmp_path, make(step)) / "manifest.json").write_bytes(b"{}")
    with pytest.raises(CheckpointError, match=r"(?s)00000002.*00000001.*dvc pull"):
        newest(tmp_path, anything)


def test_a_check_can_refuse(tmp_path: Path) -> None:
    write(tmp_path, make(1))
    write(tmp_path, make(2))

    def old_only(checkpoint: Checkpoint) -> None:
        if checkpoint.step > 1:
            raise CheckpointError("its table is gone")

    with pytest.warns(CheckpointWarning, match="its table is gone"):
        found = newest(tmp_path, old_only)
    assert found is not None
    assert found.step == 1


def test_what_a_killed_write_left_aside_is_no_checkpoint(tmp_path: Path) -> None:
    whole = write(tmp_path, make(1))
    shutil.copytree(whole, tmp_path / ".00000002.tmp")
    assert steps(tmp_path) == [whole]
    write(tmp_path, make(2))
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, make(1))
    monkeypatch.setattr("srghn.evolution.checkpoint.FORMAT", 3)
    with pytest.raises(CheckpointError, match="expected format 3, found 2"):
        read(path)
