"""Evaluation of one population as the policies of several networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from srghn.config import EngineSettings, RunParams
from srghn.errors import EvaluationError, expect
from srghn.evaluation.base import (
    Evaluation,
    Evaluator,
    Policies,
    Progress,
    SeveralPolicies,
    make_evaluator,
)
from srghn.evaluation.task import Task

if TYPE_CHECKING:
    from srghn.envs.version import EnvVersion


def make_run_evaluator(
    settings: EngineSettings, version: EnvVersion, params: RunParams
) -> Evaluator:
    """The evaluator that a run with these parameters needs: of its network, or of all of them."""
    expect(params, RunParams, "params", "make_evaluator is for one network")
    each = [make_evaluator(settings, version, network) for network in params.networks]
    return each[0] if len(each) == 1 else SeveralNetworks(each)


class SeveralNetworks(Evaluator):
    """Every individual plays the task's seeds once with each network.

    `evaluators` are those of the networks, in the order of `RunParams.networks`; each keeps workers
    of its own. Policies of one network alone are played by the first.
    """

    def __init__(self, evaluators: Sequence[Evaluator]) -> None:
        self.evaluators = tuple(evaluators)
        self.remote = self.evaluators[0].remote

    def evaluate(
        self, policies: Policies, task: Task, progress: Progress | None = None
    ) -> Evaluation:
        """Returns (individuals, networks * episodes), the episodes of each network in turn."""
        if not isinstance(policies, SeveralPolicies):
            return self.evaluators[0].evaluate(policies, task, progress)
        if len(policies.parts) != len(self.evaluators):
            raise EvaluationError(
                f"this evaluator was made for {len(self.evaluators)} networks, got policies of "
                f"{len(policies.parts)}; make it with srghn.make_run_evaluator and the run's "
                "parameters"
            )
        played = [
            evaluator.evaluate(part, task, _part_of(progress, k, len(self.evaluators)))
            for k, (evaluator, part) in enumerate(zip(self.evaluators, policies.parts, strict=True))
        ]
        return Evaluation(
            returns=np.hstack([p.returns for p in played]),
            lengths=np.hstack([p.lengths for p in played]),
            steps=sum(p.steps for p in played),
            retries=sum(p.retries for p in played),
            crashes=tuple(crash for p in played for crash in p.crashes),
        )

    def describe(self) -> str:
        return f"{self.evaluators[0].describe()}, {len(self.evaluators)} networks"

    def close(self) -> None:
        for evaluator in self.evaluators:
            evaluator.close()


def _part_of(progress: Progress | None, part: int, parts: int) -> Progress | None:
    """Tells of one network's episodes as the part of all that they are."""
    if progress is None:
        return None
    tell = progress
    return lambda done, planned: tell(part * planned + done, parts * planned)
