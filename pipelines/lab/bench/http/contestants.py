"""Servers to compare with: `python -m pipelines.lab.bench.http.contestants NAME ARGUMENT`.

`bare MODEL.onnx` is a bare ASGI function that parses JSON and runs the policy in numpy. It is the
limit. `constant` is a FastAPI endpoint that takes a pydantic body and returns a constant.
`mlflow FOLDER` is MLflow's scoring server with the policy as a saved model. Each prints its URL,
then serves.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn


def bare(path: Path) -> Any:
    """The bare function for a policy of one chain of layers."""
    import orjson

    from serving.layers import read_layers

    layers = read_layers(path.read_bytes())
    assert layers is not None, "the bare function runs plain networks alone"

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        if message["type"] != "http.request":
            return
        said = orjson.loads(message["body"])
        body = orjson.dumps({"action": layers.one(said["observation"])})
        kind = (b"content-type", b"application/json")
        headers = [kind, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return answer


def constant() -> Any:
    """FastAPI with a pydantic body."""
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Body(BaseModel):
        observation: list[float]
        episode_id: str | None = None

    app = FastAPI()

    async def act(body: Body) -> dict[str, int]:
        return {"action": 1}

    act.__annotations__["body"] = Body  # FastAPI cannot resolve the name of a local class
    app.post("/v1/act")(act)
    return app


def scoring(folder: Path) -> Any:
    """MLflow's own server for a saved model."""
    os.environ["__pyfunc_model_path__"] = str(folder)  # noqa: SIM112 (MLflow's own name)
    from mlflow.pyfunc.scoring_server.app import app

    return app


def save_for_mlflow(model: Path, folder: Path) -> None:
    """Save the policy as an ONNX model of MLflow."""
    import mlflow.onnx
    import onnx

    mlflow.onnx.save_model(onnx.load(str(model)), str(folder))


def main() -> None:
    name, argument = sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else Path()
    app = constant() if name == "constant" else {"bare": bare, "mlflow": scoring}[name](argument)
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", 0))
    sys.stdout.write(f"serves http://127.0.0.1:{bound.getsockname()[1]}\n")
    sys.stdout.flush()
    lifespan: Any = "off" if name == "bare" else "auto"
    config = uvicorn.Config(app, access_log=False, log_level="warning", lifespan=lifespan)
    uvicorn.Server(config).run(sockets=[bound])


if __name__ == "__main__":
    main()
