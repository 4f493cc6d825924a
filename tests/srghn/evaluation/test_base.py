"""The contract types, and how a backend is chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from srghn.config import EngineSettings, EnvParams, NetworkParams, RunParams
from srghn.envs import pin
from srghn.envs.interface import Interface
from srghn.envs.perturb import Perturbation, parse
from srghn.errors import ConfigError, EvaluationError
from srghn.evaluation.base import (
    BACKENDS,
    ENGINES,
    FORMER_NAMES,
    Backend,
    Evaluation,
    Float32,
    Int64,
    WeightedPolicies,
    choose_backend,
    make_backend,
    make_evaluator,
)
from srghn.evaluation.task import Task

FACE = Interface(4, (None,), (None,), "discrete", (), (2,), (0,))
SETTINGS, NETWORK = EngineSettings(), NetworkParams()
SEEDS, WEIGHTS = np.arange(2), np.zeros((1, 58))


class Doubling:
    """A recipe of three individuals: index i has weights 2 i."""

    def __len__(self) -> int:
        return 3

    def rebuild(self, indices: Int64) -> Float32:
        return np.repeat(2 * indices[:, None], 5, axis=1).astype(np.float32)


def test_policies_are_weights_or_a_recipe() -> None:
    weights = np.arange(15, dtype=np.float32).reshape(3, 5)
    given = WeightedPolicies(NetworkParams(), FACE, weights)
    assert len(given) == 3
    np.testing.assert_array_equal(given.take(np.array([2, 0])), weights[[2, 0]])
    made = WeightedPolicies(NetworkParams(), FACE, recipe=Doubling())
    assert len(made) == 3
    np.testing.assert_array_equal(made.dense()[:, 0], [0, 2, 4])


def test_policies_need_exactly_one_of_weights_and_recipe() -> None:
    with pytest.raises(EvaluationError, match="not both"):
        WeightedPolicies(NetworkParams(), FACE)
    with pytest.raises(EvaluationError, match="not both"):
        WeightedPolicies(NetworkParams(), FACE, np.zeros((1, 5), np.float32), Doubling())
    with pytest.raises(EvaluationError, match=r"\(5,\)"):
        WeightedPolicies(NetworkParams(), FACE, np.zeros(5, np.float32))


def test_fitness_is_the_mean_return_and_a_crash_is_the_worst() -> None:
    returns = np.array([[1.0, 3.0], [5.0, -np.inf]])
    fitness = Evaluation(returns, np.ones((2, 2), np.int64), 4).fitness
    np.testing.assert_array_equal(fitness, [2.0, -np.inf])


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_has_its_name_and_says_what_it_supports(name: str) -> None:
    version = pin(EnvParams(id="CartPole-v1"))
    backend = make_backend(name, version, NetworkParams())
    assert isinstance(backend, Backend)
    assert backend.name == name
    assert name in backend.describe()
    assert isinstance(backend.supports(version, NetworkParams()), bool)
    backend.close()
    backend.close()


def test_auto_takes_the_first_backend_that_supports_the_work() -> None:
    version = pin(EnvParams(id="Acrobot-v1"))
    assert choose_backend(version, NetworkParams()) == "gymnasium"
    with make_evaluator(EngineSettings(), version, NetworkParams()) as evaluator:
        assert evaluator.describe() == "gymnasium, in process"


def test_unknown_backend_names_the_known() -> None:
    version = pin(EnvParams(id="CartPole-v1"))
    with pytest.raises(ConfigError, match=r"'gym'.*gymnasium"):
        make_evaluator(EngineSettings(), version, NetworkParams(), "gym")


def test_the_names_that_backends_had_still_resolve() -> None:
    version = pin(EnvParams(id="CartPole-v1"))
    for former, now in FORMER_NAMES.items():
        assert former not in BACKENDS
        assert make_backend(former, version, NetworkParams()).name == now
        with make_evaluator(EngineSettings(), version, NetworkParams(), former) as evaluator:
            assert evaluator.describe() == f"{now}, in process"


@pytest.mark.parametrize("name", [*BACKENDS, *ENGINES])
def test_every_evaluator_refuses_what_it_was_not_made_for(name: str) -> None:
    built, other = pin(EnvParams(id="CartPole-v1")), pin(EnvParams(id="CartPoleSwitch-v1"))
    small = NetworkParams(kwargs={"hidden": [2]})
    engine = name if name in ENGINES else "inprocess"
    settings = EngineSettings.model_validate(
        {"engine": engine, "dask_address": "tcp://127.0.0.1:1"}
    )
    backend = "auto" if name in ENGINES else name
    seeds = np.arange(2)
    another = f"made for CartPole-v1 {built.fingerprint[:12]}"
    with make_evaluator(settings, built, NetworkParams(), backend) as evaluator:
        for players in ([lambda rows: np.zeros(len(rows), np.int64)], weights(NetworkParams())):
            with pytest.raises(EvaluationError, match=another):
                evaluator.evaluate(players, Task(other, "normal", seeds))
        with pytest.raises(EvaluationError, match=r"got weights of srghn.policies:MLP .*\[2\]"):
            evaluator.evaluate(weights(small), Task(built, "normal", seeds))


def weights(network: NetworkParams) -> WeightedPolicies:
    return WeightedPolicies(network, pin(EnvParams(id="CartPole-v1")).interface, np.zeros((1, 1)))


def test_a_task_is_checked_when_it_is_made() -> None:
    version = pin(EnvParams(id="CartPole-v1"))
    with pytest.raises(ConfigError, match="no mode 'flipped'"):
        Task(version, "flipped", np.arange(2))
    for seeds in (np.array([0.5]), np.zeros((1, 1), np.int64), [0.5], 5):
        with pytest.raises(EvaluationError, match=r"int64 \(episodes,\)"):
            Task(version, "normal", seeds)  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match="seeds must be 0 or more, got -1"):
        Task(version, "normal", np.array([3, -1]))
    with pytest.raises(EvaluationError, match="seeds must name one episode or more, got none"):
        Task(version, "normal", np.array([], np.int64))
    with pytest.raises(ConfigError, match="no perturbation 'observation_nois'; did you mean 'obs"):
        Task(version, "normal", np.arange(2), Perturbation("observation_nois", 0.1))
    task = Task(version, "normal", [3, 1])  # type: ignore[arg-type]
    np.testing.assert_array_equal(task.seeds, [3, 1])
    noise = parse("observation_noise:0.1")
    assert repr(Task(version, "normal", np.arange(2), noise)) == (
        "Task(CartPole-v1, 'normal', 2 seeds, observation_noise:0.1)"
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w, e: Task(w.id, "normal", SEEDS), "version: expected EnvVersion, got str"),
        (lambda w, e: Task(w, "normal", SEEDS, "noise:0.1"), "perturbation: expected Perturbation"),
        (lambda w, e: WeightedPolicies(NETWORK, FACE, [[0.0]]), "weights: expected ndarray, got l"),
        (lambda w, e: WeightedPolicies(RunParams(), FACE, WEIGHTS), "network: expected NetworkPar"),
        (lambda w, e: make_evaluator(SETTINGS, w, RunParams()), "network: expected NetworkParams"),
        (lambda w, e: make_evaluator(SETTINGS, w.params, NETWORK), "version: expected EnvVersion"),
        (lambda w, e: make_evaluator(w, SETTINGS, NETWORK), "settings: expected EngineSettings"),
        (lambda w, e: e.evaluate(WEIGHTS, Task(w, "normal", SEEDS)), "policies: expected Sequence"),
        (lambda w, e: e.evaluate([], w), "task: expected Task, got EnvVersion"),
    ],
)
def test_an_argument_of_another_kind_is_refused_in_words(call: Any, words: str) -> None:
    world = pin(EnvParams(id="CartPole-v1"))
    with (
        make_evaluator(SETTINGS, world, NETWORK) as evaluator,
        pytest.raises(ConfigError, match=words),
    ):
        call(world, evaluator)
