"""Publishes a version as a model that MLflow can load and serve, under the run that made it.

The model is the candidate's own `policy.onnx` with a signature; nothing is converted. The server
still loads its policies from the artefact store, by digest.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.registry.artefacts import ArtefactStore
from serving.registry.records import Version
from serving.registry.remote import StoreAway
from srghn.candidates.candidate import Candidate
from srghn.errors import ArtefactError

logger = logging.getLogger(__name__)

EXPERIMENT, RUN_TAG = "srghn", "srghn.run_id"
#: Folder of the model among its run's artifacts.
FOLDER = "model"


@dataclass(frozen=True)
class Published:
    """A published model: the source of a model version, and its run."""

    source: str
    run_id: str


def publish(
    client: Any, store: ArtefactStore, version: Version, artifacts: str | None
) -> Published | None:
    """Add the version's policy to its run's artifacts; None if the store does not have it whole.

    `artifacts` is the folder for a new experiment's files; None: the tracking server's default.
    """
    candidate = find(store, version)
    if candidate is None:
        return None
    run = _run(client, version.run_id, artifacts)
    with tempfile.TemporaryDirectory(prefix="srghn-model-") as folder:
        model = Path(folder) / FOLDER
        _save(candidate, model)
        client.log_artifacts(run.info.run_id, str(model), f"{FOLDER}/{version.version}")
    source = f"{run.info.artifact_uri.rstrip('/')}/{FOLDER}/{version.version}"
    return Published(source, str(run.info.run_id))


def find(store: ArtefactStore, version: Version) -> Candidate | None:
    """The version's candidate; None if it is missing or damaged, which stops no other version."""
    try:
        return store.load(version.digest)
    except StoreAway:  # for a while: it stays to be delivered
        raise
    except ArtefactError as error:
        logger.warning("version %s has no model in MLflow: %s", version.version, error)
        return None


def _save(candidate: Candidate, folder: Path) -> None:
    """Write the policy in MLflow's ONNX flavour, with the signature of its golden calls."""
    import mlflow.onnx
    import onnx
    from mlflow.models import infer_signature

    observations, actions = candidate.golden
    before, after = candidate.golden_states
    inputs: Any = {"obs": observations, "state": before} if before.size else observations
    outputs = {"action": actions, **({"next_state": after} if before.size else {})}
    mlflow.onnx.save_model(
        onnx.load(candidate.path / "policy.onnx"),
        str(folder),
        signature=infer_signature(inputs, outputs),
        pip_requirements=["onnxruntime", "numpy"],
        onnx_execution_providers=["CPUExecutionProvider"],
    )


def _run(client: Any, run_id: str, artifacts: str | None) -> Any:
    """The MLflow run of one of our runs; it is made if none was delivered yet."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        made = client.create_experiment(EXPERIMENT, artifact_location=artifacts)
    else:
        made = experiment.experiment_id
    found = client.search_runs([made], made_by(run_id), max_results=1)
    if found:
        return found[0]
    return client.create_run(made, run_name=run_id, tags={RUN_TAG: run_id})


def made_by(run_id: str) -> str:
    """MLflow's filter for the run with this id.

    An id had an apostrophe until 0.3 if its parameter file had. A filter cannot hold one in single
    quotes, so any letter stands for it.
    """
    how, text = "LIKE" if "'" in run_id else "=", run_id.replace("'", "_")
    return f"tags.`{RUN_TAG}` {how} '{text}'"
