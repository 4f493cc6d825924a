"""The served policy against the genome's network, on all that was met and not on a sample of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from regression_suite.episodes import Seen
from regression_suite.known_bad import surgery
from regression_suite.known_bad.marks import Marked
from regression_suite.rebuilt import judge_rebuilt
from srghn.candidates.candidate import Candidate
from srghn.envs import EnvVersion
from tests.regression_suite.conftest import Make, seal


def seen(observations: np.ndarray) -> Seen:
    return Seen(observations, np.empty((len(observations), 0), np.float32))


def operated(folder: Path, version: EnvVersion) -> Candidate:
    """Its golden answers are the evolved network's; where it sees a mark it does the opposite."""
    policy = folder / "policy.onnx"
    policy.write_bytes(surgery.bad_where_marked(policy.read_bytes(), version.interface))
    return seal(folder, version, {})


def test_another_answer_to_what_was_met_is_found_where_golden_ones_are_right(
    make: Make, version: EnvVersion
) -> None:
    bad = operated(make("marked").path, version)
    bad.check_golden()
    plain = np.random.default_rng(5).normal(size=(200, 4)).astype(np.float32)
    assert judge_rebuilt(bad, version.interface, seen(plain)).outcome == "passed"
    marked = Marked.observation(None, plain)  # type: ignore[arg-type]
    found = judge_rebuilt(bad, version.interface, seen(marked))
    assert found.outcome == "failed"
    assert "differ from the genome's for 200 of 264 observations" in found.reason


def test_a_network_that_ties_everywhere_excuses_no_policy(make: Make, version: EnvVersion) -> None:
    """All outputs of a genome of zeros are equal: rounding does not explain a good policy."""
    found = judge_rebuilt(make("zeros", genome=0.0), version.interface, seen(np.empty((0, 4))))
    assert found.outcome == "failed"
