"""What a body may be. Parsed strictly from its bytes: no coercion, no NaN, no unknown field."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
EPISODE_PATTERN = r"^[A-Za-z0-9._:@=+-]{1,200}$"
EpisodeId = Annotated[str, Field(pattern=EPISODE_PATTERN)]


class BadRequest(Exception):
    """A request that is refused, with its status, the field, what was expected and what came."""

    def __init__(
        self, status: int, field: str, expected: str, came: str, *, hint: str = ""
    ) -> None:
        self.status = status
        self.body = {
            "error": f"{field}: expected {expected}, came {came}" + (f"; {hint}" if hint else ""),
            "field": field,
            "expected": expected,
            "came": came,
        }
        super().__init__(self.body["error"])


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=False)


class ActRequest(Body):
    """One observation, and the episode it belongs to, if it does."""

    observation: list[Number]
    episode_id: EpisodeId | None = None


class BatchRequest(Body):
    """Observations that are all answered by one version."""

    observations: list[list[Number]]


class OutcomeRequest(Body):
    """How an episode ended."""

    return_: Number = Field(alias="return")
    length: Annotated[int, Field(strict=True, ge=1, lt=2**31)]
    terminated: StrictBool


B = TypeVar("B", bound=Body)

#: pydantic's kind of error -> what to say was expected.
_EXPECTED = {
    "float_type": "a number",
    "finite_number": "a finite number",
    "list_type": "a list",
    "int_type": "an integer",
    "bool_type": "true or false",
    "string_type": "a string",
    "missing": "to be given",
    "extra_forbidden": "no such field",
    "string_pattern_mismatch": "1 to 200 of the characters A-Z a-z 0-9 . _ : @ = + -",
    "model_type": "a JSON object",
    "model_attributes_type": "a JSON object",
}


def parse(model: type[B], body: bytes) -> B:
    """Read a body; raises `BadRequest` naming the first thing that is wrong with it."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _explain(error) from None


def observations(rows: list[list[float]], size: int, limit: int, field: str) -> NDArray[np.float32]:
    """Rows (n, size) as the policy wants them; `field` names a row, with `{}` for its number."""
    if not rows or len(rows) > limit:
        status = 413 if rows else 422
        expected = f"1 to {limit} observations in a batch"
        raise BadRequest(status, field.partition("[")[0], expected, str(len(rows)))
    for number, row in enumerate(rows):
        if len(row) != size:
            raise BadRequest(422, field.format(number), f"{size} numbers", f"{len(row)}")
    with np.errstate(over="ignore"):
        array = np.array(rows, np.float32)
    if not np.isfinite(array).all():
        number, column = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
        name = f"{field.format(number)}[{column}]"
        raise BadRequest(422, name, "a number within float32", repr(rows[number][column]))
    return array


def _explain(error: ValidationError) -> BadRequest:
    first = error.errors(include_url=False)[0]
    kind = first["type"]
    if kind == "json_invalid":
        reason = str(first.get("ctx", {}).get("error", "not JSON"))
        return BadRequest(400, "body", "JSON", reason)
    field = _name(first["loc"]) or "body"
    came = "nothing" if kind == "missing" else _shown(first["input"])
    return BadRequest(422, field, _EXPECTED.get(kind, first["msg"]), came)


def _name(loc: tuple[int | str, ...]) -> str:
    name = ""
    for part in loc:
        if isinstance(part, str) and "[" in part:
            continue  # pydantic's name of one side of a union
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
