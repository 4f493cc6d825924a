"""How a policy acts, for every kind of action."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from regression_suite import episodes
from regression_suite.behaviour import (
    CALLS,
    Latency,
    judge_behaviour,
    judge_latency,
    measure_latency,
    observe,
    reference_policy,
)
from regression_suite.episodes import Recorder, Seen
from srghn.config import EngineSettings, EnvParams, GateParams, NetworkParams
from srghn.envs import pin
from srghn.envs.interface import Interface
from srghn.evaluation.base import make_evaluator
from srghn.evaluation.task import Task

OBSERVATIONS = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
SEEN = Seen(OBSERVATIONS, np.empty((200, 0), np.float32))
DISCRETE = Interface(3, (None,), (None,), "discrete", (), (3,), (0,))
MULTI = Interface(3, (None,), (None,), "multidiscrete", (2,), (2, 4), (0, 1))
BOX = Interface(3, (None,), (None,), "box", (2,), (), (), (-2.0,), (2.0,))
Actions = NDArray[np.int64]


def sign(observations: NDArray[np.float32]) -> Actions:
    return (observations[:, 0] > 0).astype(np.int64)


def test_shares_and_disagreement_of_discrete_actions() -> None:
    seen = observe(DISCRETE, SEEN, sign, lambda o: sign(o) * 2)
    assert seen.candidate.shape == (1, 3)
    assert seen.candidate.sum() == pytest.approx(1)
    assert seen.candidate[0, 2] == 0
    assert seen.disagreement == pytest.approx(seen.candidate[0, 1])
    (check,) = judge_behaviour(seen)
    assert check.outcome == "passed"
    assert check.reason.endswith("and they are not all equal")


def test_blocks_of_multidiscrete_actions_count_from_their_start() -> None:
    seen = observe(MULTI, SEEN, lambda o: np.stack([sign(o), sign(o) + 3], axis=1), None)
    assert seen.candidate.shape == (2, 4)
    assert seen.candidate[1, 2:].sum() == pytest.approx(1)
    assert seen.incumbent is None
    assert seen.disagreement is None


def test_saturation_of_box_actions() -> None:
    seen = observe(BOX, SEEN, lambda o: np.clip(o[:, :2] * 9, -2, 2), lambda o: o[:, :2])
    assert seen.columns == ("low bound", "between", "high bound")
    assert seen.candidate.sum(axis=1) == pytest.approx([1, 1])
    assert (seen.candidate[:, 0] > 0.3).all()
    assert seen.disagreement is not None
    assert seen.disagreement > 0.5
    still = replace(BOX, action_high=(-2.0,))
    shares = observe(still, SEEN, lambda o: np.full((len(o), 2), -2.0, np.float32), None).candidate
    np.testing.assert_array_equal(shares, [[1, 0, 0]] * 2)


def test_a_policy_that_remembers_is_refused() -> None:
    calls: list[int] = []

    def fickle(observations: NDArray[np.float32]) -> Actions:
        calls.append(1)
        return sign(observations) if len(calls) == 1 else 1 - sign(observations)

    check = judge_behaviour(observe(DISCRETE, SEEN, fickle, None))[0]
    assert check.outcome == "failed"
    assert "gives another action" in check.reason


def test_a_policy_that_looks_at_the_batch_is_refused() -> None:
    def crowd(observations: NDArray[np.float32]) -> Actions:
        return (observations[:, 0] > observations[:, 0].mean()).astype(np.int64)

    assert not observe(DISCRETE, SEEN, crowd, None).repeatable


def test_a_constant_policy_is_refused_and_nothing_seen_is_an_error() -> None:
    constant = observe(DISCRETE, SEEN, lambda o: np.ones(len(o), np.int64), None)
    assert judge_behaviour(constant)[0].outcome == "failed"
    assert judge_behaviour(None)[0].outcome == "error"


def test_latency_is_judged_without_its_figure() -> None:
    reference = reference_policy(OBSERVATIONS.shape[1])
    measured = measure_latency(sign, reference, SEEN)
    assert min(measured.policy, measured.reference) > 0
    check = judge_latency(measured, GateParams())
    assert check.outcome == "passed"
    assert check.value is None
    assert judge_latency(Latency(1e9, 1.0), GateParams()).outcome == "failed"
    assert judge_latency(None, GateParams()).outcome == "error"


def test_a_busy_machine_does_not_decide_about_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which everything takes 100,000 times as long changes no verdict."""
    real = time.perf_counter
    slow = {True: 0, False: 0}
    for busy in (False, True):
        factor = 1e5 if busy else 1.0
        monkeypatch.setattr(time, "perf_counter", lambda factor=factor: factor * real())
        reference = reference_policy(OBSERVATIONS.shape[1])
        measured = measure_latency(sign, reference, SEEN)
        slow[busy] = measured.policy > GateParams().max_latency_ms
        assert judge_latency(measured, GateParams()).outcome == "passed"
    assert slow[True]  # by itself the clock would have refused it


def test_policy_and_reference_are_asked_in_turn() -> None:
    asked: list[str] = []
    measure_latency(lambda o: asked.append("p"), lambda o: asked.append("r"), SEEN)  # type: ignore[arg-type,return-value,func-returns-value]
    assert "".join(asked) == "pr" * CALLS


def test_the_recorder_samples_evenly_and_changes_nothing() -> None:
    recorder = Recorder(sign)
    assert len(recorder.sample(5)) == 0
    for rows in np.split(OBSERVATIONS, 20):
        recorder.met(rows, np.empty((len(rows), 0), np.float32))
        np.testing.assert_array_equal(recorder(rows), sign(rows))
    np.testing.assert_array_equal(recorder.sample(1000).observations, OBSERVATIONS)
    np.testing.assert_array_equal(recorder.sample(2).observations, OBSERVATIONS[[0, -1]])


def test_the_recorder_keeps_some_of_observations_that_no_batch_of_has_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """64 images at once are larger than all that is kept."""
    for room, kept in ((5 * OBSERVATIONS[0].nbytes, 5), (1, 1)):
        monkeypatch.setattr(episodes, "KEPT", room)
        recorder = Recorder(sign)
        for rows in np.split(OBSERVATIONS, 2):
            recorder.met(rows, np.empty((len(rows), 0), np.float32))
        np.testing.assert_array_equal(recorder.sample(1000).observations, OBSERVATIONS[:kept])


def test_the_recorder_keeps_what_the_episodes_showed_and_no_filling() -> None:
    """A policy that acts in one way wherever it was is refused, however it answers zeros."""

    def constant_but_for_zeros(observations: NDArray[np.float32]) -> Actions:
        return (observations != 0).any(axis=1).astype(np.int64)

    version, network = pin(EnvParams(id="CartPole-v1")), NetworkParams()
    recorder = Recorder(constant_but_for_zeros)
    with make_evaluator(EngineSettings(), version, network) as evaluator:
        played = evaluator.evaluate([recorder], Task(version, version.modes[0], np.arange(50)))
    seen = recorder.sample(10_000)
    assert len(seen) == played.lengths.sum()
    assert (seen.observations != 0).any(axis=1).all()
    found = observe(version.interface, seen, recorder, None)
    assert judge_behaviour(found)[0].outcome == "failed"


class Counter:
    """A policy that keeps a state and says so: it acts by how often it was asked."""

    state_size = 1

    def __call__(self, observations: NDArray[np.float32]) -> Actions:
        raise AssertionError("it must be asked by step")

    def step(
        self, observations: NDArray[np.float32], states: NDArray[np.float32]
    ) -> tuple[Actions, NDArray[np.float32]]:
        return (states[:, 0] % 2).astype(np.int64), states + 1


def test_a_policy_with_a_declared_state_is_asked_in_that_state() -> None:
    policy = Counter()
    recorder = Recorder(policy)
    assert recorder.state_size == 1
    states = np.arange(200, dtype=np.float32)[:, None]
    recorder.met(OBSERVATIONS, states)
    seen = recorder.sample(50)
    assert seen.states.shape == (50, 1)
    found = observe(DISCRETE, seen, policy, policy)
    assert found.repeatable
    assert found.varied
    assert found.disagreement is None
    assert measure_latency(policy, sign, seen).policy > 0
    (check,) = judge_behaviour(found)
    assert check.outcome == "failed"
    assert "its actions depend on its state alone" in check.reason


class Delayed(Counter):
    """It keeps an observation and acts on it three steps later, and never on what it sees now."""

    state_size = 3

    def step(
        self, observations: NDArray[np.float32], states: NDArray[np.float32]
    ) -> tuple[Actions, NDArray[np.float32]]:
        return sign(states), np.concatenate([states[:, 1:], observations[:, :1]], axis=1)


class Deaf(Counter):
    """What it sees moves its state a little, as dense weights do, and never its action."""

    def step(
        self, observations: NDArray[np.float32], states: NDArray[np.float32]
    ) -> tuple[Actions, NDArray[np.float32]]:
        actions, after = super().step(np.round(observations), np.round(states))
        return actions, after + np.clip(observations[:, :1], -1, 1) * np.float32(1e-3)


@pytest.mark.parametrize(("policy", "outcome"), [(Delayed(), "passed"), (Deaf(), "failed")])
def test_what_a_policy_sees_must_come_to_show_in_its_actions(policy: Counter, outcome: str) -> None:
    states = np.random.default_rng(1).integers(0, 9, (200, policy.state_size))
    seen = Seen(OBSERVATIONS, states.astype(np.float32) - 4)
    found = observe(DISCRETE, seen, policy, None)
    assert found.varied
    assert judge_behaviour(found)[0].outcome == outcome
