"""Guards of errors, invalid actions and latency: valid at every look, and quick to see harm."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import pytest

from serving.trial.compared import Compared, Given, Posted, within_shares
from serving.trial.guards import broken
from serving.trial.rules import GuardTerms

TERMS = GuardTerms()


def test_a_version_that_always_fails_is_found_within_some_copies() -> None:
    assert broken(Compared(copies=8, errors=8), TERMS) is None
    found = broken(Compared(copies=13, errors=13), TERMS)
    assert found is not None
    assert found.name == "errors"
    assert "failed on 13 of 13 copies" in found.said


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        (Compared(copies=20, invalid=20), "invalid actions"),
        (Compared(copies=20, timed=20, slower=20), "latency"),
        (Compared(copies=20_000, errors=40), "errors"),
    ],
)
def test_each_guard_breaks_by_its_own_name(seen: Compared, name: str) -> None:
    found = broken(seen, TERMS)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    "seen",
    [
        Compared(copies=10_000),
        Compared(copies=10_000, errors=300, champion_errors=300),
        Compared(copies=10_000, timed=10_000, slower=5000),
        Compared(copies=10_000, champion_errors=10_000),
    ],
)
def test_what_happens_to_both_alike_breaks_none(seen: Compared) -> None:
    assert broken(seen, TERMS) is None


@pytest.mark.parametrize("kind", ["errors", "slower"])
def test_a_version_that_is_no_worse_is_ended_seldom_however_often_one_looks(kind: str) -> None:
    """5,000 streams of 400 copies, looked at after each: at most one guard's share of alpha."""

    def is_broken(up: int, n: int) -> bool:
        counts = {"errors": up, "champion_errors": n - up} if kind == "errors" else {"slower": up}
        return broken(Compared(copies=n, timed=n, **counts), TERMS) is not None

    looks = np.arange(1, 401)
    fatal = [bisect_left(range(n + 1), True, key=lambda up, n=n: is_broken(up, n)) for n in looks]
    steps = np.random.default_rng(0).choice([0, 1], size=(5000, 400))
    ended = (np.cumsum(steps, axis=1) >= np.array(fatal)).any(axis=1).mean()
    share = TERMS.alpha / 3
    assert 0 < ended <= share + 3 * np.sqrt(share / 5000)


FAILED, SLOW = Compared(copies=1, invalid=1), Compared(copies=1, timed=1, slower=1)
FINE = Compared(copies=1, timed=1)


def shared(copies: list[Posted], share: float, workers: int = 3) -> Compared:
    """The copies as several workers add them, ten at a time."""
    total, given = Compared(), dict[str, dict[str, int]]()
    state: Given = given
    for start in range(0, len(copies), 10 * workers):
        for worker in range(workers):
            part = copies[start + worker : start + 10 * workers : workers]
            seen, state = within_shares(part, state, share)
            total += seen
    return total


@pytest.mark.parametrize("bad", [FAILED, SLOW])
@pytest.mark.parametrize("honest", [0, 10, 1000])
def test_no_caller_alone_breaks_a_guard(bad: Compared, honest: int) -> None:
    """One that was let in broke it with 12 observations, however many others had seen no fault."""
    others = [Posted(FINE, f"client {n % 40}") for n in range(honest)]
    flood = [Posted(bad, "mallory")] * 1000
    mixed = [one for pair in zip(others, flood, strict=False) for one in pair]
    for copies in ([*others, *flood], [*flood, *others], [*mixed, *flood]):
        assert broken(shared(copies, 0.05), TERMS) is None
    assert broken(shared(flood, 1.0), TERMS) is not None


def test_what_every_caller_sees_breaks_a_guard_as_soon_as_without_a_cap() -> None:
    seen = shared([Posted(FAILED, f"client {n}") for n in range(13)], 0.05)
    assert broken(seen, TERMS) is not None
    assert within_shares([Posted(FAILED)] * 13, {}, 0.05)[0].invalid == 13  # no token, no cap


@pytest.mark.parametrize("bad", [FAILED, SLOW])
@pytest.mark.parametrize(("tokens", "ended"), [(0, True), (19, True), (20, False), (200, False)])
def test_callers_without_a_token_are_one_where_tokens_are_enough(
    bad: Compared, tokens: int, ended: bool
) -> None:
    """Where few or none have tokens they are all that a guard has."""
    others = [Posted(FINE, f"client {n}") for n in range(tokens)]
    seen = shared([*others, *[Posted(bad)] * 1000], 0.05)
    assert (broken(seen, TERMS) is not None) is ended
    seen = shared([*others, *[Posted(FAILED, one.poster) for one in others]], 0.05)
    assert (broken(seen, TERMS) is not None) is (tokens >= 12)


def test_slow_is_by_ratio_and_slack() -> None:
    terms = GuardTerms(latency=2, slack_ms=1)
    assert not terms.slow(0.0009, 0.00001)  # a difference that nobody notices
    assert terms.slow(0.0042, 0.0015)
    assert not terms.slow(0.0038, 0.0015)


def test_counts_of_workers_add_up() -> None:
    one = Compared(copies=3, differed=1, timed=2, seconds=0.2, champion_seconds=0.1)
    both = one + one
    assert (both.copies, both.differed, both.disagreement) == (6, 2, 0.5)
    assert both.latency_ratio == 2
    assert Compared().to_json()["disagreement"] is None
