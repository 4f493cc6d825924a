"""`data/lease.json`: under which lease of the ledger a candidate is judged, and against whom.

It is an input of the gate stage, so the same lease gives the same verdict, and another champion or
another attempt makes DVC judge anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from srghn.errors import ConfigError
from srghn.files import atomic_write


@dataclass(frozen=True)
class Lease:
    """What the ledger froze when the evaluation began.

    A checkout, where `dvc repro` judges without a ledger, holds one without version and lease.

    lease      hash of the event that began the evaluation; None without a ledger
    incumbent  digest of the champion to judge against; None: judge as a first champion
    mode       of the environment; None: the candidate's own
    history    the ledger's earlier events about the version, for the report
    tried      other versions that were judged since the champion was promoted
    approval   who may approve a pass and until when, for the report
    recalled   whether it is a former champion, which may have been evolved in another environment
    """

    policy: str = "policy"
    version: int | None = None
    attempt: int = 1
    lease: str | None = None
    incumbent: str | None = None
    mode: str | None = None
    history: tuple[Mapping[str, Any], ...] = ()
    tried: int = 0
    approval: str = ""
    recalled: bool = False

    def save(self, path: Path) -> None:
        atomic_write(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Lease:
        """Read a lease; raises `ConfigError` naming the file and what is wrong with it."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            unknown = set(data) - {field.name for field in fields(cls)}
            if unknown:
                raise ValueError(f"unknown keys {', '.join(sorted(unknown))}")
            return cls(**{**data, "history": tuple(data.get("history", ()))})
        except OSError as error:
            raise ConfigError(f"cannot read the lease {path}: {error.strerror}") from error
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{path} is not a lease: {error}; restore it (git checkout {path.name}, or judge "
                "the version again: srghn gate VERSION)"
            ) from error
