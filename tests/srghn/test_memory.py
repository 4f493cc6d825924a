"""Networks that keep a state, see several observations, or normalised ones: the same everywhere."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from srghn.candidates.candidate import OnnxPolicy
from srghn.candidates.freeze import ServedPolicy, export_onnx, load_weights
from srghn.config import EnvParams, NetworkParams
from srghn.envs import EnvVersion, pin
from srghn.errors import ArtefactError, ConfigError, GraphError
from srghn.evaluation.base import WeightedPolicies, choose_backend, make_backend
from srghn.evaluation.task import Task
from srghn.evolution.self_referential import example
from srghn.graph import trace
from srghn.graph.frozen import evolved_size
from srghn.memory import notes, state_size
from srghn.networks import build_network

CASES = {
    "gru": NetworkParams(module="srghn.policies:GRU", kwargs={"width": 4}),
    "lstm": NetworkParams(module="srghn.policies:LSTM", kwargs={"width": 3}),
    "layers": NetworkParams(module="remembering:Layers", kwargs={}),
    "stack": NetworkParams(stack=3),
    "plain": NetworkParams(),
}
SIZES = {"gru": 4, "lstm": 6, "layers": 10, "stack": 8, "plain": 0}


class Layers(nn.Module):
    """A two-layer `nn.GRU`, whose state has its batch in the middle; begins with None."""

    def __init__(self, observation_size: int, action_size: int, flaw: str = "") -> None:
        super().__init__()
        self.rnn = nn.GRU(observation_size, 5, num_layers=2)
        self.out = nn.Linear(5, action_size)
        self.flaw = flaw

    def forward(self, obs: Tensor, state: Any = None) -> Any:
        if state is None:
            state = torch.zeros(2, len(obs), 5) + (self.flaw == "start")
        seen, after = self.rnn(obs[None], state)
        outputs = self.out(seen[0])
        if self.flaw == "tensor":
            return outputs
        if self.flaw == "triple":
            return outputs, after, after
        if self.flaw == "double":
            return outputs, after.double()
        return (outputs, after.sum(1)) if self.flaw == "batch" else (outputs, after)


class Forgetful(nn.Module):
    """A recurrent layer that is fed zeros at every step."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(observation_size, 3)
        self.out = nn.Linear(3, action_size)

    def forward(self, obs: Tensor) -> Tensor:
        outputs: Tensor = self.out(self.cell(obs))
        return outputs


class Keyed(Forgetful):
    """Keeps a state in a dict, and returns its parts in another order than they begin in."""

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        return {"sum": torch.zeros(batch, 3), "count": torch.zeros(batch, 3)}

    def forward(self, obs: Tensor, state: Any = None) -> Any:
        after = self.cell(obs, state["sum"])
        return self.out(after), {"count": state["count"] + 1, "sum": after}


class Double(nn.Module):
    """Weights of another type than those that evolve."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.out = nn.Linear(observation_size, action_size, dtype=torch.float64)

    def forward(self, obs: Tensor) -> Tensor:
        outputs: Tensor = self.out(obs.double()).float()
        return outputs


class Begins(nn.Module):
    """Takes a state and does not say how it begins."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.out = nn.Linear(observation_size, action_size)

    def forward(self, obs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.out(obs), state


@pytest.fixture(autouse=True)
def remembering(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("remembering")
    made = Layers, Forgetful, Begins, Keyed, Double
    vars(package).update({kind.__name__: kind for kind in made})
    monkeypatch.setitem(sys.modules, "remembering", package)


@pytest.fixture(scope="module")
def version() -> EnvVersion:
    return pin(EnvParams(id="CartPole-v1", normalise=True, max_episode_steps=40))


def weights(network: nn.Module, count: int = 3) -> Any:
    rng = np.random.default_rng(7)
    return rng.standard_normal((count, evolved_size(network))).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_evolved_exported_and_played_alike(case: str, version: EnvVersion) -> None:
    """Torch over lanes, the general backend, and the served file give the same episodes."""
    params, face = CASES[case], version.interface
    network = build_network(params, face)
    assert state_size(network) == SIZES[case]
    graph = trace(network, *example(network, face))
    assert graph.size == evolved_size(network)
    genomes = weights(network)
    load_weights(network, genomes[1])
    served = OnnxPolicy.from_bytes(export_onnx(ServedPolicy(network, face).eval(), 4), case)
    assert served.state_size == SIZES[case]
    task = Task(version, "normal", np.arange(5))
    name = choose_backend(version, params)
    assert name != "cartpole-mlp"  # which knows neither memory nor normalising
    policies = WeightedPolicies(params, face, genomes)
    with (
        make_backend(name, version, params) as fast,
        make_backend("gymnasium", version, params) as g,
    ):
        found = fast.evaluate(policies, task).returns
        np.testing.assert_array_equal(found, g.evaluate(policies, task).returns)
        alone = WeightedPolicies(params, face, genomes[1:2])
        np.testing.assert_array_equal(found[1:2], fast.evaluate(alone, task).returns)
        np.testing.assert_array_equal(found[1:2], g.evaluate([served], task).returns)


def test_a_state_goes_on_and_begins_anew_with_an_episode(version: EnvVersion) -> None:
    network = build_network(CASES["gru"], version.interface)
    load_weights(network, weights(network)[0])
    served = OnnxPolicy.from_bytes(export_onnx(ServedPolicy(network, version.interface), 4), "gru")
    obs = np.random.default_rng(0).standard_normal((6, 2, 4)).astype(np.float32)
    ours, theirs = torch.zeros(2, 4), np.zeros((2, 4), np.float32)
    for row in obs:
        with torch.no_grad():
            outputs, ours = network(torch.from_numpy(row), ours)
        actions, theirs = served.step(row, theirs)
        np.testing.assert_array_equal(actions, outputs.argmax(1).numpy())
        np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-6)
    assert np.abs(theirs).min() > 0
    with pytest.raises(ArtefactError, match="keeps a state of 4 values"):
        served(obs[0])


def test_a_stack_shows_the_last_observations_oldest_first() -> None:
    params = NetworkParams(kwargs={"hidden": []}, stack=3)
    version = pin(EnvParams(id="CartPole-v1"))
    network = build_network(params, version.interface)
    flat = np.zeros((2, 13), np.float32)
    flat[0, [0, 4, 8]] = 100, 10, 1  # the first element of each frame
    load_weights(network, np.concatenate([flat[0, :12], flat[1, :12], [0, 0]]).astype(np.float32))
    state, told = torch.zeros(1, 8), []
    for value in (1.0, 2.0, 3.0, 4.0):
        with torch.no_grad():
            outputs, state = network(torch.tensor([[value, 0, 0, 0]]), state)
        told.append(float(outputs[0, 0]))
    assert told == [1.0, 12.0, 123.0, 234.0]


def test_normalising_is_inside_the_served_file(version: EnvVersion) -> None:
    network = build_network(NetworkParams(), version.interface)
    bare = build_network(NetworkParams(), pin(EnvParams(id="CartPole-v1")).interface)
    flat = weights(bare, 1)[0]
    load_weights(network, flat)
    load_weights(bare, flat)
    obs = torch.randn(9, 4)
    face = version.interface
    seen = (obs - torch.tensor(face.observation_mean)) / torch.tensor(face.observation_deviation)
    with torch.no_grad():
        assert torch.equal(network(obs), bare(seen))
        expected = bare(seen).argmax(1).numpy()
    served = OnnxPolicy.from_bytes(export_onnx(ServedPolicy(network, face), 4), "plain")
    np.testing.assert_array_equal(served(obs.numpy()), expected)


@pytest.mark.parametrize(
    ("module", "kwargs", "message"),
    [
        ("remembering:Begins", {}, r"does not say how it begins.*initial_state\(batch\)"),
        ("remembering:Layers", {"flaw": "start"}, "must begin as zeros"),
        ("remembering:Layers", {"flaw": "triple"}, r"must return \(output, state\), got tuple"),
        ("remembering:Layers", {"flaw": "double"}, "must be float32 tensors, got torch.float64"),
        ("remembering:Layers", {"flaw": "batch"}, "expected one dimension that is the batch"),
        ("remembering:Keyed", {}, "must be a tensor or a tuple of them, got a dict"),
    ],
)
def test_a_state_that_cannot_be_carried_is_refused(
    module: str, kwargs: dict[str, Any], message: str, version: EnvVersion
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_network(NetworkParams(module=module, kwargs=kwargs), version.interface)
    with pytest.raises(ConfigError, match=r"leave out network\.stack"):
        build_network(CASES["gru"].model_copy(update={"stack": 2}), version.interface)


def test_weights_that_are_not_float32_are_refused_for_every_strategy(version: EnvVersion) -> None:
    params = NetworkParams(module="remembering:Double", kwargs={})
    with pytest.raises(ConfigError, match=r"'out.weight' is torch.float64; make it float32"):
        build_network(params, version.interface)
    with pytest.raises(GraphError, match=r"'out.weight' of Double is torch.float64"):
        trace(Double(4, 2), torch.zeros(1, 4))


def test_a_recurrent_layer_without_a_state_is_told_so(version: EnvVersion) -> None:
    params = NetworkParams(module="remembering:Forgetful", kwargs={})
    told = notes(build_network(params, version.interface), params.module)
    assert len(told) == 1
    assert "GRUCell at '1.cell' starts from zeros at every step" in told[0]
    assert notes(build_network(CASES["gru"], version.interface), "srghn.policies:GRU") == []


def test_a_stack_of_one_changes_no_older_digest() -> None:
    assert "stack" not in NetworkParams().model_dump()
    assert NetworkParams(stack=2).model_dump()["stack"] == 2
