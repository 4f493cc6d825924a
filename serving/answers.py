"""JSON schemas of the routes' answers, for /openapi.json."""

from __future__ import annotations

from typing import Any

from serving.counts import ROUTES

_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "number"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_FLAG: dict[str, Any] = {"type": "boolean"}
_ANY: dict[str, Any] = {"type": "object"}
#: A number, or numbers in the shape of the environment's actions.
_ACTION: dict[str, Any] = {
    "anyOf": [_NUMBER, {"type": "array", "items": {"type": ["number", "array"]}}]
}
_ROUTE = {"enum": [route for route in ROUTES if route != "none"]}


def _maybe(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(optional: tuple[str, ...] = (), **properties: dict[str, Any]) -> dict[str, Any]:
    """An object with these fields and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


_FACE = {"route": _ROUTE, "version": _COUNT, "generation": _COUNT}
_HIDDEN = ("version", "generation")  # while a trial runs
_CHAMPION = _object(
    version=_COUNT,
    generation=_COUNT,
    digest=_TEXT,
    env_fingerprint=_TEXT,
    mode=_TEXT,
    since=_TEXT,
    by=_TEXT,
    policy=_TEXT,
)
_VERSION = {
    "type": "object",
    "required": ["version", "state", "digest", "env_fingerprint", "mode", "run_id", "policy"],
    "properties": {"version": _COUNT, "state": _TEXT, "digest": _TEXT, "policy": _TEXT},
}
_STEP = _object(
    version=_maybe(_VERSION),
    champion=_maybe(_CHAMPION),
    served=_object(version=_maybe(_COUNT), generation=_COUNT),
)
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {"name": _TEXT, "shape": {"type": "array", "items": _COUNT}, "datatype": _TEXT},
}
#: Route of the default policy -> schema of its answer. A missing route answers any object.
ANSWERS: dict[str, dict[str, Any]] = {
    "/v1/act": _object(
        (*_HIDDEN, "token", "recorded"), action=_ACTION, **_FACE, token=_TEXT, recorded=_FLAG
    ),
    "/v1/act/batch": _object(_HIDDEN, actions={"type": "array", "items": _ACTION}, **_FACE),
    "/v1/episodes/{episode_id}/outcome": _object(
        ("version", "route", "recorded"),
        episode_id=_TEXT,
        length=_COUNT,
        counted=_FLAG,
        version=_COUNT,
        route=_ROUTE,
        recorded=_FLAG,
    ),
    "/v1/champion": {
        **_CHAMPION,
        "properties": {
            **_CHAMPION["properties"],
            "canary": _maybe(_ANY),
            "interface": _maybe(_TEXT),
        },
        "required": [*_CHAMPION["required"], "canary", "interface"],
    },
    "/v1/versions": _object(versions={"type": "array", "items": _VERSION}),
    "/v1/versions/{version}": _VERSION,
    "/v2/models/{model}/infer": {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "model_name": _TEXT,
            "model_version": _TEXT,
            "outputs": {"type": "array", "items": _TENSOR},
        },
    },
    "/v2/repository/index": {"type": "array", "items": _ANY},
    "/health/live": _object(live={"const": True}),
    "/health/ready": {
        "type": "object",
        "required": ["ready"],
        "properties": {"ready": {"const": True}},
    },
    "/v2/health/live": _object(live={"const": True}),
    "/v2/health/ready": _object(ready={"const": True}),
    **dict.fromkeys(
        [
            *(
                f"/v1/versions/{{version}}/{step}"
                for step in ("approve", "reject", "stale", "revoke", "shadow", "shadow/stop")
            ),
            *(f"/v1/canary/{step}" for step in ("abort", "weight", "status")),
            "/v1/holdback/stop",
            "/v1/mode",
            "/v1/rollback",
            "/v1/sync",
        ],
        _STEP,
    ),
}
ANSWERS["/v2/models/{model}/versions/{version}/infer"] = ANSWERS["/v2/models/{model}/infer"]
