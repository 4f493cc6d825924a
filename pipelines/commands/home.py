"""`prune` and `params`: what a home no longer needs, and every parameter there is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands import complete
from pipelines.commands.output import JsonOption, load_settings, out, print_json, table

if TYPE_CHECKING:
    from pydantic import BaseModel


def add_to(app: typer.Typer) -> None:
    app.command()(prune)
    app.command()(params)


def prune(
    days: Annotated[
        float, typer.Option(help="Keep everything that changed within this many days.", min=0)
    ] = 30.0,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what the home no longer needs, and remove it; never what the ledger refers to.

    In a terminal it asks first. Elsewhere nothing is removed without --yes. Whatever is
    used again before you agree is kept.

    Examples:

      srghn prune

      srghn prune --days 7 --yes --json
    """
    from pipelines.services.prune import human, plan
    from pipelines.services.prune import prune as remove
    from serving.registry.backup import kept_before

    settings = load_settings()
    items = plan(settings, days)
    total = sum(item.bytes for item in items)
    if not json:
        rows = table("", "what", "name", "size", "why")
        for item in items:
            rows.add_row(item.kind, item.name, human(item.bytes), item.why)
        out.print(rows)
    ask = items and not yes and not json and sys.stdin.isatty()
    agreed = yes or (ask and typer.confirm(f"Remove {human(total)}?", err=True))
    stay = 0
    if agreed:
        gone = remove(settings, items)
        stay, total, items = len(items) - len(gone), sum(item.bytes for item in gone), gone
    if stay:
        typer.echo(f"{stay} of them changed or are in use again and stay", err=True)
    if json:
        names = ("kind", "name", "why", "bytes")
        shown = [{name: getattr(item, name) for name in names} for item in items]
        print_json({"removed": agreed, "bytes": total, "items": shown})
    elif agreed and (items or stay):
        typer.echo(f"{human(total)} removed", err=True)
    elif not items:
        less = "; try --days 1" if days > 1 else ""
        typer.echo(f"nothing that can go is older than {days:g} days{less}", err=True)
    else:
        typer.echo(f"{human(total)} could go: srghn prune --days {days:g} --yes", err=True)
    at, kept = kept_before(settings.database_url, settings.home)
    if kept is not None and not json:
        typer.echo(
            f"what was stored until {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC stays "
            f"while the ledger is kept that a restore replaced then: delete {kept} if nobody will "
            "put it back",
            err=True,
        )


def params(
    section: Annotated[str | None, typer.Argument(help="One section, such as gate.")] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="Show the values of this preset or file.", autocompletion=complete.presets
        ),
    ] = "cartpole-switch",
    json: JsonOption = False,
) -> None:
    """Every parameter: its value in a preset, what it may be, and what it means.

    Examples:

      srghn params

      srghn params gate --preset lunarlander --json
    """
    from pipelines.runs.presets import load_preset
    from srghn.config import RunParams
    from srghn.errors import ConfigError

    if section is not None and section not in RunParams.model_fields:
        known = ", ".join(RunParams.model_fields)
        raise ConfigError(f"there is no section {section!r}; known: {known}")
    chosen = load_preset(preset)
    names = list(RunParams.model_fields) if section is None else [section]
    found = [each for name in names for each in _described(name, getattr(chosen, name))]
    if json:
        print_json(found)
        return
    rows = table("", "parameter", "value", "may be", "meaning")
    for each in found:
        rows.add_row(each["name"], each["value"], each["type"], each["description"])
    out.print(rows)


def _described(section: str, model: BaseModel) -> Iterator[dict[str, Any]]:
    """The parameters of a section, as its schema describes them."""
    from srghn.config import EVERY_FIELD

    schema = type(model).model_json_schema()
    values = model.model_dump(mode="json", context=EVERY_FIELD)
    for name in type(model).model_fields:
        known, value = schema["properties"][name], values.get(name)
        yield {
            "name": f"{section}.{name}",
            "value": value,
            "type": _kind(known),
            "description": known.get("description", ""),
        }


def _kind(known: dict[str, Any]) -> str:
    """What a value may be, from its JSON schema: words, or a type with its bounds."""
    if "anyOf" in known:
        return " or ".join(_kind(each) for each in known["anyOf"])
    if "enum" in known:
        return ", ".join(map(str, known["enum"]))
    signs = (
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "below"),
    )
    bounds = [f"{word} {known[key]:g}" for key, word in signs if key in known]
    return " ".join([str(known.get("type", "any")), *bounds])
