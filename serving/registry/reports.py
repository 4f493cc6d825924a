"""A report's files, held against the verdict that names them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srghn.files import canonical_json, sha256_bytes, sha256_file

PAGE, VERDICT, CLOCK = "report.html", "verdict.json", "timings.json"
#: What an event adds to the verdict: the digest of the clock's file, which no verdict can hold.
TIMINGS = "timings"


def folder(home: Path, digest: str) -> Path:
    """Where the report of that digest lies in a home, wherever it was written."""
    return home / "reports" / digest


def digests(verdict: Mapping[str, Any]) -> dict[str, str]:
    """File -> the SHA-256 that it has by the event: page, verdict, clock, and named evidence."""
    said = {name: value for name, value in verdict.items() if name != TIMINGS}
    clock = {CLOCK: str(verdict[TIMINGS])} if TIMINGS in verdict else {}
    return {
        PAGE: str(verdict.get("report_digest")),
        VERDICT: sha256_bytes(canonical_json(said)),
        **clock,
        **{str(name): str(digest) for name, digest in dict(verdict.get("evidence") or {}).items()},
    }


def problem(where: Path, verdict: Mapping[str, Any], name: str | None = None) -> str | None:
    """What is wrong with a report's files, or with the one of that name; None if nothing is.

    A file that the verdict does not name is nobody's evidence, and wrong as such.
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
