"""The detector: quiet while the promise holds, quick when it does not, and it forgets."""

from __future__ import annotations

import json

import numpy as np
import pytest

from srghn.inference.detect import Detector, mirrored

LIMIT = 1000.0


def noise(rng: np.random.Generator, mean: float, n: int) -> np.ndarray:
    return np.clip(mean + rng.normal(0, 0.05, n), 0, 1)


def test_values_at_the_promised_mean_pass_the_promised_number_before_a_false_alarm() -> None:
    rng, waits = np.random.default_rng(0), []
    for _ in range(60):
        coin = (rng.random(6000) < 0.7).astype(float)
        waits.append(Detector(0.7, "fall").until(coin, 200.0)[1] or 6000)
    assert np.mean(waits) >= 200


def test_a_detector_with_a_bet_that_wins_by_chance_would_be_caught() -> None:
    """The test above can fail: values just below the promise end the wait much earlier."""
    rng = np.random.default_rng(0)
    waits = [
        Detector(0.7, "fall").until((rng.random(6000) < 0.4).astype(float), 200.0)[1] or 6000
        for _ in range(60)
    ]
    assert np.mean(waits) < 50


@pytest.mark.parametrize(("fallen", "within"), [(0.02, 8), (0.4, 12), (0.8, 35)])
def test_falls_are_seen_soon_after_many_good_episodes(fallen: float, within: int) -> None:
    rng = np.random.default_rng(1)
    good, alarm = Detector(0.94, "fall").until(noise(rng, 0.99, 20_000), LIMIT)
    assert alarm is None
    found = good.until(noise(rng, fallen, 200), LIMIT)[1]
    assert found is not None
    assert found <= within


def test_recovery_is_the_mirror_image() -> None:
    values = np.random.default_rng(2).random(50)
    fall = Detector(0.3, "fall").update(values)
    rise = Detector(0.7, "recovery").update(1 - values)
    assert fall.level == pytest.approx(rise.level)
    watching = mirrored(fall, 0.9)
    assert (watching.side, watching.n, watching.level) == ("recovery", 0, 0.0)
    assert watching.until(np.full(400, 0.99), LIMIT)[1] is not None
    assert watching.until(np.full(400, 0.85), LIMIT)[1] is None


def test_batches_are_the_same_as_one_by_one_and_survive_json() -> None:
    values = np.random.default_rng(3).random(60)
    once, slowly = Detector(0.5, "fall").update(values), Detector(0.5, "fall")
    for value in values:
        slowly = Detector.from_json(json.loads(json.dumps(slowly.update([value]).to_json())))
    assert once == slowly
    assert once.reset() == Detector(0.5, "fall")


@pytest.mark.parametrize("side", ["fall", "recovery"])
def test_what_is_to_come_raises_the_level_whatever_it_is_and_if_it_never_comes(side: str) -> None:
    rng = np.random.default_rng(5)
    start = Detector(0.4, "fall" if side == "fall" else "recovery")
    values, unknown = rng.random(40), rng.random(40) < 0.3
    unknown[:5], unknown[5:25] = True, False  # those that come to nothing leave R at 0
    marks = unknown.tolist()
    least = start.until(values, 1e9, marks)[0].level
    for chance in (0.0, 1.0, *rng.random(200)):
        ended = np.where(unknown, rng.choice([0.0, 1.0, rng.random()], 40), values)
        came = ~unknown | (rng.random(40) < chance)
        assert start.update(ended[came]).level >= least * (1 - 1e-12)
    assert start.until(np.where(unknown, 0.5, values), 1e9, marks)[0].level == least
    assert least > 0


def test_it_neither_overflows_nor_takes_what_is_outside() -> None:
    assert np.isfinite(Detector(0.5, "fall").update(np.zeros(10_000)).level)
    for bad in (np.nan, -0.1, 1.5):
        with pytest.raises(ValueError, match="values in"):
            Detector(0.5, "fall").update([bad])
    with pytest.raises(ValueError, match="within"):
        Detector(1.0, "fall")
