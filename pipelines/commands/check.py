"""`check`: whether a run will work, before it begins."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipelines.commands.output import JsonOption, load_settings, out, print_json


def add_to(app: typer.Typer) -> None:
    app.command()(check)


def check(
    preset: Annotated[str, typer.Argument(help="A preset, or a parameter file.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override: section.key=value. Repeatable.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Try each step of a run in seconds, estimate its time, and read the gate's rules as it would.

    Exit code: 0 if the run will work, 3 if not, with the reason in one line.

    Examples:

      srghn check mine.yaml

      srghn check cartpole --set network.module=my_package:Net --json
    """
    from pipelines.runs.elsewhere import elsewhere
    from pipelines.runs.prepare import check_judged
    from pipelines.runs.presets import load_preset
    from srghn.candidates.check import check as try_run
    from srghn.config import with_overrides
    from srghn.errors import SrghnError

    known: dict[str, Any] = {}
    try:
        params = with_overrides(load_preset(preset), tuple(set_ or ()))
        tell = (lambda step, found: None) if json else _say
        settings = load_settings()
        with elsewhere():
            found = try_run(params, settings, tell)
        known = found.to_dict()
        if not json:
            _tell(found)
        check_judged(params, found.version)
    except SrghnError as error:
        if json:
            print_json({**known, "ok": False, "error": str(error)})
            raise typer.Exit(error.exit_code) from error
        raise
    if json:
        print_json(known)


def _say(step: str, found: str) -> None:
    out.print(f"{step:8} {found}", markup=False, soft_wrap=True)


def _tell(found: Any) -> None:
    for note in found.notes:
        out.print(f"note     {note}", markup=False, soft_wrap=True)
    if found.returns is not None:
        low, high = found.returns
        out.print(
            "returns  no range is known; from these episodes: "
            f"env.returns={{low: {low:g}, high: {high:g}}}",
            markup=False,
            soft_wrap=True,
        )
    least, most = map(_duration, found.seconds)
    out.print(
        f"time     evaluation takes about {least} with episodes as short as now, {most} with full "
        "ones"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
