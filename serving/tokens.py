"""Bearer tokens and their scopes. Only their hashes are stored, in the ledger's database.

`srghn token add reviewer --scopes review` prints a new token, once.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from serving.registry import schema
from serving.registry.database import Database
from serving.registry.rows import find_policy, iso
from serving.registry.texts import control_in
from srghn.errors import ConfigError
from srghn.files import sha256_bytes

SCOPES = ("infer", "outcome", "review", "admin")
_PREFIX = "srghn_"
#: Records a change (action and evidence) in the history, and makes it in the same transaction.
Note = Callable[[str, Mapping[str, Any], Callable[[Connection], None]], object]


@dataclass(frozen=True)
class Token:
    """A token's owner and scopes. The owner is the actor of every step taken with the token.

    `expires_at` is in Unix seconds; None means never. `policy`: the only policy that the token is
    for; None: all policies.
    """

    owner: str
    scopes: frozenset[str]
    created_at: str
    revoked: bool
    expires_at: float | None = None
    policy: str | None = None

    def valid(self, now: float) -> bool:
        """Whether it is neither revoked nor expired at `now`, in Unix seconds."""
        return not self.revoked and (self.expires_at is None or now < self.expires_at)

    def may(self, scope: str) -> bool:
        """Whether it has a scope. `admin` includes all; any scope but `outcome` includes `read`."""
        if scope == "read":
            return bool(self.scopes - {"outcome"})
        return scope in self.scopes or "admin" in self.scopes

    def good_for(self, policy: str | None) -> bool:
        """Whether it is for this policy; None: for all policies at once."""
        return self.policy is None or self.policy == policy


class Tokens:
    """The tokens in a database. `note`: records each change of them; None: none is recorded.

    A token is 32 random bytes, so it cannot be found from its plain SHA-256.
    """

    def __init__(self, database: Database, note: Note | None = None) -> None:
        self._database, self._note = database, note

    def add(
        self,
        owner: str,
        scopes: Sequence[str],
        days: float | None = None,
        policy: str | None = None,
    ) -> str:
        """A new token, which cannot be shown again. It expires after `days`; None: never.

        `policy`: the only policy that it is for. Raises `ConfigError` for an empty owner, a new
        one with control characters, or an unknown scope, `LedgerError` for an unknown policy.
        """
        control = control_in(owner)
        if control is not None and all(known.owner != owner for known in self.list()):
            raise ConfigError(
                f"a token's owner has no control characters and is UTF-8, got {control}"
            )
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown or not scopes or not owner.strip():
            raise ConfigError(
                f"a token has an owner and scopes of {', '.join(SCOPES)}; got owner {owner!r} and "
                f"scopes {', '.join(unknown or scopes) or 'none'}"
            )
        token, row = _made(owner, scopes, days, policy)

        def add(connection: Connection) -> None:
            if policy is not None:
                find_policy(connection, policy)
            connection.execute(insert(schema.tokens).values(row))

        self._change("add_token", row, add)
        return token

    def rotate(self, owner: str, days: float | None = None, overlap_hours: float = 24.0) -> str:
        """A new token with the scopes of the owner's valid ones, which expire after the overlap.

        Raises `ConfigError` if the owner has no valid token, or tokens of different policies.
        """
        now = time.time()
        valid = [token for token in self.list() if token.owner == owner and token.valid(now)]
        if not valid:
            raise ConfigError(f"{owner!r} has no valid token to rotate; srghn token list shows all")
        policies = {token.policy for token in valid}
        if len(policies) > 1:
            named = ", ".join(sorted(policy or "all policies" for policy in policies))
            raise ConfigError(
                f"{owner!r} has tokens of {named}, and one new token would be good for all of "
                "them; add and revoke them one by one"
            )
        scopes = sorted(frozenset[str]().union(*(token.scopes for token in valid)))
        new, row = _made(owner, scopes, days, policies.pop())
        table, until = schema.tokens, now + 3600 * overlap_hours
        old = (
            table.c.owner == owner,
            ~table.c.revoked,
            table.c.expires_at.is_(None) | (table.c.expires_at > until),
        )

        def replace(connection: Connection) -> None:
            connection.execute(update(table).where(*old).values(expires_at=until))
            connection.execute(insert(table).values(row))

        self._change("rotate_token", {**row, "others_until": until}, replace)
        return new

    def any_valid(self) -> bool:
        """Whether any token is valid."""
        now = time.time()
        return any(token.valid(now) for token in self.list())

    def find(self, token: str) -> Token | None:
        """The token's owner and scopes; None if it is unknown, revoked or expired."""
        return self.known_by(sha256_bytes(token.encode()))

    def known_by(self, digest: str) -> Token | None:
        """As `find`, for the token with this SHA-256."""
        query = select(schema.tokens).where(schema.tokens.c.sha256 == digest)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None or not hmac.compare_digest(row.sha256, digest):
            return None
        found = _token(row)
        return found if found.valid(time.time()) else None

    def list(self) -> list[Token]:
        with self._database.read() as connection:
            query = select(schema.tokens).order_by(schema.tokens.c.created_at)
            return [_token(row) for row in connection.execute(query)]

    def revoke(self, owner: str) -> int:
        """Revoke every token of an owner; returns their number."""
        table, count = schema.tokens, 0

        def revoke(connection: Connection) -> None:
            nonlocal count
            change = update(table).where(table.c.owner == owner, ~table.c.revoked)
            count = connection.execute(change.values(revoked=True)).rowcount

        if any(token.owner == owner and not token.revoked for token in self.list()):
            self._change("revoke_tokens", {"owner": owner}, revoke)
        return count

    def _change(
        self, action: str, row: Mapping[str, Any], work: Callable[[Connection], None]
    ) -> None:
        if self._note is not None:
            self._note(
                action, {k: v for k, v in row.items() if k not in ("sha256", "revoked")}, work
            )
            return
        with self._database.write() as connection:
            work(connection)


def _made(
    owner: str, scopes: Sequence[str], days: float | None, policy: str | None
) -> tuple[str, dict[str, Any]]:
    """A new token and its row."""
    token, now = _PREFIX + secrets.token_urlsafe(32), time.time()
    return token, {
        "sha256": sha256_bytes(token.encode()),
        "owner": owner,
        "scopes": ",".join(sorted(set(scopes))),
        "created_at": iso(now),
        "expires_at": None if days is None else now + 86_400 * days,
        "revoked": False,
        "policy": policy,
    }


def _token(row: Any) -> Token:
    scopes = frozenset(row.scopes.split(","))
    return Token(row.owner, scopes, row.created_at, row.revoked, row.expires_at, row.policy)
