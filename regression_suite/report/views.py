"""From evidence to what each part of the page shows. A part without evidence is None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from regression_suite.bounds import Bound
from regression_suite.checks import TAIL
from regression_suite.code import code_digests
from regression_suite.estimates import Arm, scale_of
from regression_suite.power import simulate
from regression_suite.report import plots
from regression_suite.suite import failure_of, suite_digest, width_of
from srghn import seeding
from srghn.inference.verdict import PRECEDENCE, Check, Verdict

if TYPE_CHECKING:
    from regression_suite.estimates import CellEstimate
    from regression_suite.evidence import Evidence


@dataclass(frozen=True)
class Figure:
    """One number of the headline, with what it is compared with."""

    name: str
    value: str
    note: str = ""


def decimals_of(cell: CellEstimate) -> int:
    """How many decimals its returns are shown with: as many as the bound that decides."""
    return 1 if cell.returns is None else cell.returns.decimals


def figures(evidence: Evidence) -> list[Figure]:
    """The numbers that a reviewer looks at first."""
    cell = evidence.cells[0] if evidence.cells else None
    if cell is None or cell.candidate is None or cell.mean is None or cell.failures is None:
        return []
    mine, theirs, other = cell.candidate, cell.incumbent, evidence.names[1]
    first, second = (name.capitalize() for name in evidence.names)
    digits = decimals_of(cell)
    mean, iqm, tail = _shown(mine, digits)
    if theirs is None or cell.difference is None or cell.improvement is None:
        return [
            Figure("Mean return", mean, _interval(cell.mean, "")),
            Figure("Interquartile mean", iqm, "of the middle half; decides nothing"),
            Figure("Worst tenth", tail, "mean of the worst 10% of episodes"),
            Figure(
                "Failures",
                f"{mine.failures:.1%}",
                f"at most {cell.failures.high:.1%} (upper bound)",
            ),
        ]
    served_mean, served_iqm, served_tail = _shown(theirs, digits)
    gap = f"{cell.difference.value:+.{digits}f}"
    return [
        Figure(f"{first}, mean", mean, f"IQM {iqm}"),
        Figure(f"{second}, mean", served_mean, f"IQM {served_iqm}, played again"),
        Figure("Difference", gap, _interval(cell.difference, "+")),
        Figure(
            "Probability of doing better",
            f"{cell.improvement.value:.0%}",
            f"{cell.improvement.low:.0%} to {cell.improvement.high:.0%}, per episode",
        ),
        Figure("Worst tenth", tail, f"{other} {served_tail}"),
        Figure("Failures", f"{mine.failures:.1%}", f"{other} {theirs.failures:.1%}"),
    ]


def _shown(arm: Arm, digits: int) -> tuple[str, ...]:
    """Its mean, interquartile mean and mean of the worst tenth."""
    return tuple(f"{value:.{digits}f}" for value in (arm.mean, arm.iqm, arm.worst_tenth))


@dataclass(frozen=True)
class Outside:
    """A cell with returns outside the declared range: how many of its episodes, by player."""

    cell: str
    candidate: str
    incumbent: str


def outside(evidence: Evidence) -> list[Outside]:
    """The cells in which returns lay outside the declared range, in the order of play."""
    found = []
    for cell in evidence.cells:
        arms = [arm for arm in (cell.candidate, cell.incumbent) if arm is not None]
        if any(arm.outside for arm in arms):
            said = [f"{arm.outside} of {cell.used}" for arm in arms]
            found.append(Outside(cell.cell.name, *said, *[""] * (2 - len(said))))
    return found


@dataclass(frozen=True)
class Budget:
    """What a cell was planned to take, what it took, how close its bounds came, how it ended."""

    cell: str
    planned: int
    used: int
    reached: str
    outcome: str
    style: str


def budgets(evidence: Evidence) -> list[Budget]:
    """Planned and used paired episodes of each cell, in the order they were played."""
    found = []
    for cell in evidence.cells:
        names = {cell.cell.name, f"{cell.cell.name} failures"}
        names |= {TAIL} if cell.cell.kind == "primary" else set()
        outcomes = [check.outcome for check in evidence.checks if check.name in names]
        worst = min(outcomes, key=PRECEDENCE.index, default="error")
        said = {"inconclusive": "undecided", "error": "error"}.get(worst, "decided")
        style = plots.STYLES[worst] if cell.cell.binding else "muted"
        found.append(Budget(cell.cell.name, cell.planned, cell.used, _reached(cell), said, style))
    return found


def _reached(cell: CellEstimate) -> str:
    """Half the width of the interval of the cell's returns."""
    bound = cell.returns
    return "—" if bound is None else f"±{bound.width / 2:.{bound.decimals}f}"


def identity(
    evidence: Evidence, verdict: Verdict | None, content_digest: str
) -> list[tuple[str, str]]:
    """Digests and names: what exactly was judged, or compared, by which rules and which code."""
    if verdict is None:
        return _compared(evidence, content_digest)
    manifest: Mapping[str, Any] = {} if evidence.candidate is None else evidence.candidate.manifest
    packages, code = manifest.get("packages", {}), code_digests()
    rows = [
        ("Candidate", verdict.candidate_digest or "its manifest cannot be read"),
        ("Policy (ONNX)", str(manifest.get("policy_digest", ""))),
        ("Genome", str(manifest.get("genome_digest", ""))),
        ("Lineage", str(manifest.get("lineage_digest", ""))),
        ("Run", str(manifest.get("run_id", ""))),
        ("Parameters", str(manifest.get("parameters_digest", ""))),
        ("World", f"{evidence.version.id}, mode {verdict.mode}"),
        ("Fingerprint", verdict.env_fingerprint),
        ("Champion", verdict.incumbent_digest or "none: judged as a first champion"),
        ("Gate rules", verdict.policy_digest),
        ("Suite", _suite(evidence, verdict)),
        ("Attempt", f"{verdict.attempt} of {evidence.params.attempts}"),
        ("Lease (source of the seeds)", verdict.lease or "none: seeds come from the digest"),
        ("Candidates judged since this champion's promotion", str(evidence.tried)),
        ("Evidence (report.json)", content_digest),
        ("Platform", _listed(manifest.get("platform", {}))),
        ("Frozen with", _listed(packages)),
        ("Code that judged", code["code"]),
        ("Installed packages", code["packages"]),
        ("Lock (requirements.lock)", code.get("lock", "")),
    ]
    return [(name, value) for name, value in rows if value]


def _compared(evidence: Evidence, content_digest: str) -> list[tuple[str, str]]:
    mine, theirs = evidence.names
    assert evidence.incumbent is not None
    suite = evidence.suite
    return [
        (mine.capitalize(), evidence.digest),
        (theirs.capitalize(), evidence.incumbent.digest),
        ("World", f"{evidence.version.id}, mode {evidence.mode}"),
        ("Fingerprint", evidence.version.fingerprint),
        ("Suite", "" if suite is None else f"{suite.name} {suite.version}, {suite_digest(suite)}"),
        ("Numbers (comparison.json)", content_digest),
        ("Code that compared", code_digests()["code"]),
    ]


def _listed(named: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(named.items()))


def _suite(evidence: Evidence, verdict: Verdict) -> str:
    checks, _, digest = verdict.suite_version.partition(":")
    if evidence.suite is None:
        return f"version {checks}"
    return f"{evidence.suite.name} {evidence.suite.version}, {digest}; checks of version {checks}"


def replay_command(evidence: Evidence) -> str:
    """What makes candidate and episodes again: by the ledger's number, or from a checkout."""
    numbers = [event["version"] for event in evidence.history if event.get("version") is not None]
    return f"srghn replay {numbers[-1]}" if numbers else "srghn replay data/candidate"


@dataclass(frozen=True)
class Paired:
    """Pictures of the paired episodes; `power` and the smallest `detectable` gain are simulated
    under the spread that this gate met, and None where there was no spread."""

    scatter: Markup
    waterfall: Markup
    power: Markup | None
    detectable: float | None


@dataclass(frozen=True)
class Primary:
    """Pictures of the primary cell; the paired ones only beside a champion."""

    cell: CellEstimate
    forest: Markup
    failures: Markup
    profile: Markup
    paired: Paired | None


def primary(evidence: Evidence) -> Primary | None:
    """The primary cell in pictures."""
    if not evidence.cells or evidence.cells[0].candidate is None:
        return None
    cell, played, bar = evidence.cells[0], evidence.played[0], failure_of(evidence.params)
    scale = scale_of(evidence.params, evidence.tried)
    paired = _paired(evidence)
    other = evidence.names[1]
    what = "mean return" if paired is None else f"difference to {other}, in return"
    estimated, rates = bounded(evidence)
    return Primary(
        cell=cell,
        forest=plots.forest(estimated, what, paired=paired is not None),
        failures=plots.forest(rates, "failures, in percent", paired=paired is not None, unit=100),
        profile=plots.profile(
            scale.clip(played.returns),
            None if played.incumbent_returns is None else scale.clip(played.incumbent_returns),
            bar,
        ),
        paired=paired,
    )


def bounded(evidence: Evidence) -> tuple[list[Check], list[Check]]:
    """The checks of cells that have an interval: of returns, and of failures."""
    checks = [check for check in evidence.checks if check.low is not None]
    names = [each.cell.name for each in evidence.cells]
    returns, failures = {*names, TAIL}, {f"{name} failures" for name in names}
    return [c for c in checks if c.name in returns], [c for c in checks if c.name in failures]


def _paired(evidence: Evidence) -> Paired | None:
    played, params = evidence.played[0], evidence.params
    theirs, scale = played.incumbent_returns, scale_of(params, evidence.tried)
    if evidence.cells[0].difference is None or theirs is None:
        return None
    gaps = scale.clip(played.returns) - scale.clip(theirs)
    names, bar = evidence.names, failure_of(params)
    scatter = plots.scatter(scale.clip(played.returns), scale.clip(theirs), bar, names)
    waterfall = plots.waterfall(gaps, params.margin * width_of(params), names)
    if not gaps.any():
        return Paired(scatter, waterfall, None, None)
    threshold = params.min_gain * width_of(params) if params.superiority else 0.0
    rng = seeding.stream(0, "power curve")
    power = simulate(gaps, played.cell.episodes, threshold, scale, rng)
    effects = np.linspace(0, min(2 * power.detectable, scale.span), 13).tolist()
    curve = plots.power(effects, power.at(effects), power.detectable)
    return Paired(scatter, waterfall, curve, power.detectable)


@dataclass(frozen=True)
class Tile:
    """One cell of the heat map. `style` is how it came out, `shade` 0-3 by how clearly."""

    severity: str
    value: str
    note: str
    style: str
    shade: int


@dataclass(frozen=True)
class HeatRow:
    """One kind of perturbation, severities from mild to harsh."""

    name: str
    tiles: list[Tile]


def heat(evidence: Evidence) -> list[HeatRow] | None:
    """Perturbed cells and other modes, the kind with the worst cell first."""
    checks = {check.name: check for check in evidence.checks}
    groups: dict[str, list[tuple[float, Tile]]] = {}
    for cell in evidence.cells[1:]:
        check, place = _first_of(cell, checks), cell.cell.perturbation
        kind, severity = (
            ("mode", cell.cell.mode) if place is None else (place.name, _severity(cell, evidence))
        )
        room = -np.inf if check.room is None else check.room
        groups.setdefault(kind, []).append((room, _tile(cell, check, severity, evidence)))
    rows = sorted(groups.items(), key=lambda item: min(room for room, _ in item[1]))
    return [HeatRow(kind.replace("_", " "), [t for _, t in tiles]) for kind, tiles in rows] or None


def _first_of(cell: CellEstimate, checks: Mapping[str, Check]) -> Check:
    """The check of a cell's returns, or of its failures where those alone are looked at."""
    return checks.get(cell.cell.name) or checks[f"{cell.cell.name} failures"]


def _tile(cell: CellEstimate, check: Check, severity: str, evidence: Evidence) -> Tile:
    if cell.candidate is None:
        return Tile(severity, "—", str(cell.problem), "fail", 3)
    names = (cell.cell.name, f"{cell.cell.name} failures")
    worst = min((c.outcome for c in evidence.checks if c.name in names), key=PRECEDENCE.index)
    style = plots.STYLES[worst] if check.binding else "muted"
    clear = abs(check.room or 0.0)
    shade = 1 + int(clear > 0.1) + int(clear > 0.4)
    short = decimals_of(cell) - 1  # a tile has little room
    if cell.incumbent is None:
        note = f"{cell.candidate.failures:.0%} fail"
        return Tile(severity, f"{cell.candidate.mean:.{short}f}", note, style, shade)
    assert cell.difference is not None
    failing = f"{cell.candidate.failures:.0%}/{cell.incumbent.failures:.0%} fail"
    means = [f"{arm.mean:.{short}f}" for arm in (cell.candidate, cell.incumbent)]
    note = f"{' against '.join(means)}, {failing}"
    return Tile(severity, f"{cell.difference.value:+.{short}f}", note, style, shade)


def _severity(cell: CellEstimate, evidence: Evidence) -> str:
    assert cell.cell.perturbation is not None
    text = f"{cell.cell.perturbation.severity:g}"
    return text if cell.cell.mode == evidence.mode else f"{text}, mode {cell.cell.mode}"


def actions(evidence: Evidence) -> Markup | None:
    """Which actions the candidate takes, beside the champion's answers to the same."""
    seen = evidence.behaviour
    if seen is None:
        return None
    return plots.actions(seen.rows, seen.columns, seen.candidate, seen.incumbent, evidence.names)


def _interval(interval: Bound, sign: str) -> str:
    form = f"{sign}.{interval.decimals}f"
    return f"{interval.low:{form}} to {interval.high:{form}}"
