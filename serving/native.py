"""Observations in the environment's own (native) form, beside flat vectors.

A request may carry several forms of one observation (`serving.forms`). In the trial of a successor
with other sensors, a client that sends both forms can be on either arm.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType
from numpy.typing import NDArray

from serving.control.routing import Served
from serving.explain import explain, parse
from serving.forms import Forms, form_named
from serving.predictor import Predictor
from serving.schemas import (
    ActRequest,
    BadRequest,
    Body,
    EpisodeId,
    check_count,
    check_one,
    shown,
)
from srghn.errors import ObservationError

_ABSENT = Raw(b"")


class NativeRequest(Body, frozen=True):
    """One observation in its own form, or several forms of it by interface or version."""

    observation: Raw = msgspec.field(default_factory=lambda: _ABSENT)
    observations: dict[str, Raw] = msgspec.field(default_factory=dict)
    episode_id: EpisodeId | UnsetType | None = UNSET
    token: str | UnsetType | None = UNSET

    @property
    def plain(self) -> bool:
        """Whether it has an observation without a name."""
        return self.observation is not _ABSENT

    def quotes(self) -> int:
        """No count is ever right, so keys are always checked."""
        return -1


class NativeBatch(Body, frozen=True):
    """Observations in native form, or several forms of them by interface or version.

    Each form is a list of observations. For a Dict it may also be an object whose parts are lists,
    as Gymnasium's `to_jsonable` writes it.
    """

    observations: Raw = msgspec.field(default_factory=lambda: _ABSENT)
    forms: dict[str, Raw] = msgspec.field(default_factory=dict)

    @property
    def plain(self) -> bool:
        return self.observations is not _ABSENT

    def quotes(self) -> int:
        return -1


_ACT = msgspec.json.Decoder(ActRequest)
_NATIVE = msgspec.json.Decoder(NativeRequest)
_BATCH = msgspec.json.Decoder(NativeBatch)
_LIST = msgspec.json.Decoder(list[Raw])


def read_act(body: bytes, served: Served) -> ActRequest | NativeRequest:
    """The body of `/v1/act`: a flat vector (the usual case) or a native observation.

    Raises `BadRequest`.
    """
    try:
        return parse(_ACT, body)
    except BadRequest:
        if served.flat and b'"observations"' not in body:
            raise
    return parse(_NATIVE, body)


def read_batch(body: bytes) -> NativeBatch:
    """The body of `/v1/act/batch` if it is not a list of flat vectors."""
    return parse(_BATCH, body)


def check_marks(body: bytes, marks: tuple[int, int], limit: int, alone: bool = False) -> None:
    """Raise `BadRequest` (413) for more commas or brackets than `limit` observations have.

    They are counted before decoding, because decoded short values take far more memory. `alone`:
    they are forms of one observation, not a batch.
    """
    commas, brackets = (limit * most + 100 for most in marks)
    if body.count(b",") > commas or body.count(b"{") + body.count(b"[") > brackets:
        field = "observation" if alone else "observations"
        expected = (
            f"one in 1 to {limit} forms" if alone else f"1 to {limit} observations in a batch"
        )
        raise BadRequest(413, field, expected, "more commas or brackets than they have")


def forms_of_one(
    said: ActRequest | NativeRequest, served: Served, long: bool
) -> Forms[list[float]]:
    """The observation (d,) of a request, in all its forms. `long`: its body is."""
    read = partial(observation_for, said, served)
    if isinstance(said, ActRequest):
        return Forms(served, read, long=long)
    return Forms(served, read, said.observations, said.plain, long)


def observation_for(
    said: ActRequest | NativeRequest, served: Served, predictor: Predictor
) -> list[float]:
    """A predictor's observation (d,) in a request; raises `BadRequest` that names the bad part."""
    value, field = _said(said, served.names(predictor), predictor)
    found: list[float] = _flat(value, predictor, field).tolist()
    return found


def _said(
    said: ActRequest | NativeRequest, names: frozenset[str], predictor: Predictor
) -> tuple[Any, str]:
    """A request's observation in the predictor's form, and the name of its field."""
    if isinstance(said, ActRequest):
        return said.observation, "observation"
    plain = said.observation, "observation"
    raw, field = _form(plain, said.observations, "observations", names, predictor)
    return _decode(raw, field), field


def _form(
    plain: tuple[Raw, str],
    forms: dict[str, Raw],
    among: str,
    names: frozenset[str],
    predictor: Predictor,
) -> tuple[Raw, str]:
    """The form, among several, that has one of these names, else the plain one; and its field."""
    key = form_named(forms, names, among)
    if key is not None:
        return forms[key], f"{among}.{key}"
    if plain[0] is _ABSENT:
        given = ", ".join(sorted(forms)) or "none"
        expected = f"one for interface {predictor.interface}, or `{plain[1]}`"
        raise BadRequest(422, among, expected, given[:200])
    return plain


def batches_of(said: NativeBatch, served: Served, limit: int) -> Forms[NDArray[np.float32]]:
    """The observations (n, d) of a batch, in all its forms."""
    read = partial(native_batch, said, served, limit=limit)
    return Forms(served, read, said.forms, said.plain)


def native_batch(
    said: NativeBatch, served: Served, predictor: Predictor, limit: int
) -> NDArray[np.float32]:
    """The observations (n, d) of a batch in a predictor's form; raises `BadRequest`."""
    plain = said.observations, "observations"
    raw, field = _form(plain, said.forms, "forms", served.names(predictor), predictor)
    if bytes(raw).lstrip()[:1] == b"{":
        return _stacked(_decode(raw, field), predictor, limit, field)
    rows = _rows(raw, field)
    check_count(len(rows), limit, field)
    found = []
    for number, row in enumerate(rows):
        one = f"{field}[{number}]"
        found.append(_flat(_decode(row, one), predictor, one))
    return np.stack(found)


def _stacked(value: Any, predictor: Predictor, limit: int, field: str) -> NDArray[np.float32]:
    """Observations (n, d) of a Dict whose parts are stacked."""
    layout = predictor.layout
    if layout is None or not layout.stacks:
        raise BadRequest(422, field, "a list of observations", "an object")
    try:
        values = layout.stacked(value)
        check_count(len(values[layout.leaves[0].name]), limit, field)
        return layout.flatten_leaves(values)
    except ObservationError as error:
        raise BadRequest.said(422, field, f"{field}: {error}") from None


def _rows(raw: Raw, field: str) -> list[Raw]:
    try:
        return _LIST.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(422, field, "a list of observations", str(error)[:80]) from None


def _decode(raw: Raw, field: str) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        refused = explain(bytes(raw), error)
        raise BadRequest.said(refused.status, field, f"{field}: {error}") from None


def _flat(value: Any, predictor: Predictor, field: str) -> NDArray[np.float32]:
    """One observation (d,), given flat or in the form of the predictor's environment."""
    size, layout = predictor.observation_size, predictor.layout
    if layout is None or _is_vector(value, size):
        if type(value) is not list or not all(type(x) in (int, float) for x in value):
            raise BadRequest(422, field, f"a list of {size} numbers", shown(value))
        check_one(value, size, field)
        return np.array(value, np.float32)
    try:
        return layout.flatten(value)
    except ObservationError as error:
        text = str(error) if field == "observation" else f"{field}: {error}"
        if field.endswith("]") and len(layout.leaves) > 1 and not layout.stacks:
            text += "; a batch lists whole observations: the parts of a Tuple, stacked as "
            text += "Gymnasium's to_jsonable does, could be taken for some"
        raise BadRequest.said(422, field, text) from None


def _is_vector(value: Any, size: int) -> bool:
    return type(value) is list and len(value) == size and type(value[0]) in (int, float)
