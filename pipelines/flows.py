"""The flow under the name that Prefect deployments made before 0.3 have stored."""

from __future__ import annotations

from pipelines.runs.flow import evolve_and_gate

__all__ = ["evolve_and_gate"]
