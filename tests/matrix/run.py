"""`make worlds`: environments and networks from outside, from the pin to a served answer.

Each is pinned, evolved for a few generations, frozen, judged by the gate, approved, served and
asked over an episode; the server's actions are compared with torch's. What it saw is kept case by
case, so a stopped run resumes, and becomes `docs/matrix.md`. Exits 1 where something that should
work does not, or a refusal says something else.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from srghn.config import (
    EnvParams,
    EvaluateParams,
    EvolutionParams,
    GateParams,
    NetworkParams,
    RunParams,
)
from srghn.errors import SrghnError
from tests.matrix import networks, way, worlds

#: Three generations make no good policy, so its returns may be anything: all other checks bind.
LENIENT = GateParams(
    episodes=20,
    cell_episodes=20,
    perturbations=(),
    return_low=-1e6,
    return_high=1e6,
    failure_return=-1e6,
    ceiling=None,
    min_return=-1e6,
    min_cell_return=-1e6,
    max_failure_rate=0.99,
    max_cell_failure_rate=0.99,
    max_latency_ms=1000.0,
)
BASE = RunParams(
    evolution=EvolutionParams(generations=3, parents=2, children=3, episodes=1),
    evaluate=EvaluateParams(finalists=2, episodes=2, cell_episodes=0),
    gate=LENIENT,
)
PAGE = Path(__file__).parents[2] / "docs" / "matrix.md"
#: What a run has seen; removed when it is whole.
SEEN = Path(__file__).parents[2] / ".matrix.jsonl"
NETWORK_WORLD = EnvParams(id="CartPole-v1", max_episode_steps=60)
#: Seeds of evolution that are tried: three generations may end at a constant policy.
SEEDS = 6
#: Seconds for one case, all its seeds together: a world that hangs keeps no other one waiting.
DEADLINE = 900
#: (part, name, parameters, what the refusal must say or nothing)
Case = tuple[str, str, RunParams, str]


def cases() -> Iterator[Case]:
    for world in worlds.TAKEN:
        env = EnvParams.model_validate(world)
        yield "worlds", env.id, BASE.model_copy(update={"env": env}), ""
    for name, (world, said) in worlds.REFUSED.items():
        env = EnvParams.model_validate(world)
        yield "worlds", name, BASE.model_copy(update={"env": env}), said
    for case in networks.TAKEN:
        net = NetworkParams(module=case.module, kwargs=dict(case.kwargs), stack=case.stack)
        yield "networks", case.name, _with(net), ""
    for name, said in networks.REFUSED.items():
        net = NetworkParams(module=f"{networks.HERE}:{name}", kwargs={})
        yield "networks", name, _with(net), said


def _with(net: NetworkParams) -> RunParams:
    return BASE.model_copy(update={"env": NETWORK_WORLD, "network": net})


def attempt(params: RunParams, said: str) -> tuple[list[str], bool]:
    """The cells of a row, and whether it is as it should be."""
    try:
        with redirect_stderr(StringIO()) as told, _deadline(DEADLINE):
            went = _through(params)
    except SrghnError as error:
        text = str(error)
        fine = bool(said) and said in text and "\n" not in text
        fine &= "def forward" not in told.getvalue()  # torch's pages beside our line
        return [text if said else f"FAILED: {text}"], fine
    except (Exception, Late) as error:  # noqa: BLE001  the table says which
        return [f"FAILED {type(error).__name__}: {' '.join(str(error).split())[:200]}"], False
    return ([*went.cells], True) if not said else (["FAILED: it was taken"], False)


class Late(BaseException):
    """The case took too long; no `except Exception` on its way takes it for something else."""


@contextmanager
def _deadline(seconds: int) -> Iterator[None]:
    """Raise `Late` in this thread after so many seconds."""

    def late(number: int, frame: object) -> None:
        raise Late(f"it was not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _through(params: RunParams) -> way.Went:
    """With the first seed that leads to more than one and the same action."""
    for seed in range(SEEDS):
        evolution = params.evolution.model_copy(update={"seed": seed})
        with suppress(way.Constant):
            return way.through(params.model_copy(update={"evolution": evolution}))
    raise AssertionError(f"{SEEDS} seeds led to one and the same action")


def page(rows: dict[str, list[str]]) -> str:
    """The tables: what was taken, then what was refused, of each part."""
    lines = [*INTRO]
    for part, title in (("worlds", "Environments"), ("networks", "Networks")):
        found = [c for c in cases() if c[0] == part]
        taken = [c for c in found if not c[3]]
        refused = [c for c in found if c[3]]
        lines += [
            f"## {title}",
            "",
            f"{len(taken)} accepted, {len(refused)} refused as they must be.",
            "",
        ]
        lines += _table(("what", *way.COLUMNS), [(n, *rows[f"{p} {n}"]) for p, n, _, _ in taken])
        lines += _table(("refused", "message"), [(n, *rows[f"{p} {n}"]) for p, n, _, _ in refused])
    return "\n".join(lines).rstrip() + "\n"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return [*("| " + " | ".join(cell.replace("|", "\\|") for cell in r) + " |" for r in lines), ""]


def main(say: Callable[[str], Any] = print) -> int:
    rows: dict[str, list[str]] = {}
    with suppress(FileNotFoundError):
        for line in SEEN.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # cut off while it was written
                rows |= json.loads(line)
    failed = 0
    for part, name, params, said in cases():
        key, begun = f"{part} {name}", time.perf_counter()
        if key in rows:
            continue
        row, fine = attempt(params, said)
        failed += not fine
        say(f"{key}: {' | '.join(row)} ({time.perf_counter() - begun:.1f} s)")
        if fine:
            rows[key] = row
            with SEEN.open("a", encoding="utf-8") as file:
                file.write(json.dumps({key: row}) + "\n")
    if not failed:
        PAGE.write_text(page(rows), encoding="utf-8")
        SEEN.unlink()
    return 1 if failed else 0


INTRO = [
    "# Environments and networks from outside",
    "",
    "Written by `make worlds`. Each case was pinned, evolved for three generations, frozen, judged",
    "by the gate, approved and served. Then the server was asked for the actions of one episode of",
    "at most 40 steps, and each action was compared with torch's. Three generations make no good",
    "policy, so the gate asked for no return here; all its other checks hold. The gate fails a",
    "policy that gives the same action for every observation; then the next seed was evolved.",
    "*Native* means that the server got the environment's own observations. The networks play",
    "CartPole-v1.",
    "",
]

if __name__ == "__main__":
    sys.exit(main())
