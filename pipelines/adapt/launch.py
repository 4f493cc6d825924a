"""Starts the run after an alarm: in this process, or by the workers."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.runs.workspaces import Workspace
from pipelines.versions.release import Approval
from serving.settings import Settings

#: Works on a workspace until its verdict, or passes it to a worker.
Launch = Callable[[Workspace, Approval], None]


def by_hand(settings: Settings) -> Launch:
    """Work on it in this process, until its verdict."""

    def launch(workspace: Workspace, approve: Approval) -> None:
        from pipelines.runs.work import carry_out, traced

        with traced(settings, workspace) as done:
            done(carry_out(settings, workspace, approve))

    return launch


def to_workers(settings: Settings) -> Launch:
    """Pass it to the workers, once. A Prefect server and a worker must be running."""

    def launch(workspace: Workspace, approve: Approval) -> None:
        from pipelines.runs.deployments import Prefect

        with Prefect(settings) as prefect:
            prefect.go_on(workspace.name, None, approve, 0)

    return launch
