"""What version 0.2.0 wrote (`tests/fixtures/v0_2/README.md`), unpacked where a test wants it."""

from __future__ import annotations

import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "fixtures" / "v0_2"
#: Where these homes were when 0.2.0 wrote them: absolute paths inside still say so.
WRITTEN_IN = "/work/fx"


def unpack(name: str, into: Path) -> Path:
    """The home of `home-ledger` or `home-unfinished`, below `into`."""
    into.mkdir(parents=True, exist_ok=True)
    with tarfile.open(FOLDER / f"{name}.tar.xz") as archive:
        archive.extractall(into, filter="data")
    return into / "home"


def postgres_dump() -> str:
    """The SQL that makes the ledger of `home-ledger` on PostgreSQL."""
    return lzma.decompress((FOLDER / "ledger-postgres.sql.xz").read_bytes()).decode()


def demo() -> dict[str, Any]:
    """The record of a demo run; see `demo.json`."""
    record: dict[str, Any] = json.loads((FOLDER / "demo.json").read_text(encoding="utf-8"))
    return record


def tokens(home: Path, name: str = "tokens.txt") -> dict[str, str]:
    """Owner -> token of the ledger beside `home`."""
    lines = (home.parent / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)
