"""One population as the policies of several networks."""

from __future__ import annotations

import numpy as np
import pytest

from srghn.config import EngineSettings, RunParams, parse_params
from srghn.envs import EnvVersion, pin
from srghn.errors import EvaluationError
from srghn.evaluation.base import SeveralPolicies, WeightedPolicies, make_evaluator
from srghn.evaluation.several import make_run_evaluator
from srghn.evaluation.task import Task
from srghn.seeding import stream

SIZES = {8: 58, 3: 23}


@pytest.fixture(scope="module")
def params() -> RunParams:
    return parse_params({"evolution": {"architectures": [{"hidden": [3]}]}}, "test")


@pytest.fixture(scope="module")
def version(params: RunParams) -> EnvVersion:
    return pin(params.env)


@pytest.fixture(scope="module")
def policies(params: RunParams, version: EnvVersion) -> SeveralPolicies:
    parts = [
        WeightedPolicies(
            network,
            version.interface,
            stream(0, "test", size).standard_normal((5, size), dtype=np.float32),
        )
        for network, size in zip(params.networks, SIZES.values(), strict=True)
    ]
    return SeveralPolicies(tuple(parts))


def test_networks_are_the_own_one_and_those_laid_over_it(params: RunParams) -> None:
    assert [n.kwargs["hidden"] for n in params.networks] == [[8], [3]]
    assert {n.kwargs["activation"] for n in params.networks} == {"tanh"}


def test_each_network_plays_all_episodes_and_the_mean_of_all_is_fitness(
    params: RunParams, version: EnvVersion, policies: SeveralPolicies
) -> None:
    task = Task(version, "normal", np.arange(4))
    told: list[tuple[int, int]] = []
    with make_run_evaluator(EngineSettings(), version, params) as evaluator:
        played = evaluator.evaluate(policies, task, lambda *progress: told.append(progress))
        own = evaluator.evaluate(policies.parts[0], task)
        assert evaluator.describe().endswith("in process, 2 networks")
    alone = []
    for network, part in zip(params.networks, policies.parts, strict=True):
        with make_evaluator(EngineSettings(), version, network) as one:
            alone.append(one.evaluate(part, task))
    assert played.returns.tolist() == np.hstack([a.returns for a in alone]).tolist()
    assert played.lengths.shape == (5, 8)
    assert played.steps == sum(a.steps for a in alone)
    np.testing.assert_allclose(played.fitness, np.mean([a.fitness for a in alone], axis=0))
    assert own.returns.tolist() == alone[0].returns.tolist()
    assert told == [(20, 40), (40, 40)]


def test_an_evaluator_of_one_network_says_how_to_make_one_of_several(
    params: RunParams, version: EnvVersion, policies: SeveralPolicies
) -> None:
    task = Task(version, "normal", np.arange(2))
    with (
        make_evaluator(EngineSettings(), version, params.network) as one,
        pytest.raises(EvaluationError, match="policies of 2 networks; make it with"),
    ):
        one.evaluate(policies, task)
    three = SeveralPolicies((*policies.parts, policies.parts[0]))
    with (
        make_run_evaluator(EngineSettings(), version, params) as two,
        pytest.raises(EvaluationError, match="made for 2 networks, got policies of 3"),
    ):
        two.evaluate(three, task)


def test_every_network_needs_every_individual(policies: SeveralPolicies) -> None:
    first, second = policies.parts
    fewer = WeightedPolicies(second.network, second.interface, second.take(np.arange(4)))
    with pytest.raises(EvaluationError, match=r"got parts of \[5, 4\]"):
        SeveralPolicies((first, fewer))
