"""`suite`: what the gate plays, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands import complete
from pipelines.commands.output import JsonOption, out, print_json, say, table

if TYPE_CHECKING:
    from srghn.config import RunParams
    from srghn.envs import EnvVersion

Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Override: section.key=value. Repeatable.")
]
Preset = Annotated[
    str,
    typer.Option(
        help="A preset, or a parameter file, for its environment.", autocompletion=complete.presets
    ),
]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="What the gate plays: cells, metrics, margins and budgets, as a file.")
    group.command("show")(show)
    group.command("check")(check)
    group.command("new")(new)
    app.add_typer(group, name="suite", no_args_is_help=True)


def show(
    preset: Annotated[
        str, typer.Argument(help="A preset, or a parameter file.", autocompletion=complete.presets)
    ] = "cartpole-switch",
    set_: Sets = None,
    json: JsonOption = False,
) -> None:
    """The whole suite by which these parameters judge, as YAML that `gate.suite` takes.

    Examples:

      srghn suite show lunarlander

      srghn suite show cartpole --set gate.suite=mine.yaml --json
    """
    from regression_suite.suite import suite_digest, suite_of
    from srghn.yaml_files import dump_yaml

    params, version = _asked(preset, set_)
    suite = suite_of(params.gate, version)
    data = suite.model_dump(mode="json")
    if json:
        print_json({**data, "digest": suite_digest(suite)})
    else:
        say(f"# digest {suite_digest(suite)}\n{dump_yaml(data)}", nl=False)


def check(
    file: Annotated[Path, typer.Argument(help="A suite file.")],
    preset: Preset = "cartpole-switch",
    set_: Sets = None,
    mode: Annotated[str | None, typer.Option(help="The served mode; default the first.")] = None,
    json: JsonOption = False,
) -> None:
    """Play a few steps of every cell: does it build, and does it give the same when repeated?

    Exit code: 0 it may be used, 1 a cell is broken, 3 it is not a suite of this environment.

    Example: srghn suite check mine.yaml --preset cartpole
    """
    from regression_suite.suite import suite_digest, suite_of
    from regression_suite.try_cells import try_cells

    params, version = _asked(preset, [*(set_ or ()), f"gate.suite={file}"])
    found = try_cells(params.gate, version, mode or version.modes[0])
    broken = any(cell.verdict == "broken" for cell in found)
    digest = None if broken else suite_digest(suite_of(params.gate, version))
    if json:
        print_json({"digest": digest, "cells": [vars(cell) for cell in found]})
    else:
        rows = table(f"{file.name} in {version.id}", "cell", "planned", "binds", "found", "why")
        for cell in found:
            binds = "yes" if cell.binding else "no"
            rows.add_row(cell.name, str(cell.planned), binds, cell.verdict, cell.why)
        out.print(rows)
        out.print(f"planned: {sum(c.planned for c in found):,} paired episodes at most")
    if broken:
        raise typer.Exit(1)


def new(
    file: Annotated[
        Path, typer.Argument(help="The file to write; an existing one is left as it is.")
    ],
    preset: Preset = "cartpole-switch",
    set_: Sets = None,
    json: JsonOption = False,
) -> None:
    """Write a first suite: the one in use, and the other generic perturbations, mild.

    Example: srghn suite new mine.yaml --preset cartpole
    """
    from regression_suite.new_suite import begin
    from srghn.errors import ConfigError
    from srghn.files import atomic_write

    params, version = _asked(preset, set_)
    text = begin(params.gate, version, file.stem)
    if file.exists():
        raise ConfigError(f"{file} is there already; give another name, or move it away")
    atomic_write(file, text)
    if json:
        print_json({"suite": str(file)})
    else:
        out.print(f"{file}\ncheck it: srghn suite check {file} --preset {preset}", markup=False)
        out.print(f"use it:   srghn run --preset {preset} --set gate.suite={file}", markup=False)


def _asked(preset: str, sets: list[str] | None) -> tuple[RunParams, EnvVersion]:
    from pipelines.runs.presets import load_preset
    from srghn.config import with_overrides
    from srghn.envs import pin

    params = with_overrides(load_preset(preset), sets or ())
    return params, pin(params.env)
