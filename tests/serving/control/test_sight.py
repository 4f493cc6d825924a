"""The observation score: the champion's observations beside those of the sandbox; advice only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.control.samples import step_of
from serving.control.sight import AGAIN, BASELINE, FEWEST, Sight, window
from serving.control.watch import Watch
from serving.registry.ledger import Ledger
from serving.registry.records import Champion, Start, Who
from serving.registry.samples import Sample, keep
from srghn.config import CanaryParams
from srghn.inference.whereabouts import farthest, quantiles

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
    found, names = [], [f"{seed}-{n}" for n in range(count)]
    begin(ledger, *names, **of)
    for n in range(count):
        name = names[n]
        row = draws.normal([0.0, shift], 1.0).astype("<f4")
        at = step_of(name)
        place = {"version": 1, "generation": 1, **of}
        found.append(Sample(episode=name, step=at, at=0.0, observation=row.tobytes(), **place))
        far = np.full(2, 99.0, "<f4").tobytes()  # the one after it is none of the score's
        found.append(Sample(episode=name, step=at + 1, at=0.0, observation=far, **place))
        ledger.record_outcome("policy", name, 450.0, at + 2, True)
    keep(ledger.database(), "policy", found, 10_000)


def begin(ledger: Ledger, *names: str, version: int = 1, generation: int = 1) -> None:
    ledger.start_episodes(
        [
            Start(name, version, generation=generation, started_at=1.0, deadline=9e9)
            for name in names
        ]
    )


def test_observations_that_stand_still_and_some_that_move(
    ledger: Ledger, champion: Champion
) -> None:
    now = [1.0]
    sight = Sight(ledger, "policy", lambda: now[0])
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
    assert sight.score(champion) is still  # a busy server would compare at every look
    now[0] += AGAIN
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


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_right_after_a_promotion_observations_of_early_steps_are_no_move(
    ledger: Ledger, champion: Champion, shift: float
) -> None:
    """An element grows with the step, in service as in the sandbox; 200 clients begin at once."""
    draws = np.random.default_rng(7)

    def observe(name: str, more: float = 0.0) -> np.ndarray:
        return draws.normal([0.01 * step_of(name) + more], 1.0).astype("<f4")

    rows = np.stack([observe(f"sandbox-{n}") for n in range(400)])
    said = {"generation": champion.generation, "count": 400}
    ledger.note(BASELINE, {**said, "quantiles": quantiles(rows).tolist()}, who=ANN)
    before = Sample(7, 0, "before", 0, 0.0, rows[0].tobytes())  # of an earlier champion
    keep(ledger.database(), "policy", [before], 10_000)
    now, told, length = [0.0], {}, 500
    sight = Sight(ledger, "policy", lambda: now[0])
    for tick in range(0, 1250, 50):
        fresh = [f"{tick}-{n}" for n in range(200)] if tick % length == 0 else []
        begin(ledger, *fresh)
        for name in (f"{tick - length}-{n}" for n in range(200) if fresh and tick):
            ledger.record_outcome("policy", name, 450.0, length, True)
        began = tick - tick % length
        found = [
            Sample(1, 1, name, step_of(name), 1.0 + tick, observe(name, shift).tobytes())
            for name in (f"{began}-{n}" for n in range(200))
            if tick - began <= step_of(name) < tick - began + 50
        ]
        keep(ledger.database(), "policy", sorted(found, key=lambda each: each.step), 10_000)
        now[0] = float(tick)
        told[tick] = sight.score(champion)
    assert told[0] is None  # 100 and more observations, all of early steps
    looks = [score for score in told.values() if score is not None]
    assert len(looks) >= 15
    assert [score.moved for score in looks] == [shift > 0] * len(looks)
    assert all(score.count >= FEWEST for score in looks)


def test_observations_that_are_to_come_make_the_score_careful() -> None:
    there, gone = [True] * 100, [False] * 100
    assert window(there, gone) == (slice(0, 100), 0.0)
    assert window(there[:49], gone[:49]) is None
    assert window([False, *there], [True, *gone]) == (slice(0, 101), pytest.approx(1 / 101))
    assert window([False] * 50 + there, [True] * 50 + gone) == (slice(45, 150), 5 / 105)
    assert window([False, *there], [False, *gone]) == (slice(0, 101), 0.0)  # it ended before
    assert window(there * 3, gone * 3) == (slice(0, 200), 0.0)
    rows, kept = np.zeros((100, 1)), np.linspace(-1.0, 1.0, 101)[None]
    moved, careful = (farthest(rows, kept, 400, unseen) for unseen in (0.0, 0.2))
    assert (moved.distance, moved.dimension) == (careful.distance, careful.dimension)
    assert moved.p < careful.p


def test_quantiles_of_an_earlier_champion_say_nothing(ledger: Ledger, champion: Champion) -> None:
    frozen(ledger, champion.generation - 1)
    see(ledger, 200, 1.0, 4)
    assert Sight(ledger, "policy").score(champion) is None
