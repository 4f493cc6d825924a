"""MLflow's own ways to the champion answer as the server does: loaded by alias, and served."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from pipelines.services.processes import free_port
from serving.registry.mirror import MODEL
from tests.pipelines.conftest import Home
from tests.serving.conftest import run_server
from tests.serving.test_serving_process import wait_for


@contextmanager
def mlflow_server(home: Home, uri: str) -> Iterator[str]:
    """`mlflow models serve` of a model, in this environment, until the block ends."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri]
    command += ["--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    tracking = home.settings.mlflow_uri
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it runs uvicorn
    variables = {
        **os.environ,
        "PATH": programs,
        "MLFLOW_TRACKING_URI": tracking,
        "MLFLOW_REGISTRY_URI": tracking,
    }
    log = (home.settings.home / "mlflow-serve.log").open("w")
    process = subprocess.Popen(
        command, env=variables, stdout=log, stderr=log, start_new_session=True
    )

    def up() -> bool:
        assert process.poll() is None, (home.settings.home / "mlflow-serve.log").read_text()
        return httpx.get(f"{url}/ping").status_code == 200

    try:
        wait_for(up, 300)  # it imports for long
        yield url
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(120)
        log.close()


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.filterwarnings("ignore")
def test_mlflow_answers_as_the_server_does(home: Home) -> None:
    import mlflow

    release = home.release
    release.approve(1, "ann", "the first")
    mirror = release.mirror()
    assert mirror.deliver() > 0
    uri = f"models:/{MODEL}@champion"
    observations = release.store.load(release.ledger.version(1).digest).golden[0]
    batch = {"observations": observations.tolist()}
    with run_server(home) as (url, _):
        answer = httpx.post(f"{url}/v1/act/batch", json=batch).json()
    assert answer["version"] == 1
    actions = np.array(answer["actions"])
    mlflow.set_tracking_uri(home.settings.mlflow_uri)
    mlflow.set_registry_uri(home.settings.mlflow_uri)
    loaded = mlflow.pyfunc.load_model(uri)
    np.testing.assert_array_equal(loaded.predict(observations)["action"], actions)
    with mlflow_server(home, uri) as url:
        said = httpx.post(f"{url}/invocations", json={"inputs": observations.tolist()}, timeout=60)
    assert said.status_code == 200, said.text
    np.testing.assert_array_equal(said.json()["predictions"]["action"], actions)
