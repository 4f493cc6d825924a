"""Runs every contestant on every goal with every seed, into a table that can be resumed."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from pipelines.lab.bench.peers import Peer
from pipelines.lab.bench.solve.goals import GOALS, Goal
from pipelines.lab.bench.solve.ours import EPISODES, Attempt, attempt
from pipelines.lab.bench.solve.watch import FAR, FIRST
from pipelines.lab.workers import worker_pool
from srghn.config import parse_params
from srghn.errors import ConfigError, ServiceError
from srghn.evolution.run import SECTIONS
from srghn.files import atomic_write, canonical_json, sha256_bytes, sha256_file

#: Strategies of this library by name.
OURS = ("self-referential", "ga", "cmaes", "snes")
PPO, PGPE, PYCMA = "sb3-ppo", "evotorch-pgpe", "pycma"
#: Contestant -> its program, and the peer whose environment runs it; pycma runs in our own.
PEERS: dict[str, tuple[str, Peer | None]] = {
    PPO: ("ppo.py", Peer("sb3", tuple(GOALS), ("stable-baselines3",), True)),
    PGPE: ("pgpe.py", Peer("evotorch", tuple(GOALS), ("evotorch",), True)),
    PYCMA: ("pycma.py", None),
}
COLUMNS = tuple(field.name for field in fields(Attempt))


def bench_solve(
    out: Path,
    home: Path,
    *,
    worlds: Sequence[str] = (),
    contestants: Sequence[str] = (),
    seeds: int = 5,
    limit: float = 1800.0,
    say: Callable[[str], None] = print,
) -> list[Attempt]:
    """Make the attempts that `out` (CSV) does not have yet, and add them; returns those asked for.

    Attempts there with other settings are made anew, and so are those of a peer that failed, which
    count as not solved. `limit` is in CPU-seconds for each run. Raises `ConfigError` for an unknown
    world or contestant.
    """
    worlds, contestants = worlds or tuple(GOALS), contestants or (OURS[0], *PEERS)
    _check("world", worlds, GOALS)
    _check("contestant", contestants, (*OURS, *PEERS))
    done = {(a.env, a.contestant, a.seed, a.settings): a for a in read(out)}
    found = []
    for seed in range(seeds):
        for world in worlds:
            for contestant in contestants:
                settings = settings_of(GOALS[world], contestant, limit)
                key = (world, contestant, seed, settings)
                if key not in done or math.isnan(done[key].cpu_seconds):
                    if not _installed(contestant, home, say):
                        continue
                    say(f"{world}, {contestant}, seed {seed} ...")
                    try:
                        made = _one(GOALS[world], contestant, seed, limit, home)
                    except ServiceError as error:
                        say(str(error))
                        made = Attempt(world, contestant, seed, False, math.nan, 0, math.nan)
                    done[key] = replace(made, settings=settings)
                    _write(out, done.values())
                found.append(done[key])
    return found


def settings_of(goal: Goal, contestant: str, limit: float) -> str:
    """A digest of all that decides a run but its seed: defaults, and a peer's programs, too."""
    rules = [goal.bar, goal.episodes, limit, EPISODES, FIRST, FAR]
    if contestant in OURS:
        params = parse_params(goal.params(contestant, 0), f"bench solve {goal.env}")
        own: list[Any] = [params.model_dump(mode="json", include=SECTIONS)]
    else:
        programs = (PEERS[contestant][0], "watch.py")
        files = [sha256_file(Path(__file__).with_name(name)) for name in programs]
        own = [dict(goal.ppo), goal.hidden, files]
    return sha256_bytes(canonical_json([own, rules]))[:8]


def _installed(contestant: str, home: Path, say: Callable[[str], None]) -> bool:
    """Whether it can run; says so if it cannot."""
    _, peer = PEERS.get(contestant, ("", None))
    if peer is None or peer.installed(home):
        return True
    say(f"{contestant} is not installed, skipped: srghn bench solve --install-peers")
    return False


def _check(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"bench solve knows no {what} {name!r}; known: {', '.join(known)}")


def _one(goal: Goal, contestant: str, seed: int, limit: float, home: Path) -> Attempt:
    """One attempt in its own process, whose CPU time is counted."""
    if contestant in PEERS:
        return _peer(goal, contestant, seed, limit, home)
    with worker_pool(1) as pool:
        return pool.submit(attempt, goal, contestant, seed, limit).result()


def _peer(goal: Goal, contestant: str, seed: int, limit: float, home: Path) -> Attempt:
    name, peer = PEERS[contestant]
    spec = {
        "env": goal.env, "bar": goal.bar, "ppo": dict(goal.ppo), "seed": seed, "limit": limit,
        "episodes": EPISODES, "hidden": goal.hidden, "per": goal.episodes,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spec.json"
        path.write_text(json.dumps(spec), encoding="utf-8")
        program = Path(__file__).with_name(name)
        python = sys.executable if peer is None else str(peer.python(home))
        ran = subprocess.run(
            [python, str(program), str(path)], capture_output=True, text=True, check=False
        )
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or ["no message"])[-1]
        raise ServiceError(f"{contestant} failed on {goal.env}: {last}")
    return Attempt(goal.env, contestant, seed, **json.loads(ran.stdout.strip().splitlines()[-1]))


def _write(out: Path, made: Iterable[Attempt]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, made))
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, text.getvalue())


def read(out: Path) -> list[Attempt]:
    """The attempts in a table; none if there is no file yet."""
    if not out.exists():
        return []
    with out.open() as file:
        return [
            Attempt(
                row["env"],
                row["contestant"],
                int(row["seed"]),
                row["solved"] == "True",
                float(row["cpu_seconds"]),
                int(row["steps"]),
                float(row["score"]),
                row.get("settings") or "",
            )
            for row in csv.DictReader(file)
        ]


def median(attempts: Sequence[Attempt], column: str) -> float:
    """Median of `cpu_seconds` or `steps`; an unsolved run counts as infinite."""
    return statistics.median(getattr(a, column) if a.solved else math.inf for a in attempts)


HEADINGS = ("world", "contestant", "solved", "median CPU-s", "each run", "median steps")


def table(attempts: Sequence[Attempt]) -> Table:
    """A row for each world and contestant.

    Unsolved runs are shown with the time they used, and those of a peer that failed as failed.
    """
    shown = Table(title=f"CPU-seconds until {EPISODES} fresh episodes reach the bar, one core")
    for heading in HEADINGS:
        shown.add_column(heading)
    for row in rows(attempts):
        shown.add_row(*row)
    return shown


def rows(attempts: Sequence[Attempt]) -> Iterator[tuple[str, ...]]:
    for env, contestant in dict.fromkeys((a.env, a.contestant) for a in attempts):
        runs = [a for a in attempts if (a.env, a.contestant) == (env, contestant)]
        yield (
            env,
            contestant,
            f"{sum(a.solved for a in runs)} of {len(runs)}",
            _or_not(median(runs, "cpu_seconds"), ".3g"),
            " ".join(map(_seconds, runs)),
            _or_not(median(runs, "steps"), ",.0f"),
        )


def _or_not(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "not solved"


def _seconds(run: Attempt) -> str:
    if math.isnan(run.cpu_seconds):
        return "failed"
    return f"{'' if run.solved else '>'}{run.cpu_seconds:.3g}"
