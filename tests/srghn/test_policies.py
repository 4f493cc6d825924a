"""Policies by import path: what is no policy is refused with its path and what to do."""

import sys
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from srghn.config import NetworkParams
from srghn.errors import ConfigError
from srghn.policies import MLP, ResidualMLP, build_policy


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
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, obs: Tensor) -> Any:
        y = self.drop(self.layer(obs))
        if self.flaw == "remembers":
            self.seen += 1
        if self.flaw == "draws":
            return y + torch.randn(())
        if self.flaw == "mixes":
            return y + obs.mean()
        if self.flaw == "broken":
            return y @ y
        return {"tuple": (y,), "double": y.double()}.get(self.flaw, y)


@pytest.fixture(autouse=True)
def users_package(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("users_package")
    vars(package).update(Custom=Custom, helper=len, Tensor=Tensor)
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
        ("srghn.policies:MLP", {"hiden": [3]}, "'hiden'.*takes hidden, activation"),
        ("srghn.policies:MLP", {"activation": "tan"}, "unknown activation 'tan'; did you mean"),
        ("srghn.policies:MLP", {"hidden": [0]}, r"at least one unit, got sizes \[4, 0, 2\]"),
        ("srghn.policies:MLP", {"hidden": 8}, "cannot be built with policy.kwargs"),
        ("users_package:Custom", {"flaw": "raises"}, "cannot be built .*width must be even"),
        ("users_package:Custom", {"flaw": "wide"}, r"shape \(3, 2\) .*got \(3, 3\)"),
        ("users_package:Custom", {"flaw": "tuple"}, "got tuple"),
        ("users_package:Custom", {"flaw": "double"}, "float32, got torch.float64"),
        ("users_package:Custom", {"flaw": "broken"}, r"fails on observations of shape \(3, 4\)"),
        ("users_package:Custom", {"flaw": "remembers"}, "its buffer 'seen' changed"),
        ("users_package:Custom", {"flaw": "draws"}, "two equal calls differ"),
        ("users_package:Custom", {"flaw": "mixes"}, "row by row"),
    ],
)
def test_what_is_no_policy_is_refused(module: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_policy(NetworkParams(module=module, kwargs=kwargs), 4, 2)
    if "activation" not in kwargs and "hidden" not in kwargs:
        assert module in str(caught.value)


def test_layers_without_units_are_refused_by_the_classes_too() -> None:
    with pytest.raises(ConfigError, match="at least one unit"):
        MLP(0, 2)
    with pytest.raises(ConfigError, match="at least one unit"):
        ResidualMLP(4, 2, width=0)
