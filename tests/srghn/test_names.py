"""`import srghn`: quick, typed, and the nouns that a researcher needs, each with a short repr."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import srghn

SLOW = {"torch", "numba", "gymnasium", "numpy", "pydantic", "pyarrow"}


def test_importing_the_package_imports_nothing_slow() -> None:
    code = f"import sys, srghn; dir(srghn); print(sorted({SLOW} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_is_there_and_is_told_by_dir() -> None:
    assert set(srghn.__all__) == set(srghn._HOME) <= set(dir(srghn))
    assert {"GHNParams", "Search"} <= set(srghn.__all__)
    for name in srghn.__all__:
        assert getattr(srghn, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = srghn.Nothing


def test_the_packages_are_typed() -> None:
    root = Path(srghn.__file__).parents[1]
    for package in ("srghn", "serving", "regression_suite", "pipelines"):
        assert (root / package / "py.typed").is_file()


def test_reprs_are_short(tmp_path: Path) -> None:
    params = srghn.RunParams(evolution=srghn.EvolutionParams(generations=2))
    version = srghn.pin(params.env)
    policies = srghn.WeightedPolicies(params.network, version.interface, np.zeros((3, 58)))
    task = srghn.Task(version, "normal", np.arange(4))
    with srghn.make_evaluator(srghn.EngineSettings(), version, params.network) as evaluator:
        played = evaluator.evaluate(policies, task)
        srghn.evolve(params, version, evaluator, tmp_path)
    run = srghn.load_run(tmp_path)
    for thing in (run, version, policies, task, played, run.finalists, run.progress):
        assert type(thing).__name__ in repr(thing)
        assert len(repr(thing)) < 300, type(thing)
