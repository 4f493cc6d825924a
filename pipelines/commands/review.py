"""What there is, why, and what a person decides: reports, approvals, canaries, rollback."""

from __future__ import annotations

import json as json_module
import shutil
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from pipelines.commands import complete, trial
from pipelines.commands.output import (
    AnyPolicy,
    JsonOption,
    PolicyOption,
    ReasonOption,
    SeenOption,
    load_settings,
    out,
    print_json,
    reading,
    say,
    short,
    table,
    who,
)
from pipelines.versions.people import actor
from srghn.errors import ConfigError, LedgerError

if TYPE_CHECKING:
    from pipelines.versions.release import Release
    from serving.registry.records import Canary

Version = Annotated[
    int,
    typer.Argument(
        help="The version's number, as in `srghn candidates`.", autocompletion=complete.versions
    ),
]


def add_to(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(candidates)
    app.command()(history)
    app.command()(lineage)
    app.command()(report)
    app.command()(replay)
    app.command()(compare)
    app.command()(approve)
    app.command()(reject)
    app.command()(promote)
    app.command()(rollback)
    app.command()(revoke)
    app.command()(stale)
    canary = typer.Typer(help="Try an approved version on a share of live episodes.")
    canary.command("start")(canary_start)
    canary.command("weight")(canary_weight)
    canary.command("abort")(canary_abort)
    trial.add_to(canary)
    app.add_typer(canary, name="canary", no_args_is_help=True)


def status(policy: PolicyOption = "policy", json: JsonOption = False) -> None:
    """What a policy serves, what is on trial and how far it is, and what waits for review.

    Example: srghn status --json
    """
    from serving.control.adapted import current_alarm, latest_step
    from serving.registry.trial_view import standing

    release = reading()
    ledger = release.ledger
    ledger.policy(policy)  # refuses a name that no policy has
    champion, canary = ledger.champion(policy), ledger.canary(policy)
    mode = ledger.service_mode(policy)
    tried = standing(ledger, canary, time.time()) if canary else None
    waiting = [v.version for v in ledger.versions(policy) if v.state in ("PASSED", "APPROVED")]
    alarm, adapted = current_alarm(ledger, policy), latest_step(ledger, policy)
    if json:
        print_json(
            {
                "champion": vars(champion) if champion else None,
                "canary": {**vars(canary), "rules": canary.rules.to_json()} if canary else None,
                "trial": tried.to_json() if tried else None,
                "waiting": waiting,
                "mode": mode,
                "alarm": alarm.reason if alarm else None,
                "adapted": adapted,
            }
        )
        return
    if champion is None:
        demo = "srghn run --approve auto, or srghn demo"
        named = f"srghn run --policy {policy} --approve auto"
        how = "" if waiting else f": {demo if policy == 'policy' else named}"
        said = f"no champion yet in {release.settings.home}{how}"
        out.print(said, markup=False, soft_wrap=True)
    else:
        out.print(
            f"[bold]champion[/bold]  version {champion.version}, champion generation "
            f"{champion.generation}, mode {escape(champion.mode)}, since {champion.since} by "
            f"{escape(champion.by)}"
        )
        if mode != champion.mode:
            out.print(f"[bold]mode[/bold]      service is in {escape(str(mode))}")
    if canary is not None:
        out.print(
            f"[bold]canary[/bold]    version {canary.version} at {_share(canary)}, {canary.status}"
        )
    if tried is not None:
        out.print(f"[bold]trial[/bold]     {escape(tried.said)}", soft_wrap=True)
    for version in waiting:
        out.print(f"[bold]waiting[/bold]   version {version}: srghn report {version} --open")
    if alarm is not None:
        out.print(f"[bold]alarm[/bold]     {escape(alarm.reason)}: srghn watch", soft_wrap=True)
    if adapted is not None:
        out.print(f"[bold]adapted[/bold]   {escape(adapted)}", soft_wrap=True)
    others = [other.name for other in ledger.policies() if other.name != policy]
    if others:
        out.print(f"[bold]others[/bold]    {', '.join(others)}: srghn policies")


def candidates(policy: AnyPolicy = None, json: JsonOption = False) -> None:
    """Every version and its state.

    Example: srghn candidates --json
    """
    from pipelines.runs.target import Target

    ledger = reading().ledger
    if policy is not None:
        ledger.policy(policy)
    versions = ledger.versions(policy)
    if json:
        print_json(
            [{k: v for k, v in vars(found).items() if k != "manifest"} for found in versions]
        )
        return
    if not versions:
        out.print(f"no version yet: srghn run{Target(policy).option if policy else ''}")
        return
    rows = table("", "version", "policy", "state", "mode", "run", "digest", "registered")
    for found in versions:
        rows.add_row(
            str(found.version),
            found.policy,
            str(found.state),
            found.mode,
            found.run_id,
            short(found.digest),
            found.registered_at,
        )
    out.print(rows)


def history(
    version: Annotated[int | None, typer.Argument(help="One version; default all.")] = None,
    policy: AnyPolicy = None,
    json: JsonOption = False,
) -> None:
    """The ledger's events, in order; the hash chain is verified first.

    Example: srghn history 2
    """
    from serving.registry.told import values

    ledger = reading().ledger
    ledger.verify()
    if version is not None:
        ledger.version(version)  # refuses a number that no version has
    if policy is not None:
        ledger.policy(policy)
    events = [event for event in ledger.events(version) if policy in (None, event.policy)]
    if json:
        print_json([vars(event) for event in events])
        return
    rows = table("", "seq", "at", "version", "step", "by", "reason")
    told = values(ledger, events)
    for event in events:
        step = f"{event.from_state or ''} -> {event.to_state}"
        if event.from_state == event.to_state:  # a trial's share or status, a policy's mode
            step = f"{event.action}: {told[event.seq]}" if told[event.seq] else event.action
        rows.add_row(
            str(event.seq), event.at, str(event.version or "-"), step, event.actor, event.reason
        )
    out.print(rows)


def lineage(
    version: Version,
    whole: Annotated[bool, typer.Option("--all", help="Every ancestor of a long chain.")] = False,
    json: JsonOption = False,
) -> None:
    """The ancestors of a version, founder first, with fitness and mutation rate, across runs.

    Example: srghn lineage 2 --all
    """
    from pipelines.versions.lineage_view import draw
    from srghn.evolution.ancestry import Ancestry

    release = reading()
    found = release.ledger.version(version)
    text = (release.store.path(found.digest) / "ancestry.json").read_text(encoding="utf-8")
    if json:
        print_json(json_module.loads(text))
        return
    ancestry = Ancestry.from_json(text)
    out.print(draw(f"version {version}: {ancestry}", ancestry.chain, whole=whole))


def report(
    version: Version,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    to: Annotated[Path | None, typer.Option("--out", help="Copy the page to this file.")] = None,
    json: JsonOption = False,
) -> None:
    """Show where the promotion report of a version is.

    Examples:

      srghn report 2 --open

      srghn report 2 --out report.html
    """
    release = reading()
    found, path = release.ledger.version(version), release.report_page(version)
    if path is None:
        raise LedgerError(
            f"version {version} has no report yet, it is {found.state}; judge it: "
            f"srghn gate {version}"
        )
    if not path.is_file():
        raise LedgerError(
            f"the report of version {version} is missing: there is no {path}; restore "
            f"{path.parent} from a backup"
        )
    if to is not None:
        path = _copied(path, to)
    if json:
        print_json({"version": version, "report": str(path), "digest": found.report_digest})
    else:
        say(path)
    if open_:
        webbrowser.open(path.absolute().as_uri())


def _copied(page: Path, to: Path) -> Path:
    try:
        return Path(shutil.copyfile(page, to))
    except OSError as error:
        raise ConfigError(
            f"cannot copy the report {page} to {to}: {error.strerror or error}; give --out a file "
            "in an existing, writable folder"
        ) from error


def approve(version: Version, reason: ReasonOption, json: JsonOption = False) -> None:
    """Approve a pass; the first champion is promoted at once, a later one goes on trial.

    Example: srghn approve 2 --reason "better in the flipped mode"
    """
    release = _release()
    state = release.approve(version, actor(), reason)
    running = release.ledger.canary(release.ledger.version(version).policy)
    release.deliver()
    _told(version, str(state), json)
    if state == "APPROVED" and running is not None and not json:
        out.print(
            f"version {running.version} is on trial; once that is over: srghn canary start "
            f"{version} --reason ...",
            markup=False,
        )


def reject(version: Version, reason: ReasonOption, json: JsonOption = False) -> None:
    """Reject a version permanently.

    Example: srghn reject 3 --reason "worse than the champion"
    """
    release = _release()
    release.ledger.reject(version, who=who(reason))
    _told(version, str(release.ledger.version(version).state), json)


def promote(version: Version, reason: ReasonOption, json: JsonOption = False) -> None:
    """Make an approved version champion, if its trial's evidence supports it.

    Example: srghn promote 2 --reason "the trial shows that it is not worse"
    """
    release = _release()
    release.promote(version, actor(), reason)
    release.deliver()
    _told(version, str(release.ledger.version(version).state), json)


def rollback(
    reason: ReasonOption,
    to: Annotated[
        int | None, typer.Option("--to", help="A retired version; default the latest.")
    ] = None,
    generation: Annotated[
        int | None,
        typer.Option(
            help="The champion generation that you saw in `srghn status`; refused if it changed. "
            "Default: the one when this command starts.",
        ),
    ] = None,
    policy: Annotated[
        str | None, typer.Option("--policy", help="Which policy; default that of --to.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Bring a retired champion back; the current one is quarantined.

    Examples:

      srghn rollback --reason "clients report oscillation"

      srghn rollback --to 1 --reason "the last one that was steady"
    """
    release = _release()
    of = policy or ("policy" if to is None else release.ledger.version(to).policy)
    seen, champion = generation, release.ledger.champion(of)
    if seen is None:
        seen = champion.generation if champion else 0
    back = release.ledger.rollback(
        who=who(reason), to_version=to, expected_generation=seen, policy=of
    )
    mode = release.ledger.service_mode(of)
    release.deliver()
    assert champion is not None  # without one the ledger refuses
    if json:
        told = {"version": back.version, "state": "CHAMPION", "mode": back.mode}
        print_json({**told, "service_mode": mode, "quarantined": champion.version})
        return
    other = f"; it was judged in mode {back.mode}, service is in {mode}"
    said = f"version {back.version} is CHAMPION{other if mode != back.mode else ''}"
    gone = f"version {champion.version} is quarantined"
    out.print(f"{said}\n{gone}", markup=False, soft_wrap=True)


def revoke(version: Version, reason: ReasonOption, json: JsonOption = False) -> None:
    """Withdraw a champion, current or former, permanently.

    Revoking the current champion rolls back to the one before it.

    Example: srghn revoke 2 --reason "it was trained on the wrong data"
    """
    release = _release()
    release.ledger.revoke(version, who=who(reason))
    release.deliver()
    _told(version, "REVOKED", json)


def stale(version: Version, reason: ReasonOption, json: JsonOption = False) -> None:
    """Declare that a pass, an approval or a trial no longer holds; the gate may judge it again.

    Example: srghn stale 3 --reason "the environment was recalibrated"
    """
    release = _release()
    release.ledger.mark_stale(version, who=who(reason))
    release.deliver()
    _told(version, "STALE", json)


def canary_start(
    version: Version,
    reason: ReasonOption,
    weight: Annotated[float | None, typer.Option(help="Share of episodes, 0 to 1.")] = None,
    json: JsonOption = False,
) -> None:
    """Begin the trial of an approved version beside the champion.

    Example: srghn canary start 2 --weight 0.1 --reason "a small share first"
    """
    release = _release()
    release.start_canary(version, actor(), reason, weight)
    release.deliver()
    _told(version, "CANARY", json)


def canary_weight(
    weight: Annotated[float, typer.Argument(help="Share of new episodes, 0 up to 1.")],
    reason: ReasonOption,
    version: SeenOption = None,
    policy: PolicyOption = "policy",
    json: JsonOption = False,
) -> None:
    """Change the share of new episodes that the version on trial gets; 0 pauses the trial.

    Example: srghn canary weight 0.5 --reason "no crash in the first hundred"
    """
    release = _release()
    release.ledger.set_canary_weight(weight, who=who(reason), version=version, policy=policy)
    running = release.ledger.canary(policy)
    assert running is not None
    _told(running.version, f"CANARY at {_share(running)}", json)


def canary_abort(version: Version, reason: ReasonOption, json: JsonOption = False) -> None:
    """End a trial at once; the version is quarantined.

    Example: srghn canary abort 2 --reason "clients report oscillation"
    """
    release = _release()
    of = release.ledger.version(version).policy
    release.ledger.abort_canary(version=version, who=who(reason), policy=of)
    release.deliver()
    _told(version, "ABORTED", json)


def replay(
    version: Annotated[
        str, typer.Argument(help="A version's number, or a candidate's folder (data/candidate).")
    ],
    json: JsonOption = False,
) -> None:
    """Rebuild a candidate from its lineage, compare digests, replay the gate's episodes.

    Exit code 1 if anything differs, 3 if a file was changed.

    Examples:

      srghn replay 2

      srghn replay data/candidate
    """
    from pipelines.versions.replay import replay as make_again

    result = make_again(load_settings(), version)
    if json:
        print_json(result.to_dict())
        return
    for line in result.moved:
        out.print(f"another platform: {line}", markup=False)
    rows = table(f"candidate {short(result.candidate)}", "made again", "compared", "found")
    for finding in result.findings:
        found = short(finding.found) if finding.how == "bytes" else finding.found
        rows.add_row(finding.what, finding.how, found)
    out.print(rows)
    out.print(result.unplayed or "all as recorded")


def compare(
    a: Annotated[str, typer.Argument(help="A version's number, or a candidate's folder.")],
    b: Annotated[str, typer.Argument(help="The other one.")],
    mode: Annotated[
        str | None, typer.Option(help="Default: the one in which A was judged.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    to: Annotated[Path | None, typer.Option("--out", help="Copy the page to this file.")] = None,
    json: JsonOption = False,
) -> None:
    """Any two versions on the same episodes: the report's page, without a verdict.

    Nothing follows from it: the ledger is only read.

    Examples:

      srghn compare 3 2 --open

      srghn compare data/candidate 2 --mode flipped --json
    """
    from pipelines.progress import share_bar
    from pipelines.versions.compare import compare as play
    from regression_suite.checks import written

    with share_bar("compare") as progress:
        found = play(load_settings(), a, b, mode, progress)
    path = found.page if to is None else _copied(found.page, to)
    gap = found.difference
    if json:
        print_json({**found.to_dict(), "page": str(path)})
    elif gap is None:
        out.print(f"{path}\nepisodes crashed: see the page", markup=False)
    else:
        told = f"{a} less {b}: {written(gap)} in mean return"
        out.print(f"{told}\n{path}", markup=False, soft_wrap=True)
    if open_:
        webbrowser.open(path.absolute().as_uri())


def _release() -> Release:
    from pipelines.versions.release import Release

    return Release(load_settings())


def _share(canary: Canary) -> str:
    return f"{100 * canary.weight:g}%"


def _told(version: int, state: str, json: bool) -> None:
    told: dict[str, Any] = {"version": version, "state": state}
    if json:
        print_json(told)
    else:
        out.print(f"version {version} is {state}")
