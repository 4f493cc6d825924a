"""`token add|list|rotate|revoke`: who may do what over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.output import JsonOption, load_settings, out, print_json, table, who
from srghn.errors import ConfigError

if TYPE_CHECKING:
    from serving.tokens import Tokens

Owner = Annotated[str, typer.Argument(help="Its owner, as recorded in the ledger.")]
#: A hundred years: what expires later has no date that a table could show.
MOST_DAYS = 36_500
Reason = Annotated[str, typer.Option(help="Why; kept in the ledger permanently.")]
NO_REASON = "no reason was given"
Days = Annotated[
    float | None, typer.Option(help="Days until it expires.", min=0.001, max=MOST_DAYS)
]


def add_to(app: typer.Typer) -> None:
    commands = typer.Typer(no_args_is_help=True, help="Who may do what over HTTP.")
    for command in (add, list_, rotate, revoke):
        commands.command(command.__name__.rstrip("_"))(command)
    app.add_typer(commands, name="token")


def add(
    owner: Owner,
    scopes: Annotated[str, typer.Option(help="Some of infer, outcome, review, admin.")] = "review",
    days: Days = None,
    policy: Annotated[
        str | None, typer.Option(help="The only policy that it is good for; default: all.")
    ] = None,
    reason: Reason = NO_REASON,
    json: JsonOption = False,
) -> None:
    """Make a token and print it. Only its hash is kept, so it cannot be shown again.

    The history has who made, rotated or revoked tokens, when and why: `srghn history`.

    Examples:

      srghn token add reviewer --scopes review --days 90

      srghn token add arm-clients --scopes infer,outcome --policy arm
    """
    wanted = [scope.strip() for scope in scopes.split(",")]
    token = _tokens(reason).add(owner, wanted, days, policy)
    _show(token, json)


def list_(json: JsonOption = False) -> None:
    """Owners, scopes and when each token expires; never the tokens.

    Example: srghn token list --json
    """
    found = _tokens().list()
    if json:
        print_json([{**vars(token), "scopes": sorted(token.scopes)} for token in found])
        return
    if not found:
        out.print("no token yet: srghn token add --help")
        return
    rows = table("", "owner", "scopes", "policy", "made (UTC)", "expires (UTC)")
    now = datetime.now(UTC).timestamp()
    for token in found:
        state = "revoked" if token.revoked else ",".join(sorted(token.scopes))
        expires = _moment(token.expires_at, now)
        rows.add_row(token.owner, state, token.policy or "all", token.created_at[:16], expires)
    out.print(rows)


def rotate(
    owner: Owner,
    days: Days = None,
    overlap_hours: Annotated[
        float,
        typer.Option(help="Hours for which the old tokens stay valid.", min=0, max=24 * MOST_DAYS),
    ] = 24.0,
    reason: Reason = NO_REASON,
    json: JsonOption = False,
) -> None:
    """Replace an owner's tokens by a new one; the old ones stay valid for a while.

    Example: srghn token rotate reviewer --days 90 --overlap-hours 1
    """
    _show(_tokens(reason).rotate(owner, days, overlap_hours), json)


def revoke(owner: Owner, reason: Reason = NO_REASON, json: JsonOption = False) -> None:
    """Revoke every token of an owner; running servers follow within seconds.

    Example: srghn token revoke reviewer --reason "it was in a log"
    """
    tokens = _tokens(reason)
    owners = {token.owner for token in tokens.list()}
    if owner not in owners:
        known = ", ".join(sorted(owners)) or "nobody"
        raise ConfigError(
            f"{owner!r} has no token to revoke; tokens are of {known}; srghn token list shows all"
        )
    count = tokens.revoke(owner)
    if json:
        print_json({"owner": owner, "revoked": count})
    else:
        out.print("1 token revoked" if count == 1 else f"{count} tokens revoked")


def _tokens(reason: str = NO_REASON) -> Tokens:
    from pipelines.versions.release import Release
    from serving.tokens import Tokens

    ledger = Release(load_settings()).ledger
    return Tokens(
        ledger.database(),
        lambda action, said, work: ledger.note(action, said, who=who(reason), also=work),
    )


def _show(token: str, json: bool) -> None:
    if json:
        print_json({"token": token})
    else:
        out.print(token, markup=False, soft_wrap=True)


def _moment(expires: float | None, now: float) -> str:
    if expires is None:
        return "never"
    try:
        moment = datetime.fromtimestamp(expires, UTC).isoformat()[:16]
    except (OverflowError, ValueError, OSError):  # made before days had a limit
        return "never"
    return moment if expires > now else f"{moment} (over)"
