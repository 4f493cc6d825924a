"""`store`: the artefact store that hosts share, by SRGHN_STORE_URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from pipelines.commands.output import JsonOption, load_settings, out, print_json

if TYPE_CHECKING:
    from pipelines.versions.stored import Stored


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="The artefact store that several hosts share.")
    for command in (check, push, pull):
        group.command()(command)
    app.add_typer(group, name="store", no_args_is_help=True)


def check(json: JsonOption = False) -> None:
    """Read every candidate and report of the ledger in the store, and check its digest.

    Exit code: 0 all are there and unchanged, 3 one is not, or the store does not answer.

    Example: srghn store check
    """
    stored = _stored()
    wrong, count = stored.problems()
    if json:
        print_json({"store": stored.remote.url, "folders": count, "problems": wrong})
    elif not wrong:
        out.print(f"{count} folders in {stored.remote.url}, each with the digests in the ledger")
    _end(wrong, json)


def push(json: JsonOption = False) -> None:
    """Copy to the store what this home has and the store lacks or holds changed.

    Do so after you set SRGHN_STORE_URL, and to repair what was lost there.

    Example: srghn store push
    """
    pushed, wrong = _stored().push()
    if json:
        print_json({"pushed": pushed, "problems": wrong})
    else:
        out.print(f"{len(pushed)} folders pushed")
    _end(wrong, json)


def pull(json: JsonOption = False) -> None:
    """Copy every candidate and report of the ledger from the store into this home.

    Example: srghn store pull
    """
    count = _stored().pull()
    if json:
        print_json({"folders": count})
    else:
        out.print(f"{count} folders are in this home")


def _stored() -> Stored:
    from pipelines.versions.release import Release
    from pipelines.versions.stored import Stored

    return Stored(Release(load_settings()))


def _end(wrong: list[str], json: bool) -> None:
    for problem in wrong if not json else ():
        typer.echo(f"srghn: {problem}", err=True)
    if wrong:
        raise typer.Exit(3)
