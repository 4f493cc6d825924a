"""`srghn notify`: who is told when something happens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.output import (
    JsonOption,
    ReasonOption,
    load_settings,
    out,
    print_json,
    table,
    who,
)

if TYPE_CHECKING:
    from serving.registry.sinks import Sinks

Which = Annotated[str, typer.Argument(help="Its name or its URL.")]


def add_to(app: typer.Typer) -> None:
    notify = typer.Typer(help="Who is told of events: signed webhooks.")
    notify.command("add")(add)
    notify.command("list")(list_)
    notify.command("remove")(remove)
    notify.command("test")(trial)
    app.add_typer(notify, name="notify", no_args_is_help=True)


def add(
    url: Annotated[str, typer.Argument(help="Where events are posted, http:// or https://.")],
    reason: ReasonOption,
    name: Annotated[str | None, typer.Option(help="Its name; default the URL's host.")] = None,
    kinds: Annotated[
        str | None, typer.Option(help="Events, with commas; default all that a person decides by.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Tell a URL of what happens from now on; prints the secret to verify signatures with.

    The server sends events in order, each at least once, signed as Standard Webhooks say.

    Example: srghn notify add https://example.org/hook --kinds drift,promote --reason "on call"
    """
    from urllib.parse import urlsplit

    from serving.registry.sinks import NOTABLE

    wanted = tuple(kind.strip() for kind in kinds.split(",")) if kinds else NOTABLE
    sink = _sinks().add(name or urlsplit(url).hostname or "", url, wanted, who(reason))
    if json:
        print_json({"name": sink.name, "url": sink.url, "kinds": sink.kinds, "secret": sink.secret})
        return
    out.print(f"{sink.name} is told of {', '.join(sink.kinds)}", markup=False, soft_wrap=True)
    out.print(f"secret, shown this once: {sink.secret}", markup=False)


def list_(json: JsonOption = False) -> None:
    """Every webhook, what waits for it, and why its last attempt failed.

    Example: srghn notify list --json
    """
    found = _sinks().all()
    if json:
        print_json([{k: v for k, v in vars(sink).items() if k != "secret"} for sink in found])
        return
    if not found:
        out.print("nobody is told: srghn notify add URL --reason ...")
        return
    rows = table("", "name", "url", "kinds", "waiting", "last failure")
    for sink in found:
        kinds = ", ".join(sink.kinds)
        rows.add_row(sink.name, sink.url, kinds, str(sink.pending), sink.failure or "")
    out.print(rows)


def remove(sink: Which, reason: ReasonOption, json: JsonOption = False) -> None:
    """Send nothing more to it; events that wait for it are dropped.

    Example: srghn notify remove example.org --reason "moved"
    """
    sinks = _sinks()
    name = sinks.find(sink).name
    sinks.remove(name, who(reason))
    if json:
        print_json({"removed": name})
    else:
        out.print(f"{name} is told no more")


def trial(sink: Which, json: JsonOption = False) -> None:
    """Send it one signed test event now, and say what it answered.

    Example: srghn notify test example.org
    """
    from serving.control.notify import send, trial_message

    found, now = _sinks().find(sink), datetime.now(UTC)
    sent = trial_message(now.isoformat(timespec="seconds"))
    send(found, sent, int(now.timestamp()))
    if json:
        print_json({"name": found.name, "url": found.url, "id": sent.id, "delivered": True})
    else:
        out.print(f"{found.name} took it", markup=False)


def _sinks() -> Sinks:
    from pipelines.versions.release import Release
    from serving.registry.sinks import Sinks

    return Sinks(Release(load_settings()).ledger)
