"""The bodies of requests. They are decoded strictly: no coercion, no NaN, no unknown field."""

from __future__ import annotations

import math
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from serving.registry.texts import control_in

#: Ends with `\Z`, because to Python `$` also matches before a last line break. `.` and `..` are no
#: names: clients and proxies take them out of the path of an outcome.
EPISODE_PATTERN = r"^(?!\.{1,2}\Z)[A-Za-z0-9._:@=+-]{1,200}\Z"
EPISODE_TEXT = "1 to 200 of the characters A-Z a-z 0-9 . _ : @ = + -, not . or .. alone"
EpisodeId = Annotated[str, Meta(pattern=EPISODE_PATTERN)]
FLOAT32_MAX = float(np.finfo(np.float32).max)
#: Most characters of each part of a refusal: a client's own texts are in it.
_MOST = 500


class BadRequest(Exception):
    """A refused request: its status, the field, what was expected and what it got.

    Its texts may hold what a client sent: they are cut, and what UTF-8 cannot hold is escaped.
    """

    def __init__(self, status: int, field: str, expected: str, got: str, *, hint: str = "") -> None:
        field, expected, got = _clear(field), _clear(expected), _clear(got)
        self.status = status
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = {
            "error": f"{field}: expected {expected}, got {got}" + (f"; {hint}" if hint else ""),
            "field": field,
            "expected": expected,
            "got": got,
        }
        super().__init__(self.body["error"])

    @classmethod
    def said(cls, status: int, field: str, text: str) -> BadRequest:
        """A refusal whose complete text was written elsewhere."""
        made = cls(status, field, "", "")
        text = _clear(text)
        made.body = {"error": text, "field": made.body["field"]}
        made.args = (text,)
        return made


def _clear(text: str) -> str:
    text = text if len(text) <= _MOST else f"{text[: _MOST - 3]}..."
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class Body(Struct, frozen=True, forbid_unknown_fields=True):
    """A request's body; repeated and unknown fields are refused."""

    def quotes(self) -> int:
        """Quotation marks in this body's JSON if no key is repeated and nothing is escaped."""
        count = 0
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not UNSET:
                count += 4 if isinstance(value, str) else 2
        return count


class ActRequest(Body, frozen=True):
    """One observation, and optionally the episode it belongs to."""

    observation: list[float]
    episode_id: EpisodeId | UnsetType | None = UNSET
    token: str | UnsetType | None = UNSET

    def quotes(self) -> int:
        episode, token = self.episode_id, self.token
        count = 2 if episode is UNSET else 4 if episode is None else 6
        return count + (0 if token is UNSET else 2 if token is None else 4)


class BatchRequest(Body, frozen=True):
    """Observations; one version answers all of them."""

    observations: list[list[float]]


class OutcomeRequest(Body, frozen=True):
    """How an episode ended. Its token counts the length; the field `length` is ignored."""

    return_: float = msgspec.field(name="return")
    terminated: bool
    token: str | UnsetType | None = UNSET
    length: Annotated[int, Meta(ge=1, lt=2**31)] | UnsetType = UNSET


B = TypeVar("B", bound=Struct)


def observations(rows: list[list[float]], size: int, limit: int, field: str) -> NDArray[np.float32]:
    """Rows (n, size) as float32; raises `BadRequest`. `field` names a row, `{}` its number."""
    check_count(len(rows), limit, field.partition("[")[0])
    for number, row in enumerate(rows):
        if len(row) != size:
            raise BadRequest(422, field.format(number), f"{size} numbers", f"{len(row)}")
    return within(np.array(rows, np.float64), field)


def numbers(values: list[int | float]) -> NDArray[np.float64]:
    """JSON numbers as float64 (n,); an integer beyond float64 becomes an infinity."""
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return np.array([_as_float(value) for value in values])


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def check_count(count: int, limit: int, field: str) -> None:
    """Raise `BadRequest` unless a batch has 1 to `limit` observations."""
    if not 1 <= count <= limit:
        expected = f"1 to {limit} observations in a batch"
        raise BadRequest(413 if count else 422, field, expected, str(count))


def within(rows: NDArray[np.float64], field: str) -> NDArray[np.float32]:
    """Rows (n, d) as float32; raises `BadRequest` that names the first number out of range."""
    if rows.size and not np.abs(rows).max() <= FLOAT32_MAX:
        number, column = (int(i) for i in np.argwhere(~(np.abs(rows) <= FLOAT32_MAX))[0])
        name = f"{field.format(number)}[{column}]"
        raise BadRequest(422, name, "a number within float32", repr(float(rows[number, column])))
    return rows.astype(np.float32)


def check_one(observation: list[float], size: int, field: str = "observation") -> None:
    """Raise `BadRequest` unless an observation has `size` numbers within float32."""
    if len(observation) != size:
        raise BadRequest(422, field, f"{size} numbers", f"{len(observation)}")
    if not (min(observation) >= -FLOAT32_MAX and max(observation) <= FLOAT32_MAX):
        within(numbers(observation)[None], field)


def check_text(field: str, text: str) -> None:
    """Raise `BadRequest` if what a person wrote has control characters: terminals show it."""
    found = control_in(text)
    if found is not None:
        expected = "no control characters but tabs and line breaks"
        raise BadRequest(422, field, expected, found)


def shown(value: Any) -> str:
    """A value in a refusal, cut; without its text if that cannot be written."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        text = "one with too many levels or digits"
    return text if len(text) <= 80 else f"{text[:77]}..."
