"""The soak's program, in short minutes; `make soak` takes twenty real ones."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.benchmarks.soak import problems
from tests.serving.soaking import Minute, Soak, soak
from tests.serving.test_serving_process import ready, wait_for

pytestmark = pytest.mark.services


def test_nothing_is_dropped_at_the_end_and_every_minute_is_told(home: Any, running: Any) -> None:
    home.first()
    with running(home) as (url, process):
        wait_for(ready(url))
        found = asyncio.run(soak(url, process, minutes=3, seconds=1.0, share=0.5, connections=4))
    assert (found.dropped, found.code) == (0, 0)
    assert found.under_way > 0
    assert len(found.minutes) == 3
    for minute in found.minutes:
        assert minute.answers > 0
        assert minute.wrong == 0
        assert 20 < minute.memory < 1000
    assert home.ledger.verify()


def test_what_is_wrong_would_be_told() -> None:
    def minute(number: int, memory: float, p99: float, wrong: int = 0) -> Minute:
        return Minute(number, 100, wrong, p99, memory, 1.0)

    good = [minute(n, 100.0, 5.0) for n in range(1, 8)]
    assert problems(Soak(10.0, good, 0, 3, 0)) == []
    assert len(problems(Soak(10.0, [*good, minute(8, 103.0, 5.0)], 0, 3, 0))) == 1
    assert len(problems(Soak(10.0, [*good, minute(8, 100.0, 7.0)], 0, 3, 0))) == 1
    assert len(problems(Soak(10.0, [*good, minute(8, 100.0, 5.0, 1)], 1, 3, 1))) == 3
