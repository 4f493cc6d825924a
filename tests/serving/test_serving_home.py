"""The page a person opens, in each situation, and nothing on it from elsewhere."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.pages.intervals import draw
from serving.registry.records import Who
from serving.registry.trial_view import view
from srghn.config import CanaryParams


def page(home: Any) -> str:
    with TestClient(create_app(home.settings), raise_server_exceptions=False) as client:
        answer = client.get("/")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/html")
        return answer.text


def test_an_empty_home_says_how_to_begin(home: Any) -> None:
    text = page(home)
    assert "not ready" in text
    assert "srghn promote VERSION" in text
    assert "Nothing happened yet." in text


def test_it_shows_champion_canary_review_and_history(home: Any) -> None:
    home.first(validation={"mean": 497.25, "episodes": 64})
    version = home.approved(bias=1.0)
    home.steps.play(home.steps.canary(version, params=CanaryParams()), 300.0, 310.0, 12)
    waiting = home.steps.register()
    home.steps.begin(waiting)
    home.steps.judge(waiting, summary="passed by <b>31</b>")
    text = page(home)
    assert '<span class="pill good">ready</span>' in text
    assert "mean return 497.2 over 64 episodes" in text
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
    canary = home.steps.canary(home.approved(bias=1.0), params=CanaryParams())
    home.steps.play(canary, 500.0, 0.0, count)
    drawing = draw(view(home.ledger, canary, time.time()))
    assert "nan" not in drawing
    assert f"after {count} episodes" in drawing or not count
    assert drawing.count("<circle") in ({2} if count else {0})
    for x in re.findall(r'x[12]="([-\d.]+)"', drawing):
        assert 0 <= float(x) <= 640
