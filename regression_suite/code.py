"""Which code judged: digests of our sources and of the packages that they stand on."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

from srghn.files import canonical_json, sha256_bytes, sha256_file

PACKAGES = ("regression_suite", "srghn")
#: Endings of files that decide what the code does.
SOURCES = (".py", ".yaml", ".j2", ".css")


@cache
def code_digests() -> dict[str, str]:
    """`code`: of every source of our packages; `packages`: of the installed ones' versions.

    `lock`: of `requirements.lock`, where the code runs from a checkout.
    """
    installed: dict[str, str] = {}
    for each in distributions():  # of two of one name the first is imported
        # What an interrupted installation left has no name. importlib_metadata, which takes the
        # place of the library's own finder where it is imported, raises for it.
        with suppress(FileNotFoundError):
            if "Name" in each.metadata:
                installed.setdefault(each.metadata["Name"].lower(), each.version)
    found = {"code": _sources(), "packages": sha256_bytes(canonical_json(installed))}
    lock = _root("srghn").parent / "requirements.lock"
    return found | ({"lock": sha256_file(lock)} if lock.is_file() else {})


def _sources() -> str:
    files = {
        f"{package}/{path.relative_to(_root(package)).as_posix()}": sha256_file(path)
        for package in PACKAGES
        for path in sorted(_root(package).rglob("*"))
        if path.suffix in SOURCES
    }
    return sha256_bytes(canonical_json(files))


def _root(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
