"""`outcomes`: are the outcomes that clients posted fit to decide by?"""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands import complete
from pipelines.commands.output import JsonOption, load_settings, out, print_json, table


def add_to(app: typer.Typer) -> None:
    app.command()(outcomes)


def outcomes(
    policy: Annotated[str, typer.Option(help="The policy's name.")] = "policy",
    version: Annotated[
        int | None,
        typer.Option(help="Only those of one version.", autocompletion=complete.versions),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check the outcomes from service with Great Expectations; each failing row is named.

    Exit code: 0 all expectations hold, 1 one does not, 3 there are no outcomes.

    Example: srghn outcomes --version 2
    """
    from pipelines.versions.outcomes import check_outcomes

    found = check_outcomes(load_settings(), policy, version)
    if json:
        print_json(found.to_dict())
    else:
        rows = table("", "expectation", "found", "rows")
        for each in found.quality.expectations:
            said = f"{each.failing} failing" if each.failing else "holds"
            rows.add_row(each.name, said, "; ".join(each.rows))
        out.print(rows)
        out.print(f"page: {found.page}", markup=False, soft_wrap=True)
    if not found.quality.success:
        raise typer.Exit(1)
