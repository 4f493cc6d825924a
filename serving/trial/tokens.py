"""The token of an episode: the sealed state with which any worker can continue the episode.

It has a sealed part and a tail. The sealed part is encrypted and authenticated (AES-256-GCM): its
holder can neither read the episode's arm nor forge one. It has the same length on both arms. Each
process that seals draws a salt, derives its own keys from the secret with it, and numbers its
sealed parts. So no nonce is used twice under one key.

The tail is the number of steps, which the holder knows anyway, and an authentication code (keyed
BLAKE2b, RFC 7693) of all that stands before it. From step to step only the tail changes: in a
server with many callers, encrypting anew costs a tenth of a step. In a trial the sealed part is new
at each step, too: else its change would tell that a version failed.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import itertools
import os
import struct
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_FIXED = struct.Struct("<qqqqdBBBBH")
#: A memory's length that stands for one from there on, which is told behind the name.
_LONG, _SIZE = 0xFFFF, 4
_SALT, _NUMBER, _TAG = 16, 8, 16
_LEAST = _SALT + _NUMBER + _TAG + _FIXED.size
#: Hexadecimal digits in a token's tail: the number of steps, and the code.
_STEPS, _CODE = 8, 32
_TAIL = _STEPS + _CODE
#: Most keys of other processes that are remembered.
_KEYS = 256
_NONE = -1
_MOVED, _LOOSE = 1, 2


#: The cipher for sealed parts, and the key of the codes.
_Keys = tuple[AESGCM, bytes]


class BadToken(ValueError):
    """A token that was not sealed with this server's secret, or was changed."""


class Episode(msgspec.Struct, frozen=True):
    """The state of an episode in its token.

    start   its number in order of start; None if the start could not be recorded
    trial   epoch of its trial, if any
    steps   number of actions answered so far
    began   Unix seconds
    moved   another version has continued it, so it is no evidence
    loose   a request lacked the token, so not all steps are counted and it is no evidence
    memory  state of a network that keeps one: float32 bytes
    sealed  the sealed part of its last token, which serves for the next one too; "" if unknown
    """

    name: str
    policy: str
    version: int
    arm: int
    start: int | None
    trial: int | None
    generation: int
    began: float
    steps: int = 0
    moved: bool = False
    loose: bool = False
    memory: bytes = b""
    sealed: str = ""

    def stepped(self) -> Episode:
        """The episode after one more step, whose token has the same sealed part."""
        return msgspec.structs.replace(self, steps=self.steps + 1)

    def but(self, **changes: Any) -> Episode:
        """The episode with other values, to be sealed anew."""
        return msgspec.structs.replace(self, sealed="", **changes)

    def kept(self, token: str) -> Episode:
        """The episode with the sealed part of its token."""
        return msgspec.structs.replace(self, sealed=token[:-_TAIL])

    @property
    def recorded(self) -> bool:
        """Whether the ledger keeps the outcome that comes with its token.

        It has no start for an unrecorded episode. And whoever names an episode gets a loose token,
        so an outcome with it might be another caller's.
        """
        return self.start is not None and not self.loose

    @property
    def evidence(self) -> bool:
        """Whether its outcome may count in a trial."""
        return self.recorded and not self.moved


class Sealer:
    """Seals and opens the tokens of one ledger's episodes with its secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = hashlib.blake2b(secret, person=b"episode tokens").digest()
        self._salt = os.urandom(_SALT)
        self._own = self._derive(self._salt)
        self._count = itertools.count(1)
        self._keys = {self._salt: self._own}

    def seal(self, episode: Episode, room: int = 0) -> str:
        """The episode's token.

        `room`: bytes reserved for memory, so that the token's length is the same for all versions.
        """
        number = next(self._count).to_bytes(_NUMBER, "little")
        cipher, _ = self._own
        sealed = cipher.encrypt(b"\0\0\0\0" + number, _pack(episode, room), None)
        text = binascii.b2a_base64(self._salt + number + sealed, newline=False)
        return self._with_tail(text, episode.steps)

    def step(self, episode: Episode) -> str:
        """The token of an episode whose `sealed` is a part that this sealer made."""
        return self._with_tail(episode.sealed.encode(), episode.steps)

    def _with_tail(self, sealed: bytes, steps: int) -> str:
        said = b"%b%08x" % (sealed, steps)
        return (said + _code(said, self._own[1])).decode()

    def open(self, token: str) -> Episode:
        """The episode of a token; raises `BadToken`."""
        if not token.isascii():
            raise BadToken("it is not base64")
        said, code = token[:-_CODE].encode(), token[-_CODE:].encode()
        try:
            data = binascii.a2b_base64(said[:-_STEPS])
        except ValueError as error:
            raise BadToken("it is not base64") from error
        if len(data) < _LEAST:
            raise BadToken("it is too short")
        cipher, key = self._key(data[:_SALT])
        if not hmac.compare_digest(_code(said, key), code):
            raise BadToken("it was not sealed here, or was changed")
        number, sealed = data[_SALT : _SALT + _NUMBER], data[_SALT + _NUMBER :]
        try:
            plain = cipher.decrypt(b"\0\0\0\0" + number, sealed, None)
        except InvalidTag as error:  # pragma: no cover (the code covers the sealed part, too)
            raise BadToken("it was not sealed here, or was changed") from error
        return _unpack(plain, int(said[-_STEPS:], 16))

    def _key(self, salt: bytes) -> _Keys:
        found = self._keys.get(salt)
        if found is None:
            if len(self._keys) >= _KEYS:
                self._keys = {self._salt: self._own}
            found = self._keys[salt] = self._derive(salt)
        return found

    def _derive(self, salt: bytes) -> _Keys:
        both = hashlib.blake2b(salt, key=self._secret, digest_size=64).digest()
        return AESGCM(both[:32]), both[32:]


def _code(said: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(said, key=key, digest_size=_CODE // 2).hexdigest().encode()


def _pack(episode: Episode, room: int) -> bytes:
    policy, name = episode.policy.encode(), episode.name.encode()
    memory = episode.memory
    long = len(memory) >= _LONG
    fixed = _FIXED.pack(
        _NONE if episode.start is None else episode.start,
        _NONE if episode.trial is None else episode.trial,
        episode.version,
        episode.generation,
        episode.began,
        episode.arm,
        episode.moved * _MOVED + episode.loose * _LOOSE,
        len(policy),
        len(name),
        _LONG if long else len(memory),
    )
    size = len(memory).to_bytes(_SIZE, "little") if long else b""
    reserved = room + (_SIZE if room >= _LONG else 0)
    return fixed + policy + name + (size + memory).ljust(reserved, b"\0")


def _unpack(plain: bytes, steps: int) -> Episode:
    numbers = _FIXED.unpack_from(plain)
    start, trial, version, generation, began, arm, flags, of_policy, of_name, of_memory = numbers
    name_at = _FIXED.size + of_policy
    memory_at = name_ends = name_at + of_name
    if of_memory == _LONG:
        memory_at += _SIZE
        of_memory = int.from_bytes(plain[name_ends:memory_at], "little")
    return Episode(
        plain[name_at:name_ends].decode(),
        plain[_FIXED.size : name_at].decode(),
        version,
        arm,
        None if start == _NONE else start,
        None if trial == _NONE else trial,
        generation,
        began,
        steps,
        bool(flags & _MOVED),
        bool(flags & _LOOSE),
        plain[memory_at : memory_at + of_memory],
    )
