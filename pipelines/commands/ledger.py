"""The ledger's own care: its schema, its copies, and what holds for a policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.output import (
    JsonOption,
    PolicyOption,
    ReasonOption,
    load_settings,
    out,
    print_json,
    reading,
    say,
    table,
    who,
)
from srghn.errors import ConfigError

if TYPE_CHECKING:
    from serving.registry.ledger import Ledger
    from serving.registry.records import Event


def add_to(app: typer.Typer) -> None:
    app.command()(backup)
    app.command()(restore)
    app.command()(policies)
    for name, text, commands in (
        ("ledger", "Bring a ledger to this version's schema.", {"upgrade": upgrade}),
        ("mode", "Which mode a policy's environment is in.", {"set": mode_set}),
    ):
        group = typer.Typer(help=text)
        for word, command in commands.items():
            group.command(word)(command)
        app.add_typer(group, name=name, no_args_is_help=True)
    rules = typer.Typer(help="Who approves, and what is required before a trial.")
    rules.command("show")(rules_show)
    rules.command("set")(rules_set)
    deploy = typer.Typer(help="How a version that passed becomes champion.")
    deploy.add_typer(rules, name="rules", no_args_is_help=True)
    app.add_typer(deploy, name="deploy", no_args_is_help=True)


def upgrade(
    backed_up: Annotated[
        bool, typer.Option("--backed-up", help="Make no backup: one was made by other means.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Back the ledger up, then bring it to the schema that this version reads.

    Stop the servers first. If anything fails, the ledger is left as it was.

    Example: srghn ledger upgrade
    """
    from serving.registry.upgrade import upgrade as migrate

    settings = load_settings()
    done = migrate(settings.database_url, settings.home / "backups", backed_up=backed_up)
    if json:
        print_json(vars(done))
    elif done.before == done.after:
        out.print(f"schema {done.after} is up to date; {done.events} events, hash chain whole")
    else:
        kept = f"; backup: {done.backup}" if done.backup else ""
        kept += "; bring MLflow up to it: srghn sync"
        out.print(
            f"schema {done.before} is now {done.after}; {done.events} events, hash chain whole"
            f"{kept}",
            markup=False,
            soft_wrap=True,
        )


def backup(
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder; default backups/ in the home folder.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Copy the whole ledger to a file, consistently, even while it is in use.

    Artefacts, reports, envs and the witness are plain files of the home: copy them with any tool.

    Example: srghn backup --to /mnt/backups
    """
    from serving.registry.backup import save

    settings = load_settings()
    file = save(settings.database_url, (to or settings.home / "backups") / "ledger")
    if json:
        print_json({"file": file})
    else:
        say(file)


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `srghn backup` made.")],
    reason: ReasonOption,
    json: JsonOption = False,
) -> None:
    """Replace the ledger by a backup; the old one is moved aside, never deleted.

    Stop the servers first, and start them again afterwards. Steps that were taken after the backup
    are undone, even a rollback. The history and the witness record it, by whom and why.

    Example: srghn restore .srghn/backups/ledger-20270101T030000.000000Z.db --reason "disk died"
    """
    from serving.registry.backup import restore as put_back

    settings = load_settings()
    done = put_back(settings.database_url, file, settings.home, who(reason), settings.witness_key)
    ledger, undone = done.ledger, done.undone
    champion, count = ledger.champion(), ledger.verify()
    champions = [ledger.champion(policy.name) for policy in ledger.policies()]
    ledger.close()
    absent = [
        found
        for found in champions
        if found and not settings.store_url and not (settings.artefacts / found.digest).is_dir()
    ]
    if json:
        print_json(
            {
                "events": count,
                "champion": champion.version if champion else None,
                "kept": done.kept,
                "undone": None if undone is None else [vars(event) for event in undone],
                "without_files": [found.version for found in absent],
            }
        )
        return
    served = f"version {champion.version} is champion" if champion else "no champion"
    lines = [f"restored: {count} events, hash chain whole; {served}"]
    if done.kept is not None:
        lines += [_undone(undone), f"the ledger before it is kept: {done.kept}"]
    lines += [
        f"version {found.version} is champion and its files are not in {settings.artefacts}: copy "
        f"{found.digest} from a backup"
        for found in absent
    ]
    if any(event.action == "revoke_tokens" for event in undone or ()):
        lines.append(
            "tokens that were revoked after the backup are valid again: srghn token list, then "
            "srghn token revoke OWNER"
        )
    lines.append("now start the servers again, and bring MLflow up to this ledger: srghn sync")
    out.print("\n".join(lines), markup=False, soft_wrap=True)


def _undone(events: list[Event] | None) -> str:
    """What a restore has undone; of many steps the last ones, those of champions first.

    Rules, modes, tokens and alarms are those of the backup, too: each kind of event is named.
    """
    if events is None:
        return "undone: not known, the ledger before it cannot be read"
    if not events:
        return "undone: nothing"
    moved = [event for event in events if event.to_state != event.from_state]
    moved.sort(key=lambda event: ("CHAMPION" not in (event.from_state, event.to_state), -event.seq))
    told = ", ".join(f"{one.action} (version {one.version} to {one.to_state})" for one in moved[:5])
    among = f", among them {told}" if told else ""
    others = dict.fromkeys(one.action for one in reversed(events) if one not in moved)
    also = f"{'; also' if told else ', among them'} {', '.join(others)}" if others else ""
    count = f"{len(events)} event{'s' * (len(events) > 1)}"
    return f"undone: {count} from {events[0].at} on{among}{also}"


def policies(json: JsonOption = False) -> None:
    """Every policy of this home, what is served under it, and the mode of its environment.

    Example: srghn policies --json
    """
    ledger = reading().ledger
    found: list[dict[str, Any]] = []
    for policy in ledger.policies():
        champion, canary = ledger.served(policy.name)
        found.append(
            {
                "policy": policy.name,
                "champion": champion.version if champion else None,
                "canary": canary.version if canary else None,
                "mode": ledger.service_mode(policy.name),
                "created_at": policy.created_at,
            }
        )
    if json:
        print_json(found)
        return
    rows = table("", "policy", "champion", "canary", "mode", "since")
    for one in found:
        rows.add_row(*("-" if value is None else str(value) for value in one.values()))
    out.print(rows)


def mode_set(
    mode: Annotated[str, typer.Argument(help="A mode of the policy's environment.")],
    reason: ReasonOption,
    policy: PolicyOption = "policy",
    json: JsonOption = False,
) -> None:
    """Set the mode that the policy's environment is in; later versions are judged in it.

    Passes that were won in another mode become STALE: judge them again (srghn gate VERSION).

    Example: srghn mode set flipped --reason "the motors were rewired"
    """
    from pipelines.versions.release import Release
    from serving.control.release import set_mode

    release = Release(load_settings())
    ledger = release.ledger
    before = {found.version: found.state for found in ledger.versions(policy)}
    set_mode(ledger, release.store, policy, mode, who=who(reason))
    now = {found.version: str(found.state) for found in ledger.versions(policy)}
    moved = {version: state for version, state in now.items() if state != before.get(version)}
    if json:
        print_json({"policy": policy, "mode": mode, "moved": moved})
        return
    out.print(f"policy {policy} is in mode {mode}", markup=False)
    for version, state in moved.items():
        out.print(f"version {version} is {state}; judge it in this mode: srghn gate {version}")


def rules_show(policy: PolicyOption = "policy", json: JsonOption = False) -> None:
    """The current deployment rules, and what each means.

    Example: srghn deploy rules show
    """
    rules = reading().ledger.deployment_rules(policy)
    if json:
        print_json(rules.model_dump(mode="json"))
        return
    shown = table("", "rule", "value", "meaning")
    for name, field in type(rules).model_fields.items():
        shown.add_row(name, str(getattr(rules, name)), field.description or "")
    out.print(shown)


def rules_set(
    assignments: Annotated[
        list[str],
        typer.Argument(help="RULE=VALUE, one or more; for a trial's rules, trial.margin=0.1."),
    ],
    reason: ReasonOption,
    policy: PolicyOption = "policy",
    json: JsonOption = False,
) -> None:
    """Change deployment rules; the others stay as they are. The ledger records by whom and why.

    Example: srghn deploy rules set two_persons=true --reason "audit of March"
    """
    from serving.registry.rules import parse_rules
    from srghn.yaml_files import parse_yaml

    ledger = _ledger()
    data = ledger.deployment_rules(policy).model_dump(mode="json")
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"a deployment rule is set by RULE=VALUE, got {assignment!r}")
        _set(data, name.strip().split("."), parse_yaml(value, f"rule {assignment}"))
    ledger.set_deployment_rules(parse_rules(data), who=who(reason), policy=policy)
    rules_show(policy, json)


def _set(data: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a rule by its path; a group that was not set yet begins with its defaults."""
    for name in path[:-1]:
        if not isinstance(data.get(name), dict):
            data[name] = {}
        data = data[name]
    data[path[-1]] = value


def _ledger() -> Ledger:
    from pipelines.versions.release import Release

    return Release(load_settings()).ledger
