"""Episodes that are no evidence are told to the ledger a bounded number at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from serving.control.episodes import TOLD, Episodes
from serving.control.follower import Follower
from serving.limits import Limits
from serving.metrics import Metrics
from serving.registry.faults import LedgerUnreachable
from serving.registry.groups import Spoilt
from serving.registry.records import Start
from serving.registry.schema import POLICY


class Away:
    """Episodes whose ledger is away until `back` is set; `told` are the names of each write."""

    def __init__(self, home: Any, pins: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.back, self.told = False, list[tuple[str, ...]]()
        limits, self.metrics = Limits(pins=pins), Metrics(POLICY)
        self.follower = Follower(home.ledger, home.store, self.metrics, limits)
        self.follower.poll()
        write = Episodes._write

        def late(episodes: Episodes, items: Sequence[Any]) -> Any:
            if not self.back:
                raise LedgerUnreachable("it is away")
            self.told += [item.names for item in items if isinstance(item, Spoilt)]
            return write(episodes, items)

        monkeypatch.setattr(Episodes, "_write", late)
        self.episodes = Episodes(home.ledger, self.follower, self.metrics, limits, POLICY)

    async def begin(self, count: int) -> None:
        begun = (self.episodes.begin(self.follower.served, f"e{n}", True) for n in range(count))
        await asyncio.gather(*begun)

    def close(self) -> None:
        self.episodes.close()
        self.follower.close()


def begun_before(home: Any, count: int) -> None:
    """Their starts, as another worker wrote them."""
    home.ledger.start_episodes([Start(f"e{n}", 1) for n in range(count)])


def moved(home: Any, count: int) -> int:
    return sum(home.ledger.find_episode(f"e{n}").moved for n in range(count))


def test_when_the_ledger_is_back_it_is_told_in_many_short_transactions(
    home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 3 * TOLD
    home.first()
    begun_before(home, count)
    monkeypatch.setattr("serving.control.episodes.AGAIN", 0.05)
    away = Away(home, 10_000, monkeypatch)

    async def play() -> None:
        await away.begin(count)
        away.back = True
        for _ in range(200):
            if not away.episodes._untold:
                return
            await asyncio.sleep(0.05)

    asyncio.run(play())
    assert max(map(len, away.told)) == TOLD
    assert moved(home, count) == count
    away.close()


def test_a_worker_that_stops_tells_the_rest_in_short_transactions(
    home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 2 * TOLD + 1
    home.first()
    begun_before(home, count)
    away = Away(home, 10_000, monkeypatch)
    asyncio.run(away.begin(count))
    away.back = True
    away.close()
    assert max(map(len, away.told)) == TOLD  # a name that was on its way may be told twice
    assert {name for names in away.told for name in names} == {f"e{n}" for n in range(count)}
    assert moved(home, count) == count


def test_no_more_wait_to_be_told_than_a_worker_remembers(
    home: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home.first()
    away = Away(home, 10, monkeypatch)
    counter = away.metrics.counts
    with caplog.at_level(logging.ERROR):
        asyncio.run(away.begin(25))
    assert list(away.episodes._untold) == [f"e{n}" for n in range(15, 25)]
    lost = [line for line in caplog.messages if "may count that should not" in line]
    assert len(lost) == 15
    assert lost[0].startswith("episode e0 may count")
    assert counter.total().counter("ledger_errors") >= 25 + 15
    away.close()
