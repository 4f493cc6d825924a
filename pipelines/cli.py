"""`srghn`: one command for the three jobs (schedule, review, query) and what they stand on.

Commands only parse and print; what they do is in the modules they call, which are imported when
they are called, so that `srghn --help` answers at once.

Exit codes: 0 done (for `run` and `gate`: passed), 1 refused or failed, 2 inconclusive, 3 error, 130
stopped by the user.
"""

from __future__ import annotations

import inspect
import io
import math
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from pipelines.commands import (
    check,
    env,
    lab,
    ledger,
    loop,
    notify,
    outcomes,
    review,
    run,
    schedule,
    serve,
    store,
    suite,
    token,
    watch,
)
from pipelines.services.processes import extend_import_path
from pipelines.stdout import kept_stdout, refused
from srghn import __version__
from srghn.errors import ConfigError, SrghnError, is_full
from srghn.extras import MissingExtra, needed
from srghn.quiet import be_quiet

EPILOG = (
    "Everything is kept in one home folder, .srghn unless SRGHN_HOME says otherwise. "
    "Exit codes: 0 done, 1 refused or failed, 2 inconclusive, 3 error. "
    "Begin with: srghn demo"
)
NO_ROOM = (
    "no room is left on the disk of the home folder; make room (srghn prune shows what can go), "
    "then do it again"
)


class Stopped(BaseException):
    """Ctrl-C, by a name that typer lets through: of its own it would exit without a word."""


class _Group(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Stopped(str(error)) from error


app = typer.Typer(
    name="srghn",
    cls=_Group,
    help="Policies that evolve safely in production: evolve in a sandbox, judge, try as a canary, "
    "serve.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
debug = False
#: Whether a command runs; before it does, only stdout can fail.
begun = False
#: What the parser raises, of typer's own copy of click, which has no public name.
USAGE: Any = typer.BadParameter.__mro__[2]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"srghn {__version__}")
        raise typer.Exit


@app.callback()
def common(
    show_debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    global debug
    debug = show_debug


run.add_to(app)
check.add_to(app)
review.add_to(app)
ledger.add_to(app)
store.add_to(app)
serve.add_to(app)
token.add_to(app)
watch.add_to(app)
loop.add_to(app)
notify.add_to(app)
outcomes.add_to(app)
schedule.add_to(app)
env.add_to(app)
suite.add_to(app)
lab.add_to(app)


class _Command(TyperCommand):
    """A command that has stdout to itself, and whose numbers are finite.

    The least that an option takes lets nan through, and infinity.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        for param in self.params:
            value = ctx.params.get(param.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{param.opts[0]} takes a finite number, got {value}; give one")
        return rest

    def invoke(self, ctx: Any) -> Any:
        global begun
        begun = True
        with kept_stdout():
            return super().invoke(ctx)


def _complete(group: typer.Typer) -> None:
    """Give each command what all have, and make each paragraph of its help one line."""
    for command in group.registered_commands:
        command.cls = _Command
        command.help = command.help or _unwrapped(command.callback)
    own = group.registered_callback
    if own is not None and (text := _unwrapped(own.callback)):
        own.help = own.help or text
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _complete(inner.typer_instance)


def _unwrapped(callback: Any) -> str:
    """A function's documentation with each paragraph in one line.

    A terminal breaks a line where it is full; the source's own breaks would come on top.
    """
    text = inspect.getdoc(callback) or ""
    return "\n\n".join(" ".join(part.split("\n")) for part in text.split("\n\n"))


_complete(app)


def main() -> None:
    """Entry point: errors meant for users become one line on stderr and an exit code."""
    global begun
    begun = False
    _mend_streams()
    be_quiet()
    extend_import_path()
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except USAGE as error:
        _refuse_usage(error)
    except typer.Abort:
        _end("Stopped", "stopped", 130)
    except SrghnError as error:
        if debug:
            raise
        _refuse(error)
    except ModuleNotFoundError as error:
        extra = needed(error)
        if debug or extra is None:
            raise
        typer.echo(f"srghn: {MissingExtra('this command', error, extra)}", err=True)
        sys.exit(MissingExtra.exit_code)
    except BrokenPipeError:
        _hush()
        sys.exit(1)
    except OSError as error:
        lost = not _is_written() or not begun
        if debug or not (lost or error.filename or is_full(error)):
            raise
        if is_full(error) and not lost:
            _refuse(ConfigError(NO_ROOM))
        what = "write the output" if lost else f"use {error.filename}"
        _refuse(ConfigError(f"cannot {what}: {error.strerror or error}"))
    except (Stopped, KeyboardInterrupt) as error:
        how = f"; {error}" if str(error) else ""
        _end("Stopped", f"stopped{how}", 130)


def _refuse_usage(error: Any) -> None:
    """What the parser refuses, as any other error: 2 is an inconclusive gate's alone.

    A group of commands without one has shown its help, which says it all.
    """
    kind, said = type(error).__name__, " ".join(error.format_message().split())
    if kind == "NoArgsIsHelpError":
        sys.exit(3)
    where = "" if error.ctx is None else f"; see {error.ctx.command_path} --help"
    _end(kind, f"{said.rstrip('.')}{where}", 3)


def _refuse(error: SrghnError) -> None:
    _end(type(error).__name__, str(error), error.exit_code)


def _end(kind: str, message: str, code: int) -> None:
    """One line on stderr; a script that asked for JSON gets it as JSON too."""
    from pipelines.commands.output import print_json, told
    from pipelines.commands.records import safe

    typer.echo(safe(f"srghn: {message}"), err=True)
    if "--json" in sys.argv[1:]:
        try:
            print_json({"error": told(kind, message, code)})
        except OSError:  # stderr has it
            _hush()
    sys.exit(code)


def _mend_streams() -> None:
    """A stream that was closed takes everything, and one that is not UTF-8 takes every letter."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _is_written() -> bool:
    """Whether stdout takes what it was given; where it does not, it is hushed."""
    try:
        sys.stdout.flush()
        taken = not refused()
    except OSError:
        taken = False
    if not taken:
        _hush()
    return taken


def _hush() -> None:
    """Nobody gets stdout any more: what is still to be flushed must not raise at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
