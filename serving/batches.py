"""The fast way to decode a batch's numbers from JSON into float32.

Each function returns None if the fast way does not apply. The caller then decodes strictly, and
names the fault if there is one.
"""

from __future__ import annotations

import struct
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray


def quick_batch(body: bytes, size: int, limit: int) -> NDArray[np.float32] | None:
    """The observations (n, size) of a valid body `{"observations": [[...], ...]}`; else None."""
    if body.count(b'"') != 2:  # one key, and no string among the values
        return None
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(said) is not dict or len(said) != 1 or "observations" not in said:
        return None
    rows = said["observations"]
    if type(rows) is not list or not 1 <= len(rows) <= limit:
        return None
    return _nested(rows, size, body)


def quick_rows(data: bytes, count: int, size: int) -> NDArray[np.float32] | None:
    """The numbers (count, size) of a valid JSON list, flat or of rows; else None."""
    if data.count(b",") != count * size - 1:
        return None
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if type(said) is not list or not said:
        return None
    if type(said[0]) is not list:
        return _pack(said, count, size, data)
    return _nested(said, size, data) if len(said) == count else None


def _nested(rows: list[Any], size: int, text: bytes) -> NDArray[np.float32] | None:
    try:
        if set(map(len, rows)) != {size} or set(map(type, rows)) != {list}:
            return None
    except TypeError:
        return None
    return _pack(chain.from_iterable(rows), len(rows), size, text)


def _pack(numbers: Any, count: int, size: int, text: bytes) -> NDArray[np.float32] | None:
    if b"true" in text or b"false" in text:  # Python would take them for 1 and 0
        return None
    try:
        packed = struct.pack(f"<{count * size}f", *numbers)
    except (struct.error, OverflowError):  # not a number, or beyond float32
        return None
    return np.frombuffer(packed, "<f4").reshape(count, size)
