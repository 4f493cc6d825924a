"""Exports the episodes in service as a Parquet table, to make the sandbox more like the world."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from serving.control.samples import in_pairs
from serving.registry.ledger import Ledger
from serving.registry.samples import kept
from srghn.errors import ConfigError

SCHEMA = pa.schema(
    [
        ("policy", pa.string()),
        ("episode", pa.string()),
        ("version", pa.int64()),
        ("generation", pa.int64()),
        ("route", pa.string()),
        ("return", pa.float64()),
        ("length", pa.int64()),
        ("terminated", pa.bool_()),
        ("step", pa.int64()),
        ("observation", pa.list_(pa.float32())),
        ("next_observation", pa.list_(pa.float32())),
    ]
)


def export(ledger: Ledger, policy: str, path: Path) -> int:
    """Write one row for each episode that ended, in order of arrival; returns their number.

    `step`, `observation` and `next_observation` are those that were kept; null without any. Raises
    `ConfigError` if the file cannot be written.
    """
    seen = in_pairs(kept(ledger.database(), policy))
    rows = []
    for outcome in ledger.outcomes(policy=policy):
        sample, following = seen.get(outcome.episode_id, (None, None))
        rows.append(
            {
                "policy": policy,
                "episode": outcome.episode_id,
                "version": outcome.version,
                "generation": outcome.generation,
                "route": outcome.route,
                "return": outcome.return_,
                "length": outcome.length,
                "terminated": outcome.terminated,
                "step": None if sample is None else sample.step,
                "observation": None if sample is None else sample.values.tolist(),
                "next_observation": None if following is None else following.values.tolist(),
            }
        )
    try:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
    except UnicodeEncodeError as error:
        raise ConfigError(f"cannot write {str(path)!r}: its name must be UTF-8") from error
    return len(rows)
