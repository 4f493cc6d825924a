"""A candidate that keeps a declared state goes through the whole gate."""

from __future__ import annotations

from pathlib import Path

from regression_suite.gate import judge
from srghn.candidates.individual import freeze_founder
from srghn.config import EvolutionParams, NetworkParams, RunParams
from srghn.envs import EnvVersion
from srghn.evaluation.base import make_backend
from srghn.evolution.loop import evolve
from srghn.evolution.run import load_run
from tests.regression_suite.conftest import QUICK


def test_its_memory_is_played_timed_filmed_and_made_again(
    tmp_path: Path, version: EnvVersion
) -> None:
    """It sees three observations at a time; a recurrent cell's state goes the same way."""
    params = RunParams(
        env=version.params,
        network=NetworkParams(stack=3, kwargs={"hidden": []}),
        evolution=EvolutionParams(strategy="ga", generations=2, parents=2, children=2, episodes=2),
    )
    with make_backend("gymnasium", version, params.network) as evaluator:
        evolve(params, version, evaluator, tmp_path / "run")
    candidate = freeze_founder(load_run(tmp_path / "run"), tmp_path / "candidate", "normal")
    assert candidate.policy().state_size > 0
    rules = QUICK.model_copy(
        update={"min_return": 5.0, "min_cell_return": 5.0, "failure_return": 1.0}
    )
    verdict = judge(
        candidate.path,
        version,
        "normal",
        rules,
        tmp_path / "out",
        incumbent_dir=None,
        run_dir=tmp_path / "run",
    )
    outcomes = {check.name: check.outcome for check in verdict.checks}
    for name in ("primary", "policy of the genome", "latency", "lineage", "same twice"):
        assert outcomes[name] == "passed", (name, verdict.summary)
