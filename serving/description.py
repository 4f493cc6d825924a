"""/openapi.json: each route's body, answers and security, with every reference resolved."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import msgspec

from serving.access import ACCESS, OPEN, READ
from serving.answers import ANSWERS
from serving.predictor import Predictor
from serving.registry.schema import POLICY
from serving.routes.review import Approval, Decision, Mode, OfTrial, Rollback, Status, Weight
from serving.schemas import ActRequest, BatchRequest, OutcomeRequest
from serving.tensors import InferRequest

_BODIES = (
    ActRequest,
    BatchRequest,
    OutcomeRequest,
    InferRequest,
    Approval,
    Decision,
    Mode,
    Rollback,
    OfTrial,
    Status,
    Weight,
)
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string"},
        "field": {"type": "string"},
        "expected": {"type": "string"},
        "got": {"type": "string"},
    },
}
_REFUSALS = {
    "400": "not JSON, a repeated key, or fields that contradict each other",
    "401": "no token, or an unknown one",
    "403": "a token without the scope",
    "404": "nothing has that name",
    "408": "sent too slowly",
    "409": "a step that is not allowed now",
    "412": "the champion's generation is not the one in If-Match",
    "413": "too long: the body, or the batch in it",
    "415": "a content type other than JSON",
    "421": "sent to a host name that is not served here",
    "422": "a field that is missing or wrong",
    "428": "Idempotency-Key or If-Match is missing",
    "431": "headers too long or too many",
    "500": "an error of the server",
    "503": "not ready, too much at once, or the ledger cannot be used now",
}
_FORMS = {
    "type": "object",
    "description": "the observation in several forms, by interface or version, for the trial of a "
    "successor with other observations",
}
_FORMS_OF_MANY = {**_FORMS, "description": "the same, a list of observations for each form"}
_STACKED = {"type": "object", "description": "as Gymnasium's to_jsonable writes several of a Dict"}
_EXAMPLES: dict[str, Any] = {
    "/v1/act": {"observation": [0.01, 0.0, 0.02, 0.0], "episode_id": "e-1"},
    "/v1/act/batch": {"observations": [[0.01, 0.0, 0.02, 0.0], [0.0, 0.1, 0.0, 0.0]]},
}


def describe(made: dict[str, Any], served: Mapping[str, Predictor] | None = None) -> dict[str, Any]:
    """The framework's description, completed with bodies, answers and security.

    `served` is the champion of each policy; the schemas of observations come from it.
    """
    _, parts = msgspec.json.schema_components(_BODIES, ref_template="#/components/schemas/{name}")
    components = {"schemas": {**_ecma(parts), "Error": _ERROR}}
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            _complete(path, method.upper(), operation)
    named = _of_named(made["paths"])
    schemas = components["schemas"]
    schemas["ActRequest"]["properties"]["observations"] = _FORMS
    schemas["BatchRequest"]["properties"]["forms"] = _FORMS_OF_MANY
    for policy, predictor in (served or {}).items():
        named |= _say_observations(policy, predictor, schemas, named)
    _add_examples(made["paths"])
    made = {**made, "paths": {**made["paths"], **named}}
    return {**made, "components": components}


def _ecma(schema: Any) -> Any:
    """A schema whose patterns end as JSON Schema has it: `$`, where Python needs `\\Z`."""
    if isinstance(schema, dict):
        return {
            key: value.replace(r"\Z", "$") if key == "pattern" else _ecma(value)
            for key, value in schema.items()
        }
    return [_ecma(item) for item in schema] if isinstance(schema, list) else schema


def _say_observations(
    policy: str, predictor: Predictor, schemas: dict[str, Any], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Add the policy's observations to the schemas of its bodies; returns a named one's routes."""
    mine = "" if policy == POLICY else f".{policy}"
    schemas[f"Observation{mine}"] = observation_schema(predictor)
    seen = {"$ref": f"#/components/schemas/Observation{mine}"}
    routes = {}
    fields = {"act": ("ActRequest", "observation"), "act/batch": ("BatchRequest", "observations")}
    for path, (name, field) in fields.items():
        body = schemas[f"{name}{mine}"] = deepcopy(schemas[name])
        many = {"type": "array", "items": seen}
        stacked = predictor.layout is not None and predictor.layout.stacks
        said = seen if field == "observation" else {"anyOf": [many, _STACKED]} if stacked else many
        body["properties"][field] = said
        if mine:
            methods = deepcopy(named[f"/v1/policies/{{policy}}/{path}"])
            operation = methods["post"]
            operation["operationId"] += mine
            operation["parameters"] = [p for p in operation["parameters"] if p["in"] != "path"]
            content = operation["requestBody"]["content"]["application/json"]
            content["schema"] = {"$ref": f"#/components/schemas/{name}{mine}"}
            routes[f"/v1/policies/{policy}/{path}"] = methods
    return routes


def observation_schema(predictor: Predictor) -> dict[str, Any]:
    """JSON Schema of one observation: a flat vector or the environment's own form."""
    size = predictor.observation_size
    number = {"type": "number"}
    flat = {"type": "array", "items": number, "minItems": size, "maxItems": size}
    if predictor.layout is None:
        return flat
    return {"anyOf": [flat, predictor.layout.json_schema()]}


def _of_named(paths: dict[str, Any]) -> dict[str, Any]:
    """The routes of named policies: the default's routes under `/v1/policies/{policy}`."""
    found = {}
    for path, methods in paths.items():
        if not path.startswith("/v1/") or path.startswith("/v1/policies"):
            continue
        found[f"/v1/policies/{{policy}}{path.removeprefix('/v1')}"] = {
            method: {
                **deepcopy(operation),
                "operationId": f"{operation['operationId']}_of_policy",
                "parameters": [_path_parameter("policy"), *operation["parameters"]],
            }
            for method, operation in methods.items()
        }
    return found


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    needed = ACCESS.get((method, path), "admin")
    operation["security"] = [{"token": []}] if needed not in (OPEN, READ) else [{}, {"token": []}]
    operation["parameters"] = [_path_parameter(name) for name in re.findall(r"{(\w+)}", path)]
    if needed in ("review", "admin") and method == "POST":
        operation["parameters"] += [
            {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
            for name in ("Idempotency-Key", "If-Match")
        ]
    refused = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    answers = operation.setdefault("responses", {})
    answers.pop("422", None)
    answers |= {code: {"description": text, **refused} for code, text in _REFUSALS.items()}
    answers["200"] = {"description": "done", **_content(path)}


def _add_examples(paths: dict[str, Any]) -> None:
    for path, example in _EXAMPLES.items():
        paths[path]["post"]["requestBody"]["content"]["application/json"]["example"] = example


def _content(path: str) -> dict[str, Any]:
    kind = "text/plain" if path == "/metrics" else "application/json"
    if path.endswith("/report") or path == "/docs":
        kind = "text/html"
    schema = ANSWERS.get(path, {"type": "object"}) if kind == "application/json" else {}
    return {"content": {kind: {"schema": schema}}}
