"""Whether a run will work, tried in seconds before it begins: what would fail late fails here.

Pins the environment, traces the network, exports it, compares the exported file with torch, plays,
and estimates how long the run would take.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from srghn import seeding
from srghn.candidates.candidate import OnnxPolicy
from srghn.candidates.freeze import ServedPolicy, export_onnx, load_weights
from srghn.config import EngineSettings, RunParams
from srghn.envs.interface import Interface
from srghn.envs.pinning import pin
from srghn.envs.version import EnvVersion
from srghn.errors import ArtefactError, ConfigError, EvaluationError
from srghn.evaluation.base import (
    Evaluation,
    Evaluator,
    Policies,
    WeightedPolicies,
    make_evaluator,
)
from srghn.evaluation.task import Task
from srghn.evolution.base import Population, Strategy, asked, told
from srghn.evolution.registry import STRATEGIES, make_strategy
from srghn.graph.frozen import evolved_size
from srghn.memory import notes, state_size
from srghn.networks import build_network

#: Individuals and seconds of play that the speed is measured by, at most.
PLAYERS, SECONDS = 16, 5.0
#: No kernel takes this many seconds to compile: it is the episode that does.
COMPILED = 60.0
#: Rows on which torch and the exported file must agree.
ROWS = 64


@dataclass(frozen=True)
class Checked:
    """What was found. `seconds` is an estimate of the run: (episodes as long as now, all whole).

    `steps` holds (step, what it found) in order; `returns` is a proposed range of returns and
    `failure_return` the proposed highest return of a failed episode, None where the version has
    one.
    """

    version: EnvVersion
    steps: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    seconds: tuple[float, float]
    returns: tuple[float, float] | None
    failure_return: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "ok": True,
            "environment": self.version.id,
            "fingerprint": self.version.fingerprint,
            "steps": [{"step": step, "found": found} for step, found in self.steps],
            "notes": list(self.notes),
            "seconds": list(self.seconds),
            "proposed_returns": None if self.returns is None else list(self.returns),
            "proposed_failure_return": self.failure_return,
        }


@dataclass
class _Findings:
    tell: Callable[[str, str], None]
    steps: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, step: str, found: str) -> None:
        self.steps.append((step, found))
        self.tell(step, found)


def check(
    params: RunParams,
    settings: EngineSettings | None = None,
    tell: Callable[[str, str], None] = lambda step, found: None,
    pinned: Callable[[EnvVersion], None] = lambda version: None,
) -> Checked:
    """Try each step of a run with these parameters once; `tell` gets a line for each step.

    `pinned` is called with the environment before what takes longer, and may refuse it. Raises
    what the run would raise, in one line that names the module, the operator and what to do:
    `EnvVersionError`, `ConfigError`, `GraphError`, `ArtefactError`, `EvaluationError`.
    """
    found = _Findings(tell)
    version = pin(params.env, found.notes.append)
    face = version.interface
    found.add(
        "pin",
        f"{version.id}: {face.observation_size} observations, {face.action_kind} actions, episodes "
        f"of {version.max_episode_steps} steps at most",
    )
    pinned(version)
    strategy = make_strategy(params, face)
    state = strategy.init(params.evolution.seed)
    population = asked(strategy, state)
    if params.evolution.strategy not in STRATEGIES:
        _check_drawn_again(params, face, strategy)
    found.add("trace", f"{population.weights.shape[1]} parameters in {params.network.module}")
    network = build_network(params.network, face)
    found.notes += notes(network, params.network.module)
    served = exported(network, population.weights[0], version)
    kept = state_size(network)
    found.add(
        "export",
        "the ONNX file gives the same outputs as torch"
        + (f" and keeps {kept} values from step to step" if kept else ""),
    )
    seconds, sound = _play(params, version, population, served, settings, found)
    return Checked(
        version,
        tuple(found.steps),
        tuple(found.notes),
        seconds,
        None if version.returns is not None else _range(sound),
        None if version.failure_return is not None else _middle(sound, version),
    )


def _check_drawn_again(params: RunParams, face: Interface, strategy: Strategy[Any]) -> None:
    """Raise `ConfigError` for a search that a lineage could not repeat."""
    if strategy.encoding is not None:
        return
    name = f"evolution.strategy: {params.evolution.strategy}"
    (first, once), (_, again) = (
        _drawn(made, params) for made in (strategy, make_strategy(params, face))
    )
    if not np.array_equal(once.genomes, once.weights):
        raise ConfigError(
            f"{name} has no encoding, so its genomes must be the policies' weights, got "
            f"{once.genomes.shape} and {once.weights.shape}; give it an encoding, or "
            "put the weights into genomes, too"
        )
    if once.weights.tobytes() != again.weights.tobytes() or (once.ids != again.ids).any():
        raise ConfigError(
            f"{name} drew other individuals when it was told the same again, so none could be made "
            "again from its lineage; keep everything in the state, and draw by "
            "srghn.seeding.stream(state.seed, 'birth', state.generation)"
        )
    _, before, after = np.intersect1d(first.ids, once.ids, return_indices=True)
    if (first.births[before] != once.births[after]).any():
        raise ConfigError(
            f"{name} gave another individual an id of the generation before, which the gate would "
            "refuse; count ids on from state.next_id"
        )


def _drawn(strategy: Strategy[Any], params: RunParams) -> tuple[Population, Population]:
    """What a strategy draws at its beginning, and then."""
    state = strategy.init(params.evolution.seed)
    first = asked(strategy, state)
    return first, asked(strategy, told(strategy, state, first, np.arange(float(len(first)))))


def check_network(params: RunParams, version: EnvVersion) -> list[str]:
    """Raise now what freezing would raise after the last generation; returns notes."""
    network = build_network(params.network, version.interface)
    drawn = seeding.stream(0, "check").standard_normal(evolved_size(network), dtype=np.float32)
    exported(network, drawn, version)
    return notes(network, params.network.module)


def exported(network: nn.Module, weights: NDArray[np.float32], version: EnvVersion) -> OnnxPolicy:
    """The policy as it would be served, compared with torch on `ROWS` rows of any numbers.

    Raises `ArtefactError` if it cannot be exported or loaded, or if its outputs differ.
    """
    face = version.interface
    served = ServedPolicy(load_weights(network, weights), face).eval()
    policy = OnnxPolicy.from_bytes(
        export_onnx(served, face.observation_size), f"the exported {type(network).__name__}"
    )
    rng = seeding.stream(0, "check")
    sizes = face.observation_size, state_size(network)
    obs, state = (rng.standard_normal((ROWS, size), dtype=np.float32) for size in sizes)
    given = [torch.from_numpy(rows) for rows in ((obs, state) if sizes[1] else (obs,))]
    with torch.no_grad():
        answers = served(*given) if sizes[1] else (served(given[0]), torch.from_numpy(state))
        outputs: Any = network(*given)
    actions, after = policy.step(obs, state)
    wrong = ~face.alike(actions, answers[0].numpy()).reshape(ROWS, -1).all(1)
    if face.action_kind != "box":
        wrong &= ~_tied(outputs[0] if sizes[1] else outputs, face.choices)
    if wrong.any() or not np.allclose(after, answers[1].numpy(), rtol=0, atol=1e-5):
        raise ArtefactError(
            f"network {type(network).__name__}: the outputs of the exported file differ from "
            f"torch's for {int(wrong.sum())} of {ROWS} observations; use operations that ONNX "
            "supports"
        )
    return policy


def _tied(outputs: torch.Tensor, choices: tuple[int, ...]) -> NDArray[np.bool_]:
    """Rows where two outputs of a block are so close that rounding decides between them."""
    tied = np.zeros(len(outputs), dtype=bool)
    for block in torch.split(outputs, list(choices), dim=1):
        best = torch.topk(block, min(2, block.shape[1]), dim=1).values
        tied |= ((best[:, 0] - best[:, -1]).abs() < 1e-5).numpy() & (block.shape[1] > 1)
    return tied


def _play(
    params: RunParams,
    version: EnvVersion,
    population: Population,
    served: OnnxPolicy,
    settings: EngineSettings | None,
    found: _Findings,
) -> tuple[tuple[float, float], NDArray[np.float64]]:
    """Seconds of the whole run, and the returns of the founders' episodes that did not crash."""
    evolution, mode = params.evolution, version.mode_at(0)
    seeds = seeding.seeds(evolution.seed, "check", max(2, min(evolution.episodes, 8)))
    first = Task(version, mode, seeds[:1])
    with make_evaluator(settings or EngineSettings(), version, params.network) as evaluator:
        once, took = _timed(evaluator, [served], first)
        if once.crashes:
            raise EvaluationError(
                f"{version.id}: the first episode crashed at step {once.crashes[0].step}: "
                f"{once.crashes[0].message}"
            )

        def players(count: int) -> WeightedPolicies:
            return WeightedPolicies(params.network, version.interface, population.weights[:count])

        if took < COMPILED:
            evaluator.evaluate(players(1), first)  # compiles what there is to compile
        one, took = _timed(evaluator, players(1), first)
        # So many episodes that a slow environment does not take minutes.
        fit = max(1, int(4 * SECONDS / took))
        count = min(PLAYERS, len(population), fit)
        task = Task(version, mode, seeds[: max(1, fit // count)])
        played, spent = ([one], took) if fit == 1 else ([], 0.0)
        while spent < SECONDS and len(played) < 3:
            more, took = _timed(evaluator, players(count), task)
            played.append(more)
            spent += took
        steps = sum(p.steps for p in played)
        backend = evaluator.describe()
    returns = np.concatenate([p.returns.ravel() for p in played])
    crashed = int((~np.isfinite(returns)).sum())
    if crashed:
        found.notes.append(f"{crashed} of {returns.size} episodes crashed: {_first(played)}")
    rate = steps / spent
    found.add("play", f"{rate:,.0f} steps a second ({backend}), {1e6 / rate:.1f} µs a step")
    episodes = evolution.generations * len(population) * evolution.episodes
    episodes *= len(params.networks)
    episodes = min(episodes, evolution.evaluations or episodes)
    mean = steps / sum(p.lengths.size for p in played)
    seconds = episodes * mean / rate, episodes * version.max_episode_steps / rate
    if evolution.seconds is not None:
        seconds = min(seconds[0], evolution.seconds), min(seconds[1], evolution.seconds)
    return seconds, returns[np.isfinite(returns)]


def _timed(evaluator: Evaluator, policies: Policies, task: Task) -> tuple[Evaluation, float]:
    begun = time.perf_counter()
    return evaluator.evaluate(policies, task), time.perf_counter() - begun


def _range(sound: NDArray[np.float64]) -> tuple[float, float]:
    """A range of returns with room above what founders reach by chance."""
    low, high = (float(sound.min()), float(sound.max())) if sound.size else (0.0, 1.0)
    room = max(high - low, abs(high), 1.0)
    return float(f"{low - 0.1 * room:.3g}"), float(f"{high + room:.3g}")


def _middle(sound: NDArray[np.float64], version: EnvVersion) -> float:
    """The founders' median return, within the range of returns."""
    middle = float(f"{float(np.median(sound)) if sound.size else 0.0:.3g}")
    known = version.returns
    return middle if known is None else min(max(middle, known.low), known.high)


def _first(played: list[Evaluation]) -> str:
    return next(crash.message for p in played for crash in p.crashes)
