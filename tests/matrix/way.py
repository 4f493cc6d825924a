"""The way of one case, by the product's own stages: pin, evolve, freeze, gate, ledger, server.

What the server answers is compared with torch, action by action.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from pipelines.runs import stages
from pipelines.runs.workspaces import Workspace
from pipelines.versions.judge import judge_version
from pipelines.versions.release import Release
from serving.app import create_app
from serving.settings import Settings
from srghn.candidates.freeze import ServedPolicy, load_weights
from srghn.config import RunParams
from srghn.envs import EnvVersion
from srghn.evolution import load_run
from srghn.memory import state_size
from srghn.networks import build_network

#: Steps of the episode in which served actions are compared with torch's.
STEPS = 40
COLUMNS = ("observations", "actions", "parameters", "gate", "steps served as torch acts")


class Constant(Exception):
    """The gate fails a policy that gives one action to all that it observes, and is right."""


@dataclass(frozen=True)
class Went:
    """One case that went all the way."""

    version: EnvVersion
    parameters: int
    kept: int
    verdict: str
    steps: int

    @property
    def cells(self) -> tuple[str, ...]:
        face = self.version.interface
        return (
            f"{face.observation_size}{', native' if face.layout else ''}",
            face.action_kind,
            f"{self.parameters}{f', state {self.kept}' if self.kept else ''}",
            self.verdict,
            str(self.steps),
        )


def through(params: RunParams) -> Went:
    """From the pin to a served champion whose actions are torch's."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder) / "home").resolved()
        workspace = Workspace(Path(folder) / "work")
        (workspace.root / "data").mkdir(parents=True)
        workspace.params_file.write_text(params.to_yaml(), encoding="utf-8")
        for stage in (stages.pin, stages.evolve, stages.evaluate):
            stage(workspace, settings)
        release = Release(settings)
        try:
            number = release.register(workspace.candidate, "matrix", params)
            verdict = judge_version(release, number, workspace, "matrix", sit=stages.gate)
            if verdict.bound_by == "behaviour":
                raise Constant(verdict.summary)
            assert verdict.verdict == "passed", verdict.summary
            release.approve(number, "matrix", "to be served")
            return _served(workspace, settings, verdict.verdict)
        finally:
            release.ledger.close()


def _served(workspace: Workspace, settings: Settings, verdict: str) -> Went:
    """Ask the champion over HTTP along one episode, and torch beside it."""
    run, params = load_run(workspace.run), workspace.params()
    row = json.loads(workspace.evaluation_metrics.read_text(encoding="utf-8"))["finalist"]
    weights = run.finalists.weights[row]
    network = build_network(params.network, run.version.interface)
    kept = state_size(network)
    torches = _torch(load_weights(network, weights), run.version, kept)
    with TestClient(create_app(settings)) as client:
        steps = _episode(run.version, torches, _server(client))
    return Went(run.version, int(weights.size), kept, verdict, steps)


def _torch(
    network: torch.nn.Module, version: EnvVersion, kept: int
) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    served = ServedPolicy(network, version.interface).eval()
    state = torch.zeros(1, kept)

    def act(row: NDArray[np.float32]) -> NDArray[Any]:
        nonlocal state
        with torch.no_grad():
            given = torch.from_numpy(row[None])
            if not kept:
                return np.asarray(served(given))[0]
            action, state = served(given, state)
        return np.asarray(action)[0]

    return act


def _server(client: TestClient) -> Callable[[Any], NDArray[Any]]:
    """One episode of the server, asked with observations as JSON holds them.

    Its memory, where there is any, travels in the token.
    """
    said: dict[str, Any] = {"episode_id": "matrix"}

    def act(observation: Any) -> NDArray[Any]:
        nonlocal said
        answer = client.post("/v1/act", json={"observation": observation, **said})
        assert answer.status_code == 200, answer.text
        said = {"token": answer.json()["token"]}
        return np.asarray(answer.json()["action"])

    return act


def _episode(
    version: EnvVersion,
    torches: Callable[[NDArray[np.float32]], NDArray[Any]],
    server: Callable[[Any], NDArray[Any]],
) -> int:
    """Steps of one episode in which, asked natively, the server acts as torch does."""
    face, native = version.interface, list[Any]()
    env = version.make(version.modes[0])
    inner = env.env  # type: ignore[attr-defined]
    reset, step = inner.reset, inner.step
    inner.reset = lambda **k: _noted(native, reset(**k))
    inner.step = lambda action: _noted(native, step(action))
    observation, _ = env.reset(seed=7)
    for at in range(STEPS):
        row = np.asarray(observation, np.float32)
        asked = row.tolist() if face.layout is None else _plain(native[-1])
        expected, action = torches(row), server(asked)
        shaped = np.reshape(expected, face.action_shape)
        assert action.shape == shaped.shape
        np.testing.assert_allclose(action, shaped, rtol=0, atol=1e-5)
        observation, _, terminated, truncated, _ = env.step(expected)
        if terminated or truncated:
            return at + 1
    return STEPS


def _noted(native: list[Any], answer: Any) -> Any:
    native.append(answer[0])
    return answer


def _plain(value: Any) -> Any:
    """A native observation as JSON holds it."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return np.asarray(value).tolist()
