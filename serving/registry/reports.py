"""Compares a report's files with the verdict that names them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srghn.files import canonical_json, sha256_bytes, sha256_file

PAGE, VERDICT, CLOCK = "report.html", "verdict.json", "timings.json"
#: Field that an event adds to the verdict: the digest of the timings, which change at each run.
TIMINGS = "timings"


def folder(home: Path, digest: str) -> Path:
    """The folder of the report with this digest in a home."""
    return home / "reports" / digest


def digests(verdict: Mapping[str, Any]) -> dict[str, str]:
    """File -> its SHA-256 in the event: page, verdict, timings, and further evidence."""
    said = {name: value for name, value in verdict.items() if name != TIMINGS}
    clock = {CLOCK: str(verdict[TIMINGS])} if TIMINGS in verdict else {}
    return {
        PAGE: str(verdict.get("report_digest")),
        VERDICT: sha256_bytes(canonical_json(said)),
        **clock,
        **{str(name): str(digest) for name, digest in dict(verdict.get("evidence") or {}).items()},
    }


def problem(where: Path, verdict: Mapping[str, Any], name: str | None = None) -> str | None:
    """The problem with a report's files, or with the file `name`; None if there is none.

    A file that the verdict does not name is a problem too.
    """
    known = digests(verdict)
    for file in known if name is None else (name,):
        path = where / file
        if file not in known or Path(file).name != file:
            return f"the verdict names no {file!r}"
        try:
            found = sha256_file(path)
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"
        if found != known[file]:
            return f"{path} has digest {found[:16]}…, its verdict names {known[file][:16]}…"
    return None
