"""Observations kept for diagnoses: two in a row an episode, bounded, off by setting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import numpy as np
import pytest

from serving.control.samples import OCTAVES, Samples, in_pairs, step_of
from serving.registry.ledger import Ledger
from serving.registry.samples import kept
from serving.trial.tokens import Episode


def episode(name: str, steps: int, **more: Any) -> Episode:
    return Episode(name, "policy", 1, 0, 1, None, 1, 0.0, steps=steps, **more)


def test_steps_are_spread_over_octaves() -> None:
    """Each octave has its share, so that short episodes are seen, and long ones, too."""
    octaves = Counter(int(np.log2(1 + step_of(f"e{n}"))) for n in range(9000))
    assert set(octaves) == set(range(OCTAVES))
    assert all(800 < count < 1200 for count in octaves.values())


def test_two_observations_of_an_episode_are_kept(ledger: Ledger) -> None:
    samples = Samples(ledger, "policy", 100)
    at = step_of("e")
    for steps in range(at + 4):
        samples.offer(episode("e", steps), [float(steps), 0.5])
    samples.offer(episode("e", at, moved=True), [0.0, 0.0])  # of two versions: of neither
    samples.flush()
    samples.flush()
    found, following = kept(ledger.database(), "policy")
    assert (found.version, found.generation, found.episode, found.step) == (1, 1, "e", at)
    assert found.values.tolist() == [float(at), 0.5]
    assert following.values.tolist() == [float(at + 1), 0.5]
    assert in_pairs([following, found]) == {"e": (found, following)}
    assert in_pairs([found]) == {"e": (found, None)}
    assert in_pairs([following]) == {}  # of a pair whose first is forgotten
    assert kept(ledger.database(), "policy", ["another"]) == []
    assert kept(ledger.database(), "other") == []


def test_the_latest_stay(ledger: Ledger) -> None:
    samples = Samples(ledger, "policy", 10)
    for n in range(25):
        samples.offer(episode(f"e{n}", step_of(f"e{n}")), [float(n)])
        samples.flush()
    assert [each.episode for each in kept(ledger.database(), "policy")] == [
        f"e{n}" for n in range(15, 25)
    ]


def test_samples_that_wait_are_bounded_by_their_bytes_too(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.control.samples.WAITING_BYTES", 10 * 4000)
    samples = Samples(ledger, "policy", 100)
    for n in range(25):
        samples.offer(episode(f"e{n}", step_of(f"e{n}")), [float(n)] * 1000)
    samples.flush()
    assert [each.episode for each in kept(ledger.database(), "policy")] == [
        f"e{n}" for n in range(15, 25)
    ]


def test_none_is_kept_where_the_setting_says_so(ledger: Ledger) -> None:
    samples = Samples(ledger, "policy", 0)
    samples.offer(episode("e", step_of("e")), [1.0])
    samples.flush()
    assert kept(ledger.database(), "policy") == []


def test_what_cannot_be_written_is_dropped_and_nothing_stops(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    with ledger.database().write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON samples BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    samples = Samples(ledger, "policy", 10)
    samples.offer(episode("e", step_of("e")), [1.0])
    samples.flush()
    assert "1 observations were not kept" in caplog.text
    samples.flush()


def test_the_server_keeps_what_it_was_asked(
    home: Any, running: Callable[..., AbstractContextManager[Any]]
) -> None:
    home.first()
    with running(home) as (url, _), httpx.Client(base_url=url) as client:
        for n in range(12):
            token: dict[str, str] = {}
            for step in range(step_of(f"s{n}") % 40 + 1):
                body = {"episode_id": f"s{n}", "observation": [step, 0, 0, n], **token}
                token = {"token": client.post("/v1/act", json=body).json()["token"]}
    found = kept(home.ledger.database(), "policy")
    expected = {f"s{n}" for n in range(12) if step_of(f"s{n}") < 40}
    assert {each.episode for each in found} == expected
    assert len(expected) > 3
    for each in found:
        assert each.values.tolist() == [each.step, 0.0, 0.0, float(each.episode[1:])]
