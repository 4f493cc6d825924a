"""An artefact store by URL that several hosts share: an S3-compatible bucket, or a mounted folder.

Its objects have the same names as files in a home, such as `artefacts/DIGEST/policy.onnx`. The
ledger has their digests, so a changed object is never used. fsspec's file systems find their
credentials themselves: for S3 in the usual `AWS_*` variables and files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from srghn.errors import ArtefactError, ConfigError, one_line
from srghn.files import atomic_write, sha256_bytes

T = TypeVar("T")
CONNECT_SECONDS, READ_SECONDS = 3.0, 20.0
#: First and longest pause between two attempts, in seconds; it doubles each time.
_PAUSE, _LONGEST_PAUSE = 0.2, 3.0


class StoreAway(ArtefactError):
    """The artefact store does not answer, or refuses."""


class ObjectMissing(ArtefactError):
    """The artefact store has no such object."""


class Remote:
    """Objects by name. Each is written completely or not at all, and checked when it is read.

    `patience`: seconds for which an attempt is repeated while the store does not answer. With 0
    there is one attempt, for callers that repeat their call anyway.
    """

    def __init__(self, url: str, patience: float = 0.0) -> None:
        self.url, self._patience = url.rstrip("/"), patience

    def put(self, name: str, data: bytes) -> None:
        """Write an object, and replace an existing one; raises `StoreAway`."""
        try:
            self._again(name, lambda: self._write(name, data))
        except ObjectMissing as error:
            raise StoreAway(
                f"the artefact store {self.url} cannot be written: its bucket does not exist; "
                "make it, or set SRGHN_STORE_URL to another"
            ) from error

    def get(self, name: str, digest: str | None) -> bytes:
        """An object's bytes, which must have that SHA-256 if one is given.

        Raises `ObjectMissing`, `StoreAway`, or `ArtefactError` if it was changed.
        """
        data: bytes = self._again(name, lambda: self._files.cat_file(self._place(name)))
        found = sha256_bytes(data)
        if digest is not None and found != digest:
            raise ArtefactError(
                f"{self.url}/{name} was changed: expected sha256 {digest[:16]}…, got "
                f"{found[:16]}…; put it back: srghn store push, on a host that has it"
            )
        return data

    def names(self, folder: str) -> list[str]:
        """The plain names in a folder, sorted; empty if there is no such folder."""
        try:
            found = self._again(folder, lambda: self._files.ls(self._place(folder), detail=False))
        except ObjectMissing:
            return []
        return sorted({str(path).rstrip("/").rpartition("/")[2] for path in found})

    def _place(self, name: str) -> str:
        return f"{self._base}/{name}"

    def _write(self, name: str, data: bytes) -> None:
        if self._local:
            atomic_write(Path(self._place(name)), data)  # fsspec writes files in place
        else:
            self._files.pipe_file(self._place(name), data)

    def _again(self, name: str, do: Callable[[], T]) -> T:
        end, pause, files = time.monotonic() + self._patience, _PAUSE, self._files
        while True:
            try:
                if self._local and not Path(self._base).is_dir():
                    raise NotADirectoryError(f"{self._base} is no folder here; is it mounted?")
                return do()
            except FileNotFoundError as error:
                raise ObjectMissing(
                    f"{self.url}/{name} is missing; put it back: srghn store push, on a host that "
                    "has it"
                ) from error
            except Exception as error:
                if isinstance(error, PermissionError) or time.monotonic() + pause > end:
                    raise self._away(error) from error
            files.invalidate_cache()
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _away(self, error: Exception) -> StoreAway:
        if isinstance(error, PermissionError):
            return StoreAway(
                f"the artefact store {self.url} refuses: {one_line(error)}; check its credentials "
                "(AWS_* variables, ~/.aws) and what they allow"
            )
        tried = f" (tried for {self._patience:g} s)" if self._patience else ""
        return StoreAway(
            f"the artefact store {self.url} does not answer: {one_line(error)}{tried}; start it, "
            "or check SRGHN_STORE_URL and AWS_ENDPOINT_URL"
        )

    @property
    def _local(self) -> bool:
        return self.url.startswith("file:")

    @cached_property
    def _base(self) -> str:
        return urlsplit(self.url).path if self._local else self.url

    @cached_property
    def _files(self) -> Any:
        """The file system of the URL's scheme; raises `ConfigError` if it is not installed."""
        import fsspec

        scheme = urlsplit(self.url).scheme
        timeouts = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
        settings = {**timeouts, "retries": {"total_max_attempts": 1}}
        options = {"config_kwargs": settings} if scheme in ("s3", "s3a") else {}
        try:
            files = fsspec.filesystem(
                scheme, skip_instance_cache=True, use_listings_cache=False, **options
            )
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"SRGHN_STORE_URL={self.url}: {one_line(error)}; for s3:// pip install "
                "'srghn[s3]', and file:// needs nothing more"
            ) from error
        if options:
            files.retries = 1  # this class repeats attempts itself
        return files
