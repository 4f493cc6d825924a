"""The results of an experiment: two CSV files, a JSON report, and a page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipelines.lab.experiments import figures, targets
from pipelines.lab.experiments.figures import Curve
from pipelines.lab.experiments.play import curves, folder_of
from pipelines.lab.experiments.spec import Experiment, Outcome
from srghn.evolution.run import SECTIONS
from srghn.files import atomic_write
from srghn.provenance import platform_note

#: With this many switches or more, the table has no column for each.
MANY = 6
RATE = Curve(
    "rate",
    "mutation rate",
    log=True,
    caption="Mean over the population of each individual's median over nodes; for the direct "
    "encodings it is their step size. Nothing schedules it.",
)
DIVERSITY = Curve(
    "diversity",
    "diversity",
    log=True,
    caption="Root mean square difference between two policies' weights.",
)


def write(
    experiment: Experiment, outcomes: Sequence[Outcome], out: Path, quick: bool
) -> dict[str, Any]:
    """Write all files into `out`; returns the report as in JSON: None for what is not finite."""
    frame = pd.concat(
        [
            curves(folder_of(experiment, o.arm, o.seed, out)).assign(arm=o.arm, seed=o.seed)
            for o in outcomes
        ]
    )
    report = {
        "experiment": experiment.name,
        "quick": quick,
        "seeds": len({o.seed for o in outcomes}),
        "targets": [asdict(target) for target in experiment.targets(outcomes)],
        "arms": [summary(experiment, arm, outcomes) for arm in experiment.arms],
        "platform": platform_note(),
    }
    atomic_write(out / "results.csv", results(experiment, outcomes).to_csv(index=False))
    atomic_write(out / "curves.csv", frame.to_csv(index=False))
    kept: dict[str, Any] = _finite(report)
    atomic_write(out / "report.json", json.dumps(kept, indent=1, allow_nan=False) + "\n")
    wear: tuple[str, ...] = ()
    if len(outcomes[0].after_switches) > MANY:
        table, arms = results(experiment, outcomes), list(experiment.arms)
        wear = tuple(figures.draw_wear(table, arms, wide=wide) for wide in (True, False))
        atomic_write(out / "wear.svg", wear[0])
    atomic_write(out / "index.html", html(experiment, report, frame, wear))
    return kept


def _finite(value: Any) -> Any:
    """A score of minus infinity (a crash) or NaN is none in JSON."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def results(experiment: Experiment, outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """A row per run and phase."""
    rows = []
    for outcome in outcomes:
        for phase in outcome.phases:
            row = asdict(phase)
            scores = _score_columns(experiment, row.pop("scores"), phase.mode)
            generalist = is_generalist(experiment, phase.scores)
            rows.append(
                {"experiment": experiment.name, "arm": outcome.arm, "seed": outcome.seed}
                | row
                | scores
                | {"generalist": generalist}
            )
    return pd.DataFrame(rows)


def _score_columns(
    experiment: Experiment, scores: Mapping[str, float], mode: str
) -> dict[str, float]:
    """A column for each mode and network; if modes never return, only the phase's own and the next
    one's.
    """
    if experiment.tested == "all":
        return {f"score_{name}": score for name, score in scores.items()}
    if experiment.tested == "own":
        others = {f"score_{name}": s for name, s in scores.items() if name != mode}
        return {"score": scores[mode], **others}
    after = [score for name, score in scores.items() if name != mode]
    return {"score": scores[mode], "score_next": after[0] if after else np.nan}


def is_generalist(experiment: Experiment, scores: Mapping[str, float]) -> bool | None:
    """Whether one policy solves every mode that it was tested in, so that a switch needs no
    recovery; or where only its own is tested, one genome every network. None with a single score.
    """
    return min(scores.values()) >= experiment.solved if len(scores) > 1 else None


def summary(experiment: Experiment, arm: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """One line of the table: recovery with its interval, speed, cost, generalists, rates."""
    runs = targets.of_arm(outcomes, arm)
    able = [is_generalist(experiment, p.scores) for r in runs for p in r.phases]
    back = sum(map(targets.recovered, runs))
    low, high = wilson(back, len(runs))
    switches = [_switch(column) for column in zip(*(r.judged for r in runs), strict=True)]
    return {
        "arm": arm,
        "seeds": len(runs),
        "recovered": back,
        "recovered_low": low,
        "recovered_high": high,
        "switches": switches,
        **targets.wear(runs),
        "params": experiment.params(arm, 0).model_dump(mode="json", include=SECTIONS),
        "unseen": {name: _median_score(name, runs) for name in experiment.networks},
        "generalists": able.count(True),
        "champions": len(able) - able.count(None),
        "score": float(np.median([r.phases[-1].scores[r.phases[-1].mode] for r in runs])),
        "fall": float(np.median([min(p.fall for p in r.phases) for r in runs])),
    }


def _median_score(name: str, runs: Sequence[Outcome]) -> float:
    """Of all champions, with a network that was not evolved."""
    return float(np.median([phase.scores[name] for run in runs for phase in run.phases]))


def _switch(phases: Sequence[Any]) -> dict[str, float | None]:
    """Median and slowest over seeds, in generations; None if that run never recovered."""
    taken = np.array([np.inf if p.generations is None else p.generations for p in phases], float)
    spent = np.array([np.inf if p.evaluations is None else p.evaluations for p in phases], float)
    found = {
        "median": float(np.median(taken)),
        "slowest": float(taken.max()),
        "evaluations": float(np.median(spent)),
    }
    return {key: value if np.isfinite(value) else None for key, value in found.items()}


def wilson(hits: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927)."""
    share = hits / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return max(float(middle - half), 0.0), min(float(middle + half), 1.0)


def html(
    experiment: Experiment,
    report: Mapping[str, Any],
    frame: pd.DataFrame,
    wear: tuple[str, ...] = (),
) -> str:
    """The page: targets, table, figures, and `wear` if there are many switches. Self-contained.

    Each figure is there twice, for a desktop and for a phone; the page shows the one that fits.
    """
    frame = frame.replace([-np.inf, np.inf], np.nan)  # where everyone crashed: a gap
    if experiment.log_error:
        frame = frame.assign(best=figures.log_error(frame["best"]))
    best = Curve("best", "error" if experiment.log_error else "best fitness", experiment.log_error)
    schedule = experiment.params(next(iter(experiment.arms)), 0).env.schedule
    switches = [switch.generation for switch in schedule]
    drawn = [
        (
            curve.caption,
            group,
            tuple(figures.draw(curve, frame, arms, switches, wide) for wide in (True, False)),
        )
        for group, arms in groups(experiment).items()
        for curve in (best, RATE, DIVERSITY)
    ]
    environment = Environment(
        loader=PackageLoader("pipelines.lab.experiments", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.j2")
    if wear:
        note = "Several switches at a time; a phase is lost if nobody solves it before the next."
        drawn.insert(0, (note, "", wear))
    return template.render(
        experiment=experiment, report=report, figures=drawn, many=bool(wear), still=not schedule
    )


def groups(experiment: Experiment) -> dict[str, list[str]]:
    """The arms of each figure. If worlds differ, arms with the same first word share a figure."""
    worlds: dict[str, list[str]] = {}
    for arm, change in experiment.arms.items():
        first = arm.partition(" ")[0] if "env" in change else ""
        worlds.setdefault(first, []).append(arm)
    return worlds
