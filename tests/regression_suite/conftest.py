"""Candidates as they are frozen, made by hand from linear policies, and a small real run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from regression_suite import again
from srghn.candidates.candidate import FORMAT, Candidate, OnnxPolicy
from srghn.candidates.individual import freeze_founder
from srghn.config import EnvParams, EvolutionParams, GateParams, NetworkParams, RunParams
from srghn.envs import EnvVersion, pin
from srghn.evaluation.base import make_backend
from srghn.evolution import lineage
from srghn.evolution.ancestry import Ancestry, genome_digest
from srghn.evolution.loop import evolve
from srghn.evolution.run import load_run
from srghn.files import canonical_json, sha256_file

#: Push to the side the pole falls to, and back to the middle of the track.
BALANCE = (0.1, 0.4, 1.0, 0.8)

Make = Callable[..., Candidate]
#: Fewer episodes than by default, wider margins, one harder world: judged in about a second.
QUICK = GateParams(
    episodes=100,
    cell_episodes=100,
    perturbations=("force:1.2",),
    min_return=450.0,
    max_failure_rate=0.1,
    failure_margin=0.1,
    cell_failure_margin=0.15,
    tail_margin=0.7,
)


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
    genome: float | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> Candidate:
    """A candidate folder: a linear policy said to be the last individual of a run.

    The genome is the policy's own weights, as the run's strategy encodes it, unless it is given.
    """
    folder = base / name
    folder.mkdir()
    own = np.array([*(0.0,) * len(gains), *gains, 0.0, bias], np.float32)
    weights = own if genome is None else np.full(len(own), genome, np.float32)
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
    params = {"params": json.loads((run_dir / "run.json").read_bytes())["params"]}
    return seal(folder, version, params | dict(manifest or {}))


def seal(folder: Path, version: EnvVersion, changes: Mapping[str, Any]) -> Candidate:
    """Write the manifest that names every file's digest; what it had beside them stays."""
    path = folder / "manifest.json"
    if path.exists():
        changes = {"params": json.loads(path.read_bytes())["params"], **changes}
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
    return evolved(version, tmp_path_factory.mktemp("run"))


def run_in(world: EnvParams, folders: pytest.TempPathFactory) -> tuple[EnvVersion, Path]:
    """Another world, pinned, and a run in it."""
    version = pin(world)
    return version, evolved(version, folders.mktemp("run"))


def evolved(version: EnvVersion, folder: Path) -> Path:
    evolution = EvolutionParams(
        strategy="ga", generations=6, parents=4, children=3, episodes=2, checkpoint_every=2
    )
    network = NetworkParams(kwargs={"hidden": []})
    params = RunParams(env=version.params, evolution=evolution, network=network)
    with make_backend("gymnasium", version, params.network) as evaluator:
        evolve(params, version, evaluator, folder)
    return folder


def founder_in(base: Path, version: EnvVersion, network: NetworkParams) -> Candidate:
    """The founder of a short run in `base / "run"`, frozen as `base / "candidate"`."""
    evolution = EvolutionParams(strategy="ga", generations=2, parents=2, children=2, episodes=2)
    params = RunParams(env=version.params, network=network, evolution=evolution)
    with make_backend("gymnasium", version, params.network) as evaluator:
        evolve(params, version, evaluator, base / "run")
    return freeze_founder(load_run(base / "run"), base / "candidate", version.modes[0])


@pytest.fixture(autouse=True)
def replays_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share that is played again is played in this process: a new one takes seconds.

    Tests that are marked `services` start the real one.
    """
    if request.node.get_closest_marker("services"):
        return

    def run(command: list[str], **_: object) -> None:
        again.main(Path(command[-2]), Path(command[-1]))

    monkeypatch.setattr(again.subprocess, "run", run)


@pytest.fixture
def make(tmp_path: Path, version: EnvVersion, run_dir: Path) -> Make:
    return partial(make_candidate, tmp_path, version, run_dir)
