"""`make worlds`: environments and networks from outside, from the pin to a served answer.

Each is pinned, evolved for a few generations, frozen, played again as it is served, and asked with
native observations; its actions are compared with torch. Writes `docs/matrix.md` from what it saw,
and exits 1 where something that should work does not, or a refusal says something else.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from srghn.candidates.candidate import Candidate
from srghn.candidates.choose import choose_finalist
from srghn.candidates.freeze import ServedPolicy, load_weights
from srghn.candidates.individual import freeze_finalist
from srghn.config import (
    EngineSettings,
    EnvParams,
    EvaluateParams,
    EvolutionParams,
    NetworkParams,
    RunParams,
)
from srghn.envs import EnvVersion, pin
from srghn.errors import SrghnError
from srghn.evaluation.base import make_evaluator
from srghn.evolution import evolve, load_run
from srghn.memory import state_size
from srghn.networks import build_network
from tests.matrix import networks, worlds

EVOLUTION = EvolutionParams(generations=3, parents=2, children=3, episodes=1)
EVALUATE = EvaluateParams(finalists=2, episodes=2, cell_episodes=0)
PAGE = Path(__file__).parents[2] / "docs" / "matrix.md"
NETWORK_WORLD = EnvParams(id="Acrobot-v1", max_episode_steps=40)
#: Steps of the episode in which served actions are compared with torch's.
STEPS = 40


def through(params: RunParams) -> str:
    """From the pin to served actions equal to torch's; what was seen, in a few words."""
    version = pin(params.env)
    with (
        tempfile.TemporaryDirectory() as folder,
        make_evaluator(EngineSettings(), version, params.network) as evaluator,
    ):
        evolve(params, version, evaluator, Path(folder) / "run")
        run = load_run(Path(folder) / "run")
        choice = choose_finalist(run, evaluator, EVALUATE)
        candidate = freeze_finalist(run, choice, Path(folder) / "candidate")
        weights = run.finalists.weights[choice.row]
        steps = _compare(candidate, version, load_weights(_network(params, version), weights))
    face, kept = version.interface, int(candidate.manifest.get("state_size", 0))
    return (
        f"{face.observation_size}{' native' if face.layout else ''} | {face.action_kind} | "
        f"{weights.size}{f' + state {kept}' if kept else ''} | {steps}"
    )


def _network(params: RunParams, version: EnvVersion) -> torch.nn.Module:
    return build_network(params.network, version.interface)


def _compare(candidate: Candidate, version: EnvVersion, network: torch.nn.Module) -> int:
    """Steps of one episode in which the served file, asked natively, acted as torch does."""
    policy, face = candidate.policy(), version.interface
    served = ServedPolicy(network, face).eval()
    kept = state_size(network)
    env = version.make(version.modes[0])
    native: list[Any] = []
    inner = env.env  # type: ignore[attr-defined]
    reset, step = inner.reset, inner.step
    inner.reset = lambda **k: _noted(native, reset(**k))
    inner.step = lambda action: _noted(native, step(action))
    observation, _ = env.reset(seed=7)
    ours, theirs = torch.zeros(1, kept), np.zeros((1, kept), np.float32)
    for at in range(STEPS):
        row = observation if face.layout is None else face.layout.flatten(_plain(native[-1]))
        np.testing.assert_array_equal(row, observation)
        with torch.no_grad():
            given = torch.from_numpy(np.asarray(row, np.float32)[None])
            answer = served(given, ours) if kept else (served(given), ours)
        expected, ours = answer[0].numpy(), answer[1]
        actions, theirs = policy.step(np.asarray(row, np.float32)[None], theirs)
        np.testing.assert_allclose(actions, expected, rtol=0, atol=1e-5)
        observation, _, terminated, truncated, _ = env.step(actions[0])
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
    array: NDArray[Any] = np.asarray(value)
    return array.tolist()


def attempt(name: str, work: Callable[[], str]) -> tuple[str, bool]:
    begun = time.perf_counter()
    try:
        found, fine = work(), True
    except Exception as error:  # noqa: BLE001  the table says which
        found, fine = f"FAILED {type(error).__name__}: {' '.join(str(error).split())[:200]}", False
    print(f"{name}: {found} ({time.perf_counter() - begun:.1f} s)", flush=True)  # noqa: T201
    return found, fine


def refusal(params: RunParams, said: str) -> str:
    try:
        through(params)
    except SrghnError as error:
        text = str(error)
        if said in text and "\n" not in text:
            return text
        raise
    raise AssertionError("it was taken")


def main(part: str) -> int:
    rows: list[str] = []
    failed = 0
    base = RunParams(evolution=EVOLUTION, evaluate=EVALUATE)

    def add(name: str, work: Callable[[], str], tail: str = "") -> None:
        nonlocal failed
        found, fine = attempt(name, work)
        failed += not fine
        rows.append(f"| {name}{tail} | {found} |")

    if part in ("all", "worlds"):
        rows += ["## Environments", "", HEAD, RULE]
        for world in worlds.TAKEN:
            env = EnvParams.model_validate(world)
            add(env.id, lambda env=env: through(base.model_copy(update={"env": env})))  # type: ignore[misc]
        rows += ["", "Refused:", "", "| what | said |", "|---|---|"]
        for name, (world, said) in worlds.REFUSED.items():
            asked = base.model_copy(update={"env": EnvParams.model_validate(world)})
            add(name, lambda asked=asked, said=said: refusal(asked, said))  # type: ignore[misc]
    if part in ("all", "networks"):
        rows += ["", "## Networks", "", HEAD, RULE]
        on = base.model_copy(update={"env": NETWORK_WORLD})
        for case in networks.TAKEN:
            net = NetworkParams(module=case.module, kwargs=dict(case.kwargs), stack=case.stack)
            tail = f", stack {case.stack}" if case.stack > 1 else ""
            asked = on.model_copy(update={"network": net})
            add(case.module.rpartition(":")[2] + tail, lambda asked=asked: through(asked))  # type: ignore[misc]
        rows += ["", "Refused:", "", "| what | said |", "|---|---|"]
        for name, said in networks.REFUSED.items():
            net = NetworkParams(module=f"{networks.HERE}:{name}", kwargs={})
            asked = on.model_copy(update={"network": net})
            add(name, lambda asked=asked, said=said: refusal(asked, said))  # type: ignore[misc]
    PAGE.write_text("\n".join([*INTRO, *rows, ""]), encoding="utf-8")
    return 1 if failed else 0


HEAD = "| what | observations | actions | parameters | steps served as torch acts |"
RULE = "|---|---|---|---|---|"
INTRO = [
    "# Environments and networks from outside",
    "",
    "Written by `make worlds`. Each was pinned, evolved for a few generations, frozen, and asked",
    "as it is served, with native observations where it has them, action by action against torch.",
    "",
]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "all"))
