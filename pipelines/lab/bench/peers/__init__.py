"""The peers, each with its own virtual environment and its own program to measure it.

Their interpreters see this project's packages, so nothing large is installed twice; only JAX's does
not. A peer that is not installed is skipped with a message.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.lab.bench.works import Work
from srghn.errors import ServiceError

#: Called with messages about skipped peers.
Say = Callable[[str], None]
HERE = Path(__file__).parent
#: Most individuals for a peer that plays one policy after the other.
AT_MOST = 8


@dataclass(frozen=True)
class Peer:
    """`worlds` it can play, `packages` to install, whether it sees this project's packages."""

    name: str
    worlds: tuple[str, ...]
    packages: tuple[str, ...]
    shares: bool

    def python(self, home: Path) -> Path:
        return home / "bench" / self.name / "bin" / "python"

    def installed(self, home: Path) -> bool:
        return self.python(home).exists()


PEERS = (
    Peer("evotorch", ("CartPole-v1", "LunarLander-v3", "Ant-v5"), ("evotorch",), True),
    Peer("evosax", ("CartPole-v1",), ("evosax", "gymnax", "six"), False),
    Peer("envpool", ("CartPole-v1", "LunarLander-v3", "Ant-v5"), ("envpool",), True),
)


def install(peer: Peer, home: Path) -> None:
    """Make a fresh environment with the peer; raises `ServiceError` with pip's message."""
    folder = home / "bench" / peer.name
    _run([sys.executable, "-m", "venv", "--clear", str(folder)], peer)
    if peer.shares:
        site = next(folder.glob("lib/python*/site-packages"))
        (site / "srghn-shared.pth").write_text(
            sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8"
        )
    _run([str(peer.python(home)), "-m", "pip", "install", "--quiet", *peer.packages], peer)


def _run(command: list[str], peer: Peer) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise ServiceError(f"{peer.name} could not be installed: {last}; it will be skipped")


def rate(peer: Peer, work: Work, home: Path, rounds: int, seconds: float) -> float:
    """Steps per CPU-second of a peer on a work; raises `ServiceError` with its last message."""
    face, hidden = work.version.interface, work.network.kwargs["hidden"]
    with tempfile.TemporaryDirectory() as folder:
        weights, spec = Path(folder) / "weights.npy", Path(folder) / "spec.json"
        np.save(weights, work.population.dense())
        spec.write_text(
            json.dumps(
                {
                    "env": work.env,
                    "weights": str(weights),
                    "sizes": [face.observation_size, *hidden, face.action_size],
                    "episodes": work.episodes,
                    "limit": work.version.max_episode_steps,
                    "at_most": AT_MOST,
                    "rounds": rounds,
                    "seconds": seconds,
                }
            ),
            encoding="utf-8",
        )
        command = [str(peer.python(home)), str(HERE / f"{peer.name}_peer.py"), str(spec)]
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=120
            )
        except subprocess.TimeoutExpired as error:
            raise ServiceError(f"{peer.name} did not finish within {error.timeout:g} s") from error
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise ServiceError(f"{peer.name} failed: {last}")
    return float(json.loads(result.stdout.strip().splitlines()[-1])["rate"])
