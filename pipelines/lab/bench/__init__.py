"""`srghn bench`: compares this project with a plain Gymnasium loop, its peers, and the limits.

Everything is measured in one run, on one core, in CPU-seconds, and reported as ratios. A busy
machine slows all contestants equally.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipelines.lab.bench import peers
from pipelines.lab.bench.engines import WORKERS, Gain, enough_cores, gain
from pipelines.lab.bench.growth import Share, over_policy, over_population, share_outside_evaluation
from pipelines.lab.bench.plot import draw
from pipelines.lab.bench.table import OURS, Row, measure_work
from pipelines.lab.bench.works import long_works, works
from serving.settings import Settings
from srghn.errors import ServiceError


def run_bench(
    settings: Settings,
    *,
    quick: bool = False,
    install_peers: bool = False,
    out: Path | None = None,
    as_json: bool = False,
) -> list[Row]:
    """Measure, print a table (or a JSON list of its rows), and write `bench.png` into `out`.

    `quick` takes about a minute: fewer rounds, short episodes, small populations for the growth.
    """
    talk, console = Console(stderr=True, highlight=False), Console(highlight=False)

    def say(text: str) -> None:
        talk.print(text, style="dim", markup=False)

    if install_peers:
        _install(settings.home, say=say)
    rounds, seconds = (2, 0.25) if quick else (5, 1.0)
    rows: list[Row] = []
    for work in works(quick):
        say(f"{work.name} ...")
        rows += measure_work(work, settings.home, rounds, seconds, say)
    say("growth ...")
    curves = (
        over_population((16, 64, 256) if quick else (16, 64, 256, 1024, 4096)),
        over_policy((8, 32, 128) if quick else (8, 32, 128, 512)),
    )
    share = share_outside_evaluation(1 if quick else 3)
    gains = [] if quick else list(_gains(rounds, say))
    path = (out or settings.home / "bench") / "bench.png"
    draw(rows, curves, path)
    if as_json:
        console.print_json(json.dumps([asdict(row) for row in rows]))
    else:
        console.print(_table(rows))
    beside = talk if as_json else console  # with JSON, stdout has only the list
    for curve in curves:
        beside.print(f"a generation grows as ({curve.name})^{curve.exponent:.2f}")
    beside.print(_share_text(share))
    for found in gains:
        beside.print(_gain_text(found))
    beside.print(f"plot: {path}", markup=False)
    return rows


def _install(home: Path, say: peers.Say) -> None:
    for peer in peers.PEERS:
        say(f"installing {peer.name} ...")
        try:
            peers.install(peer, home)
        except ServiceError as error:
            say(str(error))


def _gains(rounds: int, say: peers.Say) -> Iterator[Gain]:
    if not enough_cores():
        say(f"engines: fewer than {WORKERS} cores, skipped")
        return
    for work in long_works():
        say(f"{work.name}, {WORKERS} workers ...")
        yield gain(work, rounds)


def _table(rows: list[Row]) -> Table:
    table = Table(title="steps per CPU-second, one core")
    table.add_column("work")
    table.add_column("contestant")
    for heading in ("steps per CPU-second", "to the plain loop", "of the limit"):
        table.add_column(heading, justify="right")
    previous = ""
    for row in rows:
        share = "" if row.share_of_limit is None else f"{row.share_of_limit:.2g}"
        table.add_row(
            "" if row.work == previous else row.work,
            row.contestant,
            f"{row.steps_per_cpu_second:,.0f}",
            row.times,
            share,
            style="bold" if row.contestant.startswith(OURS) else None,
        )
        previous = row.work
    return table


def _share_text(share: Share) -> str:
    long = share.outside_evaluation_when_long
    when = "no generation's episodes were that long" if long is None else f"{long:.0%}"
    return (
        "births, selection and bookkeeping in CartPole-Switch, 64 individuals x 8 episodes: "
        f"{share.milliseconds_outside:.1f} ms a generation, {share.outside_evaluation:.0%} of its "
        f"CPU time (mean {share.mean_steps:.0f} steps "
        f"an episode); where episodes exceed 400 steps: {when}"
    )


def _gain_text(found: Gain) -> str:
    dask = "not installed" if found.dask is None else f"{found.dask:.2f} of the two processes"
    return (
        f"{found.work}, {found.seconds:.1f} s in one process: two processes play "
        f"{found.processes:.2f} times as many steps a second (the machine gives two evaluations at "
        f"once {found.machine:.2f} times one's); Dask with two workers: {dask}"
    )
