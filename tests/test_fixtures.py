"""Later code reads what version 0.2.0 wrote, and goes on with it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version as installed
from pathlib import Path

import pytest
import yaml

from pipelines.runs.stages import STAGES
from pipelines.runs.workspaces import Workspace, create_workspace, unfinished
from serving.registry.artefacts import ArtefactStore
from serving.registry.database import Database
from serving.registry.ledger import Ledger
from serving.registry.upgrade import upgrade
from serving.settings import Settings
from serving.tokens import Tokens
from srghn.candidates.candidate import Candidate
from srghn.config import parse_params
from srghn.envs import EnvVersion
from tests import old_homes
from tests.conftest import Srghn

STATES = (
    "RETIRED", "RETIRED", "CHAMPION", "FAILED", "ABORTED",
    "PASSED", "REJECTED", "REGISTERED", "EVALUATING", "CANARY",
)  # fmt: skip


@pytest.fixture(scope="module")
def ledger_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = old_homes.unpack("home-ledger", tmp_path_factory.mktemp("old"))
    upgrade(f"sqlite:///{home / 'ledger.db'}", home / "backups")
    return home


@pytest.fixture
def ledger(ledger_home: Path) -> Iterator[Ledger]:
    with closing(Ledger(f"sqlite:///{ledger_home / 'ledger.db'}")) as opened:
        yield opened


def test_its_ledger_holds_a_champion_a_trial_and_a_history(ledger: Ledger) -> None:
    assert tuple(str(v.state) for v in ledger.versions()) == STATES
    assert [v.version for v in ledger.versions() if v.quarantined] == [2, 5, 7]
    champion, canary = ledger.champion(), ledger.canary()
    assert champion is not None
    assert canary is not None
    assert (champion.version, champion.generation) == (3, 4)
    assert (canary.version, canary.weight) == (10, 0.25)
    assert sum(o.counted for o in ledger.outcomes(10)) == 8
    assert ledger.verify() == 45


def test_its_tokens_still_open(ledger_home: Path) -> None:
    tokens = Tokens(Database(f"sqlite:///{ledger_home / 'ledger.db'}"))
    made = old_homes.tokens(ledger_home)
    found = {owner: tokens.find(token) for owner, token in made.items()}
    assert found.pop("gone") is None
    assert {owner: sorted(t.scopes) for owner, t in found.items() if t} == {
        "client": ["infer"],
        "reviewer": ["review"],
        "operator": ["admin"],
    }


def test_its_candidates_load_and_answer_as_recorded(ledger_home: Path, ledger: Ledger) -> None:
    store = ArtefactStore(ledger_home / "artefacts")
    for version in ledger.versions():
        candidate = store.load(version.digest)
        candidate.check_golden()
        assert candidate.manifest["params"]["policy"]["kwargs"] == {"hidden": [4]}
        assert parse_params(candidate.manifest["params"], "manifest").network.kwargs["hidden"] == [
            4
        ]


def test_its_parameters_are_read_with_the_section_policy(ledger_home: Path) -> None:
    workspace = Workspace(ledger_home / "workspaces" / "fixture-3")
    written = yaml.safe_load(workspace.params_file.read_text())
    assert "policy" in written
    assert "network" not in written
    assert workspace.params().network.kwargs == {"hidden": [4]}


def test_what_its_parameters_leave_out_was_off_but_not_in_a_persons_own_file(
    ledger_home: Path, tmp_path: Path
) -> None:
    workspace = Workspace(ledger_home / "workspaces" / "fixture-3")
    evolution = workspace.params().evolution
    assert (evolution.memory, evolution.newcomers) == (0, 0.0)
    (tmp_path / "params.yaml").write_bytes(workspace.params_file.read_bytes())
    own = Workspace(tmp_path).params().evolution
    assert own.memory is own.newcomers is None


@pytest.mark.slow
@pytest.mark.services
def test_its_unfinished_run_goes_on_in_a_home_that_was_moved(srghn: Srghn, tmp_path: Path) -> None:
    """Through the commands, in a folder whose name is as awkward as one may be."""
    home = old_homes.unpack("home-unfinished", tmp_path / "a home, moved to Zürich")
    settings = Settings(home=home).resolved()
    (folder,) = (home / "workspaces").iterdir()
    workspace = Workspace(folder)
    assert workspace.generations_done == 74
    assert [w.name for w in unfinished(settings, workspace.params())] == [workspace.name]
    began = (workspace.run / "run.json").read_bytes()

    environment = {"SRGHN_HOME": str(home)}
    refused = srghn("run", "--resume", workspace.name, env=environment)
    assert "upgrade it: srghn ledger upgrade" in refused.stderr
    assert workspace.generations_done == 74  # told before evolution, not after it
    assert srghn("ledger", "upgrade", env=environment).returncode == 0

    done = srghn("run", "--resume", workspace.name, "--json", env=environment, timeout=900)
    assert done.returncode == 2, done.stderr  # twenty episodes are inconclusive
    result = json.loads(done.stdout)
    assert workspace.generations_done == 160
    assert (workspace.run / "run.json").read_bytes() == began
    assert Candidate.load(workspace.candidate).generation == 159
    assert Path(result["report"]).is_relative_to(home)
    assert result["tracking_failure"] is None
    kept = home / "mlflow" / "artifacts" / result["mlflow_run_id"] / "artifacts"
    assert {"candidate", "report", "params.yaml"} <= {path.name for path in kept.iterdir()}
    assert list((home / "dvc-cache" / "files").rglob("*.dir"))
    for path in (workspace.outcome, workspace.dvc_config, workspace.root / "dvc.lock"):
        assert old_homes.WRITTEN_IN not in path.read_text(encoding="utf-8")
        assert str(home) not in path.read_text(encoding="utf-8")


def here() -> dict[str, object]:
    """The platform as `demo.json` names it."""
    cpu: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        cpu.setdefault(name.strip().replace(" ", "_"), value.strip())
    names = ("cpu_family", "model", "stepping")
    packages = old_homes.demo()["platform"]["packages"]
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": cpu.get("model_name"),
        **{name: cpu.get(name) for name in names},
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in packages},
    }


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/cpuinfo"), reason="no way to know the processor")
def test_the_demo_still_evolves_to_the_same_bytes(tmp_path: Path) -> None:
    recorded = old_homes.demo()
    if here() != recorded["platform"]:
        pytest.skip("recorded on another platform: bytes may differ")
    from pipelines.runs.prepare import prepare

    settings = Settings(home=tmp_path / "home").resolved()
    params = prepare(settings, "cartpole-switch", ("evolution.seed=0",), "scratch")
    workspace = create_workspace(settings, "demo-first", params)
    for stage in ("pin", "evolve", "evaluate"):
        STAGES[stage](workspace, settings)
    expected = recorded["candidates"]["demo-first"]
    manifest = Candidate.load(workspace.candidate).manifest
    # golden observations are today those that the evolved policy meets, so they are others
    for name in ("genome", "policy", "lineage"):
        assert manifest[f"{name}_digest"] == expected[name], name
    assert manifest["env_fingerprint"] == recorded["env_fingerprint"]


@pytest.mark.slow
def test_its_candidates_are_judged_by_todays_gate_as_they_were(tmp_path: Path) -> None:
    """Today's gate plays other episodes and has other bounds; the primary cell passes as it did."""
    from pipelines.runs.presets import load_preset
    from regression_suite.gate import judge

    recorded = old_homes.demo()
    old_homes.unpack("demo-candidates", tmp_path)
    expected = recorded["candidates"]["demo-second"]
    candidate = tmp_path / "demo-second" / "candidate"
    verdict = judge(
        candidate,
        EnvVersion.load(candidate / "env_version.json"),
        expected["mode"],
        load_preset("cartpole-switch").gate,
        tmp_path / "report",
        incumbent_dir=tmp_path / "demo-first" / "candidate",
        run_dir=None,
        attempt=1,
    )
    assert verdict.candidate_digest == expected["candidate"]
    [primary] = [check for check in verdict.checks if check.name == "primary"]
    outcome, value = expected["gate"]["checks"]["primary"]
    assert primary.outcome == outcome == "passed"
    assert primary.value == pytest.approx(value, abs=10)
