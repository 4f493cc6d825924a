"""The observation score: the champion's observations beside those of the sandbox; advice only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.control.samples import step_of
from serving.control.sight import BASELINE, FEWEST, Sight
from serving.control.watch import Watch
from serving.registry.ledger import Ledger
from serving.registry.records import Champion, Who
from serving.registry.samples import Sample, keep
from srghn.config import CanaryParams
from srghn.inference.whereabouts import quantiles

ANN = Who("ann", "because")


@pytest.fixture
def champion(ledger: Ledger, steps: Any) -> Champion:
    version = steps.register(
        manifest={"canary": CanaryParams(return_low=0.0, return_high=500.0).model_dump()}
    )
    steps.begin(version)
    steps.judge(version, promise=0.8)
    steps.approve(version)
    ledger.promote(version, expected_generation=0, who=ANN)
    found = ledger.champion()
    assert found is not None
    return found


def frozen(ledger: Ledger, generation: int) -> None:
    """Quantiles of two elements around zero."""
    rows = np.random.default_rng(0).normal(0, 1, (400, 2))
    said = {"generation": generation, "count": 400, "quantiles": quantiles(rows).tolist()}
    ledger.note(BASELINE, said, who=ANN)


def see(ledger: Ledger, count: int, shift: float, seed: int, **of: int) -> None:
    draws = np.random.default_rng(seed)
    found = []
    for n in range(count):
        name = f"{seed}-{n}"
        row = draws.normal([0.0, shift], 1.0).astype("<f4")
        at = step_of(name)
        place = {"version": 1, "generation": 1, **of}
        found.append(Sample(episode=name, step=at, at=0.0, observation=row.tobytes(), **place))
        far = np.full(2, 99.0, "<f4").tobytes()  # the one after it is none of the score's
        found.append(Sample(episode=name, step=at + 1, at=0.0, observation=far, **place))
    keep(ledger.database(), "policy", found, 10_000)


def test_observations_that_stand_still_and_some_that_move(
    ledger: Ledger, champion: Champion
) -> None:
    sight = Sight(ledger, "policy")
    assert sight.score(champion) is None
    see(ledger, FEWEST, 0.0, 1)
    assert sight.score(champion) is None  # nobody looked at the sandbox yet
    frozen(ledger, champion.generation)
    see(ledger, 10, 9.0, 2, version=7)  # of a version on trial
    see(ledger, 10, 9.0, 3, generation=7)
    still = sight.score(champion)
    assert still is not None
    assert (still.count, still.moved) == (FEWEST, False)
    assert "are where they were" in still.words
    see(ledger, 200, 1.0, 4)
    moved = sight.score(champion)
    assert moved is not None
    assert (moved.count, moved.moved, moved.dimension) == (200, True, 1)
    assert "moved: element 1 by 0." in moved.words


def test_it_is_advice_and_no_alarm(ledger: Ledger, champion: Champion) -> None:
    frozen(ledger, champion.generation)
    see(ledger, 200, 1.0, 4)
    before = len(ledger.events())
    watch = Watch(ledger)
    watch.look()
    seen = watch.view()
    assert seen.status == "steady"
    assert seen.observations is not None
    assert seen.observations.moved
    assert len(ledger.events()) == before


def test_quantiles_of_an_earlier_champion_say_nothing(ledger: Ledger, champion: Champion) -> None:
    frozen(ledger, champion.generation - 1)
    see(ledger, 200, 1.0, 4)
    assert Sight(ledger, "policy").score(champion) is None
