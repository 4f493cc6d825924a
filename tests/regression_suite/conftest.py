"""Candidates as they are frozen, made by hand from linear policies, and a small real run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from srghn.candidates.candidate import FORMAT, Candidate, OnnxPolicy
from srghn.config import EnvParams, EvolutionParams, RunParams
from srghn.envs import EnvVersion, pin
from srghn.evaluation.base import make_backend
from srghn.evolution import lineage
from srghn.evolution.ancestry import Ancestry, genome_digest
from srghn.evolution.loop import evolve
from srghn.files import canonical_json, sha256_file

#: Push to the side the pole falls to, and back to the middle of the track.
BALANCE = (0.1, 0.4, 1.0, 0.8)

Make = Callable[..., Candidate]


def linear_onnx(gains: tuple[float, ...], bias: float = 0.0) -> bytes:
    """Action 1 where gains @ observation + bias > 0: an ONNX policy as `freeze` would write it."""
    weights = np.zeros((len(gains), 2), np.float32)
    weights[:, 1] = gains
    nodes = [
        helper.make_node("Gemm", ["obs", "weight", "bias"], ["outputs"]),
        helper.make_node("ArgMax", ["outputs"], ["action"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("obs", TensorProto.FLOAT, ["batch", len(gains)])],
        [helper.make_tensor_value_info("action", TensorProto.INT64, ["batch"])],
        [
            numpy_helper.from_array(weights, "weight"),
            numpy_helper.from_array(np.array([0, bias], np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    data: bytes = model.SerializeToString(deterministic=True)
    onnx.checker.check_model(model)
    return data


def make_candidate(
    base: Path,
    version: EnvVersion,
    run_dir: Path,
    name: str,
    gains: tuple[float, ...] = BALANCE,
    *,
    bias: float = 0.0,
    genome: float = 0.5,
    manifest: Mapping[str, Any] | None = None,
) -> Candidate:
    """A candidate folder: a linear policy said to be the last individual of a run."""
    folder = base / name
    folder.mkdir()
    weights = np.full(10, genome, np.float32)
    last = lineage.load(run_dir)
    chain = tuple(last.chain(int(last.id[-1])))
    (folder / "policy.onnx").write_bytes(linear_onnx(gains, bias))
    (folder / "genome.safetensors").write_bytes(save({"genome": weights}))
    ancestry = Ancestry("architecture", chain, genome_digest(weights))
    (folder / "ancestry.json").write_text(ancestry.to_json())
    observations = np.random.default_rng(0).normal(size=(64, len(gains))).astype(np.float32)
    actions = OnnxPolicy(folder / "policy.onnx")(observations)
    golden = {"observations": observations.tolist(), "actions": actions.tolist()}
    (folder / "golden.json").write_bytes(canonical_json(golden))
    (folder / "env_version.json").write_text(version.to_json())
    return seal(folder, version, manifest or {})


def seal(folder: Path, version: EnvVersion, changes: Mapping[str, Any]) -> Candidate:
    """Write the manifest that names every file's digest."""
    record = {
        "format": FORMAT,
        "name": version.id,
        "run_id": "run-1",
        "generation": 3,
        "mode": version.modes[0],
        "env_fingerprint": version.fingerprint,
        "architecture_digest": "architecture",
        "interface": version.interface.to_dict(),
        "genome_digest": sha256_file(folder / "genome.safetensors"),
        "policy_digest": sha256_file(folder / "policy.onnx"),
        "lineage_digest": sha256_file(folder / "ancestry.json"),
        "golden_digest": sha256_file(folder / "golden.json"),
        "env_digest": sha256_file(folder / "env_version.json"),
        **changes,
    }
    (folder / "manifest.json").write_bytes(canonical_json(record))
    return Candidate.load(folder)


@pytest.fixture(scope="session")
def version() -> EnvVersion:
    return pin(EnvParams(id="CartPoleSwitch-v1"))


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory, version: EnvVersion) -> Path:
    """A real run of six generations."""
    evolution = EvolutionParams(
        strategy="ga", generations=6, parents=4, children=3, episodes=2, checkpoint_every=2
    )
    params = RunParams(env=version.params, evolution=evolution)
    folder = tmp_path_factory.mktemp("run")
    with make_backend("gymnasium", version, params.network) as evaluator:
        evolve(params, version, evaluator, folder)
    return folder


@pytest.fixture
def make(tmp_path: Path, version: EnvVersion, run_dir: Path) -> Make:
    return partial(make_candidate, tmp_path, version, run_dir)
