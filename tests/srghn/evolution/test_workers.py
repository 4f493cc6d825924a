"""A run's bytes do not depend on who plays its episodes, and workers are sent seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from srghn.config import EngineSettings, RunParams, with_overrides
from srghn.envs import pin
from srghn.evaluation.base import Evaluation, Policies, WeightedPolicies, make_evaluator
from srghn.evaluation.engines.processes import ProcessEvaluator
from srghn.evolution import evolve
from srghn.files import sha256_file

STRATEGIES = ("self-referential", "self-adaptive-ga", "immigrants")


def digests(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in files}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_worker_processes_give_the_bytes_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    sent: list[WeightedPolicies] = []
    played = ProcessEvaluator.evaluate

    def listen(self: ProcessEvaluator, policies: Policies, *rest: object) -> Evaluation:
        assert isinstance(policies, WeightedPolicies)
        sent.append(policies)
        return played(self, policies, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ProcessEvaluator, "evaluate", listen)
    params = with_overrides(
        RunParams(),
        [
            f"evolution.strategy={strategy}",
            "evolution.generations=3",
            "evolution.parents=3",
            "evolution.children=2",
            "evolution.episodes=2",
        ],
    )
    world = pin(params.env)
    for engine in ("inprocess", "processes"):
        settings = EngineSettings(engine=engine, workers=2)
        with make_evaluator(settings, world, params.network) as evaluator:
            evolve(params, world, evaluator, tmp_path / engine)
    assert digests(tmp_path / "inprocess") == digests(tmp_path / "processes")
    by_seeds = {policies.recipe is not None for policies in sent}
    assert by_seeds == {strategy != "immigrants"}
