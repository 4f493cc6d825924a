"""`demo`, `run` and `gate`: evolve and judge."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands import complete
from pipelines.commands.output import (
    Approval,
    Approve,
    JsonOption,
    PolicyOption,
    load_settings,
    out,
    print_json,
    table,
)
from srghn.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.runs.workspaces import Workspace
    from srghn.config import RunParams

#: Options that a run is begun with, and that its workspace holds from then on.
BEGUN_WITH = {
    "preset": "--preset",
    "set_": "--set",
    "start": "--from",
    "policy": "--policy",
    "successor": "--successor",
}
VERDICT_EXIT = {"passed": 0, "failed": 1, "inconclusive": 2, "error": 3}


def add_to(app: typer.Typer) -> None:
    app.command()(demo)
    app.command()(run)
    app.command()(gate)


def demo(
    seed: Annotated[int, typer.Option(help="Root seed of the evolution runs.", min=0)] = 0,
    shift: Annotated[
        bool,
        typer.Option(
            "--shift",
            help="The environment changes under the champion; alarm, diagnosis and answer follow.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """The whole loop on CartPole: evolve, judge, promote, serve, switch the environment, repeat.

    If it was stopped, running it again resumes it. Once it is done, it shows the result again.

    Examples:

      srghn demo --seed 1

      srghn demo --shift
    """
    try:
        if shift:
            from pipelines.demo.shift import run_shift

            result = run_shift(load_settings(), seed)
        else:
            from pipelines.demo.story import run_demo

            result = run_demo(load_settings(), seed)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("the same command again goes on") from error
    if json:
        print_json(result)


def run(
    context: typer.Context,
    preset: Annotated[
        str,
        typer.Option(
            help="A preset's name, or a parameter file (.yaml).", autocompletion=complete.presets
        ),
    ] = "cartpole-switch",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override one parameter: section.key=value. Repeatable."),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            help="What evolution begins with: champion, champions (all there ever were), scratch "
            "(new founders), or a version's number.",
        ),
    ] = "champion",
    approve: Approve = Approval.manual,
    policy: PolicyOption = "policy",
    successor: Annotated[
        bool,
        typer.Option(
            "--successor",
            help="The environment has other observations than the policy's champion sees: judge "
            "the candidate by absolute bars, and let it succeed the champion.",
        ),
    ] = False,
    resume: Annotated[
        str | None, typer.Option(help="Resume an earlier run, by its id.", metavar="RUN_ID")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Evolve a candidate in the sandbox, judge it, and record the verdict.

    Exit code: 0 passed, or nothing new; 1 failed, 2 inconclusive, 3 error.

    Examples:

      srghn run --preset cartpole-switch --set evolution.generations=200

      srghn run --from scratch --approve auto --json

      srghn run --policy gripper --preset gripper.yaml

      srghn run --resume cartpole-switch-20260101-120000-ab12
    """
    if resume is not None:
        _refuse_to_change(context, resume)
    from pipelines.runs.presets import load_preset
    from srghn.config import with_overrides

    with_overrides(load_preset(preset), set_ or ())  # a typo is reported before torch is imported
    from pipelines.runs.runner import start_run
    from pipelines.runs.target import Target

    asked = partial(_offer, ask=sys.stdin.isatty() and not json)
    result = start_run(
        load_settings(),
        preset,
        tuple(set_ or ()),
        start,
        approve.value,
        resume,
        asked,
        Target(policy, successor),
    )
    if json:
        print_json(result)
    else:
        _tell(result)
    raise typer.Exit(VERDICT_EXIT[result.get("verdict", "passed")])


def gate(
    version: Annotated[
        int,
        typer.Argument(help="The version to judge (again).", autocompletion=complete.versions),
    ],
    self_test: Annotated[
        bool,
        typer.Option("--self-test", help="Judge known-bad candidates made from this version."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Judge a candidate against the current champion, as a new attempt on fresh episodes.

    With --self-test, bad candidates are made from a version that passed (constant, random,
    tampered, overfitted and others) and judged by its rules in its environment. Each must be
    refused for its own reason. Nothing is written into the ledger.

    Exit code: 0 passed, 1 failed (or a known-bad one was not refused), 2 inconclusive, 3 error.

    Examples:

      srghn gate 2 --json

      srghn gate 2 --self-test
    """
    if self_test:
        _self_test(version, json)
        return
    from pipelines.runs.runner import judge_again

    verdict, report = judge_again(load_settings(), version)
    if json:
        print_json({**verdict.to_dict(), "report": str(report)})
    else:
        out.print(f"{verdict.summary}\nreport: {report}", markup=False)
    raise typer.Exit(VERDICT_EXIT[verdict.verdict])


def _self_test(version: int, json: bool) -> None:
    from pipelines.progress import bar
    from pipelines.versions.self_test import STEPS, self_test

    with bar("self-test", STEPS) as update:
        rows = self_test(load_settings(), version, update)
    right = all(row.right for row in rows)
    if json:
        print_json({"version": version, "right": right, "candidates": [vars(r) for r in rows]})
    else:
        shown = table("", "candidate", "what it is", "must", "got", "right", "why")
        for row in rows:
            mark = "yes" if row.right else "NO"
            shown.add_row(row.name, row.what, row.must, row.verdict, mark, row.why)
        out.print(shown)
    if not right:
        raise typer.Exit(1)


def _refuse_to_change(context: typer.Context, run_id: str) -> None:
    """Raise `ConfigError` for what was given beside `--resume` and would have no effect."""
    given = [
        option
        for name, option in BEGUN_WITH.items()
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    ]
    if given:
        raise ConfigError(
            f"--resume goes on with what run {run_id} was begun with, got {', '.join(given)} too; "
            "leave that out, or leave --resume out to begin a new run"
        )


def _offer(workspace: Workspace, params: RunParams, ask: bool) -> bool:
    """Say that a run with these parameters is unfinished; in a terminal ask whether to go on."""
    done, total = workspace.generations_done, params.evolution.generations
    typer.echo(
        f"run {workspace.name} has the same parameters and is unfinished, {done} of {total} "
        f"generations done: srghn run --resume {workspace.name}",
        err=True,
    )
    if ask and typer.confirm("Resume it?", default=True, err=True):
        return True
    typer.echo("a new run begins", err=True)
    return False


def _tell(result: dict[str, Any]) -> None:
    if result.get("nothing_new"):
        version = result["version"]
        out.print(result["summary"], markup=False)
        out.print(f"report:  {result['report']}", markup=False, soft_wrap=True)
        out.print(f"judge it again: srghn gate {version}; evolve another: --set evolution.seed=...")
        return
    out.print(f"\n[bold]version {result['version']}[/bold] is {result['state']}")
    out.print(result["summary"], markup=False)
    out.print(f"report:  {result['report']}", markup=False, soft_wrap=True)
    if result["tracking_failure"]:
        out.print(
            f"MLflow could not be reached ({result['tracking_failure']}); nothing is lost: "
            f"srghn sync delivers it later",
            markup=False,
        )
    if result["state"] == "PASSED":
        out.print(f"next:    srghn report {result['version']} --open", markup=False)
        out.print(f'         srghn approve {result["version"]} --reason "..."', markup=False)
