"""`env`: pin, verify and compare environment versions."""

from __future__ import annotations

from inspect import cleandoc
from typing import Annotated

import typer

from pipelines.commands import complete
from pipelines.commands.output import (
    JsonOption,
    load_settings,
    out,
    print_json,
    say,
    short,
    table,
)

Pinned = Annotated[
    str, typer.Argument(help="A pinned version: the start of its fingerprint, or a file.")
]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Environment versions: pinned, fingerprinted, compared.")
    group.command("pin")(pin)
    group.command("verify")(verify)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("diff")(diff)
    app.add_typer(group, name="env", no_args_is_help=True)


def pin(
    preset: Annotated[
        str, typer.Argument(help="A preset, or a parameter file.", autocompletion=complete.presets)
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override: env.key=value. Repeatable.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Pin an environment: run it on fixed seeds and record its behaviour as a fingerprint.

    Examples:

      srghn env pin cartpole-switch

      srghn env pin cartpole --set env.kwargs.max_episode_steps=100
    """
    from pipelines.runs.worlds import pin_world

    version, path = pin_world(load_settings(), preset, tuple(set_ or ()))
    if json:
        print_json({"id": version.id, "fingerprint": version.fingerprint, "path": str(path)})
    else:
        said = f"{version.id} is pinned as {version.fingerprint}\n{path}"
        out.print(said, markup=False, soft_wrap=True)


def verify(pinned: Pinned, json: JsonOption = False) -> None:
    """Run the pinned seeds again; exit 0 if the environment is unchanged, else show what changed.

    Example: srghn env verify b8a166bb
    """
    from pipelines.runs.worlds import find
    from srghn.envs import verify as verify_version

    version = find(load_settings(), pinned)
    verify_version(version)
    if json:
        print_json({"id": version.id, "fingerprint": version.fingerprint, "same": True})
        return
    out.print(f"{version.id} {short(version.fingerprint)}: unchanged, step for step", markup=False)


def list_(json: JsonOption = False) -> None:
    """Environments that come with srghn, and versions pinned in this home.

    Example: srghn env list --json
    """
    from pipelines.runs.worlds import pinned_versions
    from srghn.envs import registered

    versions = pinned_versions(load_settings())
    if json:
        print_json(
            {
                "registered": list(registered()),
                "pinned": [{"id": v.id, "fingerprint": v.fingerprint} for v in versions],
            }
        )
        return
    worlds = table("worlds", "id", "modes", "what it is")
    for name, world in registered().items():
        summary = next(iter(cleandoc(world.doc or world.build.__doc__ or "-").splitlines()))
        worlds.add_row(name, ", ".join(world.modes), summary)
    out.print(worlds)
    if versions:
        rows = table("pinned here", "fingerprint", "id", "schedule", "packages")
        for version in versions:
            switches = ", ".join(f"{s.mode} from {s.generation}" for s in version.schedule)
            packages = ", ".join(f"{k} {v}" for k, v in version.packages.items())
            rows.add_row(short(version.fingerprint), version.id, switches or "-", packages)
        out.print(rows)


def show(pinned: Pinned, json: JsonOption = False) -> None:
    """A pinned version: its description, packages and history. With --json in full.

    Example: srghn env show b8a166bb --json
    """
    from pipelines.runs.worlds import describe, find

    version = find(load_settings(), pinned)
    if json:
        say(version.to_json(), nl=False)
        return
    rows = table("", "field", "value")
    rows.add_row("id", version.id)
    for field, value in describe(version).items():
        rows.add_row(field, value)
    out.print(rows)


def diff(first: Pinned, second: Pinned, json: JsonOption = False) -> None:
    """Which fields of two pinned versions differ. Exit 1 if any does.

    Example: srghn env diff b8a166bb 81f487dd
    """
    from pipelines.runs.worlds import find
    from srghn.envs import diff as differences

    settings = load_settings()
    lines = differences(find(settings, first), find(settings, second))
    if json:
        print_json({"same": not lines, "differences": lines})
    for line in lines if not json else ():
        out.print(line, markup=False, soft_wrap=True)
    if lines or json:
        raise typer.Exit(bool(lines))
    out.print("the same version")
