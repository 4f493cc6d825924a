"""Writes a finished run's metrics, finalists and curves, for people and for DVC."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow.csv as csv

from srghn.evolution import tables
from srghn.evolution.ending import FINALISTS
from srghn.evolution.progress import Progress
from srghn.files import atomic_write

METRICS, CURVES = "metrics.json", "generations.csv"


def write(run_dir: Path, progress: Progress, fingerprint: str) -> None:
    """Write `metrics.json` (`dvc metrics`), `generations.csv` (`dvc plots`), `finalists.json`.

    The figures are those of the last generation; the finalists' genomes are in the last checkpoint.
    """
    table = tables.read(run_dir / "generations")
    last = {k: _finite(v) for k, v in table.slice(len(table) - 1).to_pylist()[0].items()}
    sink = io.BytesIO()
    csv.write_csv(table, sink)
    atomic_write(run_dir / CURVES, sink.getvalue())
    atomic_write(run_dir / METRICS, _json({"fingerprint": fingerprint, **last}))
    early = {} if progress.end is None else {"ended": progress.end.to_json()}
    atomic_write(run_dir / FINALISTS, _json(_finalists(progress, fingerprint) | early))


def _finalists(progress: Progress, fingerprint: str) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint,
        "mode": progress.mode,
        "generation": progress.state.generation - 1,
        "finalists": [
            {"id": int(i), "fitness": _finite(float(f))}
            for i, f in zip(progress.finalists.ids, progress.fitness, strict=True)
        ],
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity: fitness that is not finite is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=1, allow_nan=False) + "\n"
