"""A candidate that keeps a declared state goes through the whole gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from regression_suite.gate import judge
from regression_suite.known_bad import trial
from regression_suite.known_bad.makers import KNOWN_BAD, Work
from srghn.config import NetworkParams
from srghn.envs import EnvVersion
from tests.regression_suite.conftest import QUICK, founder_in

STACK = NetworkParams(stack=3, kwargs={"hidden": []})
RECURRENT = NetworkParams(module="srghn.policies:GRU", kwargs={"width": 4})
RULES = QUICK.model_copy(update={"min_return": 5.0, "min_cell_return": 5.0, "failure_return": 1.0})


def test_its_memory_is_played_timed_filmed_and_made_again(
    tmp_path: Path, version: EnvVersion
) -> None:
    """It sees three observations at a time; a recurrent cell's state goes the same way."""
    candidate = founder_in(tmp_path, version, STACK)
    assert candidate.policy().state_size > 0
    verdict = judge(
        candidate.path,
        version,
        "normal",
        RULES,
        tmp_path / "out",
        incumbent_dir=None,
        run_dir=tmp_path / "run",
    )
    outcomes = {check.name: check.outcome for check in verdict.checks}
    for name in ("primary", "policy of the genome", "latency", "lineage", "same twice"):
        assert outcomes[name] == "passed", (name, verdict.summary)


@pytest.mark.parametrize("network", [STACK, RECURRENT], ids=["stack", "recurrent"])
def test_another_memory_beside_its_genome_is_refused(
    tmp_path: Path, version: EnvVersion, network: NetworkParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each state that it was in, it acts as the genome's network would: it came to others."""
    only = [bad for bad in KNOWN_BAD if bad.name == "other memory"]
    monkeypatch.setattr(trial, "KNOWN_BAD", only)
    work = Work(founder_in(tmp_path, version, network), version, "normal", RULES)
    row = trial.try_gate(work, tmp_path / "run", tmp_path / "scratch")[1]
    assert row.right, row
    assert "next states differ from the genome's" in row.why
