"""The page a person opens, in each situation, and nothing on it from elsewhere."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving import runs
from serving.app import create_app
from serving.pages.intervals import draw
from serving.registry.records import Who
from serving.registry.trial_view import view
from srghn.config import CanaryParams
from srghn.evolution.ancestry import Ancestor, Ancestry, Told


def page(home: Any) -> str:
    with TestClient(create_app(home.settings), raise_server_exceptions=False) as client:
        answer = client.get("/")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/html")
        return answer.text


def test_an_empty_home_says_how_to_begin(home: Any) -> None:
    text = page(home)
    assert "not ready" in text
    assert 'srghn approve VERSION --reason "..."' in text
    assert "srghn promote" not in text
    assert "The champion answers every request" not in text
    assert "Nothing happened yet." in text


def test_where_only_another_policy_has_a_champion_the_page_says_so(
    home: Any, caplog: pytest.LogCaptureFixture
) -> None:
    home.of("arm").first(more=2)
    runs.write(home.settings.home, runs.begun("by-hand"))
    text = page(home)
    assert "<h2>Runs of all policies</h2>" in text
    assert '<span class="pill good">ready</span><p>no champion yet; another policy' in text
    assert '<a href="./policies/arm">arm</a>' in text
    assert "policy policy: not ready: there is no champion yet" in caplog.text


def test_it_shows_champion_canary_review_and_history(home: Any) -> None:
    home.first(validation={"mean": 497.25, "episodes": 64})
    version = home.approved(bias=1.0)
    home.steps.play(
        home.steps.canary(version, params=CanaryParams(return_low=0.0, return_high=500.0)),
        300.0,
        310.0,
        12,
    )
    waiting = home.steps.register()
    home.steps.begin(waiting)
    home.steps.judge(waiting, summary="passed by <b>31</b>")
    text = page(home)
    assert '<span class="pill good">ready</span>' in text
    assert "mean return 497.2 over 64 episodes, as the best of several" in text
    assert re.search(r"on (5|50)% of episodes", text)  # a step up, once the controller looked
    assert "12 outcomes of the canary, 20 are needed" in text
    assert "Planned for an equal canary:" in text
    assert "champion · 12" in text
    assert "passed by &lt;b&gt;31&lt;/b&gt;" in text
    assert f'href="./decide/approve?version={waiting}"' in text
    assert "approved → <span" in text


def test_events_of_the_policy_itself_are_shown(home: Any) -> None:
    """A mode, a drift: events without a version once made the page an error."""
    home.first()
    home.ledger.set_mode("policy", "flipped", who=Who("ann", "the motors were rewired"))
    text = page(home)
    assert "set mode" in text
    assert "the motors were rewired" in text


def test_the_latest_step_after_an_alarm_is_shown_beside_the_watch(home: Any) -> None:
    home.first()
    home.ledger.note("drift", {"version": 1}, who=Who("watch", "returns fell"))
    home.ledger.note("adapt", {"step": "refused"}, who=Who("adapt", "no run can begin: <b>"))
    assert "<p>Latest step: no run can begin: &lt;b&gt;.</p>" in page(home)


def test_a_version_has_a_page_whose_files_are_gone(home: Any) -> None:
    home.first()
    version = home.steps.register("d" * 64)
    with TestClient(create_app(home.settings)) as client:
        shown = client.get(f"/versions/{version}")
        assert shown.status_code == 200
        assert "Its files are not on this machine" in shown.text
        assert client.get("/versions/99").status_code == 404


def test_a_version_shows_its_lineage_and_two_are_compared(home: Any) -> None:
    home.first()
    version = home.approved(bias=1.0)
    births = [[n, n, n, float(n) if n else None, 0.1, 0] for n in range(40)]
    folder = home.store.path(home.ledger.version(version).digest)
    said = {"columns": ["generation", "id", "noise_seed", "fitness", "rate", "world"]}
    said |= {"worlds": [["e" * 64, "flipped"]], "chain": births}
    with pytest.MonkeyPatch.context() as patch, TestClient(create_app(home.settings)) as client:
        patch.setattr(type(home.store), "path", lambda self, digest: folder)
        folder.chmod(0o755)
        (folder / "ancestry.json").chmod(0o644)
        (folder / "ancestry.json").write_text(json.dumps(said))
        text = client.get(f"/versions/{version}").text
        assert "40 births, founder first; 10 in the middle are left out" in text
        assert text.count("<td>flipped</td>") == 30
        drawn = Ancestor(9, 3, 0, 0.5, 0.1, "e" * 64, "flipped")
        told = Told({"note": '\n[,"told":['}, 0, ((0.5, None),) * 9), Told({}, 10, ())
        searched = Ancestry("a", (drawn, drawn), "d", told).to_json().replace("null", "unread")
        (folder / "ancestry.json").write_text(searched)
        text = client.get(f"/versions/{version}").text
        assert "11 generations of a search, which has no births" in text
        assert text.count("<td>flipped</td>") == 2
        text = client.get(f"/compare?a=1&b={version}").text
        assert f"version {version}</a></th>" in text
        assert "CHAMPION" in text
        assert "primary" in text
        assert client.get("/compare?a=1&b=99").status_code == 404


def test_lists_are_pages(home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.routes.home.PAGE", 3)
    home.first()
    for _ in range(4):
        home.steps.register()
    with TestClient(create_app(home.settings)) as client:
        for name, count in (("versions", home.ledger.version(5).version), ("history", None)):
            seen, path = [], f"/{name}"
            while path:
                text = client.get(path).text
                seen += re.findall(r'data-l="(?:version|seq)">(?:<a[^>]*>)?(\d+)', text)
                more = re.search(rf'href="\./({name}\?before=\d+)"', text)
                path = f"/{more[1]}" if more else ""
            numbers = list(dict.fromkeys(map(int, seen)))
            assert numbers == sorted(numbers, reverse=True) or name == "history"
            assert len(set(numbers)) >= (count or home.ledger.count())
        assert client.get("/history?before=x").status_code == 422
        assert client.get("/history?policy=none").status_code == 404


def test_runs_that_went_wrong_are_shown_until_they_are_made_good(home: Any) -> None:
    failed = runs.begun("night-1", schedule="nightly")
    runs.write(home.settings.home, runs.ended(failed, "failed", "the pin no longer holds"))
    runs.write(home.settings.home, runs.begun("by-hand"))
    text = page(home)
    assert "the pin no longer holds" in text
    assert "by-hand" in text
    good = dataclasses.replace(runs.begun("night-2", schedule="nightly"), at="2999-01-01T00:00:00")
    ended = dataclasses.replace(runs.ended(good, "finished"), at="2999-01-01T00:00:00")
    runs.write(home.settings.home, ended)
    text = page(home)
    assert "night-1" not in text
    assert "by-hand" in text


def test_nothing_is_fetched_from_elsewhere(home: Any) -> None:
    home.first()
    text = page(home)
    assert re.findall(r"https?://[^\s\"'<)]+", text) == []
    assert re.findall(r"<script|<link(?! rel=\"icon\" href=\"data:,\")|@import|url\(", text) == []


def test_what_people_write_is_escaped(home: Any) -> None:
    version = home.steps.register()
    home.steps.begin(version)
    home.steps.judge(version)
    home.ledger.reject(version, who=Who("<script>x</script>", "<img src=x>"))
    text = page(home)
    assert "<script>x" not in text
    assert "<img" not in text


@pytest.mark.parametrize("count", [0, 1, 300])
def test_the_drawing_holds_at_any_size_of_evidence(home: Any, count: int) -> None:
    home.first()
    canary = home.steps.canary(
        home.approved(bias=1.0), params=CanaryParams(return_low=0.0, return_high=500.0)
    )
    home.steps.play(canary, 500.0, 0.0, count)
    drawing = draw(view(home.ledger, canary, time.time()))
    assert "nan" not in drawing
    assert f"after {count} episodes" in drawing or not count
    assert drawing.count("<circle") in ({2} if count else {0})
    for x in re.findall(r'x[12]="([-\d.]+)"', drawing):
        assert 0 <= float(x) <= 640
