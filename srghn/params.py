"""What every group of parameters has in common: frozen, strict, and dumped as it always was."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)

#: Context of a dump that leaves nothing out.
EVERY_FIELD = "every field"


def told(item: Mapping[str, Any]) -> str:
    """What one of Pydantic's errors says, and what it got.

    A rule about several values names them itself: all of them once more would bury it.
    """
    given = item["input"]
    if item["type"] != "value_error":
        return f"{item['msg']}, got {given!r}"
    words = str(item["ctx"]["error"])
    return words if isinstance(given, Mapping | BaseModel) else f"{words}, got {given!r}"


def unknown(path: str, node: Any) -> str:
    """Says so of a key, and which of `node` is the nearest to it."""
    known = list(node) if isinstance(node, dict) else []
    near = difflib.get_close_matches(path.rsplit(".", 1)[-1], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
    return f"unknown parameter {path!r}; {hint}"


class Params(BaseModel):
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
