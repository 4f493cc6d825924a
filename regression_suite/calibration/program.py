"""The rows of the committed table.

python -m regression_suite.calibration.program docs [--gates 2000]
"""

from __future__ import annotations

import argparse
import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from regression_suite.bounds import Bound, Scale, mean_bound, tail_gap_bound, tail_mean
from regression_suite.calibration.gates import Outcomes, Rules, decide, pairs
from regression_suite.calibration.worlds import (
    DISTRIBUTIONS,
    TRUTH,
    Draw,
    failing,
    lowered,
    truth,
)
from regression_suite.estimates import alpha_of
from srghn.config import GateParams
from srghn.files import atomic_write
from srghn.inference.exact import log_rate_capital
from srghn.inference.sequences import capital_path
from srghn.inference.spending import spent
from srghn.seeding import stream

#: Gates simulated at once: their bets fill half a gigabyte.
_BLOCK = 250
NIGHTS, YEARS = 365, 120
TITLES = {
    "gates": "Passes, fails and what they cost",
    "coverage": "Coverage",
    "year": "A year of nightly gates against one champion",
}


@dataclass(frozen=True)
class Row:
    """One kind of candidate in one kind of cell. Shares are of `gates`."""

    cell: str
    distribution: str
    candidate: str
    null: bool
    gates: int
    alpha: float
    passed: float
    failed: float
    inconclusive: float
    median: int
    p90: int
    coverage_low: float
    coverage_high: float


def rules_of(params: GateParams) -> dict[str, Rules]:
    """The primary cell's thresholds and another cell's, under these rules."""
    alpha = alpha_of(params)
    return {
        "primary": Rules(params.min_gain, params.failure_margin, params.episodes, alpha),
        "other": Rules(
            -params.cell_margin, params.cell_failure_margin, params.cell_episodes, alpha
        ),
    }


def candidates(draw: Draw, margin: float) -> Iterator[tuple[str, Draw, Draw]]:
    """(name, candidate, champion) for every kind of candidate in a cell with that margin."""
    yield "equal", draw, draw
    yield "worse by half the margin", lowered(draw, margin / 2), draw
    yield "worse by the margin", lowered(draw, margin), draw
    for rate in (0.02, 0.05, 0.10):
        yield f"catastrophes in {rate:.0%} more", failing(draw, rate), draw
    yield "better by one margin", draw, lowered(draw, margin)
    yield "better by two margins", draw, lowered(draw, 2 * margin)


def gate_rows(params: GateParams, gates: int) -> Iterator[Row]:
    """Each distribution, in the primary and in another cell."""
    margins = {"primary": params.margin, "other": params.cell_margin}
    for cell, rules in rules_of(params).items():
        for name, draw in DISTRIBUTIONS.items():
            for kind, mine, theirs in candidates(draw, margins[cell]):
                (mean, fails), (their_mean, their_fails) = truth(mine), truth(theirs)
                gap, more = mean - their_mean, fails - their_fails
                rng = stream(0, "calibration", cell, name, kind)
                found = _simulate(mine, theirs, rules, gap, gates, rng)
                # a pass is false where a threshold is truly not cleared, give or take the
                # precision to which the truth is known
                null = gap <= rules.needed + 1e-3 or more >= rules.more - 1e-3
                yield _row(cell, name, kind, null, found, rules.alpha)


def _simulate(
    mine: Draw, theirs: Draw, rules: Rules, gap: float, gates: int, rng: np.random.Generator
) -> Outcomes:
    parts = [
        decide(*pairs(mine, theirs, min(_BLOCK, gates - start), rules.planned, rng), rules, gap)
        for start in range(0, gates, _BLOCK)
    ]
    fields = asdict(parts[0])
    return Outcomes(**{f: np.concatenate([getattr(p, f) for p in parts]) for f in fields})


def _row(cell: str, name: str, kind: str, null: bool, found: Outcomes, alpha: float) -> Row:
    passed, failed = float(found.passed.mean()), float(found.failed.mean())
    return Row(
        cell=cell,
        distribution=name,
        candidate=kind,
        null=null,
        gates=len(found.passed),
        alpha=round(alpha, 5),
        passed=round(passed, 4),
        failed=round(failed, 4),
        inconclusive=round(1 - passed - failed, 4),
        median=int(np.median(found.used)),
        p90=int(np.quantile(found.used, 0.9)),
        coverage_low=round(1 - float(found.missed_low.mean()), 4),
        coverage_high=round(1 - float(found.missed_high.mean()), 4),
    )


@dataclass(frozen=True)
class Coverage:
    """How often each end of a bound was right after `n` episodes (or ever, up to them)."""

    bound: str
    distribution: str
    n: int
    samples: int
    nominal: float
    low: float
    high: float


def coverage_rows(params: GateParams, samples: int) -> Iterator[Coverage]:
    """Bounds of means and of worst tenths after a fixed n, of failure rates at every moment."""
    scale = Scale(0.0, 1.0, alpha_of(params))
    for name, plain in {**DISTRIBUTIONS, "2% catastrophes": failing(_steady, 0.02)}.items():
        tail = tail_mean(plain(stream(0, "truth"), (TRUTH,)))
        for n in (20, 30, 100):
            rng, mean = stream(0, "mean", name, n), truth(plain)[0]
            found = [mean_bound(x, scale) for x in plain(rng, (samples, n))]
            yield _covered("mean", name, n, scale, mean, found)
        other = lowered(plain, 0.1)
        gap = tail - tail_mean(other(stream(0, "truth"), (TRUTH,)))
        rng = stream(0, "tail", name)
        found = [
            tail_gap_bound(plain(rng, (100,)), other(rng, (100,)), scale) for _ in range(samples)
        ]
        yield _covered("worst tenth", name, 100, scale, gap, found)
    for rate in (0.0, 0.01, 0.02, 0.05, 0.1):
        yield _rates(rate, 600, samples, scale.alpha)


def _steady(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, 0.95)


def _covered(
    kind: str, name: str, n: int, scale: Scale, true: float, found: Sequence[Bound]
) -> Coverage:
    low = float(np.mean([b.low <= true + 1e-4 for b in found]))
    high = float(np.mean([b.high >= true - 1e-4 for b in found]))
    return Coverage(
        kind, name, n, len(found), round(1 - scale.alpha, 4), round(low, 4), round(high, 4)
    )


def _rates(rate: float, n: int, samples: int, alpha: float) -> Coverage:
    failures = np.cumsum(stream(0, "rate", str(rate)).random((samples, n)) < rate, axis=1)
    count, limit = np.broadcast_to(np.arange(1, n + 1), failures.shape), -math.log(alpha)
    high = log_rate_capital(failures, count, max(rate, 1e-9)).max(axis=1) < limit
    low = log_rate_capital(count - failures, count, 1 - rate).max(axis=1) < limit
    name = f"rate {rate:.0%}, at every moment"
    shares = round(float(low.mean()), 4), round(float(high.mean()), 4)
    return Coverage("failures", name, n, samples, round(1 - alpha, 4), *shares)


@dataclass(frozen=True)
class Year:
    """A year of nightly candidates against one champion, none of them better by what counts."""

    spending: str
    candidates: str
    years: int
    false_pass_a_year: float
    passes_of_better: float


def year_rows(params: GateParams, years: int) -> Iterator[Year]:
    """Candidates at the smallest gain that counts, which none exceeds, and equal ones.

    `passes_of_better` is how often a candidate better by two margins passes on the last night.
    """
    draw, rules = DISTRIBUTIONS["Gaussian, sd .2"], rules_of(params)["primary"]
    for spending in ("none", "candidates"):
        shares = [spent(t) if spending == "candidates" else 1.0 for t in range(NIGHTS)]
        alphas = rules.alpha * np.array(shares)
        power = _last_night(params, float(alphas[-1]))
        for kind, gain in (("at the smallest gain", params.min_gain), ("equal", 0.0)):
            champion, hits = lowered(draw, gain), 0
            for year in range(years):
                rng = stream(0, "year", kind, year)
                gaps, _ = pairs(draw, champion, NIGHTS, rules.planned, rng)
                paths = capital_path((gaps + 1) / 2, (rules.needed + 1) / 2)
                logs = paths[:, rules.looks - 1].max(axis=1)
                hits += bool((logs >= -np.log(alphas)).any())
            yield Year(spending, kind, years, round(hits / years, 4), power)


def _last_night(params: GateParams, alpha: float) -> float:
    draw = DISTRIBUTIONS["Gaussian, sd .2"]
    rules = replace(rules_of(params)["primary"], alpha=alpha)
    rng = stream(0, "last night", str(alpha))
    found = _simulate(draw, lowered(draw, 2 * params.margin), rules, 2 * params.margin, 500, rng)
    return round(float(found.passed.mean()), 4)


def to_csv(rows: Iterable[Row | Coverage | Year]) -> str:
    """Rows of one kind as CSV."""
    data = [asdict(row) for row in rows]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(data[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(data)
    return out.getvalue()


def to_markdown(title: str, text: str) -> str:
    """CSV as a Markdown table under a heading."""
    head, *rows = csv.reader(io.StringIO(text))
    lines = [f"## {title}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


PREFACE = """# How the gate decides, by simulation

Made by `make calibration` (`regression_suite/calibration`). It runs the gate's own bounds, looks
and default budgets on known distributions. In `null` rows the candidate must not pass: `passed` is
the share of false passes, and `alpha` is its limit. Shares are of `gates` simulated cells. A whole
gate passes only if all its cells do. In a real gate, undecided cells get the episodes that decided
cells saved; the simulation leaves this out, and the worst tenth, which the primary cell must also
meet. It draws both arms independently, so it does not count on common seeds, which narrow
differences. Coverage is of each end at every look; in *Coverage*, that of means and worst tenths is
after `n` episodes. `median` and `p90` are the paired episodes that were played.

In the last table one candidate is judged each night. `false_pass_a_year` is the share of years in
which at least one of them passed, though none exceeds the smallest gain that counts.
`passes_of_better` is how often a candidate that is better by two margins passes on the last night.
Only the primary mean is tested there, with Gaussian returns: a whole gate passes less often.
`gate.spending` divides alpha among the candidates.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gates", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=1000, help="per row of coverage")
    parser.add_argument("--parts", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--years", type=int, default=YEARS)
    chosen = parser.parse_args()
    params = GateParams()
    make: dict[str, Callable[[], Iterable[Row | Coverage | Year]]] = {
        "gates": lambda: gate_rows(params, chosen.gates),
        "coverage": lambda: coverage_rows(params, chosen.samples),
        "year": lambda: year_rows(params, chosen.years),
    }
    for name in chosen.parts:
        atomic_write(chosen.folder / f"calibration-{name}.csv", to_csv(make[name]()))
    found = {name: chosen.folder / f"calibration-{name}.csv" for name in TITLES}
    tables = [
        to_markdown(TITLES[name], path.read_text(encoding="utf-8"))
        for name, path in found.items()
        if path.exists()
    ]
    atomic_write(chosen.folder / "calibration.md", PREFACE + "\n".join(tables))


if __name__ == "__main__":
    main()
