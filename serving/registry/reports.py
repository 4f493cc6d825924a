"""Compares a report's files with the verdict that names them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srghn.files import canonical_json, sha256_bytes, sha256_file

PAGE, VERDICT, CLOCK = "report.html", "verdict.json", "timings.json"
#: The page's numbers, among them the verdict with its checks.
NUMBERS = "report.json"
#: Field that an event adds to the verdict: the digest of the timings, which change at each run.
TIMINGS = "timings"
#: Fields of a verdict that its report cannot hold: they are about the report's own files.
_ABOUT_FILES = ("report_digest", "evidence", TIMINGS)


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
        **{str(name): str(digest) for name, digest in _named(verdict).items()},
    }


def _named(verdict: Mapping[str, Any]) -> Mapping[str, Any]:
    """The further files that a verdict names; none where it names them in another form."""
    said = verdict.get("evidence")
    return said if isinstance(said, Mapping) else {}


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


def otherwise(where: Path, verdict: Mapping[str, Any]) -> str | None:
    """How a verdict differs from the one in its report's numbers; None if it does not.

    A check that failed may be missing from a verdict, and the rest still be consistent. The report
    holds all of them.
    """
    path = where / NUMBERS
    if NUMBERS not in _named(verdict):
        return f"the verdict names no {NUMBERS}, which holds its checks"
    try:
        held = json.loads(path.read_bytes())["verdict"]
        own = json.loads(canonical_json({**verdict, **dict.fromkeys(_ABOUT_FILES)}))
        names = sorted(name for name in {*own, *held} if own.get(name) != held.get(name))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{path} holds no verdict: {error}"
    return f"the verdict differs from that of {path} in {', '.join(names)}" if names else None
