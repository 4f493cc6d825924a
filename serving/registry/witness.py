"""A witness outside the database: signed lines that record the progress of the history.

The chain alone cannot show that it was cut short, or recomputed from some event on. So the head of
the chain is signed (Ed25519) after each step and appended to `witness.jsonl` in the home folder.
Lines are chained too, so the last signature covers all of them. The key is in the home folder,
readable by its owner alone (0600), or in the file that `SRGHN_WITNESS_KEY` names.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from srghn.errors import LedgerError
from srghn.files import canonical_json, lock, sha256_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

logger = logging.getLogger(__name__)

Kind = Literal["step", "restore", "upgrade"]
NAME, KEY_NAME = "witness.jsonl", "witness.key"
GENESIS = "0" * 64
#: Most bytes of a line; this much is read from the end to find the last one.
_LINE_BYTES = 16_384
_REASON_CHARACTERS = 2000
#: How long a step waits for the process that appends to the witness.
LOCK_SECONDS = 5.0
#: Bytes that a server reads at its start: some hundred lines. `srghn doctor` reads all.
_RECENT_BYTES = 131_072


@dataclass(frozen=True)
class Entry:
    """One line: the chain's head at that moment (`seq`, `hash`), and its signature.

    `prev` is the digest of the line before, `key` the public key in hex. A `restore` cancels
    earlier lines that are about later events.
    """

    kind: Kind
    seq: int
    hash: str
    at: str
    actor: str
    reason: str
    prev: str
    key: str
    signature: str

    def signed(self) -> bytes:
        fields = asdict(self)
        del fields["signature"]
        return canonical_json(fields)

    def line(self) -> bytes:
        return canonical_json(asdict(self)) + b"\n"


class Witness:
    """The witness file of one home folder. Appending is safe from many processes."""

    def __init__(self, home: Path, key: Path | None = None) -> None:
        self.file = home / NAME
        self.key_file = key or home / KEY_NAME

    def append(self, entry: Entry) -> Entry | None:
        """Sign an entry and append it; None if the last line is the same already.

        `prev`, `key` and `signature` of the given entry are filled in.
        """
        with self._locked() as file:
            last = _last_line(file)
            known = _parse(last, self.file) if last else None
            same = (entry.kind, entry.seq, entry.hash)
            if known is not None and (known.kind, known.seq, known.hash) == same:
                return None
            prev = sha256_bytes(last) if last else GENESIS
            unsigned = replace(entry, prev=prev, key=self.public, reason=_cut(entry.reason))
            signed = replace(unsigned, signature=self._key.sign(unsigned.signed()).hex())
            file.seek(0, os.SEEK_END)
            file.write(signed.line())
            return signed

    def entries(self, *, recent: bool = False) -> list[Entry]:
        """All lines, checked to be one chain whose last line is signed with this home's key.

        `recent`: only the last ones. Raises `LedgerError` that names the first changed line.
        """
        try:
            lines, whole = _read(self.file, _RECENT_BYTES if recent else None)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise LedgerError(f"cannot read the witness {self.file}: {error.strerror}") from error
        found, prev = [], GENESIS
        for number, line in enumerate(lines, start=1):
            entry = _parse(line, self.file)
            if number == 1 and not whole:
                prev = entry.prev
            # every line but the last is fixed by the digest in the line after it
            if entry.prev != prev or (number == len(lines) and entry.line() != line):
                raise LedgerError(
                    f"line {number} of the witness {self.file} was changed, or one before it was "
                    f"removed; put the file back from a copy"
                )
            found.append(entry)
            prev = sha256_bytes(line)
        if found:
            self.check(found[-1])
        return found

    def check(self, entry: Entry) -> None:
        """Raise `LedgerError` unless the entry was signed with this home's key."""
        from cryptography.exceptions import InvalidSignature

        if entry.key != self.public:
            raise LedgerError(
                f"the witness {self.file} is signed with key {entry.key[:16]}…, this home's is "
                f"{self.public[:16]}…; put {self.key_file} back from a copy"
            )
        try:
            self._key.public_key().verify(bytes.fromhex(entry.signature), entry.signed())
        except (InvalidSignature, ValueError) as error:
            raise LedgerError(
                f"the last line of the witness {self.file} has no valid signature; put the file "
                f"back from a copy"
            ) from error

    def sign(self, data: bytes) -> str:
        """A signature of this home, in hex."""
        return self._key.sign(data).hex()

    def signed(self, data: bytes, signature: str, key: str) -> bool:
        """Whether this home's key signed that."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.public_key().verify(bytes.fromhex(signature), data)
        except (InvalidSignature, ValueError):
            return False
        return key == self.public

    @property
    def public(self) -> str:
        """The public key, in hex."""
        return self._key.public_key().public_bytes_raw().hex()

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        try:
            if not self.key_file.exists():
                _make_key(self.key_file, Ed25519PrivateKey.generate().private_bytes_raw())
            return Ed25519PrivateKey.from_private_bytes(
                bytes.fromhex(self.key_file.read_text("ascii").strip())
            )
        except OSError as error:
            raise LedgerError(
                f"cannot use the witness key {self.key_file}: {error.strerror}; let this user "
                f"read it, or name another with SRGHN_WITNESS_KEY"
            ) from error
        except ValueError as error:
            raise LedgerError(
                f"{self.key_file} holds no key: 64 hexadecimal digits expected; put it back from "
                f"a copy"
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a+b") as file:
            if not lock(file, LOCK_SECONDS):
                raise LedgerError(
                    f"another process has locked {self.file} for {LOCK_SECONDS:g} s; it may have "
                    "been stopped: let it go on, or end it"
                )
            _drop_torn_line(file)
            yield file


def valid(entries: list[Entry]) -> list[Entry]:
    """The entries that are still valid: from the last restore on."""
    restores = [n for n, entry in enumerate(entries) if entry.kind == "restore"]
    return entries[restores[-1] :] if restores else entries


def _make_key(path: Path, secret: bytes) -> None:
    """Write a new key, complete or not at all, readable by its owner alone.

    Another process may have been first; then its key is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secret.hex() + "\n")
            file.flush()
            os.fchmod(file.fileno(), 0o600)
            os.fsync(file.fileno())
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        Path(aside).unlink(missing_ok=True)


def _read(file: Path, most: int | None) -> tuple[list[bytes], bool]:
    """Complete lines of the file, or of its last `most` bytes; and whether these are all."""
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        begin = 0 if most is None else max(0, size - most)
        opened.seek(begin)
        lines = opened.read().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()  # the process that wrote it was killed before the line was complete
    return (lines[1:], False) if begin else (lines, True)


def _last_line(file: BinaryIO) -> bytes:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LINE_BYTES))
    lines = file.read().splitlines(keepends=True)
    return lines[-1] if lines else b""


def _drop_torn_line(file: BinaryIO) -> None:
    """Remove half a line that a killed process may have left at the end."""
    last = _last_line(file)
    if last and not last.endswith(b"\n"):
        file.truncate(file.seek(0, os.SEEK_END) - len(last))


def _parse(line: bytes, file: Path) -> Entry:
    try:
        fields: dict[str, Any] = json.loads(line)
        return Entry(**fields)
    except (ValueError, TypeError) as error:
        raise LedgerError(
            f"the witness {file} holds an invalid line; put the file back from a copy"
        ) from error


def _cut(reason: str) -> str:
    return reason[:_REASON_CHARACTERS]
