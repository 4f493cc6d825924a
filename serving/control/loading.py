"""Loads a version from the ledger and the store into memory, with all checks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.actions import actions_of
from serving.layers import Layers, proven, read_layers
from serving.predictor import Predictor
from serving.registry.artefacts import ArtefactStore
from serving.registry.interfaces import key_of
from srghn.candidates.candidate import Candidate, OnnxPolicy
from srghn.envs.layout import Layout
from srghn.errors import ArtefactError

if TYPE_CHECKING:
    from serving.registry.ledger import Ledger
    from serving.registry.records import Version

logger = logging.getLogger(__name__)


def load(ledger: Ledger, store: ArtefactStore, version: int) -> Predictor:
    """Load a version into memory if all checks hold, and warm it up.

    The server itself makes the checks of `vouched`, and checks that the policy gives the golden
    outputs. Raises `LedgerError`, `ArtefactError` or `PredictionError`.
    """
    found, candidate = vouched(ledger, store, version)
    return ready(candidate, version, found.env_fingerprint, found.mode)


def vouched(ledger: Ledger, store: ArtefactStore, version: int) -> tuple[Version, Candidate]:
    """A version and its candidate, if the ledger's history vouches for it. It is not run.

    The ledger's PASSED event and the verdict it cites must be about this digest and environment,
    and every file must have its digest. A recall may have been evolved in another environment than
    the one it passed in. Raises `LedgerError` or `ArtefactError`.
    """
    found = ledger.version(version)
    _, verdict = ledger.passed(version)
    said = (verdict["verdict"], verdict["candidate_digest"], verdict["env_fingerprint"])
    if said != ("passed", found.digest, found.env_fingerprint):
        raise ArtefactError(f"version {version}'s pass is about another candidate: {said}")
    candidate = store.load(found.digest)
    moved = candidate.env_fingerprint != found.env_fingerprint
    if moved and not _recalled(ledger, found):
        raise ArtefactError(
            f"version {version} is recorded for environment {found.env_fingerprint[:16]}…, its "
            f"artefact says {candidate.env_fingerprint[:16]}…; it cannot be served"
        )
    return found, candidate


def ready(
    candidate: Candidate, version: int, env_fingerprint: str = "", mode: str = ""
) -> Predictor:
    """A candidate in memory and warm, if it gives its golden outputs.

    Raises `ArtefactError` or `PredictionError`.
    """
    _, actions = candidate.golden
    interface: Mapping[str, Any] = candidate.manifest.get("interface", {})
    layout = interface.get("layout")
    shape = tuple(interface.get("action_shape", actions.shape[1:]))
    if prod(shape) != prod(actions.shape[1:]):
        raise ArtefactError(
            f"candidate {candidate.digest[:16]}…: its interface has actions of shape {shape}, its "
            f"golden outputs {actions.shape[1:]}; freeze the candidate again"
        )
    policy = candidate.policy()
    candidate.check_golden(policy)
    predictor = Predictor(
        version=version,
        digest=candidate.digest,
        env_fingerprint=env_fingerprint,
        mode=mode,
        observation_size=policy.observation_size,
        action_shape=shape,
        action_kind=actions.dtype.kind,
        policy=policy,
        layers=_layers(candidate, policy),
        state_size=policy.state_size,
        actions=actions_of(candidate.manifest.get("interface")),
        interface=key_of(interface),
        face=interface,
        layout=Layout.from_dict(layout) if layout else None,
    )
    predictor.act(candidate.golden[0][:1])
    predictor.act_one(candidate.golden[0][0].tolist())  # warm up with the usual shape
    return predictor


def _recalled(ledger: Ledger, found: Version) -> bool:
    """Whether it is a former champion that was judged again in a world it did not evolve in."""
    return found.recall_of is not None and ledger.version(found.recall_of).digest == found.digest


def _layers(candidate: Candidate, policy: OnnxPolicy) -> Layers | None:
    """The policy in numpy, if its graph is a plain chain and numpy gives the same outputs."""
    layers = None if policy.state_size else read_layers(candidate.policy_bytes())
    if layers is None:
        return None
    generator = np.random.default_rng(int(candidate.digest[:15], 16))
    found = proven(layers, policy, candidate.golden[0], generator)
    if found is None:
        logger.warning(
            "candidate %s: numpy and ONNX Runtime give different outputs, so numpy is not used",
            candidate.digest[:16],
        )
    return found


def proof(candidate: Candidate) -> dict[str, Any]:
    """The proof that the serving code loads a candidate: `loaded` of `Ledger.start_canary`.

    Raises `ArtefactError` if it does not load.
    """
    candidate.check_golden()
    return {"digest": candidate.digest, "golden": len(candidate.golden[1])}
