"""Diagnoses the world in service: compares it with short play in every pinned world and mode.

The champion plays in each of them in the sandbox. Its episodes there are compared with those in
service since the alarm: by (return, length), and if service keeps observations, by one observation
of each episode and by the transition to the next one. Each comparison is an energy distance,
calibrated by permutation. Worlds in which the champion fails alike have different transitions.
If one place fits, that is the world. If none fits, the sandbox does not know this world, and
nothing is done. Episodes since the alarm are a fresh sample, because earlier ones raised the alarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.adapt.play import Sample, moves, play, together, transition
from pipelines.runs.worlds import pinned_versions
from pipelines.versions.release import Release
from serving.control.release import canary_rules
from serving.control.samples import in_pairs
from serving.registry import samples
from serving.registry.records import Champion, StartRow
from serving.trial.rules import TrialRules, terms_of
from srghn import seeding
from srghn.candidates.candidate import OnnxPolicy
from srghn.envs import EnvVersion
from srghn.inference.sameness import compare, compare_moves

Float = NDArray[np.float64]
Found = Literal["known", "unchanged", "ambiguous", "none"]

#: Least and most episodes in service for a diagnosis, and the episodes it plays in each place.
ENOUGH, MOST, PLAYED = 100, 400, 400
#: Seconds by which clocks may differ; an episode that began later than that lies in the future.
AHEAD = 24 * 3600.0
#: Least number of observations (one per episode) to compare them too.
OBSERVED = 20
#: Numbers of starts at which a diagnosis may be made.
SIZES = (ENOUGH, 2 * ENOUGH, MOST)
#: Share of the episodes that must have an outcome; the others passed their deadline without one.
ENDED = 0.95
#: Probability that one diagnosis rejects the right world. Unless people ask for more, an alarm
#: has at most three (at 100, 200 and 400 episodes), which together reject it with at most three
#: times this probability.
ALPHA = 0.005


@dataclass(frozen=True)
class Place:
    """A pinned world and one of its modes."""

    world: EnvVersion
    mode: str


@dataclass(frozen=True)
class Likeness:
    """The comparison of service with one place.

    mean        the champion's mean return there, clipped
    p           p-value of (return, length): small if they differ
    distance    energy distance of (return, length)
    p_observed  p-value of observations and transitions; None if service kept too few, or if `p`
                rules the place out already
    """

    env_fingerprint: str
    world: str
    mode: str
    mean: float
    p: float
    distance: float
    p_observed: float | None
    fits: bool


@dataclass(frozen=True)
class Diagnosis:
    """The place that explains service, if any; `mean` is the mean return in service, raw.

    known      another place than the one where the champion passed; it is named
    unchanged  the place where the champion passed
    ambiguous  several places fit; nothing is done
    none       no place fits; nothing is done
    """

    found: Found
    why: str
    episodes: int
    mean: float
    evidence: tuple[Likeness, ...]
    env_fingerprint: str | None = None
    mode: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "evidence": [asdict(each) for each in self.evidence]}


def places(release: Release, champion: Champion) -> list[Place]:
    """Every pinned world with the champion's interface, in each mode; its own world first."""
    own = release.world(release.ledger.version(champion.version))
    others = [
        world
        for world in pinned_versions(release.settings)
        if world.fingerprint != own.fingerprint
        and world.interface.for_clients() == own.interface.for_clients()
    ]
    found: dict[str, Place] = {}  # one of those that behave the same (say, with other schedules)
    for world in (own, *others):
        for mode in world.modes:
            found.setdefault(world.behaviour[mode].digest, Place(world, mode))
    return list(found.values())


def taken(rows: Sequence[StartRow], now: float) -> list[StartRow] | None:
    """The episodes for a diagnosis, of those started since the alarm; None while there are too few.

    The first 400, 200 or 100 starts: the most of which each has ended or passed its deadline at
    `now` (Unix seconds). A number that follows the outcomes would leave out long episodes.
    """
    for size in reversed(SIZES):
        first = rows[:size]
        ended = [row for row in first if row.arrived is not None]
        # one that began in the future did so by a clock that was wrong: its deadline is far away
        over = not any(row.runs(now) and row.started_at < now + AHEAD for row in first)
        if len(first) == size and over and len(ended) >= ENDED * size:
            return ended
    return None


def size_of(ended: int) -> int:
    """The number of starts of which a diagnosis has `ended` outcomes; 0 if they are too few."""
    return max((size for size in SIZES if ended >= ENDED * size), default=0)


def diagnose(
    release: Release, champion: Champion, rows: Sequence[StartRow], name: str
) -> Diagnosis:
    """Diagnose from episodes in service (the result of `taken`); `name` seeds the random draws.

    Raises `ConfigError` if the champion's world is not pinned in this sandbox.
    """
    rules = terms_of(canary_rules(release.ledger.version(champion.version)))
    candidate, service = release.store.load(champion.digest), seen(release, champion, rows)
    observe, evidence, policy = service.observed is not None, [], candidate.policy()
    for place in places(release, champion):
        seed = seeding.text_seed("diagnosis", name, champion.digest, place.world.fingerprint)
        played = play(candidate, place.world, place.mode, PLAYED, seed, observe=observe)
        draws = seeding.stream(seed, "permutations", place.mode)
        fit = compare_samples(service, played, rules, draws, policy)
        evidence.append(fit.of(place.world.fingerprint, place.world.id, place.mode))
    here = champion.env_fingerprint, champion.mode
    return conclude(evidence, here, len(rows), float(service.pairs[:, 0].mean()))


def seen(release: Release, champion: Champion, rows: Sequence[StartRow]) -> Sample:
    """These episodes in service as a sample; with observations, if enough were kept."""
    pairs = np.array([(float(row.return_ or 0.0), float(row.length or 0)) for row in rows])
    names = [row.episode for row in rows]
    kept = in_pairs(samples.kept(release.ledger.database(), champion.policy, names))
    observed = [
        transition(each.step, each.values, None if following is None else following.values)
        for each, following in kept.values()
    ]
    return Sample(pairs, together(observed) if len(observed) >= OBSERVED else None)


@dataclass(frozen=True)
class Fit:
    """How well one place explains service: p-values of (return, length) and of observations."""

    mean: float
    p: float
    distance: float
    p_observed: float | None

    @property
    def fits(self) -> bool:
        """Whether neither test rejects; two tests share the probability of a wrong rejection."""
        if self.p_observed is None:
            return self.p > ALPHA
        return min(self.p, self.p_observed) > ALPHA / 2

    def of(self, fingerprint: str, world: str, mode: str) -> Likeness:
        numbers = (self.mean, self.p, self.distance, self.p_observed)
        return Likeness(fingerprint, world, mode, *numbers, self.fits)


def compare_samples(
    service: Sample,
    played: Sample,
    rules: TrialRules,
    draws: np.random.Generator,
    policy: OnnxPolicy,
) -> Fit:
    """Compare service with play in one place, by returns and lengths and by observations."""
    clipped = _clipped(played.pairs, rules)
    found = compare(_clipped(service.pairs, rules), clipped, draws)
    p_observed, seen, there = None, service.observed, played.observed
    likely = found.p > ALPHA / 2  # otherwise it does not fit, whatever the observations
    if likely and seen is not None and there is not None and len(there) > 1:
        p_observed = _observations(seen, there, draws, policy)
    return Fit(float(clipped[:, 0].mean()), found.p, found.distance, p_observed)


def _observations(
    service: Float, played: Float, draws: np.random.Generator, policy: OnnxPolicy
) -> float:
    """The smaller p-value of the tests of observations and of transitions, times their number."""
    size = 1 + policy.observation_size
    found = [compare(_by_octave(service[:, :size]), _by_octave(played[:, :size]), draws).p]
    ours, theirs = moves(policy, service), moves(policy, played)
    if min(len(ours[0]), len(theirs[0]) // 2) >= OBSERVED:
        found.append(compare_moves(ours, theirs, draws).p)
    return min(1.0, len(found) * min(found))


def _by_octave(observed: Float) -> Float:
    """The observations with log2 of the step, because steps are drawn over octaves."""
    return np.concatenate([np.log2(1 + observed[:, :1]), observed[:, 1:]], axis=1)


def conclude(
    evidence: Sequence[Likeness], here: tuple[str, str], episodes: int, mean: float
) -> Diagnosis:
    """The diagnosis from the comparisons; `here`: fingerprint and mode where the champion passed.

    If several places fit, that place is preferred, then the champion's own world.
    """
    fits = [each for each in evidence if each.fits]
    own = [each for each in fits if each.env_fingerprint == here[0]]
    said = f"{episodes} episodes since the alarm, mean return {mean:.4g}"
    if any((each.env_fingerprint, each.mode) == here for each in fits):
        why = f"{said}, are as the champion plays where it passed, in mode {here[1]}"
        return Diagnosis("unchanged", why, episodes, mean, tuple(evidence), *here)
    chosen = own or fits
    if not chosen:
        best = max(evidence, key=lambda each: each.p)
        why = (
            f"{said}, are like no pinned environment; nearest is {best.world} in mode {best.mode} "
            f"(mean {best.mean:.4g}, p {best.p:.3f}). Pin what changed: srghn env pin"
        )
        return Diagnosis("none", why, episodes, mean, tuple(evidence))
    if len(chosen) > 1:
        named = ", ".join(f"{each.world} {each.mode}" for each in chosen)
        why = f"{said}, fit several: {named}; say which: srghn mode set"
        return Diagnosis("ambiguous", why, episodes, mean, tuple(evidence))
    [only] = chosen
    why = f"{said}, are as the champion plays in {only.world}, mode {only.mode} (p {only.p:.3f})"
    return Diagnosis("known", why, episodes, mean, tuple(evidence), only.env_fingerprint, only.mode)


def _clipped(pairs: Float, rules: TrialRules) -> Float:
    """Returns clipped to the range (a crash counts as its low end), and lengths."""
    returns = np.nan_to_num(pairs[:, 0], nan=rules.low, neginf=rules.low, posinf=rules.high)
    return np.stack([np.clip(returns, rules.low, rules.high), pairs[:, 1]], axis=1)
