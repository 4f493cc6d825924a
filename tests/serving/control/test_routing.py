"""A key stays where it is, and the canary gets its share."""

from __future__ import annotations

from typing import Any

from serving.control.routing import Served, bucket


def served(weight: float, epoch: int = 7) -> tuple[Served, Any, Any]:
    champion: Any = type("P", (), {"version": 1})()
    canary: Any = type("P", (), {"version": 2})()
    return Served(champion, 1, canary, weight, epoch), champion, canary


def test_the_canary_gets_its_share() -> None:
    now, _, canary = served(0.2)
    hits = sum(now.choose(f"episode-{n}") is canary for n in range(20_000))
    assert abs(hits / 20_000 - 0.2) < 0.01


def test_raising_the_weight_moves_nobody_back() -> None:
    keys = [f"episode-{n}" for n in range(2000)]
    before: set[str] = set()
    for weight in (0.0, 0.01, 0.1, 0.5, 0.99):
        now, _, canary = served(weight)
        on_canary = {key for key in keys if now.choose(key) is canary}
        assert before <= on_canary
        before = on_canary
    assert len(before) > 1900


def test_trials_are_drawn_apart() -> None:
    same = sum((bucket("1", str(n)) < 5000) == (bucket("2", str(n)) < 5000) for n in range(4000))
    assert abs(same / 4000 - 0.5) < 0.05


def test_without_a_canary_the_champion_answers_all() -> None:
    champion: Any = object()
    assert Served(champion=champion).choose("x") is champion
    assert Served().choose("x") is None
