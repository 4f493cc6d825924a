"""Is the policy that would be served the one that the genome generates?

A file's digest says that it is the file that was named, not that it was evolved. So the gate makes
the network again from the genome, by the parameters that the manifest records, and asks both about
the observations that were met: other weights in the served file can't hide behind a true lineage.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from regression_suite.episodes import Seen
from srghn.candidates.candidate import Candidate
from srghn.config import RunParams
from srghn.envs.interface import Interface
from srghn.errors import SrghnError
from srghn.inference.verdict import Check

NAME = "policy of the genome"
REMEDY = "Freeze the candidate again from its run: the genome is authoritative."
#: A choice may differ where its network's two largest outputs are closer than this share of their
#: size, an action of a box by this share of its range: two libraries round differently.
TOLERANCE = 1e-4
#: Largest share of observations with such ties: a network that ties everywhere excuses nothing.
FEW = 0.01


def judge_rebuilt(candidate: Candidate, interface: Interface, seen: Seen) -> Check:
    """Compare the served policy with the genome's on golden and on met observations."""
    golden, states = candidate.golden[0], candidate.golden_states[0]
    asked = Seen(golden, states)
    if len(seen):
        both = np.concatenate([golden, seen.observations]), np.concatenate([states, seen.states])
        asked = Seen(*both)
    try:
        expected, near = remade(candidate, interface, asked)
        actions, _ = candidate.policy().step(asked.observations, asked.states)
    except (SrghnError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = f"the policy cannot be rebuilt from the genome: {_short(error)}"
        return Check(NAME, "failed", reason, remedy=REMEDY)
    if expected.shape != actions.shape:
        reason = f"its policy gives actions {expected.shape}, the served one {actions.shape}"
        return Check(NAME, "failed", reason, remedy=REMEDY)
    different = (_rows(np.abs(expected - actions.astype(np.float64))) > near[:, None]).any(axis=1)
    if different.any():
        reason = (
            f"the served policy's actions differ from the genome's for {int(different.sum()):,} of "
            f"{len(asked):,} observations"
        )
        return Check(NAME, "failed", reason, remedy=REMEDY)
    reason = f"rebuilt from the genome, it gives the same {len(asked):,} actions as the served "
    "policy"
    return Check(NAME, "passed", reason)


def remade(
    candidate: Candidate, interface: Interface, seen: Seen
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Actions of the genome's own network, and how far each row (n,) may differ from them."""
    import torch  # costs seconds, and only this check needs a network

    from srghn.candidates.freeze import ServedPolicy, load_weights
    from srghn.networks import build_network

    params = RunParams.model_validate(candidate.manifest["params"])
    network = build_network(params.network, interface)
    load_weights(network, weights_of(candidate, interface))
    with torch.no_grad():
        asked = [torch.from_numpy(np.ascontiguousarray(seen.observations, np.float32))]
        if seen.states.shape[1]:
            asked.append(torch.from_numpy(np.ascontiguousarray(seen.states, np.float32)))
        answered: Any = network(*asked)
        outputs = (answered[0] if len(asked) > 1 else answered).numpy().astype(np.float64)
        served = ServedPolicy(network, interface).eval()
        actions = served.decode(torch.from_numpy(outputs.astype(np.float32))).numpy()
        actions = actions.astype(np.float64)
    if interface.action_kind == "box":
        rule = interface.box_rule
        width = float(np.max(np.where(np.isfinite(rule.half), rule.half, 1.0)))
        return actions, np.full(len(actions), max(TOLERANCE * width, 1e-5))
    tied = _tied(outputs, interface)
    return actions, np.where(tied & (tied.mean() <= FEW), np.inf, 0.0)


def weights_of(candidate: Candidate, interface: Interface) -> NDArray[np.float32]:
    """The policy's flat weights (parameters,) that the genome generates."""
    from srghn.evolution.registry import make_strategy

    params = RunParams.model_validate(candidate.manifest["params"])
    encoding = make_strategy(params, interface).encoding
    genome = candidate.load_genome()
    if encoding is None:  # these strategies evolve the policy's weights themselves
        return genome
    if genome.shape != (encoding.genome_size,):
        raise ValueError(f"the genome has {genome.size} numbers, expected {encoding.genome_size}")
    weights: NDArray[np.float32] = encoding.generate(genome[None])[0]
    return weights


def _tied(outputs: NDArray[np.float64], interface: Interface) -> NDArray[np.bool_]:
    """Rows (n,) in which a block's two largest outputs are too close to tell apart."""
    tied, start = np.zeros(len(outputs), bool), 0
    for choices in interface.choices:
        block = np.sort(outputs[:, start : start + choices], axis=1)
        start += choices
        if choices > 1:
            size = np.maximum(np.abs(block[:, -1]), 1e-12)
            tied |= block[:, -1] - block[:, -2] <= TOLERANCE * size
    return tied


def _rows(values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(len(values), -1)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
