"""An environment's own observations, as clients have them, to the flat vector that a policy sees.

The layout is pinned with the interface and travels in a candidate's manifest. Needs numpy alone, so
that a server can take nested observations without Gymnasium: the numbers are those that Gymnasium's
`flatten` gives, one-hot for `Discrete` and `MultiDiscrete`, row-major for boxes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from srghn.errors import EnvVersionError, ObservationError

Float32 = NDArray[np.float32]
Kind = Literal["box", "discrete", "multidiscrete", "multibinary"]
Path = tuple[str | int, ...]
#: Keys of an array that is sent as base64 of its bytes, row-major and little-endian.
ENCODED = {"b64", "shape", "dtype"}
_NAMES = (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
    "float16", "float32", "float64",
)  # fmt: skip
_TYPES = [np.dtype(name).newbyteorder("<") for name in _NAMES]
#: What a dtype may be called: its name, `<f4` or `f4`. Not `>f4`, whose bytes stand the other way.
_DTYPES = {name: kind for kind in _TYPES for name in (kind.name, kind.str, kind.str[1:])}


@dataclass(frozen=True)
class Leaf:
    """One array or number of an observation.

    `path` leads to it: names of a Dict, places in a Tuple. `counts` and `starts` are of each
    element of a discrete or multi-discrete leaf; a box and a multi-binary leaf have none.
    """

    path: Path
    kind: Kind
    shape: tuple[int, ...]
    dtype: str
    counts: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The path with dots, as an input of the served model is called; 'obs' for the whole."""
        return ".".join(map(str, self.path)) or "obs"

    @cached_property
    def size(self) -> int:
        """Elements it fills in the flat vector."""
        return sum(self.counts) if self.counts else int(np.prod(self.shape, dtype=int))

    def flatten(self, values: NDArray[Any]) -> Float32:
        """Values (batch, *shape) -> (batch, size).

        Raises `ObservationError` for a value out of range, and for true and false as a choice.
        """
        rows = values.reshape(len(values), -1)
        if not self.counts:
            if self.kind == "multibinary":
                self._check_bits(rows)
            else:
                self._check_whole(rows)
            return self._checked(rows)
        if rows.dtype.kind == "b" and rows.size:
            raise self._no_choice(0, _spelt(rows.flat[0]))
        with np.errstate(invalid="ignore"):  # what is no whole number is refused below
            choices = rows.astype(np.int64) - np.array(self.starts)
        wrong = (choices != rows - np.array(self.starts)) | (choices < 0)
        wrong |= choices >= np.array(self.counts)
        if wrong.any():
            at = np.argwhere(wrong)[0]
            raise self._no_choice(int(at[1]), rows[tuple(at)])
        flat = np.zeros((len(rows), self.size), dtype=np.float32)
        offsets = np.cumsum([0, *self.counts[:-1]])
        np.put_along_axis(flat, choices + offsets, 1.0, axis=1)
        return flat

    def _no_choice(self, at: int, got: object) -> ObservationError:
        low, count = self.starts[at], self.counts[at]
        return ObservationError(
            f"observation {self.name}: expected a whole number of {low} to {low + count - 1}, "
            f"got {got}"
        )

    def _checked(self, rows: NDArray[Any]) -> Float32:
        """Rows as float32; refuses what is not finite there."""
        with np.errstate(over="ignore", invalid="ignore"):
            found = rows.astype(np.float32)
        wrong = ~np.isfinite(found)
        if wrong.any():
            raise ObservationError(
                f"observation {self.name}: expected finite numbers within float32, "
                f"got {rows[wrong][0]}"
            )
        return found

    def _check_bits(self, rows: NDArray[Any]) -> None:
        """A leaf of bits takes 0 and 1 alone, or false and true."""
        wrong = (rows != 0) & (rows != 1)
        if wrong.any():
            raise ObservationError(
                f"observation {self.name}: expected 0 or 1, got {rows[wrong][0]}"
            )

    def _check_whole(self, rows: NDArray[Any]) -> None:
        """A leaf of whole numbers takes nothing else, and nothing beyond its type."""
        if np.dtype(self.dtype).kind in "iu" and rows.size:
            bounds = np.iinfo(self.dtype)
            wrong = (rows != np.floor(rows)) | (rows < bounds.min) | (rows > bounds.max)
            if wrong.any():
                raise ObservationError(
                    f"observation {self.name}: expected {self.dtype} numbers, got {rows[wrong][0]}"
                )


@dataclass(frozen=True)
class Layout:
    """The leaves of an observation in the order in which they lie in the flat vector."""

    leaves: tuple[Leaf, ...]

    @cached_property
    def size(self) -> int:
        return sum(leaf.size for leaf in self.leaves)

    @cached_property
    def marks(self) -> tuple[int, int]:
        """Most commas, and most opening brackets, that one observation takes in JSON."""
        commas = brackets = 1
        for leaf in self.leaves:
            nested = sum(prod(leaf.shape[:depth]) for depth in range(len(leaf.shape)))
            commas += max(prod(leaf.shape), len(leaf.shape) + 2)  # as lists, or as base64
            brackets += max(nested, 2) + len(leaf.path)
        return max(commas, self.size + 1), brackets

    @property
    def stacks(self) -> bool:
        """Whether several observations may be sent as one, their parts stacked: of a Dict alone.

        A Tuple's stacked parts could be taken for observations.
        """
        return all(leaf.path and isinstance(leaf.path[0], str) for leaf in self.leaves)

    def flatten(self, observation: Any) -> Float32:
        """One native observation -> (size,), as Gymnasium's `flatten` gives it.

        Arrays may be nested lists, or `{"b64": ..., "shape": [...], "dtype": "uint8"}`. Raises
        `ObservationError` naming the leaf: missing, unknown, of another shape, no number.
        """
        self._check_names(observation)
        arrays = (
            leaf.flatten(_array(leaf, _at(observation, leaf))[None])[0] for leaf in self.leaves
        )
        return np.concatenate(list(arrays))

    def stacked(self, batch: Any) -> dict[str, NDArray[Any]]:
        """The leaves of observations whose parts are stacked, as Gymnasium's `to_jsonable` does.

        Gives each leaf's values one after the other, (batch, *shape), for `flatten_leaves`; raises
        `ObservationError` naming the leaf.
        """
        self._check_names(batch)
        values = {leaf.name: _stacked(leaf, _at(batch, leaf)) for leaf in self.leaves}
        first, count = self.leaves[0].name, len(values[self.leaves[0].name])
        for name, array in values.items():
            if len(array) != count:
                raise ObservationError(
                    f"observation {name}: expected {count} values, as {first} has, got {len(array)}"
                )
        return values

    def flatten_leaves(self, values: Mapping[str, NDArray[Any]]) -> Float32:
        """One array (batch, *shape) a leaf, by name -> (batch, size)."""
        known = {leaf.name for leaf in self.leaves}
        if set(values) != known:
            raise ObservationError(
                f"expected the inputs {', '.join(sorted(known))}, got {', '.join(sorted(values))}"
            )
        batch = {len(array) if array.ndim else -1 for array in values.values()}
        for leaf in self.leaves:
            shape = values[leaf.name].shape
            if shape[1:] != leaf.shape or len(batch) != 1:
                raise ObservationError(
                    f"observation {leaf.name}: expected shape (batch, "
                    f"{', '.join(map(str, leaf.shape))}), the same batch for all, got {shape}"
                )
        return np.concatenate([leaf.flatten(values[leaf.name]) for leaf in self.leaves], axis=1)

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema of one native observation."""
        return _schema({leaf.path: _leaf_schema(leaf) for leaf in self.leaves})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; `from_dict` is the inverse."""
        return {
            "leaves": [
                {
                    "path": list(leaf.path),
                    "kind": leaf.kind,
                    "shape": list(leaf.shape),
                    "dtype": leaf.dtype,
                    "counts": list(leaf.counts),
                    "starts": list(leaf.starts),
                }
                for leaf in self.leaves
            ]
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Layout:
        """Read `to_dict`'s form; raises `EnvVersionError` for any other."""
        try:
            leaves = [_leaf(leaf) for leaf in data["leaves"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise EnvVersionError(f"not a layout of observations: {error!r}") from error
        return cls(tuple(leaves))

    def _check_names(self, observation: Any) -> None:
        """Refuse names that no leaf has: a misspelt one would be missed under its right name."""
        inner: dict[Path, set[str | int]] = {}
        for leaf in self.leaves:
            for depth, step in enumerate(leaf.path):
                inner.setdefault(leaf.path[:depth], set()).add(step)
        for path, steps in inner.items():
            found = _walk(observation, path)
            if isinstance(found, Mapping) and (unknown := set(found) - steps):
                where = ".".join(map(str, path)) or "the observation"
                raise ObservationError(
                    f"{where} has no {sorted(map(str, unknown))[0]!r}; it has "
                    f"{', '.join(map(str, sorted(steps, key=str)))}"
                )
            if isinstance(found, list | tuple) and len(found) > len(steps):
                where = ".".join(map(str, path)) or "the observation"
                raise ObservationError(f"{where}: expected {len(steps)} parts, got {len(found)}")


def _leaf(data: Mapping[str, Any]) -> Leaf:
    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    return Leaf(**known)


def _walk(observation: Any, path: Path) -> Any:
    for step in path:
        try:
            observation = observation[step]
        except (KeyError, IndexError, TypeError):
            return None
    return observation


def _at(observation: Any, leaf: Leaf) -> Any:
    found = _walk(observation, leaf.path)
    if found is None:
        raise ObservationError(f"observation {leaf.name} is missing; expected {_expected(leaf)}")
    return found


def _array(leaf: Leaf, value: Any) -> NDArray[Any]:
    """A leaf's value as an array of its shape."""
    found = _numbers(leaf, value)
    if found.shape != leaf.shape:
        raise ObservationError(
            f"observation {leaf.name}: expected {_expected(leaf)}, got shape {list(found.shape)}"
        )
    return found


def _stacked(leaf: Leaf, values: Any) -> NDArray[Any]:
    """A leaf's values, one an observation, as an array (batch, *shape)."""
    found = _numbers(leaf, values)
    if found.shape[1:] != leaf.shape or not found.ndim:
        raise ObservationError(
            f"observation {leaf.name}: expected a list with {_expected(leaf)} for each "
            f"observation, got shape {list(found.shape)}"
        )
    return found


def _numbers(leaf: Leaf, value: Any) -> NDArray[Any]:
    try:
        if isinstance(value, Mapping):
            found = _decoded(value)
        else:
            found = as_numbers(value)
            if found.dtype.kind not in "biuf":
                raise ValueError("it does not hold numbers")
            if leaf.counts and found.dtype.kind != "b" and (truths := _truths(value)):
                raise ValueError(f"it holds {_spelt(truths[0])}")
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise ObservationError(
            f"observation {leaf.name}: expected {_expected(leaf)}: {error}"
        ) from error
    return found


def _truths(value: Any) -> list[Any]:
    """The booleans among numbers in nested lists: as an array, all would be numbers."""
    if not isinstance(value, list | tuple):
        return []
    return [each for each in np.asarray(value, dtype=object).flat if isinstance(each, bool)]


def _spelt(truth: Any) -> str:
    return "true" if truth else "false"


def as_numbers(value: Any) -> NDArray[Any]:
    """JSON's numbers as an array; integers beyond 64 bits are taken as float64.

    What holds anything else has another kind of dtype. Raises `ValueError` for ragged lists and
    `OverflowError` for an integer beyond float64.
    """
    found = np.asarray(value)
    if found.dtype.kind == "O" and all(type(item) in (int, float) for item in found.flat):
        return found.astype(np.float64)
    return found


def _decoded(value: Mapping[str, Any]) -> NDArray[Any]:
    if set(value) != ENCODED:
        raise ValueError(f"an encoded array has the keys b64, shape and dtype, got {sorted(value)}")
    said, shape = value["dtype"], value["shape"]
    dtype = _DTYPES.get(said) if isinstance(said, str) else None
    if dtype is None:
        raise ValueError(f"dtype {str(said)[:40]!r} is not one of {', '.join(_NAMES)}")
    if not (isinstance(shape, list) and all(type(count) is int for count in shape)):
        raise ValueError("shape is no list of whole numbers")
    data = base64.b64decode(value["b64"], validate=True)
    return np.frombuffer(data, dtype).reshape(shape)


def _expected(leaf: Leaf) -> str:
    if leaf.kind == "discrete":
        return f"a whole number of {leaf.starts[0]} to {leaf.starts[0] + leaf.counts[0] - 1}"
    return f"an array of shape {list(leaf.shape)} (nested lists, or b64 with shape and dtype)"


def _leaf_schema(leaf: Leaf) -> dict[str, Any]:
    if leaf.kind == "discrete":
        low = leaf.starts[0]
        return {"type": "integer", "minimum": low, "maximum": low + leaf.counts[0] - 1}
    whole = leaf.kind != "box" or np.dtype(leaf.dtype).kind in "biu"
    nested: dict[str, Any] = {"type": "integer" if whole else "number"}
    if leaf.kind == "multibinary":
        nested |= {"minimum": 0, "maximum": 1}
    for count in reversed(leaf.shape):
        nested = {"type": "array", "items": nested, "minItems": count, "maxItems": count}
    encoded = {
        "type": "object",
        "required": sorted(ENCODED),
        "additionalProperties": False,
        "properties": {
            "b64": {"type": "string", "contentEncoding": "base64"},
            "shape": {"const": list(leaf.shape)},
            "dtype": {"type": "string", "examples": [leaf.dtype]},
        },
    }
    return {"anyOf": [nested, encoded]}


def _schema(leaves: Mapping[Path, dict[str, Any]]) -> dict[str, Any]:
    if () in leaves:
        return leaves[()]
    inner: dict[str | int, dict[Path, dict[str, Any]]] = {}
    for path, schema in leaves.items():
        inner.setdefault(path[0], {})[path[1:]] = schema
    parts = {step: _schema(below) for step, below in inner.items()}
    if all(isinstance(step, int) for step in parts):
        count = len(parts)
        items = {"prefixItems": list(parts.values()), "minItems": count, "maxItems": count}
        return {"type": "array", **items}
    named = {str(step): part for step, part in parts.items()}
    required = {"required": list(named), "additionalProperties": False}
    return {"type": "object", "properties": named, **required}
