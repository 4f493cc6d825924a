"""A plain network's layers in numpy, read from its ONNX file.

For a tiny network in a request, ONNX Runtime takes some 37 us and numpy 12 us. So a graph that is
one chain of the operations below runs here, for observations up to the size at which `proven` found
it equal to ONNX Runtime. ONNX Runtime does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Step = Callable[[Floats], Floats]

#: Bounds of observations at which equality is tested; in sums of larger numbers digits are lost.
_BOUNDS = (1e6, 1e4, 100.0, 10.0)
#: Random observations are drawn at a bound and at these fractions of it.
_PARTS = (1.0, 0.1, 0.01, 1e-3, 1e-4)
_PER_PART = 512
#: Continuous actions may differ by this much, absolutely and relative to their size.
TOLERANCE = 1e-5


class Reference(Protocol):
    """The function that the layers are compared with: observations (n, d) -> actions."""

    def __call__(self, observations: Floats, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Layers:
    """Steps from an observation (d,), or from a batch (n, d), to outputs and then the action.

    For discrete actions `offset` is added to the index of the largest output. For continuous ones
    it is None, and the outputs are the action. No number of an observation may exceed `bound`.
    """

    single: tuple[Step, ...]
    batch: tuple[Step, ...]
    offset: int | None
    bound: float = 0.0

    def one(self, observation: list[float]) -> Any:
        """The action for one observation of d numbers: an integer, or a list of k numbers."""
        values = np.array(observation, np.float32)
        for step in self.single:
            values = step(values)
        if self.offset is None:
            return values.tolist()
        return int(values.argmax()) + self.offset

    def many(self, observations: Floats) -> NDArray[Any]:
        """Actions (n,) or (n, k) for observations (n, d)."""
        values = self._outputs(observations)
        if self.offset is None:
            return values
        chosen: NDArray[Any] = values.argmax(axis=1)
        return chosen + self.offset if self.offset else chosen

    def choices(self, size: int) -> tuple[int, int] | None:
        """The least and the largest action for observations of `size` numbers; None if continuous.

        They follow from the number of outputs, whatever an observation may be.
        """
        if self.offset is None:
            return None
        count = self._outputs(np.zeros((1, size), np.float32)).shape[1]
        return self.offset, self.offset + count - 1

    def _outputs(self, observations: Floats) -> Floats:
        values = observations
        for step in self.batch:
            values = step(values)
        return values


def read_layers(data: bytes) -> Layers | None:
    """The layers of an ONNX file's bytes, or None if its graph is not one plain chain."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(data).graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    single: list[Step] = []
    batch: list[Step] = []
    current, offset, discrete = graph.input[0].name, 0, False
    for node in graph.node:
        fixed = [constants.get(name) for name in node.input]
        flowing = [name for name in node.input if name not in constants]
        if flowing != [current] or len(node.output) != 1:
            return None
        options = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        current = node.output[0]
        if discrete:
            added = _integer(node.op_type, fixed)
            if added is None:
                return None
            offset += added
        elif node.op_type == "ArgMax":
            if not _largest(options):
                return None
            discrete = True
        else:
            steps = _steps(node.op_type, fixed, options)
            if steps is None or not (single or node.op_type in ("Gemm", "MatMul")):
                return None  # other operations would write into the request's own input
            single += steps[0]
            batch += steps[1]
    if current != graph.output[0].name:
        return None
    return Layers(tuple(single), tuple(batch), offset if discrete else None)


def proven(
    layers: Layers, reference: Reference, golden: Floats, generator: np.random.Generator
) -> Layers | None:
    """The layers with the largest bound within which they act as `reference`; None without one.

    The test compares the golden observations (n, d) and random ones of five sizes up to the bound,
    one at a time and in a batch. Discrete actions must be equal, continuous ones within
    `TOLERANCE`.
    """
    for bound in _BOUNDS:
        inside = golden[(np.abs(golden) <= bound).all(axis=1)]
        shape = (_PER_PART, golden.shape[1])
        drawn = [bound * part * generator.uniform(-1, 1, shape) for part in _PARTS]
        observations = np.concatenate([inside, *drawn]).astype(np.float32)
        if len(inside) and _equal(layers, reference(observations), observations):
            return replace(layers, bound=bound)
    return None


def _equal(layers: Layers, expected: NDArray[Any], observations: Floats) -> bool:
    with np.errstate(all="ignore"):
        together = layers.many(observations)
        alone = np.array([layers.one(row.tolist()) for row in observations])
    return _same(together, expected) and _same(alone, expected)


def _same(actual: NDArray[Any], expected: NDArray[Any]) -> bool:
    if actual.shape != expected.shape or actual.dtype.kind != expected.dtype.kind:
        return False
    if expected.dtype.kind == "i":
        return bool((actual == expected).all())
    finite = bool(np.isfinite(actual).all() and np.isfinite(expected).all())
    return finite and bool(np.allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE))


Parts = tuple[list[Step], list[Step]]


def _steps(kind: str, fixed: list[NDArray[Any] | None], options: Mapping[str, Any]) -> Parts | None:
    """One operation as steps for an observation and for a batch; None if it is not supported."""
    if kind == "Gemm":
        return _gemm(fixed, options)
    if kind == "MatMul":
        weights = fixed[1]
        return None if weights is None else _linear(weights)
    if kind == "Identity" or (kind == "Split" and options.get("axis") == 1):
        return [], []  # a split with one output
    if kind in _ACTIVATIONS and len(fixed) == 1:
        if kind == "Elu" and options.get("alpha", 1.0) != 1.0:
            return None
        return _both(_ACTIVATIONS[kind])
    if kind in _WITH_CONSTANT and len(fixed) == 2:
        values = fixed[0] if fixed[1] is None else fixed[1]
        return None if values is None else _constant(kind, values)
    return None


def _both(step: Step) -> Parts:
    return [step], [step]


def _gemm(fixed: list[NDArray[Any] | None], options: Mapping[str, Any]) -> Parts | None:
    plain = options.get("alpha", 1.0) == 1.0 and options.get("beta", 1.0) == 1.0
    if not plain or options.get("transA", 0) or fixed[0] is not None or fixed[1] is None:
        return None
    product = _linear(fixed[1].T if options.get("transB", 0) else fixed[1])
    if len(fixed) == 2 or product is None:
        return product
    bias = None if fixed[2] is None else _constant("Add", fixed[2])
    return None if bias is None else (product[0] + bias[0], product[1] + bias[1])


def _linear(weights: NDArray[Any]) -> Parts | None:
    """A product with weights (inputs, outputs)."""
    if weights.dtype != np.float32 or weights.ndim != 2:
        return None
    across, down = np.ascontiguousarray(weights), np.ascontiguousarray(weights.T)
    return [down.dot], [lambda x: x.dot(across)]


def _constant(kind: str, values: NDArray[Any]) -> Parts | None:
    """An operation with one constant of shape (k,), (1, k) or ()."""
    if values.dtype != np.float32 or values.ndim > 2 or (values.ndim == 2 and len(values) != 1):
        return None
    flat = values.reshape(-1) if values.ndim else values
    operation = _WITH_CONSTANT[kind]
    return _both(lambda x: operation(x, flat, out=x))


def _integer(kind: str, fixed: list[NDArray[Any] | None]) -> int | None:
    """The integer that an operation adds to the index of the largest output; None if none."""
    if kind == "Identity":
        return 0
    values = [value for value in fixed if value is not None]
    if kind != "Add" or len(values) != 1 or values[0].size != 1:
        return None
    return int(values[0].item())


def _largest(options: Mapping[str, Any]) -> bool:
    return (
        options.get("axis") == 1
        and options.get("keepdims", 1) == 0
        and options.get("select_last_index", 0) == 0
    )


def _sigmoid(x: Floats) -> Floats:
    np.negative(x, x)
    np.minimum(x, np.float32(80), out=x)  # beyond it exp overflows with a warning
    np.exp(x, x)
    x += np.float32(1)
    return np.reciprocal(x, x)


def _elu(x: Floats) -> Floats:
    return np.where(x > 0, x, np.expm1(np.minimum(x, np.float32(0))))


#: All steps but the first may write into their argument, because it is an intermediate result.
_ACTIVATIONS: dict[str, Step] = {
    "Tanh": lambda x: np.tanh(x, x),
    "Relu": lambda x: np.maximum(x, np.float32(0), out=x),
    "Sigmoid": _sigmoid,
    "Elu": _elu,
}
_WITH_CONSTANT: dict[str, Callable[..., Floats]] = {
    "Add": np.add,
    "Mul": np.multiply,
    "Max": np.maximum,
    "Min": np.minimum,
}
