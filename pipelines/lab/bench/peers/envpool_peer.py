# mypy: ignore-errors
# Runs in the environment of the peer, whose packages are not here.
"""EnvPool with a NumPy policy, finished episodes dropped: `python envpool_peer.py SPEC.json`.

Run by the peer's own interpreter; see `pipelines.lab.bench.peers`.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import envpool
import numpy as np
from common import measure


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    weights, sizes = np.load(spec["weights"]), spec["sizes"]
    layers, at = [], 0
    for n_in, n_out in itertools.pairwise(sizes):
        end = at + n_in * n_out
        layers.append((weights[:, at:end].reshape(-1, n_out, n_in), weights[:, end : end + n_out]))
        at = end + n_out
    owners = np.repeat(np.arange(len(weights)), spec["episodes"])
    envs = envpool.make_gymnasium(
        spec["env"], num_envs=len(owners), num_threads=1, max_episode_steps=spec["limit"]
    )
    box = not hasattr(envs.action_space, "n")

    def play() -> int:
        rows, steps = envs.reset()[0].astype(np.float32), 0
        alive = np.arange(len(owners))
        chosen = [(w[owners], b[owners]) for w, b in layers]
        while len(alive):
            values = rows
            for depth, (weight, bias) in enumerate(chosen):
                values = np.matmul(weight, values[:, :, None])[:, :, 0] + bias
                values = np.tanh(values) if depth < len(layers) - 1 else values
            actions = np.clip(values, -1, 1) if box else values.argmax(axis=1).astype(np.int32)
            rows, _, terminated, truncated, _ = envs.step(actions, alive)
            steps += len(alive)
            going = ~(terminated | truncated)
            rows = rows.astype(np.float32)
            if not going.all():
                alive, rows = alive[going], rows[going]
                chosen = [(w[owners[alive]], b[owners[alive]]) for w, b in layers]
        return steps

    measure(play, spec)


main()
