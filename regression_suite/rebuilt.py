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
from srghn.envs.interface import VAST, Interface
from srghn.errors import SrghnError
from srghn.inference.verdict import Check

NAME = "policy of the genome"
REMEDY = "Freeze the candidate again from its run: the genome is authoritative."
#: A choice may differ where its network's two largest outputs are closer than this share of their
#: size, an element of a box's action by this share of its own half range, one of a state by this
#: much and this share of its size: two libraries round differently.
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
        expected, after, allowed = remade(candidate, interface, asked)
        actions, states = candidate.policy().step(asked.observations, asked.states)
    except (SrghnError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = f"the policy cannot be rebuilt from the genome: {_short(error)}"
        return Check(NAME, "failed", reason, remedy=REMEDY)
    # the states that were met are the served policy's own: how it came to them is asked, too
    for what, own, served, (share, beside) in (
        ("actions", expected, actions, allowed),
        ("next states", after, states, (TOLERANCE, TOLERANCE)),
    ):
        if own.shape != served.shape:
            reason = f"its policy gives {what} {own.shape}, the served one {served.shape}"
            return Check(NAME, "failed", reason, remedy=REMEDY)
        same = np.isclose(served, own, rtol=share, atol=beside, equal_nan=True)
        different = ~same.reshape(len(asked), -1).all(axis=1)
        if different.any():
            reason = (
                f"the served policy's {what} differ from the genome's for "
                f"{int(different.sum()):,} of {len(asked):,} observations"
            )
            return Check(NAME, "failed", reason, remedy=REMEDY)
    reason = (
        f"rebuilt from the genome, it gives the same {len(asked):,} actions as the served policy"
    )
    return Check(NAME, "passed", reason)


def remade(
    candidate: Candidate, interface: Interface, seen: Seen
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[Any, Any]]:
    """Actions and next states (n, k) of the genome's own network.

    Last, by which share of its size, and by how much beside it, each action may differ.
    """
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
        raw, after = answered if len(asked) > 1 else (answered, asked[0][:, :0])
        outputs = raw.numpy().astype(np.float64)
        served = ServedPolicy(network, interface).eval()
        actions = served.decode(torch.from_numpy(outputs.astype(np.float32))).numpy()
        actions, states = actions.astype(np.float64), after.numpy().astype(np.float64)
    if interface.action_kind == "box":
        return actions, states, _rounding(interface)
    tied = _tied(outputs, interface)
    excused = np.where(tied & (tied.mean() <= FEW), max(interface.choices), 0)  # any other choice
    return actions, states, (0.0, excused.reshape(-1, *(1,) * (actions.ndim - 1)))


def _rounding(interface: Interface) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each element (k,) of a box's action: share of its size, and how much beside it.

    That is by its own range, or by its size where it has none, or one that says nothing of it.
    """
    rule = interface.box_rule
    ranged = np.isfinite(rule.low) & np.isfinite(rule.high) & (rule.half <= VAST)
    steps = 2 * np.finfo(np.float32).eps  # a narrow range far from 0 has few numbers
    return np.where(ranged, steps, TOLERANCE), TOLERANCE * np.where(ranged, rule.half, 1.0)


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


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
