"""Experiments with their controls: resumable, parallel over runs, each ending in a page."""

from pipelines.lab.experiments.runner import run_experiment

__all__ = ["run_experiment"]
