"""Files that are whole or not there, and the digests that say which bytes they are.

Torch-free: the server uses these too.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from srghn.errors import ConfigError

#: How long a short change waits for another process that makes one.
LOCK_SECONDS = 5.0


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write `data` so that a reader, or a crash at any moment, sees the old file or the new one.

    Written aside in the same folder, synced, renamed over `path`, and the folder synced. Text is
    written as UTF-8. Missing parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = data.encode() if isinstance(data, str) else data
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove the files and folders that killed writes left aside in `folder`."""
    for aside in folder.glob(".*.tmp"):
        if aside.is_dir():
            shutil.rmtree(aside)
        else:
            aside.unlink(missing_ok=True)


def lock(file: IO[Any], seconds: float = 0.0) -> bool:
    """Lock an open file until it is closed; False if another process has it for `seconds`.

    There is always an end to waiting: whoever holds a lock may have been stopped (Ctrl-Z).
    """
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
        time.sleep(0.01)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Hold a lock file for a short change; raises `ConfigError` if another process keeps it."""
    with path.open("w", encoding="utf-8") as file:
        if not lock(file, LOCK_SECONDS):
            raise ConfigError(
                f"another process has locked {path} for {LOCK_SECONDS:g} s; it may have been "
                "stopped: let it go on, or end it"
            )
        yield


def is_locked(path: Path) -> bool:
    """Whether a process has locked a file; raises `OSError` where it cannot be looked at.

    The look is a shared lock: two that look at once see the same, and `lock` may wait for them.
    """
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(obj: Any) -> bytes:
    """The one JSON form whose bytes are digested: sorted keys, no spaces, UTF-8.

    Raises `ValueError` for NaN and infinities, which JSON does not have, and `TypeError` for what
    JSON cannot hold.
    """
    text = json.dumps(
        obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def seal(body: Mapping[str, Any]) -> bytes:
    """`body` as canonical JSON with one more key, `digest`: the SHA-256 of all the rest."""
    return canonical_json({**body, "digest": sha256_bytes(canonical_json(body))})


def unseal(data: bytes) -> dict[str, Any]:
    """The inverse of `seal`; raises `ValueError` unless these are the very bytes it gave."""
    body = json.loads(data)
    if not isinstance(body, dict) or "digest" not in body:
        raise ValueError("it has no digest of its own")
    digest = body.pop("digest")
    if seal(body) != data:
        raise ValueError(f"its content does not have the digest {digest} it names")
    return body
