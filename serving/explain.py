"""Decodes a body, and says what is wrong with a refused one.

It names only the first fault, so a bad body costs little more than a good one of its length.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeVar

import msgspec

from serving.schemas import EPISODE_PATTERN, EPISODE_TEXT, BadRequest, Body, shown

B = TypeVar("B", bound=Body)

#: For a longer body the message is the decoder's alone; the bad value is not looked up.
LOOKED_UP = 65_536

#: The decoder's name of a type -> its name in our messages.
_EXPECTED = {
    "float": "a number",
    "array": "a list",
    "int": "an integer",
    "bool": "true or false",
    "str": "a string",
    "object": "a JSON object",
}


class _Duplicate(ValueError):
    """A repeated key in an object."""


def parse(decoder: msgspec.json.Decoder[B], body: bytes) -> B:
    """Decode a body; raises `BadRequest` that names the first fault."""
    try:
        said = decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise explain(body, error) from None
    if body.count(b'"') != said.quotes():
        check_keys(body)
    return said


def check_keys(body: bytes) -> None:
    """Raise `BadRequest` if an object in this JSON has a repeated key."""
    try:
        json.loads(body, object_pairs_hook=_once)
    except _Duplicate as error:
        raise _twice(error) from None
    except (ValueError, RecursionError) as error:
        raise _no_json(error) from None


def explain(body: bytes, error: Exception) -> BadRequest:
    """The refusal of a body, from the decoder's error."""
    if len(body) > LOOKED_UP:
        decoders = isinstance(error, msgspec.MsgspecError)
        return _from_message(str(error), None) if decoders else _no_json(error)
    try:
        value = json.loads(body.decode(), object_pairs_hook=_once)
    except _Duplicate as twice:
        return _twice(twice)
    except (ValueError, RecursionError) as broken:
        return _no_json(broken)
    if isinstance(error, msgspec.ValidationError):  # valid JSON of another schema
        return _from_message(str(error), value)
    path = _not_finite(value)
    if path is None:
        return BadRequest(400, "body", "JSON", str(error))
    return BadRequest(422, path, "a finite number", shown(_at(value, path)))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Duplicate(name)
            seen.add(name)
    return found


def _twice(error: _Duplicate) -> BadRequest:
    return BadRequest(400, str(error)[:80], "to be given once", "the same key again")


def _no_json(error: Exception) -> BadRequest:
    said = str(error)[:200]
    if isinstance(error, RecursionError):
        said = "too many levels"
    elif isinstance(error, UnicodeDecodeError):
        said = "bytes that are not UTF-8"
    elif type(error) is ValueError:  # Python does not read an integer of more than 4,300 digits
        said = "an integer of too many digits"
    return BadRequest(400, "body", "JSON", said)


_MESSAGE = re.compile(r"(?P<said>.*?)(?: - at `(?P<path>(?:key in )?\$[^`]*)`)?$", re.DOTALL)
_WRONG_TYPE = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.+)`")


def _from_message(message: str, value: Any) -> BadRequest:
    """The decoder's message in our words; `value` is the decoded body, or None if not decoded."""
    match = _MESSAGE.match(message)
    assert match is not None
    said, path = match["said"], (match["path"] or "$").removeprefix("$").removeprefix(".")
    if value is None and ("alformed" in said or "truncated" in said):
        return BadRequest(400, "body", "JSON", said)
    if field := _FIELD.match(said):
        name = f"{path}.{field[2]}" if path else field[2]
        if field[1].startswith("missing"):
            return BadRequest(422, name, "to be given", "nothing")
        return BadRequest(422, name, "no such field", shown(_at(value, name)))
    if wrong := _WRONG_TYPE.match(said):
        names = [_EXPECTED.get(name, name) for name in wrong[1].split(" | ") if name != "null"]
        got = wrong[2] if value is None else shown(_at(value, path))
        return BadRequest(422, path or "body", " or ".join(names), got)
    if said.startswith("Number out of range"):
        got = "another" if value is None else shown(_at(value, path))
        return BadRequest(422, path, "a finite number", got)
    expected = EPISODE_TEXT if repr(EPISODE_PATTERN) in said else said.removeprefix("Expected ")
    got = "another" if value is None else shown(_at(value, path))
    return BadRequest(422, path or "body", expected.replace("`", ""), got)


def _at(value: Any, path: str) -> Any:
    """The value at a path such as `inputs[0].shape`, or at the last part of it that exists."""
    for name, number in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        try:
            value = value[int(number)] if number else value[name]
        except (KeyError, IndexError, TypeError, ValueError):  # the last: a name of many digits
            return value
    return value


def _not_finite(value: Any) -> str | None:
    """The path of the first NaN or infinity; None if there is none."""
    left: list[tuple[Any, str]] = [(value, "")]  # not by recursion: lists may be nested deep
    while left:
        value, path = left.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return path
        if isinstance(value, dict):
            items = [(item, f"{path}.{key}" if path else key) for key, item in value.items()]
            left += reversed(items)
        elif isinstance(value, list):
            left += reversed([(item, f"{path}[{index}]") for index, item in enumerate(value)])
    return None
