"""Checkpoints: arrays as safetensors beside a JSON manifest that knows both files' digests.

A checkpoint is a folder that is whole or not there: written aside, synced, renamed. One whose bytes
are not those that were written is refused, and the one before it is used, with a warning, so two of
a kind are kept (see `prune`). Nothing is ever unpickled.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from srghn.errors import CheckpointError
from srghn.files import seal, sha256_bytes, sweep, sync_folder, unseal

FORMAT = 2
KEPT = 2
STATE, MANIFEST = "state.safetensors", "manifest.json"


class CheckpointWarning(UserWarning):
    """A checkpoint was refused and an earlier one is used."""


@dataclass(frozen=True)
class Checkpoint:
    """`step` generations are done; `arrays` by name, and `meta`, plain JSON."""

    step: int
    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]


def write(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write `folder/<step>`; a crash leaves whole checkpoints only. See `prune`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{checkpoint.step:08d}"
    aside = folder / f".{path.name}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    state = save_tensors({k: np.asarray(v, order="C") for k, v in checkpoint.arrays.items()})
    _write_synced(aside / STATE, state)
    _write_synced(aside / MANIFEST, _manifest(checkpoint, sha256_bytes(state)))
    sync_folder(aside)
    if path.exists():  # a refused one of the same generation
        shutil.rmtree(path)
    os.rename(aside, path)
    sync_folder(folder)
    return path


def prune(folder: Path, step: int, lasting: Sequence[int]) -> None:
    """Keep the last two of the `lasting` steps up to `step`, and the last two after them all.

    Later checkpoints were refused and are written again; leftovers of killed writes are removed.
    """
    found = {int(path.name): path for path in steps(folder)}
    between = [number for number in found if max(lasting, default=0) < number <= step]
    for number in found.keys() - {*lasting[-KEPT:], *between[-KEPT:]}:
        shutil.rmtree(found[number])
    sweep(folder)


def read(path: Path) -> Checkpoint:
    """Read and verify one checkpoint; raises `CheckpointError` naming the file that is wrong."""
    manifest = _read_manifest(path / MANIFEST)
    state = _read_bytes(path / STATE)
    if sha256_bytes(state) != manifest["state"]:
        raise CheckpointError(
            f"{path / STATE}: expected sha256 {manifest['state']}, found {sha256_bytes(state)}; "
            "the file was torn or changed"
        )
    try:
        arrays = load_tensors(state)
    except SafetensorError as error:
        raise CheckpointError(f"{path / STATE} is not safetensors: {error}") from error
    return Checkpoint(manifest["step"], arrays, manifest["meta"])


def steps(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first; what was left aside is not one."""
    return sorted(p for p in folder.glob("[0-9]*") if p.is_dir())


def newest(folder: Path, check: Callable[[Checkpoint], None]) -> Checkpoint | None:
    """The newest checkpoint that can be read and passes `check`; None if there is none.

    Each one refused with a `CheckpointError` is named in a `CheckpointWarning`; if none is left, an
    error names them all.
    """
    refused: list[CheckpointError] = []
    for path in reversed(steps(folder)):
        try:
            checkpoint = read(path)
            check(checkpoint)
        except CheckpointError as error:
            if path.exists():  # or else a run at work has removed it meanwhile
                refused.append(error)
            continue
        for reason in refused:
            warnings.warn(
                f"checkpoint refused: {reason}. Resuming from {path.name} instead",
                CheckpointWarning,
                stacklevel=2,
            )
        return checkpoint
    if refused:
        raise CheckpointError(
            f"no checkpoint in {folder} can be used: "
            + "; ".join(map(str, refused))
            + "; restore the folder (dvc pull), or remove the run to start it again"
        )
    return None


def _manifest(checkpoint: Checkpoint, state_digest: str) -> bytes:
    return seal(
        {
            "format": FORMAT,
            "step": checkpoint.step,
            "state": state_digest,
            "meta": checkpoint.meta,
        }
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        body = unseal(_read_bytes(path))
    except ValueError as error:
        raise CheckpointError(f"{path} was torn or changed: {error}") from error
    if body["format"] != FORMAT:
        raise CheckpointError(f"{path}: expected format {FORMAT}, found {body['format']!r}")
    return body


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
