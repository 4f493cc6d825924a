"""Modules as graphs: every parameter exactly once, and errors that name the module path."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from srghn.errors import ConfigError, GraphError
from srghn.graph import CompGraph, trace
from srghn.policies import MLP, ResidualMLP


class Conv(nn.Module):
    """Convolutions, a size taken from the input, a bare parameter and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.GroupNorm(1, 3)
        self.gain = nn.Parameter(torch.ones(3))
        self.register_buffer("offset", torch.zeros(3))
        self.out = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm(self.conv(x))).mean(dim=(2, 3)).view(x.size(0), -1)
        return self.out(y * self.gain + self.offset)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.cell = nn.GRUCell(3, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cell(self.embed(x)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mixed, _ = self.attend(x, x, x, need_weights=False)
        return mixed


MODULES: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "mlp": lambda: (MLP(4, 2), torch.zeros(1, 4)),
    "linear": lambda: (MLP(4, 2, ()), torch.zeros(1, 4)),
    "residual": lambda: (ResidualMLP(4, 2, width=6, blocks=3), torch.zeros(1, 4)),
    "conv": lambda: (Conv(), torch.zeros(2, 1, 5, 5)),
    "recurrent": lambda: (Recurrent(), torch.zeros(2, dtype=torch.long)),
    "attention": lambda: (Attention(), torch.zeros(1, 3, 4)),
    "bilinear": lambda: (
        nn.Sequential(nn.Linear(3, 3), nn.PReLU(), nn.Dropout()),
        torch.ones(1, 3),
    ),
}


def assert_complete(graph: CompGraph, module: nn.Module) -> None:
    expected = [(name, tuple(p.shape)) for name, p in module.named_parameters()]
    assert [(n.name, n.shape) for n in graph.parameters] == expected
    assert sum(n.shape is not None for n in graph.nodes) == len(expected)
    assert sum(n.kind == "output" for n in graph.nodes) == 1
    reached, edges = {n.name for n in graph.nodes if n.kind == "output"}, graph.edges
    while more := {a for a, b in edges if b in reached} - reached:
        reached |= more
    assert {n.name for n in graph.parameters} <= reached


@pytest.mark.parametrize("name", MODULES)
def test_every_parameter_is_in_the_graph_exactly_once_and_in_order(name: str) -> None:
    module, example = MODULES[name]()
    assert_complete(trace(module, example), module)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 5),
    st.lists(st.integers(1, 9), max_size=6),
    st.sampled_from(["tanh", "relu", "gelu"]),
)
def test_mlps_of_any_shape(inputs: int, outputs: int, hidden: list[int], activation: str) -> None:
    module = MLP(inputs, outputs, hidden, activation)
    graph = trace(module, torch.zeros(1, inputs))
    assert_complete(graph, module)
    assert graph.kinds == {
        *("input", "output", "linear.weight", "linear.bias"),
        *([activation] if hidden else []),
    }
    assert graph == trace(MLP(inputs, outputs, hidden, activation), torch.zeros(3, inputs))


def test_data_flow_of_a_residual_block() -> None:
    graph = trace(ResidualMLP(4, 2, blocks=1), torch.zeros(1, 4))
    assert {a for a, b in graph.edges if b == "%add"} == {"embed.bias", "blocks.0.outer.bias"}
    assert ("blocks.0.norm.weight", "blocks.0.norm.bias") in graph.edges


def test_plain_values_are_no_nodes_but_their_sources_are_kept() -> None:
    graph = trace(Conv(), torch.zeros(2, 1, 5, 5))
    assert "size" not in graph.kinds
    assert ("%x", "%view") in graph.edges
    assert {n.kind for n in graph.nodes if n.name in ("gain", "%offset")} == {
        "parameter",
        "constant",
    }


class Spelled(nn.Module):
    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a = nn.Linear(2, 2)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.a(x))


def test_one_operation_is_one_kind_however_it_is_spelled() -> None:
    spellings = [nn.Tanh(), torch.tanh, functional.tanh, lambda y: y.tanh()]
    kinds = {trace(Spelled(act), torch.zeros(1, 2)).kinds for act in spellings}
    assert len(kinds) == 1
    sums = [lambda y: y + 1, lambda y: torch.add(y, 1), lambda y: y.add(1), lambda y: y.__iadd__(1)]
    assert len({trace(Spelled(act), torch.zeros(1, 2)).kinds for act in sums}) == 1


class Optional(nn.Module):
    """What it does depends on an argument that the policy's caller never gives."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None, both: bool = True) -> Tensor:
        y = self.a(x) + self.b(x) if both else self.a(x)
        return y if mask is None else y * mask


def test_optional_arguments_keep_their_defaults() -> None:
    graph = trace(Optional(), torch.zeros(1, 4))
    assert_complete(graph, Optional())
    assert graph.kinds == {"input", "linear.weight", "linear.bias", "add", "output"}


def test_tracing_leaves_the_module_as_it_was() -> None:
    module, example = MODULES["bilinear"]()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    module.train()[2].eval()
    trace(module, example)
    assert [part.training for part in module] == [True, True, False]
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x) * self.calls


class Wild(nn.Module):
    def __init__(self, flaw: str) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.flaw = flaw
        if flaw == "tied":
            self.second.weight = self.first.weight
        if flaw == "nan":
            with torch.no_grad():
                self.second.bias[1] = float("nan")

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.flaw == "reused":
            return self.second(self.first(y))
        z = y if self.flaw == "unused" else self.second(y)
        return y if self.flaw == "dropped" else z


def empty_layer() -> nn.Module:
    with pytest.warns(UserWarning, match="zero-element"):
        return nn.Sequential(nn.Linear(4, 0), nn.Linear(0, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.Sequential(Branch())), r"'1\.0' \(Branch\)"),
        (lambda: Wild("tied"), r"'second\.weight' .*shared with 'first\.weight'"),
        (
            lambda: Wild("reused"),
            r"'first\.weight' .*shared: module 'first' is used more than once",
        ),
        (lambda: Wild("unused"), r"'second\.weight' .*missing from the graph"),
        (lambda: Wild("dropped"), r"'second\.weight' .*missing from the graph"),
        (lambda: Wild("nan"), r"'second\.bias' .*NaN"),
        (empty_layer, r"'0\.weight' .*\[0, 4\]"),
        (nn.Identity, "no parameters"),
        (Stateful, "give different outputs"),
        (lambda: MLP(5, 2), r"MLP fails on an example of shape \[1, 4\]"),
    ],
)
def test_errors_name_the_path_and_what_to_do(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        trace(make(), torch.zeros(1, 4))


def test_an_unflawed_module_of_that_family_is_traced() -> None:
    assert trace(Wild("none"), torch.zeros(1, 4)).size == 40


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: trace(MLP(4, 2)), "example: expected Tensor, .* torch.zeros"),
        (lambda: trace(MLP(4, 2), [0.0] * 4), "example: expected Tensor, got list"),
        (lambda: trace(MLP, torch.zeros(1, 4)), "module: expected Module, got type"),
    ],
)
def test_what_is_no_module_or_no_tensor_is_refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()
