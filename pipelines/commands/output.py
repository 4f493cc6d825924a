"""What the commands share: JSON for scripts, tables for people, and who is asking."""

from __future__ import annotations

import getpass
import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table

    from serving.registry.records import Who
    from serving.settings import Settings

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


class Approval(StrEnum):
    """Who approves a pass: the configured policy, or a person."""

    auto = "auto"
    manual = "manual"


Approve = Annotated[
    Approval, typer.Option(help="auto: policy approves a pass; manual: a person reviews it.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the ledger for good.")]

out = Console(highlight=False)


def load_settings(**overrides: Any) -> Settings:
    """Settings, imported when a command runs: `srghn --help` must answer at once."""
    from serving.settings import load_settings, unknown_variables

    for said in unknown_variables():
        typer.echo(f"srghn: {said}", err=True)
    return load_settings(**overrides)


def print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, default=str))


def table(title: str, *columns: str) -> Table:
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def actor() -> str:
    """Who acts: the user of this machine, as the ledger will name them."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return "cli:unknown"


def who(reason: str) -> Who:
    """Who acts and why, for a step of the ledger."""
    from serving.registry.records import Who

    return Who(actor(), reason)


def short(digest: str | None) -> str:
    return digest[:12] if digest else "-"
