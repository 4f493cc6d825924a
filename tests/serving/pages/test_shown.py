"""What the pages say of checks, of a trial's history, of ends and of long words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.pages.intervals import LETTER, draw
from serving.registry.records import Who
from tests.serving.pages.test_sessions import HERE


@pytest.fixture
def client(home: Any) -> Iterator[TestClient]:
    home.first()
    here = {"base_url": HERE, "client": ("127.0.0.1", 50_000)}
    with TestClient(create_app(home.settings), **here) as opened:
        yield opened


def test_a_check_that_binds_nothing_is_reported_and_not_failed(
    client: TestClient, home: Any
) -> None:
    version = home.steps.register()
    home.steps.begin(version)
    binding = {"name": "primary", "outcome": "passed", "reason": "better", "binding": True}
    other = {"name": "speed", "outcome": "failed", "reason": "slow", "binding": False}
    home.steps.judge(version, checks=[binding, other])
    for path in (f"/versions/{version}", f"/compare?a=1&b={version}"):
        text = client.get(path).text
        assert "reported</td>" in text
        assert "failed" not in text
        assert re.search(r'class="good">passed<', text)


def test_the_history_says_what_was_done_to_a_trial(client: TestClient, home: Any) -> None:
    version = home.approved(bias=1.0)
    home.steps.canary(version)
    home.ledger.set_canary_weight(0.004, who=Who("ann", "little"))
    home.ledger.set_trial_status("paused", who=Who("ann", "a storm"))
    home.ledger.set_mode("policy", "flipped", who=Who("ann", "rewired"))
    for path in ("/", "/history"):
        text = client.get(path).text
        assert "set canary weight: 0.4%" in text
        assert "set trial status: paused" in text
        assert "set mode: flipped" in text
        assert 'canary → <span class="wait">canary' not in text


def test_a_small_share_is_not_shown_as_none(client: TestClient, home: Any) -> None:
    home.steps.canary(home.approved(bias=1.0))
    home.ledger.set_canary_weight(0.004, who=Who("ann", "little"))
    assert "on 0.4% of episodes" in client.get("/").text
    assert client.post("/sign-in", data={"here": "yes"}).status_code == 200
    assert "on 0.4% of episodes" in client.get("/decide/pause").text


def test_a_list_ends_where_it_ends(
    client: TestClient, home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = home.ledger.count()
    monkeypatch.setattr("serving.routes.home.PAGE", count)
    assert "before=" not in client.get("/history").text  # there are just as many as fit
    monkeypatch.setattr("serving.routes.home.PAGE", count - 1)
    assert "before=2" in client.get("/history").text
    for name in ("history", "versions"):
        text = client.get(f"/{name}?before=1").text
        assert "There are no earlier ones." in text
        assert "Nothing happened yet." not in text
        assert "None yet." not in text


def test_the_description_is_dark_where_the_page_is_and_loads_nothing(client: TestClient) -> None:
    answer = client.get("/docs")
    assert ":root{color-scheme:light dark}" in answer.text
    assert "<code>/v2/models/NAME/ready</code>" in answer.text
    for name in ("content-security-policy", "x-content-type-options", "referrer-policy"):
        assert answer.headers[name] == client.get("/").headers[name]


def trial(low: float, high: float, outcomes: int) -> Any:
    """As much of a trial's view as its drawing shows."""
    arm = {"mean": 0.5, "episodes": outcomes, "missing": 0}
    span = high - low
    return SimpleNamespace(
        canary=SimpleNamespace(rules=SimpleNamespace(low=low, high=high, margin=0.05)),
        low=-span / 30,
        high=span / 20,
        decision=SimpleNamespace(champion=arm, canary=arm),
    )


RANGES = [
    (0.0, 500.0),
    (-3254.72, 0.0),
    (-1234567.0, 2345678.0),
    (-0.00123456, 0.00234567),
    (1e6, 1e6 + 500),
    (-1e-7, 3e-7),
]


@pytest.mark.parametrize(("low", "high"), RANGES)
@pytest.mark.parametrize("outcomes", [9, 130, 100_000])
@pytest.mark.parametrize("width", [640, 360])
def test_no_word_of_the_drawing_is_cut_or_covered(
    low: float, high: float, outcomes: int, width: int
) -> None:
    text = draw(trial(low, high, outcomes), width)
    found = re.findall(r'<text class="(\w+)" x="([-\d.]+)" y="([-\d.]+)">([^<]*)</text>', text)
    rows: dict[str, list[tuple[float, float]]] = {}
    for kind, x, y, word in found:
        long = len(word) * LETTER
        left = float(x) - (long if kind == "name" else long / 2)
        assert left >= 0, word
        assert left + long <= width, word
        rows.setdefault(y, []).append((left, left + long))
    for places in rows.values():
        for one, other in zip(sorted(places), sorted(places)[1:], strict=False):
            assert one[1] < other[0]
    numbers = [word for kind, _, _, word in found if kind == "tick"]
    assert len(numbers) == len(set(numbers)) or "0" in numbers
    assert max(map(len, numbers)) <= 9
