"""What `srghn status`, `rollback` and `report` tell a person who decides."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.versions.release import Release
from serving.control.watch import SEEN, Watch, WatchView
from serving.registry.ledger import POLICY
from serving.registry.records import Who
from tests.conftest import Done, Srghn
from tests.serving.conftest import Home, maker

ANN = Who("ann", "because")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    made = Home(tmp_path / "home", maker(tmp_path))
    # these candidates were evolved in no world that could be pinned again
    monkeypatch.setattr(Release, "require_world", lambda self, version: None)
    monkeypatch.setattr(Release, "deliver", lambda self: None)
    made.first()
    yield made
    made.ledger.close()


@pytest.fixture
def run(home: Home, srghn_here: Srghn) -> Callable[..., Done]:
    return lambda *words: srghn_here(*words, env={"SRGHN_HOME": str(home.settings.home)})


def test_a_rollback_says_in_which_mode_its_champion_was_judged(
    home: Home, run: Callable[..., Done]
) -> None:
    home.second(bias=1.0)
    home.ledger.set_mode(POLICY, "flipped", who=ANN)
    assert run("status").stdout.splitlines()[1] == "mode      service is in flipped"
    back = run("rollback", "--reason", "it shakes")
    assert back.stdout == (
        "version 1 is CHAMPION; it was judged in mode normal, service is in flipped\n"
        "version 2 is quarantined\n"
    )
    home.ledger.set_mode(POLICY, "normal", who=ANN)
    assert "service is in" not in run("status").stdout
    home.second(bias=2.0)
    said = json.loads(run("rollback", "--reason", "it shakes", "--json").stdout)
    assert said == {
        "version": 1,
        "state": "CHAMPION",
        "mode": "normal",
        "service_mode": "normal",
        "quarantined": 3,
    }


def test_status_tells_a_trial_that_stands_still(home: Home, run: Callable[..., Done]) -> None:
    version = home.approved(bias=1.0)
    home.steps.canary(version)
    assert run("status").stdout.splitlines()[-2].endswith("%, running")
    home.ledger.set_trial_status("held", who=ANN)
    assert run("status").stdout.splitlines()[-2].endswith("%, held")


def test_status_counts_a_trials_episodes(home: Home, run: Callable[..., Done]) -> None:
    version = home.approved(bias=1.0)
    home.steps.canary(version)
    home.steps.play(home.ledger.canary(), 450.0, 490.0, 3)
    assert run("status").stdout.splitlines()[-1] == (
        "trial     6 of at most 2000 episodes are evidence (champion 3 outcomes and 0 missing, "
        "canary 3 outcomes and 0 missing); 3 outcomes of the canary, 5 are needed; canary mean "
        "98.0% of the range over 3 episodes, champion mean 90.0% of the range over 3 episodes"
    )
    said = json.loads(run("status", "--json").stdout)["trial"]
    assert (said["episodes"], said["max_episodes"]) == (6, 2000)
    assert said["decision"]["action"] == "wait"
    assert said["decision"]["canary"]["episodes"] == 3
    home.ledger.abort_canary(who=ANN)
    assert json.loads(run("status", "--json").stdout)["trial"] is None


def test_a_report_that_is_missing_is_said_to_be(home: Home, run: Callable[..., Done]) -> None:
    page = Path(run("report", "1").stdout.strip())
    page.unlink()
    for words in ((), ("--out", "here.html")):
        done = run("report", "1", *words)
        assert (done.returncode, done.stdout) == (3, "")
        assert f"the report of version 1 is missing: there is no {page}" in done.stderr
        assert f"restore {page.parent} from a backup" in done.stderr


@pytest.mark.parametrize(("alarm", "missing"), [(None, None), ("a", None), (None, "m")])
def test_each_alarm_of_the_watch_is_acknowledged(
    home: Home,
    run: Callable[..., Done],
    monkeypatch: pytest.MonkeyPatch,
    alarm: str | None,
    missing: str | None,
) -> None:
    """One for missing outcomes was refused: there is no alarm; the watch is missing."""
    seen = WatchView("missing", "many are", alarm=alarm, missing=missing)
    monkeypatch.setattr(Watch, "view", lambda self: seen)
    done = run("watch", "ack", "--reason", "a client is ill")
    noted = home.ledger.notes(POLICY, SEEN)
    if alarm or missing:
        said = home.ledger.evidence(str(noted[0].evidence_sha256))
        assert (said["alarm"], said["missing"]) == (alarm, missing)
    else:
        assert (done.returncode, noted) == (1, [])
        assert "there is no alarm" in done.stderr
