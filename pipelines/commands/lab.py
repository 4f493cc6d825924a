"""`experiment` and `bench`: measure the algorithm, and measure the machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands import complete
from pipelines.commands.output import JsonOption, load_settings, out, print_json, say, table
from pipelines.lab.names import EXPERIMENTS


def add_to(app: typer.Typer) -> None:
    app.command()(experiment)
    benches = typer.Typer(invoke_without_command=True, no_args_is_help=False)
    benches.callback()(bench)
    benches.command()(serve)
    benches.command()(gate)
    benches.command()(solve)
    app.add_typer(benches, name="bench")


def experiment(
    name: Annotated[
        str,
        typer.Argument(
            help=f"One of {', '.join(EXPERIMENTS)}.",
            autocompletion=complete.experiments,
        ),
    ],
    seeds: Annotated[int | None, typer.Option(help="How many seeds.", min=1)] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare the method with this arm only; repeatable. If the method itself has "
            "several arms: those that you name, or all of them if you name none."
        ),
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(
            help="The same as a list: 'ga,cmaes'; 'none': the method alone; '?': tell all names."
        ),
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, in every arm; repeatable.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Concurrent runs.", min=1)] = 2,
    quick: Annotated[
        bool, typer.Option("--quick", help="A short version that takes minutes.")
    ] = False,
    to: Annotated[Path | None, typer.Option("--out", help="Folder for the results.")] = None,
    json: JsonOption = False,
) -> None:
    """Run an experiment with its controls; if stopped, it resumes where it was.

    Examples:

      srghn experiment cartpole-switch --quick

      srghn experiment many-switches --arms ga,cmaes --seeds 4 --set evolution.ties=parents
    """
    from pipelines.lab.names import check_experiment

    check_experiment(name)
    from pipelines.lab.experiments import run_experiment

    chosen = [*(arm or ()), *(a.strip() for a in (arms or "").split(",") if a.strip())]
    if "?" in chosen:
        _tell_arms(name, quick, sets or (), json)
        return
    folder = to or load_settings().home / "experiments" / (f"{name}-quick" if quick else name)
    result = run_experiment(
        name,
        seeds=seeds,
        arms=chosen,
        sets=sets or (),
        quick=quick,
        out=folder,
        workers=workers,
    )
    if json:
        print_json(result)
    else:
        out.print(f"page: {folder / 'index.html'}", markup=False)


def _tell_arms(name: str, quick: bool, sets: Sequence[str], json: bool) -> None:
    from pipelines.lab.experiments.runner import find

    known = list(find(name, quick, sets).arms)
    if json:
        print_json({"experiment": name, "arms": known})
    else:
        say("\n".join(known))


def bench(
    context: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help="About a minute.")] = False,
    install_peers: Annotated[
        bool, typer.Option("--install-peers", help="Install the peers into their own venvs first.")
    ] = False,
    to: Annotated[Path | None, typer.Option("--out", help="Folder for the plots.")] = None,
    json: JsonOption = False,
) -> None:
    """Steps per CPU-second against a plain Gymnasium loop, the peers, and the limits.

    With `serve`: requests per CPU-second of the HTTP server. With `gate`: seconds of a gate. With
    `solve`: CPU-seconds until an environment is solved.

    Examples:

      srghn bench --quick --json

      srghn bench --install-peers --out plots
    """
    if context.invoked_subcommand is not None:
        return
    from pipelines.lab.bench import run_bench

    run_bench(load_settings(), quick=quick, install_peers=install_peers, out=to, as_json=json)


def serve(
    rounds: Annotated[int, typer.Option(help="Rounds; the median is reported.", min=1)] = 3,
    seconds: Annotated[float, typer.Option(help="Seconds a measurement.", min=0.1)] = 2.0,
    apart: Annotated[
        bool, typer.Option("--apart", help="Servers and load generator on a core each.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Requests per CPU-second of the HTTP server, beside a bare one, FastAPI's and MLflow's.

    The champion of this home is served from a copy; nothing is written into the home.

    Example: srghn bench serve --rounds 5 --json
    """
    from pipelines.lab.bench.http.run import bench_http, show

    show(bench_http(load_settings(), rounds=rounds, seconds=seconds, apart=apart), json)


def gate(
    preset: Annotated[
        list[str] | None, typer.Option(help="cartpole or lunarlander; default both. Repeatable.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Time a whole gate against a champion: until it is decided, and with every planned episode.

    Candidate and champion are networks fitted to controllers that were written by hand.

    Example: srghn bench gate --preset cartpole --json
    """
    from dataclasses import asdict

    from pipelines.lab.bench.gates import CONTROLLERS, bench_gates
    from srghn.errors import ConfigError

    asked = list(preset or CONTROLLERS)
    if unknown := sorted(set(asked) - set(CONTROLLERS)):
        known = ", ".join(CONTROLLERS)
        raise ConfigError(f"bench gate measures {known}, got {', '.join(unknown)}")
    found = bench_gates(asked, lambda text: typer.echo(text, err=True))
    if json:
        print_json([asdict(each) for each in found])
        return
    names = ("world", "plays", "pairs", "seconds", "CPU", "replay's CPU", "playing", "verdict")
    rows = table("a gate against a champion", *names)
    for each in found:
        plays = "all planned" if each.whole else "until decided"
        figures = (each.episodes, each.seconds, each.cpu, each.children)
        rows.add_row(each.world, plays, *map(str, figures), f"{each.playing:.0%}", each.verdict)
    out.print(rows)


def solve(
    world: Annotated[
        list[str] | None, typer.Option(help="An environment; default all six; repeatable.")
    ] = None,
    contestant: Annotated[
        list[str] | None,
        typer.Option(
            help="self-referential, ga, cmaes, snes; sb3-ppo, evotorch-pgpe, pycma; repeatable."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each.", min=1)] = 5,
    limit: Annotated[float, typer.Option(help="CPU-seconds a run.", min=1)] = 1800.0,
    install_peers: Annotated[
        bool, typer.Option("--install-peers", help="Install Stable-Baselines3 and EvoTorch first.")
    ] = False,
    to: Annotated[Path | None, typer.Option("--out", help="The table, a CSV file.")] = None,
    json: JsonOption = False,
) -> None:
    """CPU-seconds until the mean over 100 fresh episodes reaches the bar, beside three peers.

    Runs already in the table are not repeated, so a stopped bench resumes. Stable-Baselines3's PPO
    has the published settings of RL Baselines3 Zoo, EvoTorch's PGPE those of its own example, pycma
    its defaults.

    Example: srghn bench solve --world CartPole-v1 --contestant self-referential --seeds 2
    """
    from dataclasses import asdict

    from pipelines.lab.bench.peers import install
    from pipelines.lab.bench.solve import run

    home = load_settings().home
    if install_peers:
        for _, peer in run.PEERS.values():
            if peer is not None:
                install(peer, home)
    attempts = run.bench_solve(
        to or home / "bench" / "solve.csv",
        home,
        worlds=world or (),
        contestants=contestant or (),
        seeds=seeds,
        limit=limit,
        say=lambda text: typer.echo(text, err=True),
    )
    if json:
        print_json([asdict(attempt) for attempt in attempts])
    else:
        out.print(run.table(attempts))
