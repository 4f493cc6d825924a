"""What Prefect's screens show of a run: its own id, how far it is, its verdict, and links.

All of it is for people: a server that does not take it is no reason to fail.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from pipelines.runs.workspaces import Workspace
from pipelines.services.processes import PAGES
from serving.registry.names import base_of, page_of
from serving.settings import Settings

logger = logging.getLogger(__name__)
EVERY_SECONDS = 5.0
#: How long a run that ends waits for its bar: a server that is gone must not keep its result.
LAST_SECONDS = 5.0


def name_flow_run(run_id: str) -> None:
    """Give the flow run the name of our run, whatever it was called."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.name == run_id:
        return
    with _for_people(), get_client(sync_client=True) as client:
        client.update_flow_run(context.flow_run.id, name=run_id)


@contextmanager
def progress(workspace: Workspace) -> Iterator[None]:
    """A progress bar of the generations done, moved while the body runs."""
    stop, total = threading.Event(), workspace.params().evolution.generations
    artifact = None
    with _for_people():
        artifact = create_progress_artifact(
            _share(workspace, total),
            key=_key(workspace.name, "progress"),
            description=f"Generations of run {workspace.name}, of {total}.",
        )

    def work(shown: UUID) -> None:
        ends = False
        while not ends:
            ends = stop.wait(EVERY_SECONDS)
            with _for_people():
                update_progress_artifact(shown, _share(workspace, total))

    thread = None
    if isinstance(artifact, UUID):
        thread = threading.Thread(target=work, args=(artifact,), daemon=True, name="progress")
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread is not None:
            thread.join(LAST_SECONDS)


def verdict(settings: Settings, result: dict[str, Any]) -> None:
    """The verdict as a page, with links to report, MLflow run and the next command."""
    version, pages = result["version"], os.environ.get(PAGES)
    routes = base_of(result["policy"])
    report = f"{pages}{routes}/versions/{version}/report" if pages else f"file://{result['report']}"
    home = (
        f"[all versions]({pages}{page_of(result['policy'])})"
        if pages
        else f"`srghn status` in {settings.home}"
    )
    lines = [
        f"# Version {version}: {result['verdict']}",
        result["summary"],
        f"- state: **{result['state']}**, mode {result['mode']}",
        f"- [promotion report]({report}), {home}",
        f"- candidate `{result['candidate_digest']}`",
        f"- MLflow run `{result['mlflow_run_id']}`",
        f"- workspace `{result['workspace']}`",
    ]
    if result["state"] == "PASSED":
        lines.append(f'- next: `srghn approve {version} --reason "..."`')
    with _for_people():
        create_markdown_artifact(
            "\n".join([lines[0], "", lines[1], "", *lines[2:]]),
            key=_key(result["run_id"], "verdict"),
            description=result["summary"],
        )


def _share(workspace: Workspace, total: int) -> float:
    """A run whose budget was met is done before its last generation."""
    if workspace.evolution_metrics.exists():
        return 100.0
    return round(100 * workspace.generations_done / total, 1)


def _key(run_id: str, what: str) -> str:
    """Keys are of small letters, digits and dashes."""
    return f"{re.sub(r'[^a-z0-9]+', '-', run_id.lower()).strip('-')}-{what}"


@contextmanager
def _for_people() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  what Prefect and its client raise is theirs
        logger.warning("Prefect does not show it: %s", error)
