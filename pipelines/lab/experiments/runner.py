"""Runs an experiment: every arm with every seed, several at a time, and then the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, as_completed
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipelines.lab.experiments import page
from pipelines.lab.experiments.catalogue import EXPERIMENTS
from pipelines.lab.experiments.checks import check
from pipelines.lab.experiments.controls import METHOD
from pipelines.lab.experiments.play import folder_of, play
from pipelines.lab.experiments.spec import Experiment, Outcome, Recovery
from pipelines.lab.workers import worker_pool
from pipelines.progress import bar
from srghn.errors import ConfigError
from srghn.files import atomic_write
from srghn.params import nearest

#: Called with (runs done, name of the last one); by default it is a bar on stderr.
Progress = Callable[[int, str], None]


def run_experiment(
    name: str,
    *,
    seeds: int | None = None,
    arms: Sequence[str] = (),
    sets: Sequence[str] = (),
    quick: bool = False,
    out: Path,
    workers: int = 2,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run the missing runs in `out` and write the page; returns the content of `report.json`.

    `out` then holds `index.html`, `report.json` (with each arm's parameters), `results.csv` (a row
    per run and phase), `curves.csv` (a row per run and generation), and the runs, from which a
    stopped experiment resumes. `arms` are those to run beside the method's own (see `only`), by
    default all; `sets` (`section.key=value`) apply to every arm; `workers` runs are run at a time.
    Raises `ConfigError` for an unknown name, arm or parameter, and, before any run, for what an arm
    cannot have.
    """
    experiment = find(name, quick, sets)
    if arms:
        experiment = only(experiment, arms)
    check(experiment)
    count = seeds or experiment.seeds
    todo = [(arm, seed) for seed in range(count) for arm in experiment.arms]
    outcomes: dict[tuple[str, int], Outcome] = {}
    shown = bar(f"experiment {name}", len(todo)) if progress is None else nullcontext(progress)
    with shown as update, worker_pool(workers) as pool:
        waiting: dict[Future[Outcome], tuple[str, int]] = {
            pool.submit(run_one, name, quick, tuple(sets), arm, seed, out): (arm, seed)
            for arm, seed in todo
        }
        for done, future in enumerate(as_completed(waiting), start=1):
            outcomes[waiting[future]] = future.result()
            note = "{}, seed {}".format(*waiting[future])
            update(done, note)
    return page.write(experiment, [outcomes[run] for run in todo], out, quick)


def find(name: str, quick: bool, sets: Sequence[str]) -> Experiment:
    """The experiment of that name, with the command line's parameters; raises `ConfigError`."""
    _check_known("experiment", name, EXPERIMENTS)
    experiment = replace(EXPERIMENTS[name](quick), sets=tuple(sets))
    experiment.params(next(iter(experiment.arms)), 0)  # refuses a bad setting before any run
    return experiment


def only(experiment: Experiment, arms: Sequence[str]) -> Experiment:
    """The experiment with the method's own arm and the given ones; `none`: no others.

    Where the method has several arms and none of them is its defaults, as one for each function,
    all are kept, or those alone that are given.
    """
    arms = [arm for arm in arms if arm != "none"]
    for arm in arms:
        _check_known(f"arm of {experiment.name}", arm, experiment.arms)
    own = [arm for arm in experiment.arms if METHOD in arm]
    if METHOD in own:
        own = [METHOD]
    elif any(arm in own for arm in arms):
        own = []
    kept = {k: v for k, v in experiment.arms.items() if k in own or k in arms}
    return replace(experiment, arms=kept)


def _check_known(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise ConfigError(f"there is no {what} {name!r}; {nearest(name, known)}")


def run_one(
    name: str, quick: bool, sets: tuple[str, ...], arm: str, seed: int, out: Path
) -> Outcome:
    """Do one run in its folder, or read its outcome if it is done. Runs in a worker process."""
    experiment = find(name, quick, sets)
    folder = folder_of(experiment, arm, seed, out)
    done = folder / "outcome.json"
    if done.exists():
        return read_outcome(done)
    found = play(experiment, arm, seed, folder)
    atomic_write(done, json.dumps(asdict(found), indent=1) + "\n")
    return found


def read_outcome(path: Path) -> Outcome:
    data = json.loads(path.read_text(encoding="utf-8"))
    return Outcome(data["arm"], data["seed"], tuple(Recovery(**p) for p in data["phases"]))
