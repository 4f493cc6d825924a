"""`check`: whether a run will work, before it begins."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.output import JsonOption, PolicyOption, out, print_json, reading, told

if TYPE_CHECKING:
    from pipelines.runs.target import Target
    from srghn.config import RunParams
    from srghn.envs import EnvVersion

#: What takes long after a step.
NEXT = {"trace": "export the network", "export": "play"}


def add_to(app: typer.Typer) -> None:
    app.command()(check)


def check(
    preset: Annotated[str, typer.Argument(help="A preset, or a parameter file.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override: section.key=value. Repeatable.")
    ] = None,
    policy: PolicyOption = "policy",
    successor: Annotated[
        bool, typer.Option("--successor", help="It will run as a successor; see srghn run.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Try each step of a run in seconds, estimate its time, and read the gate's rules as it would.

    Exit code: 0 if the run will work, 3 if not, with the reason in one line.

    Examples:

      srghn check mine.yaml

      srghn check cartpole --set network.module=my_package:Net --json
    """
    from pipelines.progress import patient, spinner
    from pipelines.runs.elsewhere import elsewhere
    from pipelines.runs.prepare import check_judged
    from pipelines.runs.presets import load_preset
    from pipelines.runs.target import Target
    from serving.settings import load_settings
    from srghn.candidates.check import check as try_run
    from srghn.config import with_overrides
    from srghn.errors import SrghnError

    known: dict[str, Any] = {"steps": []}
    try:
        params = with_overrides(load_preset(preset), tuple(set_ or ()))
        settings, target = load_settings(), Target(policy, successor)
        with elsewhere(), ExitStack() as waiting:
            waiting.enter_context(spinner(f"pin {params.env.id}"))

            def tell(step: str, found: str) -> None:
                waiting.close()
                known["steps"].append({"step": step, "found": found})
                if not json:
                    _say(step, found)
                if step in NEXT:
                    waiting.enter_context(patient(NEXT[step]))

            found = try_run(params, settings, tell, partial(_judged_early, params))
        known = found.to_dict()
        if not json:
            _tell(found)
        check_judged(params, found.version)
        noted = _served(target, found.version)
        known["notes"] += noted
        if not json:
            _note(noted)
    except SrghnError as error:
        if json:
            said = told(type(error).__name__, str(error), error.exit_code)
            print_json({**known, "ok": False, "error": said})
            raise typer.Exit(error.exit_code) from error
        raise
    if json:
        print_json(known)


def _judged_early(params: RunParams, version: EnvVersion) -> None:
    """Refuse a mode or a bar that the environment has not, before what takes longer is tried.

    Without a range of returns bars wait for it: episodes are played first, to propose one.
    """
    from pipelines.runs.prepare import check_judged

    if params.evolution.mode is not None:
        version.check_mode(params.evolution.mode)
    if version.returns is not None and version.failure_return is not None:
        check_judged(params, version)


def _served(target: Target, version: EnvVersion) -> list[str]:
    """What to note about the policy that the run is for.

    Raises where the run would be refused for it, and where a ledger that was asked for, by the name
    of a policy or as a successor's, cannot be read.
    """
    from pipelines.runs.prepare import check_served_mode
    from serving.registry.names import DEFAULT
    from srghn.errors import LedgerError

    asked = target.successor or target.policy != DEFAULT
    try:
        release = reading()
        check_served_mode(release, version, target)
        known = {policy.name for policy in release.ledger.policies()} if asked else {target.policy}
    except LedgerError as error:
        if asked:
            raise
        return [f"the mode in service was not checked: {error}"]
    if target.policy in known | {DEFAULT}:
        return []
    return [f"there is no policy {target.policy!r} yet; a run with this name makes it"]


def _say(step: str, found: str) -> None:
    out.print(f"{step:8} {found}", markup=False, soft_wrap=True)


def _note(notes: Iterable[str]) -> None:
    for note in notes:
        _say("note", note)


def _tell(found: Any) -> None:
    _note(found.notes)
    if found.returns is not None:
        low, high = found.returns
        _say(
            "returns",
            f"no range is known; from these episodes: env.returns={{low: {low:g}, high: {high:g}}}",
        )
    if found.failure_return is not None:
        _say(
            "failure",
            "nothing says which episodes failed; the median of these, of untrained networks: "
            f"env.failure_return={found.failure_return:g}",
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
