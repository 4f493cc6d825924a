"""From a verdict towards service: what each step needs, and what it refuses before anything."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipelines.runs.runner import judge_again
from pipelines.runs.stages import STAGES
from pipelines.runs.workspaces import create_workspace, open_workspace, pipeline_definition
from pipelines.versions import judge
from pipelines.versions.judge import begin, judge_version, recorded
from pipelines.versions.lease import Lease
from serving.control import release as steps
from serving.registry.mirror import MODEL, Mirror
from serving.registry.records import Who
from srghn.errors import ConfigError, SrghnError, TransitionRefused
from srghn.files import canonical_json, sha256_file
from tests.conftest import Srghn
from tests.pipelines.conftest import Home, Tiny


@pytest.fixture
def run(srghn_here: Srghn, home: Home) -> Srghn:
    """A command in the finished home, in this process."""
    place = {"SRGHN_HOME": str(home.settings.home)}
    return lambda *arguments: srghn_here(*arguments, env=place)


def second(home: Home, tiny: Tiny) -> int:
    """Another version, REGISTERED."""
    workspace = create_workspace(home.settings, "second", tiny(seed=5))
    for stage in ("pin", "evolve", "evaluate"):
        STAGES[stage](workspace, home.settings)
    return home.release.register(workspace.candidate, "second", workspace.params())


def test_a_workspace_that_is_gone_is_not_missed(home: Home, run: Srghn) -> None:
    """Its canary parameters are the ledger's; the approval was recorded, and then failed."""
    shutil.rmtree(home.workspace.root)
    done = run("approve", "1", "--reason", "read it")
    assert (done.returncode, done.stdout) == (0, "version 1 is CHAMPION\n")
    moves = [e.to_state for e in home.release.ledger.events(1)]
    assert moves[-2:] == ["APPROVED", "CHAMPION"]


def test_a_report_lasts_through_a_power_cut(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is synced, and its folder, before the folder gets its name."""
    synced, fsync, rename = set(), os.fsync, Path.rename
    before: set[str] = set()

    def seen(handle: int) -> None:
        synced.add(Path(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def renamed(path: Path, target: Path) -> Path:
        before.update(str(each.relative_to(path)) for each in synced if each.is_relative_to(path))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", seen)
    monkeypatch.setattr(Path, "rename", renamed)
    judge._copy_whole(home.workspace.report, tmp_path / "kept")
    assert before == {".", *(path.name for path in (tmp_path / "kept").iterdir())}


def test_a_report_that_is_recorded_again_is_young_again(home: Home) -> None:
    """Killed between report and verdict, and resumed a month later: `srghn prune` leaves it."""
    report = home.release.report_page(1)
    assert report is not None
    for file in report.parent.iterdir():
        os.utime(file, (0, 0))
    judge.record(home.release, 1, home.workspace.report, "tiny")
    assert report.stat().st_mtime > time.time() - 60


def test_what_an_old_version_lacks_is_read_from_its_workspace_or_refused_first(home: Home) -> None:
    """Before 0.3 the ledger held no canary parameters."""
    release, ledger = home.release, home.release.ledger
    found = ledger.version(1)
    manifest = {k: v for k, v in found.manifest.items() if k != steps.CANARY}
    with ledger._database.write() as connection:
        connection.exec_driver_sql("UPDATE versions SET manifest = ?", (json.dumps(manifest),))
    trial = home.workspace.params().canary.model_copy(update={"return_low": 0, "return_high": 500})
    assert release.canary_rules(1) == trial
    shutil.rmtree(home.workspace.root)
    with pytest.raises(TransitionRefused, match="workspace of its run tiny is not here"):
        release.approve(1, "ann", "read it")
    assert ledger.version(1).state == "PASSED"


def test_what_was_not_judged_is_not_approved(home: Home, tiny: Tiny) -> None:
    release = home.release
    assert release.approve(1, "ann", "the first") == "CHAMPION"
    number = second(home, tiny)
    with pytest.raises(TransitionRefused, match="version 2 is REGISTERED and cannot become"):
        release.approve(number, "ann", "not judged yet")
    assert release.ledger.version(number).state == "REGISTERED"


Step = Callable[[Home], object]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (lambda home: judge_again(home.settings, 1), "is PASSED and is not judged"),
        (
            lambda home: home.release.start_canary(1, "ann", "try"),
            "PASSED and cannot become CANARY",
        ),
    ],
)
def test_a_state_is_refused_before_anything_else(
    home: Home, step: Step, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the suite is imported, nor the environment built, nor the workspace opened."""
    monkeypatch.delitem(sys.modules, "regression_suite.gate", raising=False)
    monkeypatch.setattr("pipelines.versions.release.verify", lambda world: pytest.fail("verified"))
    shutil.rmtree(home.workspace.root)
    with pytest.raises(TransitionRefused, match=said):
        step(home)
    assert "regression_suite.gate" not in sys.modules


def test_a_lease_says_under_what_a_version_is_judged(home: Home) -> None:
    release, workspace = home.release, home.workspace
    release.ledger.mark_stale(1, who=Who("ann", "again"))
    lease = begin(release, 1, workspace.params().gate, "tiny:again:2")
    events = release.ledger.events(1)
    began = [event for event in events if event.action == "begin_evaluation"][-1]
    assert (lease.version, lease.attempt, lease.lease) == (1, 2, began.hash)
    assert (lease.incumbent, lease.mode) == (None, release.ledger.version(1).mode)
    assert [event["seq"] for event in lease.history] == [e.seq for e in events[:-1]]
    assert lease.tried == 0
    lease.save(workspace.lease)
    assert Lease.load(workspace.lease) == lease
    assert begin(release, 1, workspace.params().gate, "tiny:again:2") == lease  # killed, gone on


def test_the_report_tells_of_earlier_attempts(home: Home) -> None:
    release, workspace = home.release, home.workspace
    release.ledger.mark_stale(1, who=Who("ann", "the sensor was replaced"))
    judge_version(release, 1, workspace, "tiny:again:2", sit=STAGES["gate"])
    assert "the sensor was replaced" in (workspace.report / "report.html").read_text()
    assert workspace.params_file.read_text() == workspace.params().to_yaml()


@pytest.mark.parametrize("text", ["{", '{"attempt": 1, "champion": "d"}'])
def test_what_is_no_lease_is_refused(home: Home, text: str) -> None:
    home.workspace.lease.write_text(text)
    with pytest.raises(ConfigError, match=r"lease\.json is not a lease"):
        STAGES["gate"](home.workspace, home.settings)


def test_an_old_workspace_is_given_a_lease(home: Home) -> None:
    """Made before 0.3: its own definition, whose gate read the incumbent from the parameters."""
    definition = home.workspace.root / "dvc.yaml"
    old = yaml.safe_load(pipeline_definition())
    old["stages"]["gate"]["deps"].remove("data/lease.json")
    old["stages"]["evolve"]["cmd"] = "python -m pipelines.stages evolve"
    definition.write_text(yaml.safe_dump(old))
    home.workspace.lease.unlink()
    workspace = open_workspace(home.settings, "tiny")
    assert Lease.load(workspace.lease) == Lease()
    new = yaml.safe_load(definition.read_text())
    assert "data/lease.json" in new["stages"]["gate"]["deps"]
    assert new["stages"]["evolve"] == old["stages"]["evolve"]


# ------------------------------------------------------------------------------- the commands


def test_revoke_stale_and_weight_have_commands(home: Home, run: Srghn) -> None:
    ledger = home.release.ledger
    refused = run("canary", "weight", "0.5", "--reason", "more")
    assert (refused.returncode, "no canary is on trial" in refused.stderr) == (1, True)
    done = run("stale", "1", "--reason", "recalibrated", "--json")
    assert done.returncode == 0, done.stderr
    event = ledger.events(1)[-1]
    assert (event.to_state, event.reason) == ("STALE", "recalibrated")
    assert event.actor == f"cli:{getpass.getuser()}"
    refused = run("revoke", "1", "--reason", "wrong data")
    assert refused.returncode == 1
    assert "STALE and cannot become REVOKED" in refused.stderr


def test_the_only_champion_cannot_be_revoked(home: Home, run: Srghn) -> None:
    home.release.approve(1, "ann", "the first")
    refused = run("revoke", "1", "--reason", "wrong data")
    assert "no retired champion is left" in refused.stderr
    assert home.release.ledger.version(1).state == "CHAMPION"


def test_the_registry_can_be_written_anew(home: Home, run: Srghn) -> None:
    from mlflow import MlflowClient

    mirror = home.release.mirror()
    mirror.deliver()
    client = MlflowClient(home.settings.mlflow_uri, home.settings.mlflow_uri)
    name = MODEL
    client.set_model_version_tag(name, "1", "srghn.state", "tampered")
    assert run("sync", "--json").returncode == 0
    assert client.get_model_version(name, "1").tags["srghn.state"] == "tampered"
    assert run("sync", "--all", "--json").returncode == 0
    assert client.get_model_version(name, "1").tags["srghn.state"] == "PASSED"


def test_a_broken_mlflow_changes_no_step_and_is_told_in_one_line(
    home: Home, run: Srghn, caplog: pytest.LogCaptureFixture
) -> None:
    database = home.settings.mlflow / "mlflow.db"
    database.parent.mkdir()
    database.write_bytes(bytes(range(256)) * 20)
    done = run("approve", "1", "--reason", "read it", "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "CHAMPION")
    (warning,) = caplog.messages
    assert f"MLflow's database {database} cannot be used: file is not a database" in warning
    findings = {found["what"]: found for found in json.loads(run("doctor", "--json").stdout)}
    assert not findings["MLflow"]["ok"]
    assert "file is not a database" in findings["MLflow"]["found"]
    done = run("sync")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (3, "", 1)
    assert "srghn sync --all" in done.stderr
    database.unlink()
    assert run("sync", "--all").returncode == 0


@pytest.mark.filterwarnings("ignore")
def test_mlflow_loads_the_champion_by_its_alias(home: Home) -> None:
    """As what it is, with its signature, and under the run that made it; both give its actions."""
    import mlflow
    import numpy as np
    from mlflow import MlflowClient

    from pipelines.tracking import delivery

    home.release.approve(1, "ann", "the first")
    noted = delivery.deliver(home.workspace, home.settings)
    mirror = home.release.mirror()
    assert mirror.deliver() > 0
    assert mirror.failure is None
    client = MlflowClient(home.settings.mlflow_uri, home.settings.mlflow_uri)
    found = client.get_model_version_by_alias(MODEL, "champion")
    assert found.run_id == noted.mlflow_run_id
    mlflow.set_tracking_uri(home.settings.mlflow_uri)
    mlflow.set_registry_uri(home.settings.mlflow_uri)
    candidate = home.release.store.load(home.release.ledger.version(1).digest)
    observations, actions = candidate.golden
    uri = f"models:/{MODEL}@champion"
    loaded = mlflow.pyfunc.load_model(uri)
    np.testing.assert_array_equal(loaded.predict(observations)["action"], actions)
    assert loaded.metadata.signature.inputs.inputs[0].shape == (-1, observations.shape[1])
    model = mlflow.onnx.load_model(uri)
    assert model.SerializeToString() != b""
    assert [given.name for given in model.graph.input] == ["obs"]


def test_a_version_that_mlflow_could_not_load_is_written_anew(
    home: Home, srghn_here: Srghn
) -> None:
    """Before 0.3 its source was no place at all."""
    from mlflow import MlflowClient

    old = Mirror(home.release.ledger, home.settings.mlflow_uri)
    home.release.mirror()  # makes the folder
    assert old.deliver() > 0
    client = MlflowClient(home.settings.mlflow_uri, home.settings.mlflow_uri)
    assert client.get_model_version(MODEL, "1").source.startswith("srghn:")
    place = {"SRGHN_HOME": str(home.settings.home)}
    done = srghn_here("sync", "--all", "--json", env=place)
    assert (done.returncode, json.loads(done.stdout)["failure"]) == (0, None), done.stderr
    assert json.loads(done.stdout)["events"] == home.release.ledger.count()
    sources = [v.source for v in client.search_model_versions(f"name='{MODEL}'")]
    assert len(sources) == 1
    assert sources[0].endswith("/model/1")


def test_every_error_is_for_users(home: Home) -> None:
    with pytest.raises(SrghnError, match="there is no version 9"):
        home.release.start_canary(9, "ann", "try")


def test_a_candidate_is_judged_in_the_mode_that_is_served(home: Home, tmp_path: Path) -> None:
    """Not in the one it was evolved in: that is where it is good."""
    release, folder = home.release, tmp_path / "again"
    release.approve(1, "ann", "good")
    assert release.ledger.service_mode() == release.ledger.version(1).mode == "flipped"
    release.ledger.set_mode("policy", "normal", who=Who("ann", "it was switched back"))
    shutil.copytree(home.workspace.candidate, folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_bytes(canonical_json({**manifest, "note": "another"}))
    version = release.register(folder, "tiny", home.workspace.params())
    lease = begin(release, version, home.workspace.params().gate, "again")
    assert release.ledger.version(version).mode == "flipped"
    assert lease.mode == "normal"
    assert "A person with the scope review" in lease.approval
    assert {event["version"] for event in lease.history} == {version}


def test_a_mode_that_is_set_says_what_it_made_stale(home: Home, run: Srghn) -> None:
    done = run("mode", "set", "normal", "--reason", "it was switched back")
    assert done.stdout.splitlines() == [
        "policy policy is in mode normal",
        "version 1 is STALE; judge it in this mode: srghn gate 1",
    ]
    again = run("mode", "set", "normal", "--reason", "to be sure", "--json")
    assert json.loads(again.stdout) == {"policy": "policy", "mode": "normal", "moved": {}}


def test_a_mode_that_the_environment_lacks_is_refused(home: Home, run: Srghn) -> None:
    home.release.approve(1, "ann", "the first")
    before = home.release.ledger.count()
    refused = run("mode", "set", "fliped", "--reason", "a typing error")
    assert refused.returncode != 0
    assert "has no mode 'fliped'; modes: normal, flipped" in refused.stderr
    assert home.release.ledger.count() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"min_return": 6.0}, "its gate rules and suite changed since it passed"),
        ({"salt": "another"}, "its gate rules changed since it passed"),
        ({"perturbations": ["action_drop:0.2"]}, "its gate rules and suite changed"),
    ],
)
def test_a_pass_by_other_rules_than_the_present_ones_is_stale(
    home: Home, change: dict[str, object], said: str
) -> None:
    data = home.workspace.params().model_dump(mode="json")
    data["gate"].update(change)
    home.workspace.params_file.write_text(yaml.safe_dump(data))
    with pytest.raises(TransitionRefused, match=f"version 1 is STALE: {said}"):
        home.release.approve(1, "ann", "read it")
    assert home.release.ledger.version(1).state == "STALE"
    with pytest.raises(TransitionRefused, match="STALE and cannot become APPROVED"):
        home.release.approve(1, "ann", "read it")


def test_an_approval_by_a_suite_that_changed_meanwhile_is_stale(
    home: Home, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update of srghn brought other checks: whoever is waiting is judged again."""
    release = home.release
    digest = str(release.ledger.version(1).report_digest)
    release.ledger.approve(1, report_digest=digest, who=Who("ann", "read it"))
    monkeypatch.setattr("regression_suite.suite.SUITE_VERSION", "another")
    with pytest.raises(TransitionRefused, match="its suite changed since it passed"):
        release.promote(1, "ann", "go")
    assert release.ledger.version(1).state == "STALE"


def test_the_event_names_the_clock_s_file_and_the_verdict_does_not(home: Home) -> None:
    release = home.release
    digest = str(release.ledger.version(1).report_digest)
    timings, verdict = release.reports(digest) / "timings.json", release.ledger.verdict(1)
    assert verdict is not None
    assert verdict["timings"] == sha256_file(timings)
    assert "timings" not in json.loads(timings.with_name("verdict.json").read_bytes())
    assert recorded(release, 1) is not None
    timings.write_text("{}")
    with pytest.raises(TransitionRefused, match=r"timings.json has digest"):
        release.approve(1, "ann", "fast enough")
