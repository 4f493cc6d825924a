"""A share of the gate's episodes, evaluated again in a fresh process: is it the same environment?

An environment that wears out, keeps state between episodes or draws from elsewhere than its seed
can make one policy better than itself. So the last thing a gate does is to start a new process and
play a tenth of each cell's episodes there. Any other byte makes the verdict an error.

    python -m regression_suite.again REQUEST RESULT
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regression_suite.episodes import Played
from regression_suite.suite import cell_named
from srghn import seeding
from srghn.candidates.candidate import Candidate, OnnxPolicy
from srghn.config import NetworkParams
from srghn.envs import EnvVersion
from srghn.evaluation.base import PolicyFunction, choose_backend, make_backend
from srghn.evaluation.task import Task
from srghn.files import atomic_write
from srghn.inference.verdict import Check

#: Share of each cell's episodes that is evaluated again.
SHARE = 0.1
#: Seconds after which the process is given up; a tenth of a gate takes far less.
_PATIENCE = 1800.0
NAME = "same twice"


@dataclass(frozen=True)
class Again:
    """One cell's episodes to be evaluated again: positions (k,) among those that were played."""

    played: Played
    picked: np.ndarray[tuple[int], np.dtype[np.int64]]


def pick(results: Sequence[Played], root: int) -> list[Again]:
    """A tenth of each cell's episodes, at least two, drawn from the gate's own stream."""
    chosen = []
    for played in results:
        rng = seeding.stream(root, "again", played.cell.name)
        count = min(len(played), max(2, round(SHARE * len(played))))
        chosen.append(Again(played, np.sort(rng.choice(len(played), count, replace=False))))
    return chosen


def judge_again(
    results: Sequence[Played],
    candidate: Candidate,
    incumbent: Candidate | None,
    version: EnvVersion,
    mode: str,
    root: int,
) -> Check:
    """Play the share in a fresh process and compare returns and lengths byte for byte."""
    chosen = pick(results, root)
    try:
        found = _elsewhere(chosen, candidate, incumbent, version, mode)
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        return Check(NAME, "error", f"episodes could not be replayed: {_last_line(error)}")
    count = sum(len(part.picked) for part in chosen)
    different = [_difference(part, rows) for part, rows in zip(chosen, found, strict=True)]
    told = [text for text in different if text]
    if told:
        reason = f"the environment is not reproducible: replayed in a fresh process, {told[0]}"
        remedy = (
            "Remove state that outlives an episode and randomness that ignores the seed; pin again."
        )
        return Check(NAME, "error", reason, remedy=remedy, n=count)
    reason = f"{count} episodes replayed to identical bytes in a fresh process"
    return Check(NAME, "passed", reason, n=count)


def play_recorded(
    cells: Sequence[tuple[str, Sequence[int]]],
    players: Sequence[PolicyFunction],
    version: EnvVersion,
    mode: str,
) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Returns and lengths (players, k) of each cell's recorded seeds (k,)."""
    network = NetworkParams()
    with make_backend(choose_backend(version, network), version, network) as backend:
        found = []
        for name, seeds in cells:
            cell = cell_named(name, mode)
            task = Task(version, cell.mode, np.array(seeds, np.int64), cell.perturbation)
            played = backend.evaluate(players, task)
            found.append((played.returns, played.lengths))
    return found


def _elsewhere(
    chosen: Sequence[Again],
    candidate: Candidate,
    incumbent: Candidate | None,
    version: EnvVersion,
    mode: str,
) -> list[dict[str, Any]]:
    arms = [candidate, *([incumbent] if incumbent is not None else [])]
    with tempfile.TemporaryDirectory(prefix="srghn-again-") as folder:
        request, result = Path(folder) / "request.json", Path(folder) / "result.json"
        cells = [[p.played.cell.name, p.played.seeds[p.picked].tolist()] for p in chosen]
        asked = {
            "policies": [str((arm.path / "policy.onnx").absolute()) for arm in arms],
            "version": version.to_json(),
            "mode": mode,
            "cells": cells,
        }
        request.write_text(json.dumps(asked), encoding="utf-8")
        command = [sys.executable, "-m", "regression_suite.again", str(request), str(result)]
        where = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
        subprocess.run(
            command, env=where, check=True, capture_output=True, text=True, timeout=_PATIENCE
        )
        answer: list[dict[str, Any]] = json.loads(result.read_text(encoding="utf-8"))
    return answer


def _difference(part: Again, rows: dict[str, Any]) -> str:
    """Which episode came out different, in words; '' where none did."""
    sides = [("candidate", part.played.returns, part.played.lengths)]
    if part.played.incumbent_returns is not None and part.played.incumbent_lengths is not None:
        sides.append(("champion", part.played.incumbent_returns, part.played.incumbent_lengths))
    for arm, (name, returns, lengths) in enumerate(sides):
        then = [float(v).hex() for v in returns[part.picked]], lengths[part.picked].tolist()
        now = rows["returns"][arm], rows["lengths"][arm]
        for k, seed in enumerate(part.played.seeds[part.picked].tolist()):
            if then[0][k] != now[0][k] or then[1][k] != now[1][k]:
                return (
                    f"the {name}'s episode of cell {part.played.cell.name} on seed {seed} returned "
                    f"{float.fromhex(now[0][k]):g} after {now[1][k]} steps instead of "
                    f"{float.fromhex(then[0][k]):g} after {then[1][k]}"
                )
    return ""


def _last_line(error: Exception) -> str:
    """The child's own last words where there are any."""
    said = getattr(error, "stderr", None) or str(error)
    lines = said.strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def main(request: Path, result: Path) -> None:
    """What the fresh process does."""
    asked = json.loads(request.read_text(encoding="utf-8"))
    players = [OnnxPolicy(Path(path)) for path in asked["policies"]]
    version = EnvVersion.from_json(asked["version"])
    found = play_recorded(asked["cells"], players, version, asked["mode"])
    rows = [
        {"returns": [[float(v).hex() for v in arm] for arm in r], "lengths": n.tolist()}
        for r, n in found
    ]
    atomic_write(result, json.dumps(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
