"""The Open Inference Protocol v2: the champion for clients of that protocol.

A version that is not served is 404 here too, so no path bypasses the gate.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serving.control.routing import Served
from serving.http import answer
from serving.leaves import inputs_of
from serving.predictor import Predictor
from serving.routes.act import body_of
from serving.service import Service, policy_of, service_of
from serving.tensors import DATATYPES, OUTPUT, InferRequest

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

_MODEL = "/models/{model}"
_VERSION = "/models/{model}/versions/{version}"


@router.get("/health/live")
async def live() -> Response:
    return answer({"live": True})


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    problem = service_of(request).problem()
    return answer({"ready": True}) if problem is None else answer({"error": problem}, 503)


@router.get("")
async def server(request: Request) -> Response:
    """The server's name, version and extensions, and the models that it serves."""
    extensions = ["binary_tensor_data", "model_repository"]
    content = {"name": "srghn", "version": _own_version(), "extensions": extensions}
    return answer(content | {"models": [entry["name"] for entry in _index(service_of(request))]})


@router.post("/repository/index")
async def index(request: Request) -> Response:
    """Every model, its version and whether it is ready, in Triton's form."""
    return answer(_index(service_of(request)))


@router.get(_MODEL)
@router.get(_VERSION)
async def metadata(request: Request) -> Response:
    """A model's inputs and outputs, and its served versions."""
    served, predictor = _find(request)
    versions = [str(p.version) for p in (served.champion, served.canary) if p is not None]
    inputs = inputs_of(predictor.layout, predictor.observation_size)
    action = {
        "name": OUTPUT,
        "datatype": DATATYPES[predictor.action_kind],
        "shape": [-1, *predictor.action_shape],
    }
    name = policy_of(request).name
    content = {"name": name, "versions": versions, "platform": "onnxruntime_onnx"}
    return answer(content | {"inputs": inputs, "outputs": [action]})


@router.get(f"{_MODEL}/ready")
@router.get(f"{_VERSION}/ready")
async def model_ready(request: Request) -> Response:
    """200 if the model, or this version of it, is ready."""
    _, predictor = _find(request)
    name = policy_of(request).name
    return answer({"name": name, "version": str(predictor.version), "ready": True})


@router.post(f"{_MODEL}/infer", openapi_extra=body_of(InferRequest))
@router.post(f"{_VERSION}/infer", openapi_extra=body_of(InferRequest))
async def infer(request: Request) -> Response:
    """Actions for a batch; request and answer are JSON or binary."""
    raise AssertionError("answered on the hot path")


def _find(request: Request) -> tuple[Served, Predictor]:
    """The predictor that the path names; raises `BadRequest` (404) and `NotReady`."""
    return policy_of(request).find(request.path_params.get("version"))


def _index(service: Service) -> list[dict[str, str]]:
    """Every policy by name; one without a champion is not available."""
    found = []
    for name, policy in sorted(service.policies.items()):
        champion, problem = policy.follower.served.champion, policy.problem
        if champion is not None:
            entry = {"name": name, "version": str(champion.version), "state": "READY"}
        else:
            entry = {"name": name, "state": "UNAVAILABLE"}
        found.append(entry if problem is None else {**entry, "reason": problem})
    return found


@cache
def _own_version() -> str:
    try:
        return version("srghn")
    except PackageNotFoundError:
        return "unknown"
