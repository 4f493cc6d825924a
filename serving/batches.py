"""The fast way to decode a batch's numbers from JSON into float32.

Each function returns None if the fast way does not apply. The caller then decodes strictly, and
names the fault if there is one. No Python object is made for a number: a text without its numbers
must be the brackets and commas of its shape, and simdjson reads the numbers.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import simdjson
from numpy.typing import NDArray

from serving.schemas import FLOAT32_MAX

_NUMBERS = b"0123456789.-+eE \n\t\r"
_KEY = b'"observations"'
_HEAD = _KEY.translate(None, _NUMBERS)


class _Mine(threading.local):
    """A parser for each thread: a parser reads one text at a time."""

    def __init__(self) -> None:
        self.parser = simdjson.Parser()


_mine = _Mine()


def quick_batch(body: bytes, size: int, limit: int) -> NDArray[np.float32] | None:
    """The observations (n, size) of a valid body `{"observations": [[...], ...]}`; else None."""
    shape = body.translate(None, _NUMBERS)
    count, odd = divmod(len(shape) - len(_HEAD) - 4, size + 2)
    if odd or not 1 <= count <= limit or _KEY not in body:
        return None
    if shape != b"{%b:%b}" % (_HEAD, _nested(count, size)):
        return None
    return _read(body, count, size, keyed=True)


def quick_rows(data: bytes, count: int, size: int) -> NDArray[np.float32] | None:
    """The numbers (count, size) of a valid JSON list, flat or of rows; else None."""
    shape = data.translate(None, _NUMBERS)
    if len(shape) == count * size + 1:  # looked at first: a short text may claim a large shape
        expected = _flat(count * size)
    elif len(shape) == count * (size + 2) + 1:
        expected = _nested(count, size)
    else:
        return None
    if shape != expected:
        return None
    return _read(data, count, size, keyed=False)


def _flat(count: int) -> bytes:
    return b"[%b]" % (b"," * (count - 1))


def _nested(count: int, size: int) -> bytes:
    return b"[%b]" % ((_flat(size) + b",") * count)[:-1]


def _read(text: bytes, count: int, size: int, *, keyed: bool) -> NDArray[np.float32] | None:
    """The numbers of a text with a known shape; None if one is not a number within float32."""
    try:
        found: Any = _mine.parser.parse(text)
        numbers = np.frombuffer((found["observations"] if keyed else found).as_buffer(of_type="d"))
    except (ValueError, TypeError, RuntimeError):  # the last: an integer beyond 64 bits
        return None
    if len(numbers) != count * size or not np.abs(numbers).max() <= FLOAT32_MAX:
        return None
    return numbers.astype("<f4").reshape(count, size)
