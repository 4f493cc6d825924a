"""Tensors of the Open Inference Protocol v2, as JSON and in its binary extension."""

from __future__ import annotations

import math
import struct
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from serving.batches import quick_rows
from serving.explain import LOOKED_UP, check_keys, explain
from serving.schemas import FLOAT32_MAX, BadRequest, EpisodeId, numbers, shown, within

INPUT, OUTPUT = "obs", "action"
#: Kind of action -> its name in the protocol.
DATATYPES = {"i": "INT64", "f": "FP32"}
Size = Annotated[int, Meta(ge=0, lt=2**31)]


_ABSENT = msgspec.Raw(b"null")
#: Quotation marks around names and texts that a request may have beside those that are read.
_IGNORED = 4000
#: No length in a header has more.
_DIGITS = 15


class Parameters(Struct, frozen=True):
    """The parameters of a request that this server reads; it ignores others."""

    episode_id: EpisodeId | UnsetType = UNSET
    token: str | UnsetType = UNSET
    binary_data_output: bool | UnsetType = UNSET


class TensorParameters(Struct, frozen=True):
    """The parameters of a tensor that this server reads; it ignores others.

    The server does not support the last two. It reads them only to refuse them.
    """

    binary_data_size: Size | UnsetType = UNSET
    binary_data: bool | UnsetType = UNSET
    classification: int | UnsetType = UNSET
    shared_memory_region: str | UnsetType = UNSET


class Tensor(Struct, frozen=True, forbid_unknown_fields=True):
    """One input."""

    name: str
    shape: list[Size]
    datatype: str
    data: msgspec.Raw = msgspec.field(default_factory=lambda: _ABSENT)
    parameters: TensorParameters | UnsetType = UNSET


class Wanted(Struct, frozen=True):
    """One requested output."""

    name: str
    parameters: TensorParameters | UnsetType = UNSET


class InferRequest(Struct, frozen=True):
    """The body of `/infer`, or its JSON head if binary tensors follow."""

    inputs: list[Tensor]
    id: Annotated[str, Meta(max_length=200)] | UnsetType = UNSET
    outputs: list[Wanted] | UnsetType = UNSET
    parameters: Parameters | UnsetType = UNSET

    @property
    def episode(self) -> str | None:
        said = self.parameters
        return None if said is UNSET or said.episode_id is UNSET else said.episode_id

    @property
    def token(self) -> str | None:
        said = self.parameters
        return None if said is UNSET or said.token is UNSET else said.token

    @property
    def wants_binary(self) -> bool:
        """Whether to answer in binary: the output's own parameter, else the request's."""
        for wanted in self.outputs or ():
            said = wanted.parameters
            if said is not UNSET and said.binary_data is not UNSET:
                return said.binary_data
        return self.parameters is not UNSET and self.parameters.binary_data_output is True


_REQUEST = msgspec.json.Decoder(InferRequest)
_NUMBERS = msgspec.json.Decoder(list[float])


def split(body: bytes, head_length: str | None) -> tuple[bytes, bytes]:
    """The JSON of a body, and the binary tensors after it.

    `head_length` is the header Inference-Header-Content-Length; None means JSON alone. Raises
    `BadRequest`.
    """
    if head_length is None:
        return body, b""
    number = head_length.isascii() and head_length.isdigit() and len(head_length) <= _DIGITS
    if not (number and int(head_length) <= len(body)):
        raise BadRequest(
            400, "Inference-Header-Content-Length", f"0 to {len(body)}", repr(head_length[:20])
        )
    length = int(head_length)
    return body[:length], body[length:]


def read(head: bytes) -> InferRequest:
    """The request in this JSON; raises `BadRequest`."""
    try:
        said = _REQUEST.decode(head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise explain(head, error) from None
    more = head.count(b'"') - _quotes(said)
    if more > _IGNORED:  # counted before they are looked at: an object of keys costs much to make
        expected = f"at most {_IGNORED // 2} names and texts that are not read"
        raise BadRequest(413, "body", expected, str(more // 2))
    if more:  # an ignored field, an escape or a repeated key
        check_keys(head)
    return said


def _quotes(said: InferRequest) -> int:
    """Quotation marks in the request's JSON if no key is repeated and none is unknown."""
    count = 2 + (0 if said.id is UNSET else 4)
    for tensor in said.inputs:
        count += 12 - 2 * (tensor.data is _ABSENT) + _quotes_of(tensor.parameters)
    if said.outputs is not UNSET:
        count += 2 + sum(4 + _quotes_of(wanted.parameters) for wanted in said.outputs)
    asked = said.parameters
    if asked is UNSET:
        return count
    count += 2 + 4 * (asked.episode_id is not UNSET) + 4 * (asked.token is not UNSET)
    return count + 2 * (asked.binary_data_output is not UNSET)


def _quotes_of(said: TensorParameters | UnsetType) -> int:
    if said is UNSET:
        return 0
    return 2 + 2 * (said.binary_data_size is not UNSET) + 2 * (said.binary_data is not UNSET)


def batch(said: InferRequest, binary: bytes, size: int, limit: int) -> NDArray[np.float32]:
    """The observations (n, size) of a request, n at most `limit`; raises `BadRequest`."""
    return rows(plain(said, size, limit) or _checked(said, size, limit), binary, size)


def rows(tensor: Tensor, binary: bytes, size: int) -> NDArray[np.float32]:
    """The observations (n, size) in an input that was checked; raises `BadRequest`."""
    said_size = size_of(tensor)
    if said_size is None:
        return _from_json(bytes(tensor.data), tensor.shape[0], size)
    return _from_binary(tensor, said_size, binary)


def one(tensor: Tensor, binary: bytes, size: int) -> list[float] | None:
    """The observation in a plain input of one with nothing odd; None leaves it to `rows`.

    No array is made for it: that takes longer than all else here.
    """
    if tensor.shape[0] != 1:
        return None
    said_size = size_of(tensor)
    if said_size is None and len(tensor.data) <= LOOKED_UP:  # `rows` counts before it decodes
        try:
            found = _NUMBERS.decode(tensor.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
    elif tensor.data is _ABSENT and said_size == len(binary) == 4 * size:
        found = list(struct.unpack(f"<{size}f", binary))
    else:
        return None
    if len(found) != size or not all(-FLOAT32_MAX <= value <= FLOAT32_MAX for value in found):
        return None
    return found


def plain(said: InferRequest, size: int, limit: int) -> Tensor | None:
    """The input of a request of the usual form, on which no check is left to do; else None."""
    for wanted in said.outputs or ():
        if wanted.name != OUTPUT or _odd(wanted.parameters):
            return None
    if len(said.inputs) != 1:
        return None
    tensor = said.inputs[0]
    shape = tensor.shape
    usual = (
        tensor.name == INPUT
        and tensor.datatype == "FP32"
        and len(shape) == 2
        and shape[1] == size
        and 1 <= shape[0] <= limit
        and not _odd(tensor.parameters)
    )
    return tensor if usual else None


def _odd(extra: TensorParameters | UnsetType) -> bool:
    """Whether a tensor's parameters may have to be refused."""
    if extra is UNSET:
        return False
    return not (extra.classification is extra.shared_memory_region is UNSET)


def _checked(said: InferRequest, size: int, limit: int) -> Tensor:
    """The only input, checked item by item; raises `BadRequest` for the first fault."""
    for wanted in said.outputs or ():
        _expect(400, "outputs", f"only {OUTPUT!r}", wanted.name, wanted.name == OUTPUT)
        _refuse_odd("outputs[0]", wanted.parameters)
    names = [tensor.name for tensor in said.inputs]
    _expect(400, "inputs", f"one tensor, {INPUT!r}", names, names == [INPUT])
    tensor = said.inputs[0]
    _refuse_odd("inputs[0]", tensor.parameters)
    _expect(400, "inputs[0].datatype", "FP32", tensor.datatype, tensor.datatype == "FP32")
    shape = tensor.shape
    fits = len(shape) == 2 and shape[1] == size and shape[0] >= 1
    _expect(400, "inputs[0].shape", f"[n, {size}] with n at least 1", shape, fits)
    _expect(413, "inputs[0].shape", f"at most {limit} observations", shape[0], shape[0] <= limit)
    return tensor


def size_of(tensor: Tensor) -> int | None:
    """Bytes of a tensor that follows in binary; None if it is in the JSON."""
    said = UNSET if tensor.parameters is UNSET else tensor.parameters.binary_data_size
    return None if said is UNSET else said


def _from_json(data: bytes, count: int, size: int) -> NDArray[np.float32]:
    """Numbers (count, size) from JSON, nested or flat.

    If the fast way cannot read them, they are decoded again slowly, to name the fault.
    """
    found = quick_rows(data, count, size)
    if found is not None:
        return found
    field, total = "inputs[0].data", count * size
    if len(data) > LOOKED_UP:  # counted before it is decoded
        rough = data.count(b",") + 1
        _expect(400, field, f"{total} numbers", rough, rough == total)
    rows: Any = _strictly(data, field) or []
    if rows and isinstance(rows[0], list):
        _expect(400, field, f"{count} rows", len(rows), len(rows) == count)
        for number, row in enumerate(rows):
            fits = isinstance(row, list) and len(row) == size
            _expect(400, f"{field}[{number}]", f"{size} numbers", row, fits)
        rows = [value for row in rows for value in row]
    _expect(400, field, f"{total} numbers", len(rows), len(rows) == total)
    for number, value in enumerate(rows):
        if type(value) not in (int, float):
            raise BadRequest(422, f"{field}[{number}]", "a number", shown(value))
    return within(numbers(rows).reshape(count, size), field + "[{}]")


def _strictly(data: bytes, field: str) -> list[Any] | None:
    try:
        rows = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise explain(data, error) from None
    if not isinstance(rows, list | None):
        raise BadRequest(422, field, "a list", shown(rows))
    return rows


def _from_binary(tensor: Tensor, said: int, binary: bytes) -> NDArray[np.float32]:
    needed = 4 * tensor.shape[0] * tensor.shape[1]
    if tensor.data is not _ABSENT or said != needed or len(binary) != needed:
        both = bytes(tensor.data) != b"null"
        _expect(400, "inputs[0].data", "none beside binary data", "data", not both)
        _expect(400, "binary_data_size", str(needed), said, said == needed)
        _expect(400, "binary data", f"{needed} bytes", len(binary), len(binary) == needed)
    numbers = np.frombuffer(binary, "<f4")
    squares = np.vdot(numbers, numbers)  # a finite sum of squares has finite terms
    if not (math.isfinite(squares) or np.isfinite(numbers).all()):
        raise BadRequest(422, "binary data", "finite numbers", "NaN or infinity")
    return numbers.reshape(tensor.shape)


def _refuse_odd(field: str, said: TensorParameters | UnsetType) -> None:
    """Raise `BadRequest` for features of Triton that this server does not have."""
    if said is UNSET:
        return
    for name in ("classification", "shared_memory_region"):
        value = getattr(said, name)
        if value is not UNSET:
            raise BadRequest(400, f"{field}.parameters", f"no {name}", repr(value)[:80])


def _expect(status: int, field: str, expected: str, got: object, holds: bool) -> None:
    if not holds:
        raise BadRequest(status, field, expected, repr(got)[:80])
