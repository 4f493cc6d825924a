"""The Open Inference Protocol v2: the champion for clients that know no other API.

A version that is not served is 404 here too: the path is no way round the gate.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.control.pins import NotReady
from serving.control.routing import Served
from serving.http import answer, read_body
from serving.predictor import Predictor
from serving.routes.act import Answer, body_of, episode_of, measured
from serving.schemas import BadRequest
from serving.service import Service, service_of
from serving.tensors import INPUT, OUTPUT, InferRequest, batch, flat, read

MODEL = "policy"
router = APIRouter(prefix="/v2", tags=["open inference protocol"])

_MODEL = "/models/{model}"
_VERSION = "/models/{model}/versions/{version}"
_DATATYPES = {"i": "INT64", "f": "FP32"}


@router.get("/health/live")
async def live() -> Response:
    return answer({"live": True})


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    problem = service_of(request).problem()
    return answer({"ready": True}) if problem is None else answer({"error": problem}, 503)


@router.get("")
async def server() -> Response:
    """Name, version and extensions of this server."""
    return answer(
        {"name": "srghn", "version": _own_version(), "extensions": ["binary_tensor_data"]}
    )


@router.get(_MODEL)
@router.get(_VERSION)
async def metadata(request: Request) -> Response:
    """Inputs and outputs, and the versions that are served."""
    served, predictor = _find(service_of(request), request)
    versions = [str(p.version) for p in (served.champion, served.canary) if p is not None]
    obs = {"name": INPUT, "datatype": "FP32", "shape": [-1, predictor.observation_size]}
    action = {
        "name": OUTPUT,
        "datatype": _DATATYPES[predictor.action_kind],
        "shape": [-1, *predictor.action_shape],
    }
    content = {"name": MODEL, "versions": versions, "platform": "onnxruntime_onnx"}
    return answer(content | {"inputs": [obs], "outputs": [action]})


@router.get(f"{_MODEL}/ready")
@router.get(f"{_VERSION}/ready")
async def model_ready(request: Request) -> Response:
    """200 if the model, or this version of it, answers."""
    _, predictor = _find(service_of(request), request)
    return answer({"name": MODEL, "version": str(predictor.version), "ready": True})


@router.post(f"{_MODEL}/infer", openapi_extra=body_of(InferRequest))
@router.post(f"{_VERSION}/infer", openapi_extra=body_of(InferRequest))
async def infer(request: Request) -> Response:
    """Actions for a batch; JSON or binary input, JSON output."""
    return await measured(_infer, request)


#: See `serving.routes.act.FAST`.
FAST = [Route(f"/v2{path}/infer", infer, methods=["POST"]) for path in (_MODEL, _VERSION)]


async def _infer(service: Service, request: Request) -> Answer:
    served, predictor = _find(service, request)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise BadRequest(415, "Content-Encoding", "none", request.headers["content-encoding"])
    body = await read_body(request, service.limits.body_bytes)
    said, binary = read(body, request.headers.get("inference-header-content-length"))
    if "version" not in request.path_params:
        served, predictor = await _route(service, request, said)
    array = batch(said, binary, predictor.observation_size, service.limits.batch)
    predictor, actions = service.predict(served, predictor, array)
    output = {
        "name": OUTPUT,
        "shape": [len(actions), *predictor.action_shape],
        "datatype": _DATATYPES[predictor.action_kind],
        "data": flat(actions),
    }
    content: dict[str, Any] = {"model_name": MODEL, "model_version": str(predictor.version)}
    if said.id is not None:
        content["id"] = said.id
    return Answer(content | {"outputs": [output]}, served, predictor)


async def _route(
    service: Service, request: Request, said: InferRequest
) -> tuple[Served, Predictor]:
    """As `/v1/act` does: by episode, by client, or by chance."""
    episode = episode_of(said.parameters.episode_id, request.headers.get("x-episode-id"))
    if episode is not None:
        return await service.pins.choose(episode)
    return service.choose(request.headers.get("x-client-key"))


def _find(service: Service, request: Request) -> tuple[Served, Predictor]:
    """The predictor that the path names; raises `BadRequest` (404) and `NotReady`."""
    model, wanted = request.path_params["model"], request.path_params.get("version")
    if model != MODEL:
        raise BadRequest(404, "model", repr(MODEL), repr(model[:80]))
    served = service.follower.served
    if served.champion is None:
        raise NotReady(served.problem)
    if wanted is None:
        return served, served.champion
    for predictor in (served.champion, served.canary):
        if predictor is not None and str(predictor.version) == wanted:
            return served, predictor
    raise BadRequest(404, "version", "one that is served now", repr(wanted[:80]))


def _own_version() -> str:
    try:
        return version("srghn")
    except PackageNotFoundError:
        return "unknown"
