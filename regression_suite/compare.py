"""Any two policies on the same episodes: the report's page, and no verdict.

Nothing follows from it: nobody is promoted by a comparison, and its seeds are none of a gate's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regression_suite import checks
from regression_suite.bounds import Bound
from regression_suite.episodes import Progress, to_parquet
from regression_suite.evidence import Evidence, cell_dict, finite
from regression_suite.examine import estimated, meet
from regression_suite.report import render
from regression_suite.suite import left_out, range_of, resolved, suite_of
from srghn import seeding
from srghn.candidates.candidate import Candidate
from srghn.config import GateParams
from srghn.envs import EnvVersion
from srghn.errors import ArtefactError, expect_function
from srghn.files import atomic_write, canonical_json, sha256_bytes


@dataclass(frozen=True)
class Comparison:
    """`difference` is the mean of paired differences in the primary cell, the first's return less
    the second's, with bounds of the rules' confidence; None where episodes crashed."""

    page: Path
    digest: str
    difference: Bound | None

    def to_dict(self) -> dict[str, Any]:
        gap = self.difference
        told = None if gap is None else {"value": gap.value, "low": gap.low, "high": gap.high}
        return {"page": str(self.page), "digest": self.digest, "difference": told}


def compare(
    mine: Path,
    theirs: Path,
    version: EnvVersion,
    mode: str,
    params: GateParams,
    out_dir: Path,
    *,
    names: tuple[str, str] = ("the first", "the second"),
    progress: Progress | None = None,
) -> Comparison:
    """Play two candidates' folders against each other in every cell of the suite.

    All that the rules plan is played. Writes `comparison.html`, `comparison.json` and
    `episodes.parquet` to `out_dir`, the same bytes each time; in the other order the same episodes
    are played. Raises `ArtefactError` where one of them is not whole, or was made for another
    interface.
    """
    expect_function(progress, "compare: progress")
    first, second = (_read(folder, version) for folder in (mine, theirs))
    rules = resolved(_without_bars(params, version), version)
    evidence = Evidence(
        version,
        mode,
        rules,
        1,
        first.digest,
        first,
        (),
        incumbent=second,
        suite=suite_of(rules, version),
        left_out=left_out(version, mode, rules),
        names=names,
    )
    root = seeding.text_seed("compare", *sorted((first.digest, second.digest)), mode)
    evidence, _ = meet(evidence, root, progress, whole=True)
    evidence = replace(evidence, cells=estimated(evidence))
    found = [checks.cell_checks(cell, rules) for cell in evidence.cells]
    shown = tuple(replace(check, binding=False) for cell in found for check in cell)
    evidence = replace(evidence, checks=shown)
    return _write(evidence, out_dir)


def _read(folder: Path, version: EnvVersion) -> Candidate:
    candidate = Candidate.load(folder)
    candidate.check_golden()
    if candidate.manifest["interface"] != version.interface.to_dict():
        raise ArtefactError(
            f"{folder.name[:16]} was made for world {candidate.env_fingerprint[:16]}…, whose "
            f"observations or actions differ from those of {version.id} "
            f"{version.fingerprint[:16]}…; compare policies of one interface"
        )
    return candidate


def _without_bars(params: GateParams, version: EnvVersion) -> GateParams:
    """Bars decide nothing here, and may lie beyond the range; nor is alpha shared by attempts."""
    low = params.return_low
    if low is None and version.returns is not None:
        low = version.returns.low
    bars = {"ceiling": None, "min_return": low, "min_cell_return": low}
    return params.model_copy(update={**bars, "attempts": 1, "secondary_gains": ()})


def _write(evidence: Evidence, out_dir: Path) -> Comparison:
    assert evidence.incumbent is not None
    episodes = to_parquet(evidence.played)
    content = canonical_json(
        finite(
            {
                "format": 1,
                "compared": [evidence.digest, evidence.incumbent.digest],
                "environment": {"id": evidence.version.id, "mode": evidence.mode},
                "fingerprint": evidence.version.fingerprint,
                "range": list(range_of(evidence.params)),
                "cells": [cell_dict(cell) for cell in evidence.cells],
                "episodes_digest": sha256_bytes(episodes),
            }
        )
    )
    page = render(evidence, None, sha256_bytes(content)).encode()
    atomic_write(out_dir / "episodes.parquet", episodes)
    atomic_write(out_dir / "comparison.json", content)
    atomic_write(out_dir / "comparison.html", page)
    gap = evidence.cells[0].difference
    return Comparison(out_dir / "comparison.html", sha256_bytes(page), gap)
