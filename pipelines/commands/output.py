"""What the commands share: JSON for scripts, tables for people, and who is asking."""

from __future__ import annotations

import atexit
import json
import math
import shutil
import tempfile
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipelines.stdout import stdout
from pipelines.versions.people import actor

if TYPE_CHECKING:
    from pipelines.commands.records import Records
    from pipelines.versions.release import Release
    from serving.registry.records import Who
    from serving.settings import Settings

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


class Approval(StrEnum):
    """Who approves a pass: the run itself, or a person."""

    auto = "auto"
    manual = "manual"


Approve = Annotated[
    Approval, typer.Option(help="auto: approve every pass; manual: a person reviews it.")
]


def _known_name(name: str | None) -> str | None:
    from serving.registry.names import check_name

    return None if name is None else check_name(name)


PolicyOption = Annotated[
    str, typer.Option("--policy", help="The policy's name.", callback=_known_name)
]
AnyPolicy = Annotated[
    str | None,
    typer.Option("--policy", help="Of one policy; default all.", callback=_known_name),
]
SeenOption = Annotated[
    int | None,
    typer.Option(
        "--version", help="The version that you saw on trial; refused if another one is by now."
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the ledger permanently.")]


class _Output:
    """What commands print for people; where it is piped, one record a line, fields by tabs."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, emoji=False)

    def print(self, *objects: Any, **how: Any) -> None:
        from pipelines.commands.records import write

        self._console.file = stdout()
        write(self._console, *objects, **how)


out = _Output()


def load_settings(**overrides: Any) -> Settings:
    """Settings, imported when a command runs: `srghn --help` must answer at once."""
    from serving.settings import load_settings, unknown_variables

    for said in unknown_variables():
        typer.echo(f"srghn: {said}", err=True)
    return load_settings(**overrides)


def reading() -> Release:
    """What the home holds, for a command that only reads: a home that is not there is not made.

    An empty ledger stands in for the one that it would have, until the process ends.
    """
    from pipelines.versions.release import Release

    settings = load_settings()
    own = settings.database_url == f"sqlite:///{settings.home / 'ledger.db'}"
    if settings.home.exists() or not own:
        return Release(settings)
    scratch = tempfile.mkdtemp(prefix="srghn-")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    stand_in = f"sqlite:///{scratch}/ledger.db"
    return Release(settings.model_copy(update={"database_url": stand_in}))


def print_json(data: Any) -> None:
    """One JSON document; numbers that JSON does not have, such as NaN, are null."""
    say(json.dumps(_finite(data), indent=2, default=str, allow_nan=False))


def told(kind: str, message: str, exit_code: int) -> dict[str, Any]:
    """An error as every command's JSON has it."""
    return {"kind": kind, "message": message, "exit_code": exit_code}


def say(text: Any, *, nl: bool = True) -> None:
    """Write to stdout what a command was asked for, as it is."""
    typer.echo(text, file=stdout(), nl=nl)


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _finite(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def table(title: str, *columns: str) -> Records:
    from pipelines.commands.records import Records

    return Records(title, *columns)


def who(reason: str) -> Who:
    """Who acts and why, for a step of the ledger."""
    from serving.registry.records import Who

    return Who(actor(), reason)


def short(digest: str | None) -> str:
    return digest[:12] if digest else "-"
