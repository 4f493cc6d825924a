"""Swaps under load with a worker killed: only 200, one generation an answer, no episode moved."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.swapping import Seen, problems, swap

pytestmark = pytest.mark.services


def test_swaps_under_load_with_a_worker_killed_show_nothing_but_answers(
    home: Any, running: Any
) -> None:
    """`make swaps` does 100 under 32 connections."""
    seen = swap(home, running, swaps=4, connections=8)
    assert problems(seen, 8) == []
    assert set(seen.champions) == {1, 2, 3, 4, 5}
    assert seen.episodes > 8
    assert seen.across  # some episodes went on over a swap, on the version that they began with
    assert home.ledger.verify()


def test_what_is_wrong_would_be_found() -> None:
    seen = Seen(cut=9)
    seen.codes.update([200, 503])
    seen.champions[3] |= {3, 4}
    assert len(problems(seen, 8)) == 3
