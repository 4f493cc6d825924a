"""A report as it was kept: its own digests checked, and its episodes played once more."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from serving.registry.artefacts import ArtefactStore
from srghn.candidates.candidate import OnnxPolicy
from srghn.config import GateParams
from srghn.envs import EnvVersion
from srghn.errors import ArtefactError
from srghn.files import sha256_file
from srghn.inference.verdict import Verdict


@dataclass(frozen=True)
class KeptReport:
    """A verdict, the rules it was found by, and the episodes it rests on."""

    folder: Path
    verdict: Verdict
    params: GateParams

    @classmethod
    def load(cls, folder: Path, candidate: str, digest: str | None = None) -> KeptReport:
        """Read a report about `candidate`; each file names the digest of the next.

        `digest` is the page's in the ledger, where there is one. Raises `ArtefactError` naming the
        file that was changed or is missing.
        """
        verdict = _verdict(folder / "verdict.json")
        _check(folder / "report.html", digest or verdict.report_digest)
        page, numbers = (folder / "report.html").read_text(encoding="utf-8"), folder / "report.json"
        if not numbers.is_file() or sha256_file(numbers) not in page:
            raise _changed(numbers, "the file whose digest report.html names")
        content = json.loads(numbers.read_bytes())
        if content["episodes_digest"] is not None:
            _check(folder / "episodes.parquet", content["episodes_digest"])
        for name, expected in verdict.evidence.items():
            _check(folder / name, expected)
        written = json.loads((folder / "verdict.json").read_bytes())
        later = ("report_digest", "evidence")  # only known once report.json was written
        if {k: v for k, v in written.items() if k not in later} != content["verdict"]:
            raise _changed(folder / "verdict.json", "the verdict that report.json holds")
        if verdict.candidate_digest != candidate:
            raise ArtefactError(
                f"{folder} is a report on candidate {verdict.candidate_digest}, but by its "
                f"manifest.json the candidate is {candidate}; restore what was changed (dvc "
                "pull)"
            )
        return cls(folder, verdict, GateParams.model_validate(content["params"]))


@dataclass(frozen=True)
class Episodes:
    """The episodes of one side: a digest of all returns and lengths, each cell's mean return."""

    digest: str
    means: NDArray[np.float64]

    @classmethod
    def of(cls, table: pa.Table, side: str) -> Episodes:
        cells = np.array(table["cell"].to_pylist())
        columns = [table[name].to_numpy() for name in ("seed", f"{side}_return", f"{side}_length")]
        digest = hashlib.sha256("\n".join(cells).encode())
        for column in columns:
            digest.update(np.ascontiguousarray(column).tobytes())
        _, first = np.unique(cells, return_index=True)
        names = cells[np.sort(first)]
        return cls(digest.hexdigest(), np.array([columns[1][cells == n].mean() for n in names]))


def play_again(
    report: KeptReport, policy: OnnxPolicy, world: EnvVersion, store: ArtefactStore
) -> dict[str, tuple[Episodes, Episodes]]:
    """Play the recorded attempt's episodes: side -> (as recorded, as played now).

    The incumbent plays too if it is in `store`; a fresh clone does not have it. Nothing was played
    for a candidate that failed before its first episode: then there is nothing to compare.
    """
    from regression_suite.again import play_recorded

    recorded = report.folder / "episodes.parquet"
    if not recorded.is_file():
        return {}
    theirs = _incumbent(report.verdict, store)
    before = pq.read_table(recorded)
    players = [policy] if theirs is None else [policy, theirs]
    cells = _seeds(before)
    played = play_recorded(list(cells.items()), players, world, report.verdict.mode)
    after = before
    for arm, side in enumerate(("candidate", "incumbent")[: len(players)]):
        for name, part in (("return", 0), ("length", 1)):
            values = np.concatenate([found[part][arm] for found in played])
            column = f"{side}_{name}"
            place = after.schema.get_field_index(column)
            after = after.set_column(place, after.schema.field(place), pa.array(values))
    return {
        f"the {side}'s {len(before)} gate episodes": (
            Episodes.of(before, side),
            Episodes.of(after, side),
        )
        for side in ("candidate", "incumbent")[: len(players)]
    }


def _seeds(table: pa.Table) -> dict[str, list[int]]:
    """Each cell's seeds, in the order in which they were recorded."""
    cells: dict[str, list[int]] = {}
    for name, seed in zip(table["cell"].to_pylist(), table["seed"].to_pylist(), strict=True):
        cells.setdefault(name, []).append(seed)
    return cells


def _incumbent(verdict: Verdict, store: ArtefactStore) -> OnnxPolicy | None:
    digest = verdict.incumbent_digest
    if digest is None or not store.has(digest):
        return None
    return store.load(digest).policy()


def _verdict(path: Path) -> Verdict:
    try:
        return Verdict.from_json(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _changed(path, "a verdict") from error


def _check(path: Path, expected: str) -> None:
    if not path.is_file() or sha256_file(path) != expected:
        raise _changed(path, f"sha256 {expected}")


def _changed(path: Path, expected: str) -> ArtefactError:
    found = f"its sha256 is {sha256_file(path)}" if path.is_file() else "it is missing"
    return ArtefactError(
        f"{path} was changed: expected {expected}, {found}; restore it (dvc pull), or judge the "
        "candidate again"
    )
