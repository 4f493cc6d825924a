"""Compares the method's targets with the results: hit or miss, with the number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from pipelines.lab.experiments.controls import METHOD
from pipelines.lab.experiments.spec import Outcome, Recovery, Target, over

#: The arm of LunarLander-Switch with memory.
MEMORY = "kept spread, newcomers, memory"
WITHIN, MEDIAN = 50, 12
FALL, SHARE = 10.0, 0.95
WIDTHS, SOLVED = 0.8, 475.0
WALKS = 1800.0


def of_arm(outcomes: Iterable[Outcome], arm: str) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.arm == arm]


def recovered(outcome: Outcome, within: float = math.inf) -> bool:
    """Whether the run solved every phase that counts within `within` generations."""
    taken = [_generations(phase) for phase in outcome.judged]
    return all(math.isfinite(g) and g <= within for g in taken)


def _generations(phase: Recovery) -> float:
    return math.inf if phase.generations is None else phase.generations


def medians(outcomes: Sequence[Outcome]) -> list[float]:
    """For each switch, the median of generations over seeds; no recovery counts as infinite."""
    table = [[_generations(phase) for phase in outcome.judged] for outcome in outcomes]
    return [float(np.median(column)) for column in zip(*table, strict=True)]


def wear(outcomes: Sequence[Outcome]) -> dict[str, float | int | None]:
    """Phases lost after switches, and the median recovery in the first and the last quarter.

    Keys: lost, share (lost of all), early, late (generations; None: never).
    """
    table = np.array([[_generations(phase) for phase in o.judged] for o in outcomes])
    part = max(table.shape[1] // 4, 1)
    early, late = float(np.median(table[:, :part])), float(np.median(table[:, -part:]))
    return {
        "lost": int(np.isinf(table).sum()),
        "share": float(np.isinf(table).mean()),
        "early": early if math.isfinite(early) else None,
        "late": late if math.isfinite(late) else None,
    }


def lasting(outcomes: Sequence[Outcome], share: float, best: str) -> list[Target]:
    """Targets: at most `share` of phases lost; late recovery no slower than early recovery and than
    the best constant rate's. Where runs never recover, no target is hit.

    `best` is the prefix of the names of the arms with a constant rate.
    """
    own = wear(of_arm(outcomes, METHOD))
    held = {
        arm: wear(of_arm(outcomes, arm))
        for arm in dict.fromkeys(o.arm for o in outcomes)
        if arm.startswith(best)
    }
    late, early = _or_never(own["late"]), _or_never(own["early"])
    lost = _or_never(own["share"])
    found = [
        Target(
            "phases lost",
            f"at most {share:.0%} of phases after a switch",
            f"{own['lost']} phases ({lost:.1%})",
            lost <= share,
        ),
        Target(
            "no wear",
            "the last quarter's median is at most that of the first quarter",
            f"{early:g} at first, {late:g} at last",
            _at_most(late, early),
        ),
    ]
    if held:
        arm = min(held, key=lambda arm: (_or_never(held[arm]["late"]), held[arm]["lost"]))
        other = held[arm]
        found.append(
            Target(
                "beside the best constant rate",
                "the last quarter's median is at most that of the best constant rate",
                f"{late:g}; {arm}: {_or_never(other['late']):g}, {other['lost']} lost",
                _at_most(late, _or_never(other["late"])),
            )
        )
    return found


def _or_never(value: float | int | None) -> float:
    return math.inf if value is None else float(value)


def _at_most(value: float, other: float) -> bool:
    """Never is not as good as never."""
    return math.isfinite(value) and value <= other


def signature(outcomes: Sequence[Outcome], name: str) -> Target:
    """The rate falls tenfold once solved and rises after the switch.

    Fall: a phase's peak divided by its rest. Rise: the next phase's peak divided by this one's
    rest. Only phases that were solved count, and a run without any misses the target. The figures
    are medians over seeds for each phase, and the least of these.
    """
    falls = [[_fall(p, p) for p in o.phases] for o in outcomes]
    rises = [[_fall(p, after) for p, after in pairwise(o.phases)] for o in outcomes]
    fall, rise = (_weakest(table) for table in (falls, rises))
    solved = [_weakest([run]) for run in falls]
    both = sum(f >= FALL and _weakest([run]) > 1 for f, run in zip(solved, rises, strict=True))
    return Target(
        name,
        f"the mutation rate falls {FALL:g}-fold once solved and rises after the switch",
        f"falls {_times(fall)}, rises {_times(rise)} (median of the weakest solved phase); both in "
        f"every solved phase in {both} of {len(outcomes)} seeds",
        fall >= FALL and rise > 1 and not any(map(math.isnan, solved)),
    )


def _fall(solved: Recovery, peak: Recovery) -> float:
    """The peak of one phase divided by the rest of another; NaN unless that was solved."""
    return math.nan if solved.generations is None else over(peak.peak, solved.rest)


def _times(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}-fold"


def _weakest(table: Sequence[Sequence[float]]) -> float:
    """The least of the phases' medians over runs, without NaN; NaN if there is nothing else."""
    columns = [[x for x in column if not math.isnan(x)] for column in zip(*table, strict=True)]
    return min((float(np.median(column)) for column in columns if column), default=math.nan)


def cartpole_switch(outcomes: Sequence[Outcome]) -> list[Target]:
    runs = of_arm(outcomes, METHOD)
    quick = sum(recovered(run, WITHIN) for run in runs)
    middle = medians(runs)
    return [
        Target(
            "recovery",
            f"all seeds recover within {WITHIN} generations of each switch",
            f"{quick} of {len(runs)}",
            quick == len(runs),
        ),
        Target(
            "speed",
            f"median of at most {MEDIAN} generations after each switch",
            " / ".join(f"{value:g}" for value in middle),
            max(middle) <= MEDIAN,
        ),
        signature(runs, "signature on CartPole"),
    ]


def lunarlander_switch(outcomes: Sequence[Outcome]) -> list[Target]:
    """Targets of the method's arms that ran, for each phase: solved, within 120, within 5."""
    found = []
    for arm, runs in ((arm, of_arm(outcomes, arm)) for arm in (METHOD, MEMORY)):
        if not runs:
            continue
        for number, (what, within) in enumerate(
            (("before the switch", math.inf), ("after it", 120), ("after the switch back", 5))
        ):
            taken = [run.phases[number].generations for run in runs]
            soon = sum(g is not None and g <= within for g in taken)
            limit = f" within {within:g} generations" if math.isfinite(within) else ""
            found.append(
                Target(
                    f"{arm}: {what}",
                    f"at least 90% of seeds reach 200{limit}",
                    f"{soon} of {len(runs)}",
                    soon >= 0.9 * len(runs),
                )
            )
    return found


def ant(outcomes: Sequence[Outcome]) -> list[Target]:
    """Targets for the last champions' mean returns (medians over seeds), and for the rate."""
    scores = {
        arm: float(np.median([run.phases[-1].scores[run.phases[-1].mode] for run in runs]))
        for arm, runs in ((arm, of_arm(outcomes, arm)) for arm in _arms(outcomes))
    }
    own, runs = scores[METHOD], of_arm(outcomes, METHOD)
    others = {arm: score for arm, score in scores.items() if arm != METHOD}
    fall = float(np.median([run.phases[-1].fall for run in runs]))
    found = [
        Target("walks", f"the last champion averages {WALKS:g}", f"{own:.0f}", own >= WALKS),
        Target(
            "rate",
            "the mutation rate falls by itself to less than half of its peak",
            f"{fall:.1f}-fold",
            fall > 2,
        ),
    ]
    if others:
        best = max(others, key=lambda arm: others[arm])
        found.append(
            Target(
                "beside the others",
                "more than any of them after as many evaluations",
                f"{own:.0f}; {best}: {others[best]:.0f}",
                own > others[best],
            )
        )
    return found


def _back(name: str, runs: Sequence[Outcome]) -> Target:
    """Whether nearly all seeds recover from every switch."""
    back = sum(map(recovered, runs))
    wanted = f"at least {SHARE:.0%} of seeds recover"
    return Target(name, wanted, f"{back} of {len(runs)}", back >= SHARE * len(runs))


def _last_words(outcomes: Sequence[Outcome]) -> list[str]:
    """What tells arms such as `self-referential 0.1` apart, in order."""
    return list(dict.fromkeys(o.arm.rpartition(" ")[2] for o in outcomes))


def hidden_sizes(outcomes: Sequence[Outcome]) -> list[Target]:
    return [
        _back(f"width {width}", of_arm(outcomes, f"{METHOD} {width}"))
        for width in _last_words(outcomes)
    ]


def start_rate(outcomes: Sequence[Outcome]) -> list[Target]:
    found, lost_rows = [], []
    for rate in _last_words(outcomes):
        found.append(_back(f"from {rate}", of_arm(outcomes, f"{METHOD} {rate}")))
        held = of_arm(outcomes, f"constant-rate {rate}")
        if held and not any(map(recovered, held)):
            lost_rows.append(rate)
    lost = Target(
        "what a constant rate loses",
        "at least one starting rate from which no seed recovers at a constant rate",
        ", ".join(lost_rows) or "none",
        bool(lost_rows),
    )
    return [*found, lost]


def functions_2d(outcomes: Sequence[Outcome]) -> list[Target]:
    return [signature(of_arm(outcomes, f"sphere {METHOD}"), "signature on the moving sphere")]


def median_evaluations(outcomes: Sequence[Outcome]) -> float:
    """Evaluations until the first phase was solved, median over seeds; never counts as infinite."""
    spent = [outcome.phases[0].evaluations for outcome in outcomes]
    return float(np.median([math.inf if e is None else e for e in spent]))


def still(outcomes: Sequence[Outcome]) -> list[Target]:
    """For each environment, the target that no control needs fewer evaluations.

    Arms are named `METHOD` or a control; if there are several environments, each arm's name begins
    with its environment.
    """
    found = []
    arms = list(dict.fromkeys(o.arm for o in outcomes))
    for own in (arm for arm in arms if arm.endswith(METHOD)):
        world = own.removesuffix(METHOD)
        spent = {
            arm: median_evaluations(of_arm(outcomes, arm)) for arm in arms if arm.startswith(world)
        }
        best = min(spent, key=lambda arm: spent[arm])
        value = f"{_or_not(spent[own])}; {best.removeprefix(world)}: {_or_not(spent[best])}"
        hit = _at_most(spent[own], spent[best])
        wanted = "no control needs fewer evaluations (median over seeds)"
        found.append(Target(world.strip() or "evaluations", wanted, value, hit))
    return found


def _or_not(evaluations: float) -> str:
    return f"{evaluations:,.0f}" if math.isfinite(evaluations) else "not solved"


def unseen(phase: Recovery) -> dict[str, float]:
    """The champion's scores with networks that were not evolved, by name."""
    return {name: score for name, score in phase.scores.items() if name != phase.mode}


def architectures(outcomes: Sequence[Outcome]) -> list[Target]:
    """Targets: most seeds solve every width never seen, also after switches, more than other heads.

    A head's count is of seeds that do so at the end of the first phase.
    """
    count = {arm: _all_widths(of_arm(outcomes, arm), 1) for arm in _arms(outcomes)}
    runs = of_arm(outcomes, METHOD)
    always = _all_widths(runs, len(runs[0].phases))
    medians = {
        name: float(np.median([unseen(run.phases[0])[name] for run in runs]))
        for name in unseen(runs[0].phases[0])
    }
    by_rows = {
        arm: n for arm, n in count.items() if arm.split()[0] in ("dense", "chunked", "basis")
    }
    wanted = f"at least {WIDTHS:.0%} of seeds reach {SOLVED:g} on each of {', '.join(medians)}"
    found = [
        Target(
            "widths never seen",
            wanted,
            f"{count[METHOD]} of {len(runs)}; medians "
            + ", ".join(f"{name}: {score:.0f}" for name, score in medians.items()),
            count[METHOD] >= WIDTHS * len(runs),
        ),
        Target(
            "... at the end of every phase",
            wanted,
            f"{always} of {len(runs)}",
            always >= WIDTHS * len(runs),
        ),
    ]
    if by_rows:
        best = max(by_rows, key=lambda arm: by_rows[arm])
        found.append(
            Target(
                "beside heads that fill tensors row by row",
                "more seeds than any of them",
                f"{count[METHOD]}; {best}: {by_rows[best]}",
                count[METHOD] > by_rows[best],
            )
        )
    return found


def _all_widths(runs: Sequence[Outcome], phases: int) -> int:
    """Runs whose champions solve every unseen network at the end of the first `phases` phases."""
    return sum(
        all(min(unseen(phase).values()) >= SOLVED for phase in run.phases[:phases]) for run in runs
    )


def _arms(outcomes: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(o.arm for o in outcomes))


def ablation(outcomes: Sequence[Outcome]) -> list[Target]:
    """The target that no other setting, with one part more or less, recovers faster."""
    arms = _arms(outcomes)
    slowest = {arm: max(medians(of_arm(outcomes, arm))) for arm in arms}
    best = min(slowest, key=lambda arm: slowest[arm])
    return [
        Target(
            "default",
            "no other setting recovers faster (median of the slower switch)",
            f"default {slowest[METHOD]:g}, fastest {best} {slowest[best]:g}",
            _at_most(slowest[METHOD], slowest[best]),
        )
    ]
