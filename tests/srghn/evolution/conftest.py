"""A small real run that the tests of evolution share: CartPole with a switch, six individuals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from srghn.config import EngineSettings, RunParams, parse_params
from srghn.envs import EnvVersion, pin
from srghn.evaluation.base import make_evaluator
from srghn.evolution import evolve
from srghn.evolution.run import Founder
from tests.tiny import tiny_params


@pytest.fixture(scope="session")
def small_run() -> Callable[..., RunParams]:
    """Parameters of the run; keyword arguments replace those of `evolution`."""

    def make(**evolution: Any) -> RunParams:
        return parse_params(tiny_params(**evolution), "test")

    return make


@pytest.fixture(scope="session")
def play() -> Callable[..., None]:
    """Evolve in a folder, by the evaluator that the world is given."""
    pinned: dict[str, EnvVersion] = {}

    def run(params: RunParams, run_dir: Path, founder: Founder | None = None) -> None:
        world = params.env.model_dump_json()
        if world not in pinned:
            pinned[world] = pin(params.env)
        version = pinned[world]
        with make_evaluator(EngineSettings(), version, params.network) as evaluator:
            evolve(params, version, evaluator, run_dir, founder=founder)

    return run


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file of a run by its path, but for the lock."""

    def read(run_dir: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(run_dir)): path.read_bytes()
            for path in sorted(run_dir.rglob("*"))
            if path.is_file() and path.name != ".lock"
        }

    return read


@pytest.fixture(scope="session")
def finished(
    small_run: Callable[..., RunParams],
    play: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of the run, undisturbed. Only to be read."""
    run_dir = tmp_path_factory.mktemp("finished")
    play(small_run(), run_dir)
    return run_dir
