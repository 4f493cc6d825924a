"""Native observations in the Open Inference Protocol: each part (leaf) is one input tensor."""

from __future__ import annotations

import re
from math import prod
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from serving.explain import explain
from serving.forms import form_named
from serving.predictor import Predictor
from serving.schemas import BadRequest
from serving.tensors import INPUT, InferRequest, Tensor, size_of
from srghn.envs.layout import Layout, Leaf, as_numbers
from srghn.errors import ObservationError

#: The input's name if the observation is a single array; `obs` is the flat form.
WHOLE = "observation"
_TYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1",
    "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
#: What follows the name of an input that is meant for one interface, or one version.
_FORM = re.compile(r"@([0-9a-f]{16}|[0-9]{1,9})\Z")
_NAMES = {np.dtype(kind): name for name, kind in _TYPES.items()}


def inputs_of(layout: Layout | None, size: int) -> list[dict[str, Any]]:
    """The inputs in a model's metadata: the flat vector, and one for each part."""
    flat = {"name": INPUT, "datatype": "FP32", "shape": [-1, size]}
    if layout is None:
        return [flat]
    parts = [_described(leaf) for leaf in layout.leaves]
    return parts if any(part["name"] == INPUT for part in parts) else [flat, *parts]


def forms_of(said: InferRequest) -> tuple[list[str], bool]:
    """The interfaces and versions that a request has inputs for (`obs@9f3c2a7b51d0e846`).

    Also whether it has inputs without one.
    """
    found = [_FORM.search(tensor.name) for tensor in said.inputs]
    return [one[1] for one in found if one is not None], None in found


def form_for(
    said: InferRequest, binary: bytes, names: frozenset[str], predictor: Predictor
) -> tuple[InferRequest, bytes]:
    """The inputs of a request that are meant for a predictor, and their binary data.

    Those that have one of these names of its interface, else those that have none. Raises
    `BadRequest`.
    """
    given, _ = forms_of(said)
    if not given:
        return said, binary
    wanted = form_named(set(given), names, "inputs", 400)
    inputs, parts, at = [], [], 0
    for tensor in said.inputs:
        size, found = size_of(tensor) or 0, _FORM.search(tensor.name)
        if wanted == (None if found is None else found[1]):
            inputs.append(replace(tensor, name=_FORM.sub("", tensor.name)))
            parts.append(binary[at : at + size])
        at += size
    if not inputs:
        expected = f"inputs for interface {predictor.interface}, or inputs without one"
        raise BadRequest(400, "inputs", expected, ", ".join(given)[:200])
    if at != len(binary):
        raise BadRequest(400, "binary data", f"{at} bytes", str(len(binary)))
    return replace(said, inputs=inputs), b"".join(parts)


def are_leaves(said: InferRequest, layout: Layout | None) -> bool:
    """Whether a request sends the parts of an observation, and not its flat form."""
    if layout is None:
        return False
    names = [tensor.name for tensor in said.inputs]
    return names != [INPUT] or len(said.inputs[0].shape) != 2


def leaf_batch(
    said: InferRequest, binary: bytes, layout: Layout, limit: int
) -> NDArray[np.float32]:
    """The observations (n, d) of a request with one input for each part; raises `BadRequest`."""
    known = {_name(leaf): leaf for leaf in layout.leaves}
    arrays: dict[str, NDArray[Any]] = {}
    at = 0
    for number, tensor in enumerate(said.inputs):
        field, leaf = f"inputs[{number}]", known.get(tensor.name)
        if leaf is None or leaf.name in arrays:
            expected = f"each of {', '.join(known)} once, or {INPUT} alone"
            raise BadRequest(400, f"{field}.name", expected, repr(tensor.name[:80]))
        _check_shape(tensor, leaf, limit, field)
        arrays[leaf.name], at = _values(tensor, binary, at, field)
    if at != len(binary):
        raise BadRequest(400, "binary data", f"{at} bytes", str(len(binary)))
    try:
        return layout.flatten_leaves(arrays)
    except ObservationError as error:
        raise BadRequest.said(400, "inputs", str(error)) from None


def _name(leaf: Leaf) -> str:
    return leaf.name if leaf.path else WHOLE


def _described(leaf: Leaf) -> dict[str, Any]:
    kind = np.dtype(leaf.dtype).newbyteorder("<")
    return {"name": _name(leaf), "datatype": _NAMES[kind], "shape": [-1, *leaf.shape]}


def _check_shape(tensor: Tensor, leaf: Leaf, limit: int, field: str) -> None:
    shape = tensor.shape
    if not shape or shape[0] < 1 or tuple(shape[1:]) != leaf.shape:
        expected = f"{['n', *leaf.shape]} with n at least 1".replace("'", "")
        raise BadRequest(400, f"{field}.shape", expected, str(shape))
    if shape[0] > limit:
        raise BadRequest(413, f"{field}.shape", f"at most {limit} observations", str(shape[0]))
    if tensor.datatype not in _TYPES:
        expected = f"one of {', '.join(_TYPES)}"
        raise BadRequest(400, f"{field}.datatype", expected, repr(tensor.datatype[:40]))


def _values(tensor: Tensor, binary: bytes, at: int, field: str) -> tuple[NDArray[Any], int]:
    """A tensor's array, and the offset at which the next binary data begin."""
    dtype, count, said = np.dtype(_TYPES[tensor.datatype]), prod(tensor.shape), size_of(tensor)
    if said is not None:
        needed = count * dtype.itemsize
        if said != needed or at + needed > len(binary):
            got = f"{said}, with {len(binary) - at} left"
            raise BadRequest(400, f"{field}.parameters.binary_data_size", f"{needed} bytes", got)
        data = np.frombuffer(binary, dtype, count, at)
        return data.reshape(tensor.shape), at + needed
    try:
        found = as_numbers(msgspec.json.decode(tensor.data))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise explain(bytes(tensor.data), error) from None
    except (ValueError, OverflowError):
        found = np.asarray(None)
    if found.dtype.kind not in "biuf" or found.size != count:
        expected = f"{count} numbers, nested or flat"
        got = f"{found.size}" if found.dtype.kind in "biuf" else "something else"
        raise BadRequest(400, f"{field}.data", expected, got)
    return found.reshape(tensor.shape), at
