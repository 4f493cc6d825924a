"""The program that counts right diagnoses diagnoses as service does."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.lab import diagnosing
from pipelines.lab.diagnosing import Sandbox, World


def test_a_diagnosis_of_the_table_is_one_of_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same comparison and conclusion, on samples that stand for play."""
    draws = np.random.default_rng(0)

    def sample(candidate: object, world: World, count: int, seed: int) -> diagnosing.Sample:
        level = 9.0 if world.mode == "flipped" else 400.0
        level += 100.0 * bool(world.moved)
        pairs = np.stack([draws.normal(level, 3, count)] * 2, axis=1)
        return diagnosing.Sample(pairs, draws.normal(level, 3, (count, 3)))

    monkeypatch.setattr(diagnosing, "sample", sample)
    pinned = [World("", "normal"), World("", "flipped")]
    pools = {each: sample(None, each, diagnosing.POOL, 0) for each in pinned}
    sandbox = Sandbox(None, pools)  # type: ignore[arg-type]
    known = diagnosing.shift(sandbox, pinned[1], 1)
    assert (known["diagnosis"], known["named"], known["right"]) == (
        "known",
        "as it is flipped",
        True,
    )
    strange = diagnosing.shift(sandbox, World("gravity:9", "flipped"), 2)
    assert (strange["diagnosis"], strange["named"], strange["right"]) == ("none", "", True)
