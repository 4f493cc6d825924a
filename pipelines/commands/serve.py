"""`serve`, `up` and `doctor`: what stands around the loop."""

from __future__ import annotations

import signal
from contextlib import redirect_stdout, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands import home
from pipelines.commands.output import JsonOption, load_settings, out, print_json, table, who
from pipelines.stdout import stdout
from srghn.errors import ServiceError
from srghn.parents import die_with_parent

if TYPE_CHECKING:
    from serving.settings import Settings

Host = Annotated[str | None, typer.Option(help="Address to listen on; default loopback only.")]
Port = Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")]


def add_to(app: typer.Typer) -> None:
    for command in (serve, up, doctor, sync):
        app.command()(command)
    home.add_to(app)


def serve(
    host: Host = None,
    port: Port = None,
    workers: Annotated[int, typer.Option(help="Server processes.", min=1, max=64)] = 1,
    without_tokens: Annotated[
        bool,
        typer.Option("--without-tokens", help="Allow anyone who can reach it, beyond loopback."),
    ] = False,
) -> None:
    """Serve the champion over HTTP, until stopped.

    Example: srghn serve --workers 2

    Ask it:

      curl -s localhost:8000/v1/act --json '{"observation": [0, 0, 0, 0]}'
    """
    from serving.serve import serve as run_server

    chosen = _settings(host, port)
    if without_tokens:
        chosen = chosen.model_copy(update={"without_tokens": True})
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the server takes over
    with redirect_stdout(stdout()), suppress(KeyboardInterrupt):  # no environment runs in it
        run_server(chosen, workers)


def up(host: Host = None, port: Port = None) -> None:
    """Prefect server, worker and HTTP server together, stopped together.

    Example: srghn up --port 8001
    """
    from pipelines.services.up import run_all

    run_all(_settings(host, port))


def doctor(json: JsonOption = False) -> None:
    """What is installed, reachable, writable and in order. Exit 1 if anything is broken.

    Example: srghn doctor --json
    """
    from pipelines.services.doctor import examine

    findings = examine(load_settings())
    if json:
        print_json([vars(finding) for finding in findings])
    else:
        from rich.text import Text

        rows = table("", "", "what", "found", "do")
        for finding in findings:
            mark = Text("ok", "green") if finding.ok else Text("broken", "red")
            rows.add_row(mark, finding.what, finding.found, "" if finding.ok else finding.remedy)
        out.print(rows)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def sync(
    whole: Annotated[
        bool, typer.Option("--all", help="Write every version and alias of the registry again.")
    ] = False,
    key_lost: Annotated[
        bool,
        typer.Option(
            "--key-lost",
            help="The witness key was lost for good: delete the heads in MLflow that it signed, if "
            "the ledger is whole and agrees with them; then as --all.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Deliver to MLflow what could not be delivered before: runs, and the registry's aliases.

    Examples:

      srghn sync --json

      srghn sync --all
    """
    from pipelines.tracking.delivery import deliver_all

    settings, again = load_settings(), None
    if key_lost:
        from pipelines.versions.release import Release

        release = Release(settings)
        release.ledger.verify()
        count = release.mirror().forget_heads()
        again = who(f"the witness key was lost: {count} heads in MLflow are forgotten")
    elif whole:
        again = who("every version is written again: srghn sync --all")
    result = deliver_all(settings, again=again)
    if json and not result["failure"]:
        print_json(result)
    elif not json:
        out.print(f"{result['runs']} runs and {result['events']} ledger events delivered")
    if result["failure"]:
        raise ServiceError(
            f"not everything was delivered; run srghn sync again later: {result['failure']}"
        )


def _settings(host: str | None, port: int | None) -> Settings:
    chosen = {"host": host, "port": port}
    return load_settings(**{k: v for k, v in chosen.items() if v is not None})
