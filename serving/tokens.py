"""Bearer tokens: who may do what over HTTP. Only their hashes are kept, in the ledger's database.

`python -m serving.tokens add ann --scopes review` prints a new token, once.
"""

from __future__ import annotations

import argparse
import hmac
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import insert, select, update

from serving.registry import schema
from serving.registry.database import Database
from serving.registry.rows import iso
from serving.settings import load_settings
from srghn.errors import ConfigError, SrghnError
from srghn.files import sha256_bytes

SCOPES = ("infer", "review", "admin")
_PREFIX = "srghn_"


@dataclass(frozen=True)
class Token:
    """What a token is good for. Its owner is the actor of whatever is done with it."""

    owner: str
    scopes: frozenset[str]
    created_at: str
    revoked: bool

    def may(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes


class Tokens:
    """Tokens are 32 random bytes, so a plain SHA-256 of them cannot be searched back."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, owner: str, scopes: Sequence[str]) -> str:
        """A new token, which cannot be shown again; raises `ConfigError` for an unknown scope."""
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown or not scopes or not owner.strip():
            raise ConfigError(
                f"a token has an owner and scopes of {', '.join(SCOPES)}; got owner {owner!r} and "
                f"scopes {', '.join(unknown or scopes) or 'none'}"
            )
        token = _PREFIX + secrets.token_urlsafe(32)
        row = {
            "sha256": sha256_bytes(token.encode()),
            "owner": owner,
            "scopes": ",".join(sorted(set(scopes))),
            "created_at": iso(time.time()),
            "revoked": False,
        }
        with self._database.write() as connection:
            connection.execute(insert(schema.tokens).values(row))
        return token

    def find(self, token: str) -> Token | None:
        """The token's meaning, or None if it is unknown or revoked."""
        digest = sha256_bytes(token.encode())
        query = select(schema.tokens).where(schema.tokens.c.sha256 == digest)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None or row.revoked or not hmac.compare_digest(row.sha256, digest):
            return None
        return _token(row)

    def list(self) -> list[Token]:
        with self._database.read() as connection:
            query = select(schema.tokens).order_by(schema.tokens.c.created_at)
            return [_token(row) for row in connection.execute(query)]

    def revoke(self, owner: str) -> int:
        """Revoke every token of an owner; returns how many that were."""
        table = schema.tokens
        change = update(table).where(table.c.owner == owner, ~table.c.revoked)
        with self._database.write() as connection:
            return connection.execute(change.values(revoked=True)).rowcount


def _token(row: object) -> Token:
    scopes = frozenset(row.scopes.split(","))  # type: ignore[attr-defined]
    return Token(row.owner, scopes, row.created_at, row.revoked)  # type: ignore[attr-defined]


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m serving.tokens add|list|revoke`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m serving.tokens")
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="make a token and print it, once")
    add.add_argument("owner", help="who acts with it, as the ledger will say")
    add.add_argument("--scopes", default="review", help=f"of {', '.join(SCOPES)}; with commas")
    commands.add_parser("list", help="owners and scopes")
    commands.add_parser("revoke", help="revoke all tokens of an owner").add_argument("owner")
    options = parser.parse_args(argv)
    try:
        tokens = Tokens(Database(load_settings().database_url))
        if options.command == "add":
            sys.stdout.write(tokens.add(options.owner, options.scopes.split(",")) + "\n")
        elif options.command == "revoke":
            sys.stdout.write(f"{tokens.revoke(options.owner)} tokens revoked\n")
        else:
            for token in tokens.list():
                state = "revoked" if token.revoked else ",".join(sorted(token.scopes))
                sys.stdout.write(f"{token.owner}  {state}  {token.created_at}\n")
    except SrghnError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
