# mypy: ignore-errors
# Runs in the environment of the peer, whose packages are not here.
"""CartPole in JAX (gymnax), policies and episodes mapped, one scan of 500 steps, as evosax does it.

Run by the peer's own interpreter: `python evosax_peer.py SPEC.json`; see
`pipelines.lab.bench.peers`.
Only steps of unfinished episodes count: a scan cannot drop the finished ones.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from common import measure


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    weights = jnp.asarray(np.load(spec["weights"]))
    sizes = spec["sizes"]
    env, params = gymnax.make("CartPole-v1")

    def outputs(flat, row):
        at = 0
        for depth, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
            end = at + n_in * n_out
            row = flat[at:end].reshape(n_out, n_in) @ row + flat[end : end + n_out]
            row = jnp.tanh(row) if depth < len(sizes) - 2 else row
            at = end + n_out
        return row

    def episode(flat, key):
        row, state = env.reset(key, params)

        def step(carry, key):
            row, state, alive = carry
            action = outputs(flat, row).argmax()
            row, state, _, terminated, truncated, _ = env.step(key, state, action, params)
            return (row, state, alive & ~terminated & ~truncated), alive

        _, alive = jax.lax.scan(step, (row, state, True), jax.random.split(key, 500))
        return alive.sum()

    keys = jax.random.split(jax.random.key(0), spec["episodes"])
    play = jax.jit(jax.vmap(jax.vmap(episode, (None, 0)), (0, None)))
    measure(lambda: int(play(weights, keys).sum()), spec)


main()
