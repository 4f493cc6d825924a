"""Properties of graphs: order never matters, JSON gives it back, what is broken is refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srghn.errors import ArchitectureMismatch, GraphError
from srghn.graph import CompGraph, Node

SHAPES = st.none() | st.lists(st.integers(1, 4), max_size=3).map(tuple)


@st.composite
def graphs(draw: st.DrawFn) -> CompGraph:
    """Any acyclic graph: edges go from earlier to later nodes; names say nothing of that order."""
    names = draw(st.lists(st.text("abcxyz.%_0", min_size=1, max_size=4), min_size=1, unique=True))
    nodes = [
        Node(name, draw(st.sampled_from(["input", "tanh", "linear.weight"])), draw(SHAPES))
        for name in names
    ]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    edges = draw(st.lists(st.sampled_from(pairs), max_size=12)) if pairs else []
    parameters = [n.name for n in nodes if n.shape is not None]
    return CompGraph(tuple(nodes), tuple(edges), tuple(draw(st.permutations(parameters))))


@settings(deadline=None)
@given(graphs(), st.randoms())
def test_node_and_edge_order_change_nothing(graph: CompGraph, random: object) -> None:
    nodes, edges = list(graph.nodes), list(graph.edges)
    random.shuffle(nodes)  # type: ignore[attr-defined]
    random.shuffle(edges)  # type: ignore[attr-defined]
    shuffled = CompGraph(tuple(nodes), tuple(edges), graph.layout)
    assert shuffled == graph
    assert hash(shuffled) == hash(graph)
    assert shuffled.digest == graph.digest
    assert str(shuffled) == str(graph)


@settings(deadline=None)
@given(graphs())
def test_json_both_ways(graph: CompGraph) -> None:
    again = CompGraph.from_json(graph.to_json())
    assert again == graph
    assert again.digest == graph.digest
    assert again.to_json() == graph.to_json()


@settings(deadline=None)
@given(graphs())
def test_generations_put_every_node_after_its_predecessors(graph: CompGraph) -> None:
    depth = {graph.nodes[i].name: g for g, row in enumerate(graph.generations) for i in row}
    assert [i for row in graph.generations for i in row] == list(range(len(graph.nodes)))
    assert all(depth[a] < depth[b] for a, b in graph.edges)
    for name, level in depth.items():
        before = [depth[a] for a, b in graph.edges if b == name]
        assert level == (max(before) + 1 if before else 0)


@settings(deadline=None)
@given(graphs())
def test_parameters_tile_the_flat_vector(graph: CompGraph) -> None:
    spans = [graph.slices()[name] for name in graph.layout]
    assert [s.stop - s.start for s in spans] == [n.size for n in graph.parameters]
    assert [s.start for s in spans] == [0, *(s.stop for s in spans)][: len(spans)]
    assert graph.size == sum(n.size for n in graph.nodes)


@settings(deadline=None)
@given(graphs(), st.data())
def test_any_change_changes_the_digest(graph: CompGraph, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(graph.nodes) - 1))
    node = graph.nodes[index]
    kinds = [*graph.nodes]
    kinds[index] = Node(node.name, node.kind + "x", node.shape)
    assert CompGraph(tuple(kinds), graph.edges, graph.layout).digest != graph.digest
    if graph.edges:
        fewer = CompGraph(graph.nodes, graph.edges[1:], graph.layout)
        assert fewer.digest != graph.digest
    if len(graph.layout) > 1:
        assert CompGraph(graph.nodes, graph.edges, graph.layout[::-1]).digest != graph.digest


A, B = Node("a", "input"), Node("b", "linear.weight", (2, 3))


@pytest.mark.parametrize(
    ("nodes", "edges", "layout", "message"),
    [
        ((), (), (), "at least one node"),
        ((A, A), (), (), "'a' appears twice"),
        ((Node("", "input"),), (), (), "needs a name"),
        ((Node("a", ""),), (), (), "a kind"),
        ((Node("w", "linear.weight", (3, 0)),), (), ("w",), r"'w' has shape \[3, 0\]"),
        ((A,), (("a", "z"),), (), "'z', which is not a node"),
        ((A,), (("a", "a"),), (), "cycle through 'a'"),
        ((A, B), (("a", "b"), ("b", "a")), ("b",), "cycle"),
        ((A, B), (), (), "'b' is missing"),
        ((A, B), (), ("b", "b"), "'b' is repeated"),
        ((A, B), (), ("b", "a"), "'a' is missing or no parameter"),
    ],
)
def test_what_is_no_graph_is_refused(
    nodes: tuple[Node, ...],
    edges: tuple[tuple[str, str], ...],
    layout: tuple[str, ...],
    message: str,
) -> None:
    with pytest.raises(GraphError, match=message):
        CompGraph(nodes, edges, layout)


def good() -> CompGraph:
    return CompGraph((A, B), (("a", "b"),), ("b",))


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.update(format=2),
        lambda d: d.pop("edges"),
        lambda d: d["nodes"][1].update(shape=["2", 3]),
        lambda d: d["nodes"][1].update(shape=[2.5]),
        lambda d: d["nodes"][1].update(shape=[True]),
        lambda d: d["edges"].append(["a"]),
        lambda d: d["edges"].append(["b", "a"]),
    ],
)
def test_damaged_json_is_refused(damage: object) -> None:
    data = json.loads(good().to_json())
    assert CompGraph.from_json(json.dumps(data)) == good()
    damage(data)  # type: ignore[operator]
    with pytest.raises(GraphError):
        CompGraph.from_json(json.dumps(data))
    with pytest.raises(GraphError, match="to_json"):
        CompGraph.from_json("[not json")


def test_nothing_in_a_graph_can_be_changed() -> None:
    graph = good()
    with pytest.raises(AttributeError):
        graph.layout = ()  # type: ignore[misc]
    with pytest.raises(AttributeError):
        graph.nodes[0].kind = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (CompGraph((A, Node("b", "linear.weight", (2, 4))), (("a", "b"),), ("b",)), r"\[2, 4\]"),
        (CompGraph((A, B), (), ("b",)), "edge a -> b"),
        (CompGraph((A,), (), ()), "expected 1 parameter tensors, found 0"),
        (CompGraph((Node("a", "tanh"), B), (("a", "b"),), ("b",)), r"a \((tanh|input)\)"),
    ],
)
def test_a_mismatch_names_the_first_difference(other: CompGraph, difference: str) -> None:
    good().require(good(), "the checkpoint")
    with pytest.raises(ArchitectureMismatch, match=f"the checkpoint was made for .*{difference}"):
        good().require(other, "the checkpoint")


def test_the_text_form_shows_every_node_with_what_it_follows() -> None:
    lines = str(good()).splitlines()
    assert lines[0].startswith(f"CompGraph {good().digest[:12]}: 2 nodes, 1 edges, 6 values")
    assert lines[1].split() == ["0", "a", "input"]
    assert lines[2].split() == ["1", "b", "linear.weight", "2x3", "<-", "a"]
