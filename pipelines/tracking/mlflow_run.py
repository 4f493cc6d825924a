"""One run as MLflow shows it: parameters, a metric per generation and column, artefacts, links."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.runs.workspaces import Workspace
from pipelines.tracking.store import artifacts, prepare_store
from serving.registry.published import made_by
from serving.settings import Settings
from srghn.candidates.candidate import Candidate
from srghn.files import sha256_bytes, sha256_file
from srghn.quiet import be_quiet

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "srghn"
RUN_TAG = "srghn.run_id"
#: MLflow takes at most 1,000 metrics and 100 parameters in one call, and 6,000 letters a value.
METRICS_PER_CALL, PARAMS_PER_CALL, PARAM_LETTERS = 1000, 100, 6000
#: ... and 250 letters a name. What ends a value that was cut.
NAME_LETTERS, CUT = 250, " ... in full in params.yaml"
#: Columns of the generations table that are no metric of their own.
NOT_METRICS = ("generation", "mode", "first_crash")


def connect(settings: Settings) -> MlflowClient:
    """The client, its experiment made; raises whatever MLflow raises for a store it cannot use.

    An embedded store's folders are made and its migrations' chatter kept quiet. A server that does
    not answer is given up after seconds (`srghn.quiet`), not after MLflow's usual minutes.
    """
    be_quiet()
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    prepare_store(settings)
    from mlflow import MlflowClient

    client = MlflowClient(settings.mlflow_uri, settings.mlflow_uri)
    if client.get_experiment_by_name(EXPERIMENT) is None:
        root = artifacts(settings) if settings.mlflow_is_embedded else None
        client.create_experiment(EXPERIMENT, artifact_location=root)
    return client


@dataclass(frozen=True)
class MlflowRun:
    """The MLflow run of one workspace."""

    client: MlflowClient
    run_id: str

    @classmethod
    def of(cls, client: MlflowClient, workspace: Workspace, known: str | None) -> MlflowRun:
        """The run noted as `known` if MLflow has it, else one found by its tag, else a new one."""
        noted = known if known and is_there(client, known) else None
        run_id = noted or _find(client, workspace) or _start(client, workspace)
        if client.get_run(run_id).info.status != "RUNNING":  # it failed or was killed, and goes on
            client.update_run(run_id, status="RUNNING")
        return cls(client, run_id)

    def describe(self, workspace: Workspace) -> None:
        """The run's parameters; after an interruption, those that MLflow does not have yet.

        A name or a value that MLflow does not take is changed until it does; `params.yaml`, an
        artifact of the run, has every one of them as it was.
        """
        from mlflow.entities import Param

        flat = _flat(workspace.params().model_dump(mode="json"))
        known = self.client.get_run(self.run_id).data.params
        params = [Param(k, _short(v)) for k, v in acceptable(flat) if k not in known]
        for start in range(0, len(params), PARAMS_PER_CALL):
            batch = params[start : start + PARAMS_PER_CALL]
            self.client.log_batch(self.run_id, params=batch)
        self.client.log_artifact(self.run_id, str(workspace.params_file))

    def log_generations(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """A metric for each column and generation, in one call; see `rows_per_call`."""
        from mlflow.entities import Metric

        now = _now()
        metrics = [
            Metric(f"evolution/{name}", value, now, int(row["generation"]))
            for row in rows
            for name, value in _numbers(row)
            if name not in NOT_METRICS
        ]
        self.client.log_batch(self.run_id, metrics=metrics)

    def finish(self, workspace: Workspace) -> None:
        """What the later stages came to, the artefacts, and the run's end."""
        from mlflow.entities import Metric

        for path, prefix in (
            (workspace.evaluation_metrics, "validation"),
            (workspace.verdict_metrics, "gate"),
        ):
            if path.exists():
                flat = _flat(json.loads(path.read_text(encoding="utf-8")))
                found = _numbers(dict(acceptable(flat)))
                metrics = [Metric(f"{prefix}/{k}", v, _now(), 0) for k, v in found]
                self.client.log_batch(self.run_id, metrics=metrics)
        for key, value in _links(workspace).items():
            self.client.set_tag(self.run_id, key, value)
        self._log_artefacts(workspace)
        self.client.set_terminated(self.run_id)

    def _log_artefacts(self, workspace: Workspace) -> None:
        lock, curves = workspace.root / "dvc.lock", workspace.run / "generations.csv"
        for path in (lock, curves, workspace.env_version):
            if path.exists():
                self.client.log_artifact(self.run_id, str(path))
        for name in ("report.html", "report.json", "verdict.json", "episodes.parquet"):
            if (workspace.report / name).exists():
                self.client.log_artifact(self.run_id, str(workspace.report / name), "report")
        if workspace.candidate.is_dir():
            self.client.log_artifacts(self.run_id, str(workspace.candidate), "candidate")


def acceptable(flat: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The same values under names that MLflow takes, no two alike.

    MLflow takes letters, digits and `_ - . / :` and spaces, at most 250 of them, and nothing that
    a file system would read as another path.
    """
    taken: set[str] = set()
    for name, value in flat:
        plain = re.sub(r"[^\w\-./: ]", "_", name)
        parts = ("_" + part if part in ("", ".", "..") else part for part in plain.split("/"))
        plain = re.sub(r"^\.\.", "_", "/".join(parts))
        if plain != name or len(plain) > NAME_LETTERS or plain in taken:
            plain = f"{plain[: NAME_LETTERS - 9]}-{sha256_bytes(name.encode())[:8]}"
        taken.add(plain)
        yield plain, value


def _short(value: str) -> str:
    """A value of at most MLflow's length; one that is cut says where the whole is."""
    if len(value) <= PARAM_LETTERS:
        return value
    return value[: PARAM_LETTERS - len(CUT)] + CUT


def rows_per_call(row: Mapping[str, Any]) -> int:
    """Generations that fit into one call, so that no generation is ever delivered in part."""
    return METRICS_PER_CALL // len(row)


def is_there(client: MlflowClient, run_id: str) -> bool:
    """Whether MLflow has a run; not after its database was lost, or replaced by an older one."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def _find(client: MlflowClient, workspace: Workspace) -> str | None:
    """The run of this workspace if an earlier delivery made it and died before noting it."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], made_by(workspace.name), max_results=1)
    return str(found[0].info.run_id) if found else None


def _start(client: MlflowClient, workspace: Workspace) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    tags = {RUN_TAG: workspace.name, "mlflow.source.git.commit": _commit()}
    run = client.create_run(experiment.experiment_id, run_name=workspace.name, tags=tags)
    return str(run.info.run_id)


def _links(workspace: Workspace) -> dict[str, str]:
    """Digests that lead from the MLflow run to what it came to."""
    lock, found = workspace.root / "dvc.lock", {}
    if lock.exists():
        found["dvc.lock.sha256"] = sha256_file(lock)
    if workspace.candidate.is_dir():
        candidate = Candidate.load(workspace.candidate)
        found["srghn.candidate"] = candidate.digest
        found["srghn.env_fingerprint"] = candidate.env_fingerprint
        found["srghn.mode"] = candidate.mode
    return found


def _commit() -> str:
    """The checked-out commit, '-dirty' if the tree was changed, or 'none' outside a git tree."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "none"
    return done.stdout.strip() if done.returncode == 0 else "none"


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def _numbers(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The entries that are numbers, or texts of numbers; true is 1."""
    for key, value in row.items():
        text = {"true": "1", "false": "0"}.get(value, value) if isinstance(value, str) else value
        try:
            yield key, float(text)
        except (TypeError, ValueError):
            continue


def _now() -> int:
    return int(time.time() * 1000)
