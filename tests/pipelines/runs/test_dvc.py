"""DVC: what depends on what, what is pinned, and a fresh clone that has only the remote."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.cli import main as dvc

from pipelines.runs.workspaces import Workspace, create_workspace
from pipelines.services.processes import child_environment
from pipelines.versions.replay import replay
from serving.settings import Settings
from srghn.candidates.candidate import Candidate
from srghn.config import load_params
from srghn.envs import EnvVersion
from tests.pipelines.conftest import Tiny, home_at
from tests.pipelines.runs.test_moved_worlds import PATCH

ROOT = Path(__file__).parents[3]
STAGES = ("pin", "evolve", "evaluate", "gate")
METRICS = ("evolution", "evaluation", "verdict")
pytestmark = pytest.mark.slow


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def project(
    tiny: Tiny, tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch
) -> Path:
    """A git repository with this project's own DVC files and a tiny run, reproduced once."""
    folder = tmp_path_factory.mktemp("project")
    mine = ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore")
    for name in (*mine, "data/lease.json", "pipelines/runs/plots.html"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(tiny().to_yaml())
    patch.setenv("SRGHN_HOME", str(folder.parent / "home"))
    patch.setenv("PATH", child_environment(home_at(folder.parent / "home"))["PATH"])
    patch.setenv("DVC_TEST", "true")  # or it swaps sys.stdout under pytest's capture
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "A tiny run")
    patch.chdir(folder)
    assert dvc(["repro", "--quiet"]) == 0
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "Reproduce it")
    return folder


def lock(folder: Path) -> dict[str, Any]:
    stages: dict[str, Any] = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return stages


def change(folder: Path, path: str, value: Any) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    section, key = path.split(".")
    params[section][key] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture
def in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project as it was committed; put back after the test."""
    monkeypatch.chdir(project)
    yield project
    monkeypatch.chdir(project)
    git(project, "checkout", "--quiet", "--force", ".")
    assert dvc(["checkout", "--quiet", "--force"]) == 0


def test_the_lock_pins_world_parameters_and_checkpoints(project: Path) -> None:
    stages = lock(project)
    assert set(stages) == set(STAGES)
    assert [out["path"] for out in stages["pin"]["outs"]] == ["data/env_version.json"]
    assert stages["evolve"]["deps"][0]["md5"] == stages["pin"]["outs"][0]["md5"]
    assert stages["evolve"]["params"]["params.yaml"]["evolution"]["generations"] == 7
    outs = {out["path"] for name in STAGES for out in stages[name]["outs"]}
    assert {"data/run", "data/candidate", "data/report"} <= outs
    assert len(list((project / "data/run/checkpoints").iterdir())) == 2
    assert git(project, "status", "--porcelain") == ""
    tracked = git(project, "ls-files", "data").split()
    kept = ("evaluation", "evolution", "lease", "verdict")
    assert tracked == [f"data/{name}.json" for name in kept]


def test_every_metric_names_its_world(project: Path) -> None:
    pinned = EnvVersion.load(project / "data/env_version.json").fingerprint
    for name, key in (
        ("evolution", "fingerprint"),
        ("evaluation", "env_fingerprint"),
        ("verdict", "env_fingerprint"),
    ):
        assert json.loads((project / f"data/{name}.json").read_text())[key] == pinned
    assert Candidate.load(project / "data/candidate").env_fingerprint == pinned


def test_a_second_repro_does_nothing(in_project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (in_project / "dvc.lock").read_bytes()
    assert dvc(["repro"]) == 0
    assert "up to date" in capfd.readouterr().out
    assert (in_project / "dvc.lock").read_bytes() == before


@pytest.mark.parametrize(
    ("path", "value", "stale"),
    [
        ("env.kwargs", {"max_episode_steps": 90}, ["pin", "evolve", "evaluate", "gate"]),
        ("evolution.seed", 4, ["evolve", "evaluate", "gate"]),
        ("evaluate.episodes", 5, ["evaluate", "gate"]),
        # a suite chooses the finalist, too; the candidate stays the same for any other rule
        ("gate.episodes", 21, ["evaluate", "gate"]),
        ("canary.weight", 0.5, []),
    ],
)
def test_what_each_parameter_makes_stale(
    in_project: Path,
    capfd: pytest.CaptureFixture[str],
    path: str,
    value: Any,
    stale: list[str],
) -> None:
    """As far as DVC can say without running: the first stale stage, and what comes after it."""
    change(in_project, path, value)
    capfd.readouterr()
    assert dvc(["status", "--json"]) == 0
    changed = json.loads(capfd.readouterr().out)
    assert set(stale[:1]) <= set(changed) <= set(stale)
    deps = {name: {d["path"] for d in s.get("deps", [])} for name, s in lock(in_project).items()}
    outs = {name: {o["path"] for o in s["outs"]} for name, s in lock(in_project).items()}
    reached = stale[:1]
    for name in STAGES:
        if name not in reached and any(deps[name] & outs[other] for other in reached):
            reached.append(name)
    assert reached == stale


def test_a_fresh_clone_replays_from_the_remote_alone(
    in_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"
    assert dvc(["remote", "add", "--quiet", "--default", "--local", "r", str(remote)]) == 0
    assert dvc(["push", "--quiet"]) == 0
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(in_project), str(clone))
    assert not (clone / "data/candidate").exists()
    monkeypatch.chdir(clone)
    assert dvc(["remote", "add", "--quiet", "--default", "--local", "r", str(remote)]) == 0
    assert dvc(["pull", "--quiet"]) == 0
    result = replay(home_at(tmp_path / "empty"), "data/candidate")
    assert result.moved == ()
    assert re.fullmatch(r"the candidate's \d+ gate episodes", result.findings[-1].what)
    assert result.candidate == Candidate.load(in_project / "data/candidate").digest
    assert dvc(["status", "--quiet"]) == 0


def test_an_experiment_runs_what_depends_on_its_change_and_shows_it(
    in_project: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before, run = lock(in_project), in_project / "data/run/run.json"
    made = run.stat().st_mtime_ns
    assert dvc(["exp", "run", "--quiet", "-n", "stricter", "-S", "gate.min_return=499"]) == 0
    after = lock(in_project)
    # a finalist is chosen by the gate's cells
    assert [name for name in STAGES if after[name] != before[name]] == ["evaluate", "gate"]
    assert run.stat().st_mtime_ns == made
    capfd.readouterr()
    assert dvc(["metrics", "diff", "--json", "HEAD"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["data/verdict.json"]["passed"]["new"] is False
    assert dvc(["metrics", "show", "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)[""]["data"]
    assert {"best", "mean", "rate"} <= set(shown["data/evolution.json"]["data"])
    assert dvc(["plots", "show", "--json", "--split", "--out", str(tmp_path)]) == 0
    plots = capfd.readouterr().out
    for name in ("fitness", "mutation rate"):
        assert name in plots
    assert '"best"' in plots
    assert '"rate_mean"' in plots


def test_an_experiment_with_another_seed_evolves_anew(in_project: Path) -> None:
    """What the kept folder holds belongs to another seed. Later stages are stale (see above)."""
    before = lock(in_project)
    change = ["-n", "luck", "-S", "evolution.seed=4", "evolve"]
    assert dvc(["exp", "run", "--quiet", *change]) == 0
    after = lock(in_project)
    assert [name for name in STAGES if after[name] != before[name]] == ["evolve"]
    assert json.loads((in_project / "data/run/run.json").read_bytes())["params"]["evolution"][
        "seed"
    ] == 4  # fmt: skip


def test_a_run_lands_in_the_checkout(in_project: Path, tiny: Tiny) -> None:
    """As the README says: what a run in a workspace made, committed and in the checkout's cache."""
    workspace = create_workspace(home_at(in_project / ".srghn"), "landing", tiny(seed=5))
    for stage in STAGES:
        workspace.run_stage(stage, home_at(in_project / ".srghn"))
    for name in ("params.yaml", "dvc.lock"):
        shutil.copyfile(workspace.root / name, in_project / name)
    shutil.copytree(workspace.root / "data", in_project / "data", dirs_exist_ok=True)
    assert dvc(["commit", "--quiet"]) == 0
    assert dvc(["status", "--quiet"]) == 0
    assert lock(in_project) == lock(workspace.root)
    moved = {line.split()[1] for line in git(in_project, "status", "--porcelain").splitlines()}
    assert moved == {"params.yaml", "dvc.lock", *(f"data/{n}.json" for n in METRICS)}
    shutil.rmtree(in_project / "data" / "run")
    assert dvc(["checkout", "--quiet"]) == 0
    assert Workspace(in_project).generations_done == 7


def test_two_runs_at_once_both_finish_and_leave_the_tree_alone(
    in_project: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As schedules run them: workspaces under the home folder, one cache, the tree elsewhere.

    A third pins its world anew, which has moved: what the others pinned lies in the cache of runs,
    and is not taken from there.
    """
    settings: Settings = home_at(in_project / ".srghn")
    pair = [create_workspace(settings, name, tiny(seed=s)) for s, name in enumerate("ab")]

    def work(workspace: Workspace) -> str:
        for stage in ("pin", "evolve"):
            workspace.run_stage(stage, settings)
        return str(lock(workspace.root)["evolve"]["outs"][0]["md5"])

    with ThreadPoolExecutor(2) as pool:
        digests = list(pool.map(work, pair))
    assert digests[0] != digests[1]
    assert [w.generations_done for w in pair] == [7, 7]
    assert {w.params().evolution.seed for w in pair} == {0, 1}
    assert git(in_project, "status", "--porcelain") == ""
    assert load_params(in_project / "params.yaml").evolution.seed == 3
    assert any((settings.home / "dvc-cache").iterdir())
    (tmp_path / "sitecustomize.py").write_text(PATCH)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    third = create_workspace(settings, "c", pair[0].params())
    third.run_stage("pin", settings)
    assert third.env_version.read_bytes() != pair[0].env_version.read_bytes()
