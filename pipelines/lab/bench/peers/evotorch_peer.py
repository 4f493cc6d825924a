# mypy: ignore-errors
# Runs in the environment of the peer, whose packages are not here.
"""EvoTorch's `GymNE` on the same policies: `python evotorch_peer.py SPEC.json`.

Run by the peer's own interpreter; see `pipelines.lab.bench.peers`.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import torch
from common import measure
from evotorch.neuroevolution import GymNE


def main() -> None:
    torch.set_num_threads(1)
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sizes, layers = spec["sizes"], []
    for depth, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        layers += [torch.nn.Tanh()] if depth else []
        layers.append(torch.nn.Linear(n_in, n_out))
    problem = GymNE(
        spec["env"],
        torch.nn.Sequential(*layers),
        env_config={"max_episode_steps": spec["limit"]},
    )
    # a part of the population is enough, because it plays one policy after the other
    weights = torch.from_numpy(np.load(spec["weights"])[: spec["at_most"]])

    def play() -> int:
        before = problem.status.get("total_interaction_count", 0)
        batch = problem.generate_batch(len(weights))
        batch.set_values(weights)
        problem.evaluate(batch)
        return int(problem.status["total_interaction_count"] - before)

    measure(play, spec)


main()
