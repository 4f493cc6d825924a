"""A traced module's fx nodes as the nodes and edges of a `CompGraph`."""

from __future__ import annotations

from torch import fx, nn

from srghn.errors import GraphError
from srghn.graph.comp_graph import CompGraph, Node
from srghn.graph.frozen import evolved_parameters, frozen_digest

#: (name, kind, shape) of each parameter that an fx node brings in.
Parameters = list[tuple[str, str, tuple[int, ...] | None]]
#: Spellings of one operation, by the name torch or Python gives it.
ALIASES = {
    "iadd": "add",
    "isub": "sub",
    "imul": "mul",
    "truediv": "div",
    "itruediv": "div",
    "multiply": "mul",
    "subtract": "sub",
    "divide": "div",
    "concat": "cat",
    "concatenate": "cat",
    "view": "reshape",
    "flatten": "reshape",
    "unflatten": "reshape",
}


def parameters_used(traced: fx.Graph, root: nn.Module) -> dict[fx.Node, Parameters]:
    """The parameters of every fx node; raises `GraphError` if one is used twice."""
    uses = {node: _parameters_of(node, root) for node in traced.nodes}
    used: set[str] = set()
    for node, parameters in uses.items():
        for name, _, _ in parameters:
            if name in used:
                raise GraphError(
                    f"parameter {name!r} of {type(root).__name__} is shared: module "
                    f"{str(node.target)!r} is used more than once in forward(); use a separate "
                    "module each time"
                )
            used.add(name)
    return uses


def _parameters_of(node: fx.Node, root: nn.Module) -> Parameters:
    target = str(node.target)
    if node.op == "call_module":
        leaf = root.get_submodule(target)
        kind = type(leaf).__name__.lower()
        return [
            (f"{target}.{name}", f"{kind}.{name}", tuple(p.shape))
            for name, p in leaf.named_parameters()
            if p.requires_grad
        ]
    if node.op == "get_attr":
        value = dict(root.named_parameters(remove_duplicate=False)).get(target)
        evolved = value is not None and value.requires_grad
        return [(target, "parameter", tuple(value.shape))] if value is not None and evolved else []
    return []


def build(
    traced: fx.Graph, root: nn.Module, uses: dict[fx.Node, Parameters], is_tensor: dict[str, bool]
) -> CompGraph:
    """The graph of those fx nodes; what gives no tensor is left out, and its sources passed on.

    The layout names the parameters that were met, in `root.named_parameters()` order.
    """
    nodes: list[Node] = []
    edges: list[tuple[str, str]] = []
    last: dict[fx.Node, tuple[str, ...]] = {}  # fx node -> the nodes that its value comes from
    for node in traced.nodes:
        sources = tuple(dict.fromkeys(s for i in node.all_input_nodes for s in last[i]))
        if is_tensor[node.name]:
            for name, kind, shape in uses[node] or [(f"%{node.name}", _kind(node, root), None)]:
                nodes.append(Node(name, kind, shape))
                edges += [(source, name) for source in sources]
                sources = (name,)
        last[node] = sources
    met = {n.name for n in nodes}
    layout = tuple(name for name, _ in evolved_parameters(root) if name in met)
    return CompGraph(tuple(nodes), tuple(edges), layout, frozen_digest(root))


def _kind(node: fx.Node, root: nn.Module) -> str:
    fixed = {"placeholder": "input", "output": "output", "get_attr": "constant"}
    if node.op in fixed:
        return fixed[node.op]
    name = str(node.target)
    if node.op == "call_module":
        name = type(root.get_submodule(name)).__name__
    elif node.op == "call_function":
        name = getattr(node.target, "__name__", name)
        name = name.partition(".")[0]  # torch.export's have an overload: linear.default
    name = name.lower().strip("_")
    return ALIASES.get(name, name)
