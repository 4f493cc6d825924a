"""Two hosts with one PostgreSQL ledger and one S3-compatible store, and no file that both see."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipelines.adapt.beat import _leads
from pipelines.runs.stages import STAGES
from pipelines.runs.workspaces import Workspace, open_workspace
from pipelines.services.doctor import examine
from pipelines.versions.judge import judge_version
from pipelines.versions.release import Release
from serving.app import create_app
from serving.registry.states import State
from serving.settings import Settings
from tests.conftest import Srghn
from tests.pipelines.conftest import Home
from tests.s3 import BUCKET, S3, s3
from tests.serving.registry import postgres

__all__ = ["s3"]
pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(not postgres.BINARIES, reason="PostgreSQL is not installed"),
]


@dataclass(frozen=True)
class Hosts:
    """The first evolves and judges, the second serves."""

    first: Settings
    second: Settings

    def variables(self, host: Settings) -> dict[str, str]:
        names = ("home", "database_url", "store_url")
        return {f"SRGHN_{name.upper()}": str(getattr(host, name)) for name in names}


@pytest.fixture(scope="module")
def hosts(finished: Home, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Both, after a run on the first whose candidate passed."""
    folder = tmp_path_factory.mktemp("hosts")
    with postgres.cluster() as cluster:
        url, store = postgres.new_database(cluster), f"s3://{BUCKET}/hosts"
        first, second = (
            Settings(home=folder / name, database_url=url, store_url=store).resolved()
            for name in ("first", "second")
        )
        workspace = Workspace(first.workspaces / "tiny")
        shutil.copytree(finished.workspace.root, workspace.root)
        release = Release(first)
        version = release.register(workspace.candidate, "tiny", workspace.params())
        assert judge_version(release, version, workspace, "tiny", sit=STAGES["gate"]).passed
        yield Hosts(first, second)
        release.ledger.close()


def test_one_host_evolves_and_another_reviews_and_serves(hosts: Hosts) -> None:
    here, there = Release(hosts.first), Release(hosts.second)
    page = there.report_page(1)
    assert page is not None
    assert page.is_relative_to(hosts.second.home)
    assert page.read_bytes() == (here.report_page(1) or Path()).read_bytes()
    assert there.approve(1, "ann", "read on the second host") is State.CHAMPION
    with TestClient(create_app(hosts.second)) as client:
        assert client.get("/health/ready").json()["digest"] == here.ledger.version(1).digest
        observation = [0.0, 0.0, 0.1, 0.0]
        assert client.post("/v1/act", json={"observation": observation}).json()["version"] == 1
        assert client.get("/v1/versions/1/report").content == page.read_bytes()
    assert not (hosts.second.home / "workspaces").exists()
    sharing = {"work_pool": "fleet"}
    leads = [
        leads_adaptation(host.model_copy(update=sharing)) for host in (hosts.first, hosts.second)
    ]
    assert leads == [True, False]  # the one that has the tables of the champion's run
    there.ledger.close()


def leads_adaptation(host: Settings) -> bool:
    release = Release(host)
    try:
        return _leads(release, "policy")
    finally:
        release.ledger.close()


def test_the_store_is_checked_mended_and_copied(
    hosts: Hosts, s3: S3, srghn_here: Srghn, tmp_path: Path
) -> None:
    first, second = hosts.variables(hosts.first), hosts.variables(hosts.second)
    ledger = Release(hosts.first).ledger
    digest, report = ledger.version(1).digest, ledger.version(1).report_digest
    ledger.close()
    done = srghn_here("store", "check", "--json", env=first)
    assert (done.returncode, json.loads(done.stdout)["problems"]) == (0, []), done.stderr
    s3.put(f"hosts/artefacts/{digest}/policy.onnx", b"junk")
    s3.delete(f"hosts/reports/{report}/report.html")
    done = srghn_here("store", "check", env=second)
    assert done.returncode == 3
    assert f"{digest}/policy.onnx was changed" in done.stderr
    assert f"{report}/report.html is missing" in done.stderr
    third = {**second, "SRGHN_HOME": str(tmp_path / "third")}
    done = srghn_here("store", "push", env=third)  # which has nothing to mend it with
    assert (done.returncode, done.stderr.count("\n")) == (3, 2)
    pushed = json.loads(srghn_here("store", "push", "--json", env=first).stdout)["pushed"]
    assert pushed == [f"artefacts/{digest}", f"reports/{report}"]
    assert srghn_here("store", "check", env=second).returncode == 0
    assert json.loads(srghn_here("store", "pull", "--json", env=third).stdout) == {"folders": 2}
    assert (tmp_path / "third" / "reports" / str(report) / "report.html").is_file()


def findings(settings: Settings) -> dict[str, Any]:
    return {found.what: found for found in examine(settings)}


def test_while_the_store_is_away_commands_say_so_in_one_line(
    hosts: Hosts, s3: S3, srghn_here: Srghn, tmp_path: Path
) -> None:
    third = hosts.second.model_copy(update={"home": tmp_path / "third", "store_seconds": 0.0})
    variables = {**hosts.variables(third), "SRGHN_STORE_SECONDS": "0"}
    assert findings(third)["artefact store"].ok
    s3.stop()
    try:
        for words in (("report", "1"), ("store", "check"), ("replay", "1")):
            done = srghn_here(*words, env=variables)
            assert done.returncode == 3, words
            assert done.stderr.startswith(f"srghn: the artefact store {third.store_url} does not")
            assert done.stderr.count("\n") == 1
        found = findings(third)
        assert [found[name].ok for name in ("artefact store", "reports")] == [False, True]
        release = Release(hosts.first.model_copy(update={"store_seconds": 0.0}))
        candidate = release.store.folder / release.ledger.version(1).digest
        before = len(release.ledger.events())
        with pytest.raises(Exception, match="does not answer"):
            release.register(candidate, "another", open_workspace(hosts.first, "tiny").params())
        assert len(release.ledger.events()) == before  # nobody hears of what is not stored
        release.ledger.close()
    finally:
        s3.start()
    assert srghn_here("report", "1", env=variables).returncode == 0
