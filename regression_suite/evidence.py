"""Everything a gate found out, as one value; the report is a function of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from regression_suite.behaviour import Behaviour
from regression_suite.code import code_digests
from regression_suite.episodes import Played
from regression_suite.estimates import CellEstimate, alpha_of
from regression_suite.expectations import DataQuality
from regression_suite.report.film import Film
from regression_suite.tables import RunTables
from srghn.candidates.candidate import Candidate
from srghn.config import GateParams
from srghn.envs import EnvVersion
from srghn.inference.verdict import Check, Verdict
from srghn.suites import Suite


@dataclass(frozen=True)
class Evidence:
    """Filled in as the gate goes on; what was not reached stays empty.

    `params` are the rules with the world's range filled in, `rules` their digest as they were
    given. `lease` and `tried` are as `gate.judge` was given them. `suite` is the whole suite, with
    `left_out` the cells of it that would do nothing in this world, each with the reason. `approval`
    says who may approve a pass and until when; `names` what the page calls the two policies.
    `tables` are those of the run, where every expectation of them holds.
    """

    version: EnvVersion
    mode: str
    params: GateParams
    attempt: int
    digest: str
    candidate: Candidate | None
    checks: tuple[Check, ...]
    incumbent: Candidate | None = None
    played: tuple[Played, ...] = ()
    cells: tuple[CellEstimate, ...] = ()
    behaviour: Behaviour | None = None
    film: Film | None = None
    rival_film: Film | None = None
    tables: RunTables | None = None
    quality: DataQuality | None = None
    history: Sequence[Mapping[str, Any]] = ()
    rules: str = ""
    lease: str | None = None
    tried: int = 0
    suite: Suite | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    approval: str = ""
    names: tuple[str, str] = ("candidate", "champion")

    @property
    def alpha(self) -> float:
        """Of each end of every bound."""
        return alpha_of(self.params, self.tried)

    @property
    def reach(self) -> Literal["generalist", "specialist", "neither"] | None:
        """Generalist: the first champion's bar is reached in every mode; specialist: only in the
        mode it was judged in; None in a world without modes, or where nothing was played."""
        means = [
            cell.candidate.mean if cell.candidate else -math.inf
            for cell in self.cells
            if cell.cell.kind in ("primary", "mode")
        ]
        if len(means) < 2:
            return None
        reached = [mean >= self.params.min_return for mean in means]
        if not reached[0]:
            return "neither"
        return "generalist" if all(reached) else "specialist"

    def to_dict(self, verdict: Verdict, episodes_digest: str | None) -> dict[str, Any]:
        """The content of `report.json`: every number of the report but the episodes themselves."""
        left = ("report_digest", "evidence")  # only known once this content is
        found = {k: v for k, v in verdict.to_dict().items() if k not in left}
        content: dict[str, Any] = finite(
            {
                "format": 2,
                "verdict": found,
                "manifest": None if self.candidate is None else dict(self.candidate.manifest),
                "environment": {"id": self.version.id, "fingerprint": self.version.fingerprint},
                "params": self.params.model_dump(mode="json"),
                "suite": None if self.suite is None else self.suite.model_dump(mode="json"),
                "left_out": [list(cell) for cell in self.left_out],
                "alpha": self.alpha,
                "tried_since_champion": self.tried,
                "approval": self.approval,
                "code": code_digests(),
                "reach": self.reach,
                "cells": [cell_dict(cell) for cell in self.cells],
                "behaviour": None if self.behaviour is None else self.behaviour.to_dict(),
                "data_quality": None if self.quality is None else self.quality.to_dict(),
                "considered": None if self.tables is None else self.tables.considered,
                "nonfinite": None if self.tables is None else self.tables.nonfinite,
                "history": [dict(event) for event in self.history],
                "episodes_digest": episodes_digest,
            }
        )
        return content


def cell_dict(cell: CellEstimate) -> dict[str, Any]:
    """One cell's estimates as plain data."""
    data = asdict(cell)
    place = cell.cell.perturbation
    data["cell"]["perturbation"] = None if place is None else str(place)
    return data


def finite(value: Any) -> Any:
    """The same data with None for NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int | str | None) else str(value)
