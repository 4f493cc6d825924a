"""Sessions of the pages: a cookie stands for a token, or for the user of this machine.

The cookie is signed with a key from the ledger, so any worker accepts it and nobody can forge one.
It is HttpOnly and SameSite=Strict, holds a token's hash and not the token, and is invalid once its
token is revoked.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import hashlib
import hmac
import json
import re
import secrets
import time
from dataclasses import dataclass, field
from ipaddress import ip_address

from starlette.requests import Request
from starlette.types import Scope

from serving.auth import Keeper, caller_of
from serving.http import host_of
from serving.settings import Settings
from serving.tokens import Token
from srghn.files import sha256_bytes

#: A session ends after this many seconds, even if its token is still valid.
SECONDS = 12 * 3600
#: Headers of a proxy: with one of them, the request may come from any machine.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


@dataclass(frozen=True)
class Session:
    """A person who is signed in. `form` proves that a form was made for this session."""

    token: Token
    form: str = field(repr=False)

    @property
    def owner(self) -> str:
        return self.token.owner


class Sessions:
    """Makes and checks the sessions of one ledger."""

    def __init__(self, secret: bytes, keeper: Keeper, settings: Settings) -> None:
        self._key = hmac.digest(secret, b"sessions of the pages", "sha256")
        self._keeper, self._settings = keeper, settings
        # browsers share cookies between ports, so each ledger on this machine has its own name
        self.cookie = f"srghn_{hashlib.sha256(self._key).hexdigest()[:8]}"
        self._own = re.compile(rb"(?:^|;) *+(%b=[\w-]++) *+(?=;|\Z)" % self.cookie.encode())
        self.user = _user().owner

    def alone(self, scope: Scope) -> Scope:
        """The scope of a request with no cookie but its session's.

        The framework parses all of them for every route, and Python before 3.11.10 and 3.12.6 takes
        seconds for a quoted one of backslashes.
        """
        said = b";".join([value for name, value in scope["headers"] if name == b"cookie"])
        if not said:
            return scope
        headers = [header for header in scope["headers"] if header[0] != b"cookie"]
        own = [(b"cookie", found[1]) for found in [self._own.search(said)] if found is not None]
        return {**scope, "headers": headers + own}

    def here(self, request: Request) -> bool:
        """Whether a person without a token may decide: only on this machine, and only while no
        token has scope review or admin.

        `Host` is checked too, because another site can make its own name resolve to this address
        (DNS rebinding).
        """
        settings, headers = self._settings, request.headers
        if self._keeper.decided or not settings.loopback or settings.behind_proxy:
            return False
        if any(name in headers for name in _FORWARDED):
            return False
        return _loopback(host_of(request.scope)) and _loopback(caller_of(request.scope))

    async def begin(self, token: str, request: Request) -> str:
        """The cookie of a new session; raises `Unauthorised` and `LedgerError`."""
        await self._keeper.identify(f"Bearer {token}", "read", caller_of(request.scope))
        return self._seal(sha256_bytes(token.encode()))

    def begin_here(self) -> str:
        """The cookie of a new session without a token, for a request that is `here`."""
        return self._seal("")

    async def find(self, request: Request) -> Session | None:
        """The session of a request; None if its cookie is missing or invalid.

        Raises `LedgerError`.
        """
        sealed = request.cookies.get(self.cookie)
        return await self.of(sealed, request) if sealed else None

    async def of(self, sealed: str, request: Request) -> Session | None:
        """The session of a cookie that this request has, or will have; None if it is invalid.

        Raises `LedgerError`.
        """
        content = self._open(sealed)
        if content is None:
            return None
        if content:
            token = await self._keeper.known_by(content)
        else:
            token = _user() if self.here(request) else None
        if token is None:
            return None
        form = hmac.digest(self._key, b"form" + sealed.encode(), "sha256").hex()
        return Session(token, form)

    def _seal(self, digest: str) -> str:
        content = json.dumps([digest, int(time.time()), secrets.token_hex(8)]).encode()
        both = hmac.digest(self._key, content, "sha256") + content
        return base64.urlsafe_b64encode(both).decode().rstrip("=")

    def _open(self, sealed: str) -> str | None:
        """The token's digest in a cookie ("" without a token); None if it is forged or too old."""
        try:
            both = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
        except (ValueError, binascii.Error):
            return None
        proof, content = both[:32], both[32:]
        if not hmac.compare_digest(proof, hmac.digest(self._key, content, "sha256")):
            return None
        digest, begun, _ = json.loads(content)
        return str(digest) if -60 <= time.time() - begun < SECONDS else None


def _user() -> Token:
    """The user of this machine, under the same name as at the command line."""
    try:
        name = f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        name = "cli:unknown"
    return Token(name, frozenset({"review", "admin"}), "", False)


def _loopback(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
