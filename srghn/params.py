"""What every group of parameters has in common: frozen, strict, and dumped as it always was."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from srghn.errors import ConfigError

#: How the names of Pydantic's errors begin -> what was expected.
_KINDS = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a finite number",
    "bool_": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "{name: value, ...}",
    "mapping_type": "{name: value, ...}",
    "model_": "{name: value, ...}",
}
#: The bound in Pydantic's error -> what was expected.
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
#: Context of a dump that leaves nothing out.
EVERY_FIELD = "every field"


def told(item: Mapping[str, Any]) -> str:
    """What one of Pydantic's errors says, and what it got.

    A rule about several values names them itself: all of them once more would bury it.
    """
    given = item["input"]
    if item["type"] == "missing":
        return "it is missing"
    if item["type"] != "value_error":
        return f"expected {_expected(item)}, got {given!r}"
    words = str(item["ctx"]["error"])
    return words if isinstance(given, Mapping | BaseModel) else f"{words}, got {given!r}"


def _expected(item: Mapping[str, Any]) -> str:
    """What a value should have been, in our words; in Pydantic's where we have none."""
    kind = item["type"]
    for begins, words in _KINDS.items():
        if kind.startswith(begins):
            return words
    limits = item.get("ctx", {})
    for sign, words in _BOUNDS.items():
        if isinstance(bound := limits.get(sign), float):
            return f"{words} {bound:g}"
        if bound is not None:
            return f"{words} {bound}"
    return str(item["msg"]).removeprefix("Input should be ")


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say where `name` is none of `known`: the one most like it, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"


def unknown(path: str, node: Any, what: str = "parameter") -> str:
    """Says so of a key, and which of `node` is the nearest to it, or has a key of that name."""
    known = node if isinstance(node, dict) else {}
    above, _, key = path.rpartition(".")
    inside = [name for name, value in known.items() if key in _keys(value)]
    if not inside:
        return f"unknown {what} {path!r}; {nearest(key, known)}"
    paths = (".".join(filter(None, (above, name, key))) for name in inside)
    return f"unknown {what} {path!r}; did you mean {' or '.join(map(repr, paths))}?"


def _keys(value: Any) -> Iterable[str]:
    """The keys of a group of parameters, given as one or as the field that holds it."""
    if isinstance(value, dict):
        return value
    group = _group(getattr(value, "annotation", None))
    return group.model_fields if group else ()


def set_otherwise(assignments: Iterable[str], key: str, value: str) -> bool:
    """Whether `section.key=value` strings give this key of the network another value."""
    for assignment in assignments:
        path, _, text = assignment.partition("=")
        named = path.strip() in (f"network.{key}", f"policy.{key}")  # its name until 0.2
        if named and text.strip(" '\"") != value:
            return True
    return False


def explain(
    error: ValidationError,
    prefix: str = "",
    model: type[BaseModel] | None = None,
    what: str = "parameter",
) -> str:
    """Pydantic's errors in one line: the path of each bad value, what was expected, what it got.

    `model` is what was validated, whose names an unknown one is compared with; `what` they are
    called. With a `prefix`, paths are variables of the environment.
    """
    lines = []
    for item in error.errors():
        path = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            lines.append(unknown(path, _fields(model, item["loc"][:-1]), what))
        else:  # a rule about all of them has no path
            name = f"{prefix}{path.upper()}: " if prefix else f"{path}: "
            lines.append(f"{name if path else ''}{told(item)}")
    return "; ".join(lines)


def _fields(model: type[BaseModel] | None, loc: tuple[int | str, ...]) -> dict[str, Any]:
    """The fields of the group at `loc`; none where it is no group of parameters."""
    for key in loc:  # places in a list, and kinds of an alternative, are no fields
        if model is not None and key in model.model_fields:
            model = _group(model.model_fields[str(key)].annotation)
    return {} if model is None else model.model_fields


def _group(annotation: Any) -> type[BaseModel] | None:
    """The group in a field's type, such as `Switch` in `tuple[Switch, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_group, get_args(annotation))), None)


class Refused(ConfigError, ValueError):
    """Bad values given to a constructor; a ValueError, too, as Pydantic's own error is."""


class Worded(BaseModel):
    """A model whose constructor refuses bad values in one line."""

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            model = type(self)
            raise Refused(f"{model.__name__}: {explain(error, model=model)}") from error

    # Without this mark, which is Pydantic's own, it would call `__init__` for every part of a
    # larger model, and stop at the first bad one.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


class Params(Worded):
    """A frozen group of parameters; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)
    #: Fields that came with a later release. They are dumped only where they are set, so that the
    #: digests and records of runs that do not use them stay what they were.
    late: ClassVar[frozenset[str]] = frozenset()
    #: Late fields that are left out not at their default but at this value: what runs had before.
    former: ClassVar[Mapping[str, Any]] = {}

    @model_serializer(mode="wrap")
    def _leave_out_unset(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        if info.context == EVERY_FIELD:
            return data
        fields = type(self).model_fields
        unset = {n: self.former.get(n, fields[n].default) for n in self.late}
        return {k: v for k, v in data.items() if k not in unset or getattr(self, k) != unset[k]}
