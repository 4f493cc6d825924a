"""What a moment serves: arms by the trial's key, and answers that tell nobody which arm."""

from __future__ import annotations

from typing import Any

from serving.control.routing import Served
from serving.registry.interfaces import key_of
from serving.trial.assignment import arm_of, trial_key

KEY = trial_key(b"s" * 32, "policy", 7)


def served(weight: float, blind: bool = False) -> tuple[Served, Any, Any]:
    fields = {"env_fingerprint": "e" * 64, "face": {}}
    champion: Any = type("P", (), {"version": 1, **fields})()
    canary: Any = type("P", (), {"version": 2, **fields})()
    return Served(champion, 1, canary, weight, 7, KEY, blind=blind), champion, canary


def test_an_episode_is_answered_by_the_arm_that_its_name_falls_on() -> None:
    now, champion, canary = served(0.2)
    for n in range(1000):
        arm, predictor = now.assign(f"episode-{n}")
        assert arm == arm_of(KEY, f"episode-{n}", 0.2)
        assert predictor is (canary if arm else champion)


def test_a_client_stays_on_one_version_and_others_get_their_share() -> None:
    now, _, canary = served(0.2)
    assert len({id(now.choose("a client")) for _ in range(50)}) == 1
    assert 100 < sum(now.choose(None) is canary for _ in range(1000)) < 300


def test_without_a_canary_the_champion_answers_all() -> None:
    champion: Any = object()
    assert Served(champion=champion).choose("x") is champion
    assert Served(champion=champion).assign("x") == (0, champion)
    assert Served().choose(None) is None


def test_the_faces_of_both_arms_are_one_while_a_trial_is_blind() -> None:
    now, champion, canary = served(0.2, blind=True)
    assert now.face(champion) == now.face(canary)
    assert now.face(champion).fields == b',"generation":1,"route":"trial"'
    told, champion, canary = served(0.2)
    assert b'"version":2' in told.face(canary).fields
    assert told.face(champion) != told.face(canary)


def test_only_another_interface_asks_for_both_observations() -> None:
    """A layout that an older version did not write down is no other interface."""
    flat = {"observation_size": 2, "action_kind": "discrete"}
    named = {**flat, "layout": {"leaves": [{"path": [], "kind": "box", "shape": [1, 2]}]}}
    larger = {**flat, "observation_size": 3}

    def asked(champion: dict[str, Any], canary: dict[str, Any]) -> frozenset[str]:
        one, two = (
            type("P", (), {"version": n, "interface": key_of(face), "face": face})()
            for n, face in ((1, champion), (2, canary))
        )
        return Served(one, 1, canary=two, weight=0.5, epoch=7).asked

    assert asked(flat, flat) == asked(flat, named) == frozenset()
    assert asked(flat, larger) == {key_of(larger), "2"}


def test_a_window_after_a_successor_asks_for_both_observations() -> None:
    """The predecessor that keeps a share of episodes sees other things than the champion."""
    old: Any = type("P", (), {"version": 1, "interface": "a", "face": {"observation_size": 2}})()
    new: Any = type("P", (), {"version": 2, "interface": "b", "face": {"observation_size": 3}})()
    now = Served(new, 2, held=old, weight=0.5, epoch=9, key=KEY)
    assert now.asked == {"b", "2"}
    names = [f"episode-{n}" for n in range(50)]
    assert {now.assign(name, now.able([]))[1] for name in names} == {new}
    assert {now.assign(name, now.able(["b"], plain=False))[1] for name in names} == {new}
    assert {now.assign(name, now.able(["b"]))[1] for name in names} == {old, new}
    assert {now.assign(name, now.able(["1", "2"], plain=False))[1] for name in names} == {old, new}
