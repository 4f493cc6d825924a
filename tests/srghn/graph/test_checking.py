"""A graph is its module's: it shows what is changed in place, or the module is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from srghn.config import NetworkParams
from srghn.envs.interface import Interface
from srghn.errors import GraphError
from srghn.evolution.direct import PolicyWeights
from srghn.graph import CompGraph, trace

Act = Callable[["Net", Tensor, Tensor], Tensor]


class Net(nn.Module):
    """Two linear layers, and between them what a test says; without biases zeros stay zeros."""

    def __init__(self, act: Act, bias: bool = True) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4, bias=bias)
        self.b = nn.Linear(4, 2, bias=bias)
        self.shift = nn.Parameter(torch.ones(4))
        self.relu = nn.ReLU(inplace=True)
        self.register_buffer("room", torch.zeros(1, 4))
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.act(self, x, self.a(x)) + self.shift)
        return y


def sources(graph: CompGraph) -> set[str]:
    """The kinds of the nodes from which the output comes."""
    reached = {n.name for n in graph.nodes if n.kind == "output"}
    while more := {a for a, b in graph.edges if b in reached} - reached:
        reached |= more
    return {n.kind for n in graph.nodes if n.name in reached}


def halved(net: Net, x: Tensor, y: Tensor) -> Tensor:
    y.mul_(0.5)
    return y


def shifted(net: Net, x: Tensor, y: Tensor) -> Tensor:
    y.sub_(x)
    return y


def rectified(net: Net, x: Tensor, y: Tensor) -> Tensor:
    torch.relu_(y)
    return y


def by_a_layer(net: Net, x: Tensor, y: Tensor) -> Tensor:
    net.relu(y)
    return y


def tanh(net: Net, x: Tensor, y: Tensor) -> Tensor:
    y.tanh_()
    return y


def a_column(net: Net, x: Tensor, y: Tensor) -> Tensor:
    y[:, 0] = torch.tanh(y[:, 0])
    return y


def a_view(net: Net, x: Tensor, y: Tensor) -> Tensor:
    y.select(1, 0).tanh_()
    return y


def behind_a_view(net: Net, x: Tensor, y: Tensor) -> Tensor:
    seen = y.view(-1, 2, 2)
    y.tanh_()
    return seen.flatten(1)


def half_of_it(net: Net, x: Tensor, y: Tensor) -> Tensor:
    gate, value = y.chunk(2, dim=1)
    gate.tanh_()
    return torch.cat([gate * value, value], dim=1)


def into_another(net: Net, x: Tensor, y: Tensor) -> Tensor:
    found = torch.empty_like(y)
    torch.tanh(y, out=found)
    return found


def in_a_loop(net: Net, x: Tensor, y: Tensor) -> Tensor:
    state = torch.zeros_like(y)
    for _ in range(3):
        state.mul_(0.5)
        state.add_(torch.tanh(y))
    return state


def the_input(net: Net, x: Tensor, y: Tensor) -> Tensor:
    x.tanh_()
    return y + x


def in_a_buffer(net: Net, x: Tensor, y: Tensor) -> Tensor:
    net.room.copy_(torch.tanh(y))
    return net.room


def by_its_type(net: Net, x: Tensor, y: Tensor) -> Tensor:
    return torch.tanh(y) if isinstance(x, Tensor) else y


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (halved, "mul"),
        (shifted, "sub"),
        (rectified, "relu"),
        (by_a_layer, "relu"),
        *((act, "tanh") for act in (tanh, a_column, a_view, behind_a_view, half_of_it)),
        *((act, "tanh") for act in (into_another, in_a_loop, the_input, in_a_buffer, by_its_type)),
    ],
)
def test_what_is_changed_in_place_leads_to_the_output(act: Act, kind: str, bias: bool) -> None:
    module = Net(act, bias)
    graph = trace(module, torch.zeros(1, 4))
    assert kind in sources(graph)
    assert {n.name for n in graph.parameters} == {name for name, _ in module.named_parameters()}
    assert {"parameter"} <= sources(graph) <= graph.kinds
    assert sum(n.shape is not None for n in graph.nodes) == len(graph.layout)


def test_an_edge_comes_from_who_changed_the_tensor_last() -> None:
    """Whatever name forward() has for it: the sum adds the rectified values up twice."""
    graph = trace(Net(lambda net, x, y: net.relu(y) + y), torch.zeros(1, 4))
    (relu,) = (n.name for n in graph.nodes if n.kind == "relu")
    after = {b for a, b in graph.edges if a == relu}
    assert len(after) == 1
    assert {a for a, b in graph.edges if b in after} == {relu}


def halves(net: Net, x: Tensor, y: Tensor) -> Tensor:
    one, other = y.chunk(2, -1)
    return torch.cat([one, other.sigmoid_()], -1)


def gates(net: Net, x: Tensor, y: Tensor) -> Tensor:
    """Changes in place of parts that share no element mislead nobody."""
    gated = torch.sigmoid_(y[:, :2]) * torch.tanh_(y[:, 2:])
    return torch.cat([gated, gated], -1)


#: By versions that did not look at what is changed in place.
ALWAYS = {
    "chained": (lambda net, x, y: torch.relu_(y), "66e13ff81aefff43"),
    "layer": (lambda net, x, y: net.relu(y), "e95a9aa289cd70d3"),
    "sum": (lambda net, x, y: torch.tanh(y).add_(y), "89263cd688bbb278"),
    "sizes": (lambda net, x, y: net.relu(y).view(y.size(0), y.shape[1]), "2d0a010b9b17f712"),
    "unused": (lambda net, x, y: (torch.tanh(y), y.mul_(3))[0], "5f4135ff257d00d8"),
    "copied": (lambda net, x, y: y + x.clone().mul_(2), "488baee5f431e94d"),
    "halves": (halves, "836d498a6963c45a"),
    "gates": (gates, "9826c77243cf1742"),
    "exported": (lambda net, x, y: torch.relu_(y) if len(y) else y, "bf09148e18b93af3"),
}


@pytest.mark.parametrize("name", ALWAYS)
def test_a_graph_that_was_right_has_the_digest_it_always_had(name: str) -> None:
    act, digest = ALWAYS[name]
    assert trace(Net(act), torch.zeros(1, 4)).digest.startswith(digest)


def test_the_example_and_the_buffers_stay_as_they_are() -> None:
    example = torch.ones(1, 4)
    trace(Net(the_input), example)
    assert example.tolist() == [[1.0] * 4]
    with torch.inference_mode():
        graph = trace(Net(halved), torch.zeros(1, 4))
    assert graph == trace(Net(halved), torch.zeros(1, 4))


def shrinking(net: Net, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        net.b.weight.mul_(0.5)
    return y


def by_its_values(net: Net, x: Tensor, y: Tensor) -> Tensor:
    y.tanh_()
    return y if float(y.detach().numpy().sum()) < 1 else -y


def untraceable(net: Net, x: Tensor, y: Tensor) -> Tensor:
    if type(x) is not Tensor:
        raise NameError("only\ntensors")
    return y


def by_its_class(net: Net, x: Tensor, y: Tensor) -> Tensor:
    return torch.tanh(y) if type(x) is Tensor else y


def leaving(net: Net, x: Tensor, y: Tensor) -> Tensor:
    if type(x) is not Tensor:
        raise SystemExit
    return y


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (shrinking, "changes its parameter 'b.weight'"),
        (by_its_values, "cannot be traced"),
        (untraceable, "cannot be traced: only tensors; write its forward.*; isinstance"),
        (by_its_class, r"give different outputs: .*ask isinstance\(x, Tensor\) where"),
        (leaving, r"cannot be traced: raise SystemExit \(test_checking.py, line \d+\); write"),
    ],
)
def test_what_no_graph_can_show_is_refused_in_one_line(act: Act, message: str) -> None:
    with pytest.raises(GraphError, match=message) as caught:
        trace(Net(act), torch.zeros(1, 4))
    assert "\n" not in str(caught.value)


def test_what_torch_export_cannot_do_either_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.export, "export", None)
    with pytest.raises(GraphError, match=r"'tanh_' changes a tensor in place.*y = y\.mul\(2\)"):
        trace(Net(tanh, bias=False), torch.zeros(1, 4))
    with pytest.raises(GraphError, match="give different outputs"):
        trace(Net(by_its_type, bias=False), torch.zeros(1, 4))
    with pytest.raises(GraphError, match="fails where the module does not"):
        trace(Net(lambda net, x, y: y if isinstance(x, Tensor) else y @ x), torch.zeros(1, 4))


def test_ctrl_c_ends_tracing() -> None:
    def interrupted(net: Net, x: Tensor, y: Tensor) -> Tensor:
        if type(x) is not Tensor:
            raise KeyboardInterrupt
        return y

    with pytest.raises(KeyboardInterrupt):
        trace(Net(interrupted), torch.zeros(1, 4))


class Asserting(nn.Module):
    """Insists on what it is given."""

    def __init__(self, observation_size: int, action_size: int, kind: type = Tensor) -> None:
        super().__init__()
        self.layer = nn.Linear(observation_size, action_size)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(x, self.kind)
        y: Tensor = self.layer(x)
        return y


def test_a_network_that_asserts_its_inputs_type_is_traced() -> None:
    graph = trace(Asserting(4, 2), torch.zeros(1, 4))
    assert sources(graph) == {"input", "parameter", "linear", "output"}
    assert graph.size == 10
    with pytest.raises(GraphError, match=r"fails on an example of shape \[1, 4\]: assert"):
        trace(Asserting(4, 2, nn.Parameter), torch.zeros(1, 4))


def test_strategies_that_evolve_weights_directly_take_it_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    face = Interface(4, (None,), (None,), "discrete", choices=(2,), starts=(0,))
    network = NetworkParams(module=f"{__name__}:Asserting", kwargs={})
    monkeypatch.setattr("srghn.evolution.direct.build_network", lambda *_: Asserting(4, 2))
    digest = PolicyWeights(network, face).digest("ga")
    assert digest.endswith(f"+{trace(Asserting(4, 2), torch.zeros(1, 4)).digest}")


def test_layers_that_have_not_met_their_inputs_are_refused() -> None:
    with pytest.raises(
        GraphError, match=r"'0\.weight' of Sequential has no shape yet; call the mo"
    ):
        trace(nn.Sequential(nn.LazyLinear(2)), torch.zeros(1, 4))
