"""A whole tiny run through the real stages, judged and recorded, that these tests share."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.runs.stages import STAGES
from pipelines.runs.workspaces import Workspace, create_workspace
from pipelines.versions.judge import judge_version
from pipelines.versions.release import Release
from serving.settings import Settings
from srghn.config import RunParams, parse_params
from tests.tiny import tiny_params

Tiny = Callable[..., RunParams]


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """Parameters of a run of seconds; keyword arguments replace those of `evolution`."""

    def make(**evolution: Any) -> RunParams:
        return parse_params(
            {
                **tiny_params(**evolution),
                "evaluate": {"finalists": 2, "episodes": 4, "cell_episodes": 0},
                "gate": {
                    "episodes": 100,
                    "cell_episodes": 60,
                    "failure_return": 1.0,
                    "max_failure_rate": 0.1,
                    "failure_margin": 0.1,
                    "cell_failure_margin": 0.15,
                    "tail_margin": 0.7,
                    "min_return": 5.0,
                    "min_cell_return": 5.0,
                    "max_latency_ms": 1000.0,
                    "perturbations": ["action_drop:0.1"],
                },
            },
            "test",
        )

    return make


@dataclass(frozen=True)
class Home:
    """A home folder in which run `tiny` is finished and its version 1 has passed."""

    settings: Settings
    workspace: Workspace
    version: int = 1

    @property
    def release(self) -> Release:
        return Release(self.settings)


def home_at(folder: Path) -> Settings:
    return Settings(home=folder).resolved()


@pytest.fixture(scope="session")
def finished(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Only to be read; see `home` for a copy to be changed."""
    settings = home_at(tmp_path_factory.mktemp("home"))
    workspace = create_workspace(settings, "tiny", tiny())
    for stage in ("pin", "evolve", "evaluate"):
        STAGES[stage](workspace, settings)
    release = Release(settings)
    version = release.register(workspace.candidate, "tiny", workspace.params())
    assert judge_version(release, version, workspace, "tiny", sit=STAGES["gate"]).passed
    return Home(settings, workspace, version)


@pytest.fixture(scope="session")
def pristine(finished: Home) -> Path:
    """A copy of the finished home that nobody opens, to be copied.

    Ledgers that nobody holds any more are collected first: when one's last connection closes,
    SQLite removes its side files, and they would vanish while they are copied. That takes more
    than a second, so it is done once.
    """
    gc.collect()
    return Path(
        shutil.copytree(finished.settings.home, finished.settings.home.with_name("pristine"))
    )


@pytest.fixture
def home(pristine: Path, tmp_path: Path) -> Home:
    """A copy of the finished home."""
    shutil.copytree(pristine, tmp_path / "home")
    settings = home_at(tmp_path / "home")
    return Home(settings, Workspace(settings.home / "workspaces" / "tiny"))
