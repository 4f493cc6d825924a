"""Policies by import path: what is no policy is refused with its path and what to do."""

import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from srghn.candidates.freeze import freeze, load_weights
from srghn.config import EngineSettings, EnvParams, NetworkParams
from srghn.envs import pin
from srghn.envs.interface import Interface
from srghn.errors import ArchitectureMismatch, ConfigError, GraphError
from srghn.evaluation.base import WeightedPolicies, make_evaluator
from srghn.evaluation.task import Task
from srghn.evolution.direct import Direct, PolicyWeights
from srghn.graph import CompGraph, trace
from srghn.graph.frozen import evolved_size, frozen_digest, frozen_tensors
from srghn.policies import MLP, ResidualMLP, build_policy

FLAT = Interface(4, (None,), (None,), "discrete", choices=(2,), starts=(0,))


class Custom(nn.Module):
    """A user's own network, with one flaw."""

    def __init__(
        self, observation_size: int, action_size: int, width: int = 3, flaw: str = ""
    ) -> None:
        super().__init__()
        if flaw == "raises":
            raise ValueError("width must be even")
        self.layer = nn.Linear(observation_size, action_size + (flaw == "wide"))
        self.drop = nn.Dropout(0.5)
        self.flaw = flaw
        self.register_buffer("seen", torch.full((1,), float("nan") if flaw == "nan" else 0.0))

    def forward(self, obs: Tensor) -> Any:
        if self.flaw == "writes":
            obs *= 0.5
        if self.flaw == "clamps":  # again is once
            obs.clamp_(-0.5, 0.5)
        y = self.drop(self.layer(obs))
        if self.flaw == "squeezes":
            return y.squeeze()
        if self.flaw == "sums":
            return y.sum(1)
        if self.flaw == "logarithm":
            return y.log()
        if self.flaw == "pairs":
            return y + obs[1, 0] * 0
        if self.flaw == "remembers":
            self.seen += 1
        if self.flaw == "draws":
            return y + torch.randn(())
        if self.flaw == "mixes":
            return y + obs.mean()
        if self.flaw == "broken":
            return y @ y
        return {"tuple": (y,), "double": y.double()}.get(self.flaw, y)


class Keywords(nn.Module):
    """Takes its sizes by keyword alone."""

    def __init__(self, *, action_size: int, observation_size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(observation_size, action_size)

    def forward(self, obs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(obs)
        return outputs


class Lazy(nn.Module):
    """Knows its inputs from its first call on."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(action_size)

    def forward(self, obs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(obs)
        return outputs


def pretrained(observation_size: int, action_size: int, scale: float = 1.0) -> nn.Module:
    """A fixed extractor of known weights, with a table beside it, before a layer to be evolved."""
    extractor = nn.Linear(observation_size, 5)
    with torch.no_grad():
        extractor.weight.copy_(scale * torch.arange(5.0 * observation_size).reshape(5, -1).sin())
    extractor.requires_grad_(False)
    extractor.register_buffer("table", torch.tensor([3, 1, 2]))
    return nn.Sequential(extractor, nn.Tanh(), nn.Linear(5, action_size))


def all_frozen(observation_size: int, action_size: int) -> nn.Module:
    return nn.Linear(observation_size, action_size).requires_grad_(False)


@pytest.fixture(autouse=True)
def users_package(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("users_package")
    vars(package).update(Custom=Custom, helper=len, Tensor=Tensor, Keywords=Keywords, Lazy=Lazy)
    vars(package).update(pretrained=pretrained, number=lambda o, a: 3, all_frozen=all_frozen)
    monkeypatch.setitem(sys.modules, "users_package", package)


@pytest.mark.parametrize("hidden", [(), (8,), (3, 5, 1)])
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu", "silu", "elu", "sigmoid"])
def test_mlp_of_any_shape(hidden: tuple[int, ...], activation: str) -> None:
    params = NetworkParams(kwargs={"hidden": hidden, "activation": activation})
    policy = build_policy(params, 4, 2)
    assert policy(torch.zeros(7, 4)).shape == (7, 2)
    sizes = [4, *hidden, 2]
    expected = sum((a + 1) * b for a, b in pairwise(sizes))
    assert sum(p.numel() for p in policy.parameters()) == expected


def test_residual_mlp_computes_what_it_says() -> None:
    params = NetworkParams(module="srghn.policies:ResidualMLP", kwargs={"width": 6, "blocks": 1})
    policy = build_policy(params, 4, 2)
    assert isinstance(policy, ResidualMLP)
    x, block = torch.randn(5, 4), policy.blocks[0]
    e = policy.embed(x)
    e = e + block.outer(torch.tanh(block.inner(block.norm(e))))
    assert torch.allclose(policy(x), policy.readout(policy.norm(e)))


def test_a_users_module_by_import_path() -> None:
    policy = build_policy(NetworkParams(module="users_package:Custom", kwargs={"width": 9}), 3, 2)
    assert isinstance(policy, Custom)
    assert not policy.training


def test_building_leaves_the_global_random_state_alone_and_repeats_itself() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = build_policy(NetworkParams(), 4, 2), build_policy(NetworkParams(), 4, 2)
    assert torch.equal(torch.rand(1), expected)
    assert all(map(torch.equal, first.parameters(), second.parameters()))


@pytest.mark.parametrize(
    ("module", "kwargs", "message"),
    [
        ("srghn.policies", {}, "takes module:Class, got 'srghn.policies'"),
        ("srghn.policies:", {}, "module:Class"),
        ("no_such_package:Net", {}, "cannot import 'no_such_package'.*PYTHONPATH"),
        ("srghn.policies:MPL", {}, "'srghn.policies:MPL'.*did you mean 'MLP'"),
        ("users_package:Nothing", {}, "known: Custom"),
        ("users_package:helper", {}, "subclass of torch.nn.Module"),
        ("users_package:number", {}, "must give a torch.nn.Module, got int"),
        ("srghn.policies:MLP", {"hiden": [3]}, "'hiden'.*takes hidden, activation"),
        ("srghn.policies:MLP", {"activation": "tan"}, "unknown activation 'tan'; did you mean"),
        ("srghn.policies:MLP", {"hidden": [0]}, r"at least one unit, got sizes \[4, 0, 2\]"),
        ("srghn.policies:MLP", {"hidden": 8}, "cannot be built with network.kwargs"),
        ("users_package:Custom", {"flaw": "raises"}, "cannot be built .*width must be even"),
        ("users_package:Custom", {"flaw": "wide"}, r"shape \(3, 2\) .*got \(3, 3\)"),
        ("users_package:Custom", {"flaw": "tuple"}, "got tuple; return the tensor itself"),
        ("users_package:Custom", {"flaw": "double"}, "float32, got torch.float64"),
        ("users_package:Custom", {"flaw": "broken"}, r"fails on observations of shape \(3, 4\)"),
        ("users_package:Custom", {"flaw": "remembers"}, "its buffer 'seen' changed"),
        ("users_package:Custom", {"flaw": "draws"}, "two equal calls differ"),
        ("users_package:Custom", {"flaw": "mixes"}, "depends on the others in its batch"),
        ("users_package:Custom", {"flaw": "writes"}, r"its input in place.*obs\.clone\(\)"),
        ("users_package:Custom", {"flaw": "logarithm"}, "gives NaN for observations of -1 to 1"),
        ("users_package:Custom", {"flaw": "nan"}, "'seen' holds NaN when it is built"),
        ("users_package:Custom", {"flaw": "sums"}, r"\(3, 2\) .*got \(3,\); keep the batch"),
        (
            "users_package:Custom",
            {"flaw": "squeezes"},
            r"shape \(1, 2\) for observations of shape \(1, 4\), got \(2,\); keep the batch",
        ),
        ("users_package:Custom", {"flaw": "pairs"}, r"fails on observations of shape \(1, 4\)"),
    ],
)
def test_what_is_no_policy_is_refused(module: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_policy(NetworkParams(module=module, kwargs=kwargs), 4, 2)
    if "activation" not in kwargs and "hidden" not in kwargs:
        assert module in str(caught.value)


def test_a_network_that_writes_to_its_input_may_if_it_changes_nothing_twice() -> None:
    params = NetworkParams(module="users_package:Custom", kwargs={"flaw": "clamps"})
    assert isinstance(build_policy(params, 4, 2), Custom)


def test_layers_without_units_are_refused_by_the_classes_too() -> None:
    with pytest.raises(ConfigError, match="at least one unit"):
        MLP(0, 2)
    with pytest.raises(ConfigError, match="at least one unit"):
        ResidualMLP(4, 2, width=0)


@pytest.mark.parametrize("name", ["Keywords", "Lazy"])
def test_sizes_by_keyword_and_layers_that_learn_theirs(name: str) -> None:
    policy = build_policy(NetworkParams(module=f"users_package:{name}", kwargs={}), 3, 2)
    assert policy(torch.zeros(7, 3)).shape == (7, 2)
    assert trace(policy, torch.zeros(1, 3)).size == 8


def test_frozen_parts_are_no_part_of_a_genome_and_kept_to_the_bit() -> None:
    params = NetworkParams(module="users_package:pretrained", kwargs={})
    network = build_policy(params, 4, 2)
    graph = trace(network, torch.zeros(1, 4))
    assert graph.layout == ("2.weight", "2.bias")
    assert graph.size == evolved_size(network) == 12
    before = {name: tensor.clone() for name, tensor in frozen_tensors(network).items()}
    assert sorted(before) == ["0.bias", "0.table", "0.weight"]
    load_weights(network, np.arange(12, dtype=np.float32))
    assert all(torch.equal(before[n], t) for n, t in frozen_tensors(network).items())
    assert network[2].bias.tolist() == [10.0, 11.0]  # type: ignore[index]
    with pytest.raises(ArchitectureMismatch, match="12 parameters to be evolved"):
        load_weights(network, np.zeros(37, dtype=np.float32))


def test_frozen_values_are_part_of_the_architecture() -> None:
    def digests(**kwargs: Any) -> tuple[str, str]:
        params = NetworkParams(module="users_package:pretrained", kwargs=kwargs)
        graph = trace(build_policy(params, 4, 2), torch.zeros(1, 4))
        assert CompGraph.from_json(graph.to_json()) == graph
        direct = Direct("ga", PolicyWeights(params, FLAT), 0.1)
        assert direct.genome_size == 12
        return graph.digest, graph.frozen

    assert digests() == digests()
    plain, louder = digests(), digests(scale=2.0)
    assert plain[0] != louder[0]
    assert plain[1] != louder[1]


def test_a_network_without_frozen_parts_has_the_digest_it_always_had() -> None:
    graph = trace(build_policy(NetworkParams(), 4, 2), torch.zeros(1, 4))
    assert graph.digest == "e59090e7b247b611f3bc81a3ae4d7296df64dfa9bdc7cc1877c1f85f69488a93"


def test_a_network_with_nothing_to_evolve_is_refused() -> None:
    network = build_policy(NetworkParams(module="users_package:all_frozen", kwargs={}), 4, 2)
    with pytest.raises(GraphError, match="only frozen parameters"):
        trace(network, torch.zeros(1, 4))


def test_frozen_parts_play_and_are_served_as_they_are(tmp_path: Path) -> None:
    version = pin(EnvParams(id="CartPole-v1"))
    params = NetworkParams(module="users_package:pretrained", kwargs={})
    network = build_policy(params, 4, 2)
    weights = np.random.default_rng(0).standard_normal((2, 12)).astype(np.float32)
    policies = WeightedPolicies(params, version.interface, weights)
    load_weights(network, weights[1])

    def alone(rows: Any) -> Any:
        with torch.no_grad():
            return network(torch.from_numpy(rows)).argmax(1).numpy()

    task = Task(version, "normal", np.arange(4))
    with make_evaluator(EngineSettings(), version, params) as evaluator:
        played = evaluator.evaluate(policies, task)
        assert evaluator.evaluate([alone], task).returns.tolist() == [played.returns[1].tolist()]
    candidate = freeze(
        tmp_path / "candidate",
        network=network,
        weights=weights[1],
        genome=weights[1],
        interface=version.interface,
        env_version=version.to_json(),
        ancestry="{}",
        observations=np.random.default_rng(1).standard_normal((9, 4)).astype(np.float32),
        manifest={},
    )
    assert candidate.manifest["frozen_digest"] == frozen_digest(network)
    tensors = onnx.load_model(candidate.path / "policy.onnx").graph.initializer
    kept = [onnx.numpy_helper.to_array(t).tobytes() for t in tensors]
    assert any(network[0].weight.numpy().tobytes() in (k, _turned(k)) for k in kept)  # type: ignore[index]


def _turned(data: bytes) -> bytes:
    """The bytes of a (4, 5) float32 matrix as those of its transpose; '' for another size."""
    return np.frombuffer(data, np.float32).reshape(4, 5).T.tobytes() if len(data) == 80 else b""
