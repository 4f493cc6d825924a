"""The evidence of a trial: episodes in order of start, and the capital of bets on them.

The estimand is the mean effect (the canary's conditional mean return minus the champion's) over
started episodes, weighted by v = min(w, 1 - w) so that steps of weight keep the range. With arm A
(1: canary), probability w, return Y in [0, 1] and a baseline b that the past determines,
    D = (A - w) (Y - b) / (w (1 - w)),    E[D | past] = effect,    v D in [-1, 1].
A test of 'the weighted mean effect so far is at most m' bets constant shares on v (D - m): see
`srghn.inference.capital` for the theorem. A drift of both arms cancels in D, so it needs no
assumption. The order of arrival has no effect, because episodes are in order of start.

An outcome that is missing after its deadline is counted in two ways: as return 0 and as return 1.
A decision must hold in both. An accepted loss counts only with outcomes: where a share q of them is
missing, the effect over all episodes is (1 - q) times that of the others, and so must be the loss.

Where posters have a cap, an outcome beyond its poster's share of those before it, in order of
start, is missing, too. So no poster gives more than its share of what decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.trial.bets import FILLS, Bets, bets_of, guard
from serving.trial.rules import TrialRules, within_share
from srghn.inference.capital import Mixture

Float64 = NDArray[np.float64]

#: Episodes after which a return's weight in the baseline is one half. Few, so that the baseline
#: follows a drift. In a world without drift this costs a tenth more variance than many.
HALF_LIFE = 5
#: Resolution of a bound of the effect, as a share of the range.
GRID = 0.002
_BLOCK = 512


@dataclass(frozen=True)
class Log:
    """A part of a trial in order of start.

    `arms` (n,): 1 for the canary, 0 for the champion. `weights` (n,): the canary's probability at
    that start, in (0, 1). `values` (n,): returns scaled to [0, 1], NaN without an outcome.
    `posters` (n,): who posted them; None, and all if it is empty, for one without a cap. Raises
    `ValueError` for other shapes or values.
    """

    arms: NDArray[np.int8]
    weights: Float64
    values: Float64
    posters: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        if not (self.arms.shape == self.weights.shape == self.values.shape):
            raise ValueError(
                "arms, weights and values must have one shape (n,), got "
                f"{self.arms.shape}, {self.weights.shape}, {self.values.shape}"
            )
        if self.posters and len(self.posters) != len(self.arms):
            raise ValueError(f"expected {len(self.arms)} posters or none, got {len(self.posters)}")
        known = self.values[~np.isnan(self.values)]
        if not np.all((known >= 0) & (known <= 1)):
            raise ValueError("returns must be scaled to [0, 1], or NaN for a missing outcome")
        if not np.all((self.weights > 0) & (self.weights < 1)):
            raise ValueError("weights must lie in (0, 1)")

    def __len__(self) -> int:
        return len(self.arms)

    def __getitem__(self, part: slice) -> Log:
        return Log(self.arms[part], self.weights[part], self.values[part], self.posters[part])


def joined(first: Log, second: Log) -> Log:
    """Both parts, one after the other."""
    return Log(
        np.concatenate([first.arms, second.arms]),
        np.concatenate([first.weights, second.weights]),
        np.concatenate([first.values, second.values]),
        first.posters + second.posters,
    )


@dataclass(frozen=True)
class ArmCount:
    """One arm's resolved episodes, missing outcomes, and sum of scaled returns."""

    episodes: int = 0
    missing: int = 0
    total: float = 0.0

    @property
    def outcomes(self) -> int:
        return self.episodes - self.missing

    @property
    def mean(self) -> float | None:
        """Mean scaled return; None without an outcome."""
        return self.total / self.outcomes if self.outcomes else None


@dataclass(frozen=True)
class TrialState:
    """Everything that a decision needs, after `champion.episodes + canary.episodes` episodes.

    `promote`, `harm`: logarithms of the capital by fill and bet, (2, bets). `ratio`, `missing`: the
    same by side and bet, (2, bets), for the tests that episodes and missing outcomes are split
    between the arms by their weights. `bets`: the bets of that capital; a state keeps them, so new
    rules do not change those of a later attempt. `baseline` is b. `since` is the number of episodes
    before the present attempt. `posted` is the number of outcomes in the evidence by poster, where
    posters have a cap.
    """

    bets: Bets
    promote: Float64
    harm: Float64
    ratio: Float64
    missing: Float64
    baseline: float = 0.5
    champion: ArmCount = ArmCount()
    canary: ArmCount = ArmCount()
    since: int = 0
    posted: Mapping[str, int] = field(default_factory=dict)

    @property
    def episodes(self) -> int:
        return self.champion.episodes + self.canary.episodes

    @property
    def outcomes(self) -> int:
        return self.champion.outcomes + self.canary.outcomes

    def retry(self, rules: TrialRules) -> TrialState:
        """The state with which another trial continues; its limit of episodes counts from here.

        The capital is not reset, because five fresh attempts would give a canary at the margin
        five chances. After a broken guard, whose capital might never fall again, both guards begin
        anew, and each bet on a promotion keeps 1 at most. Capital that is given away stays a
        supermartingale, so all attempts together keep `promote_alpha` where outcomes go missing
        alike in both arms; and whatever the evidence before was, that after it keeps it by itself.
        """
        sides = guard()
        both = (_two_sided(*sides.log_capital(logs)) for logs in (self.ratio, self.missing))
        state = replace(self, since=self.episodes)
        if max(map(float, both)) < -np.log(rules.guard_alpha):
            return state
        none = np.zeros_like(self.ratio)
        return replace(state, ratio=none, missing=none, promote=np.minimum(self.promote, 0.0))

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"baseline": self.baseline, "since": self.since}
        for name in ("promote", "harm", "ratio", "missing"):
            data[name] = getattr(self, name).tolist()
        for name in ("champion", "canary"):
            data[name] = vars(getattr(self, name))
        mixtures = {"promote": self.bets.promote, "harm": self.bets.harm}
        data["bets"] = {name: mixture.to_json() for name, mixture in mixtures.items()}
        return data | ({"posted": dict(self.posted)} if self.posted else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialState:
        names = ("promote", "harm", "ratio", "missing")
        promote, harm, ratio, missing = (np.array(data[name], np.float64) for name in names)
        champion, canary = (ArmCount(**data[name]) for name in ("champion", "canary"))
        baseline = float(data["baseline"])
        since = int(data["since"])
        bets = Bets(*(Mixture.from_json(data["bets"][name]) for name in ("promote", "harm")))
        posted = data.get("posted", {})
        return cls(bets, promote, harm, ratio, missing, baseline, champion, canary, since, posted)


def begin(rules: TrialRules) -> TrialState:
    """The state before the first episode: every capital is 1."""
    bets, sides = bets_of(rules), len(guard().bets)
    promote, harm = (np.zeros((2, len(mixture.bets))) for mixture in (bets.promote, bets.harm))
    return TrialState(bets, promote, harm, np.zeros((2, sides)), np.zeros((2, sides)))


@dataclass(frozen=True)
class Path:
    """Log capital after each of n episodes, (n,): the minimum over fills of missing outcomes."""

    promote: Float64
    harm: Float64
    ratio: Float64
    missing: Float64


def capped(state: TrialState, log: Log, rules: TrialRules) -> Log:
    """The log after `state`, without the outcomes beyond their posters' share."""
    if rules.poster_share >= 1 or not log.posters:
        return log
    values, posted, total = log.values.copy(), dict(state.posted), state.outcomes
    for i in np.flatnonzero(~np.isnan(values)).tolist():
        poster = log.posters[i]
        if poster is not None:
            own = posted.get(poster, 0)
            if not within_share(own, total, rules.poster_share):
                values[i] = np.nan
                continue
            posted[poster] = own + 1
        total += 1
    return replace(log, values=values)


def _posted(before: Mapping[str, int], log: Log) -> Mapping[str, int]:
    known = (p for p, value in zip(log.posters, log.values, strict=False) if value == value)
    return Counter(before) + Counter(poster for poster in known if poster is not None)


def steps(log: Log, baselines: Float64, rules: TrialRules) -> tuple[Float64, Float64]:
    """The steps that the bets are on, each (2, n) by fill: for a promotion, and for harm."""
    w, a = log.weights, log.arms
    v = np.minimum(w, 1 - w)
    gone = np.isnan(log.values)
    towards, away = [], []
    for fill in FILLS:
        better = np.where(gone, fill, log.values)
        worse = better
        if rules.strict_missing:  # every missing outcome counts against the decision
            better = np.where(gone, np.where(a == 1, 0.0, 1.0), log.values)
            worse = np.where(gone, np.where(a == 1, 1.0, 0.0), log.values)
        unit = v * (a - w) / (w * (1 - w))
        towards.append(unit * (better - baselines) + v * ~gone * rules.margin)
        away.append(-unit * (worse - baselines))
    return np.stack(towards), np.stack(away)


def follow(state: TrialState, log: Log, rules: TrialRules) -> tuple[Path, Logs]:
    """Capital after each episode of `log`, and the data with which `state_at` stops at any."""
    baselines = _baselines(log.values, state.baseline)
    towards, away = steps(log, baselines[:-1], rules)
    bets, sides = state.bets, guard()
    promote = [bets.promote.paths(state.promote[i], towards[i]) for i in range(len(FILLS))]
    harm = [bets.harm.paths(state.harm[i], away[i]) for i in range(len(FILLS))]
    uneven = log.arms - log.weights
    lost = np.where(np.isnan(log.values), uneven, 0.0)
    ratio = [sides.paths(state.ratio[i], sign * uneven) for i, sign in enumerate((1, -1))]
    missing = [sides.paths(state.missing[i], sign * lost) for i, sign in enumerate((1, -1))]
    path = Path(
        promote=np.minimum(*(bets.promote.log_capital(p) for p in promote)),
        harm=np.minimum(*(bets.harm.log_capital(p) for p in harm)),
        ratio=_two_sided(*(sides.log_capital(p) for p in ratio)),
        missing=_two_sided(*(sides.log_capital(p) for p in missing)),
    )
    return path, Logs(promote, harm, ratio, missing, baselines)


@dataclass(frozen=True)
class Logs:
    """Log capital by bet after each episode, lists of (n, bets), and baselines (n + 1,)."""

    promote: list[Float64]
    harm: list[Float64]
    ratio: list[Float64]
    missing: list[Float64]
    baselines: Float64


def state_at(state: TrialState, log: Log, logs: Logs, count: int, rules: TrialRules) -> TrialState:
    """The state after the first `count` episodes of `log`, at least one."""
    row = count - 1

    def at(paths: list[Float64]) -> Float64:
        return np.stack([path[row] for path in paths])

    return replace(
        state,
        promote=at(logs.promote),
        harm=at(logs.harm),
        ratio=at(logs.ratio),
        missing=at(logs.missing),
        baseline=float(logs.baselines[count]),
        champion=_counted(state.champion, log[:count], 0),
        canary=_counted(state.canary, log[:count], 1),
        posted=_posted(state.posted, log[:count]) if rules.poster_share < 1 else state.posted,
    )


def blocks(log: Log) -> Iterator[Log]:
    """Parts of the log, to bound the memory that a long one needs."""
    for start in range(0, len(log), _BLOCK):
        yield log[start : start + _BLOCK]


def effect_bounds(log: Log, rules: TrialRules) -> tuple[float, float]:
    """Bounds of the weighted mean effect in [-1, 1], each one-sided at its decision's level.

    That of the lower bound is `rules.promote_alpha`, that of the upper bound `rules.alpha`.
    They hold at every moment and under any common drift. The capital against an effect of at most m
    falls with m. So the lower bound is the largest m, to GRID, that the capital refutes; the upper
    bound mirrors it. They are for people; `serving.trial.decision.advance` takes the decisions.
    """
    if not len(log):
        return -1.0, 1.0
    log = capped(begin(rules), log, rules)
    baselines = _baselines(log.values, 0.5)[:-1]
    v = np.minimum(log.weights, 1 - log.weights)
    towards, away = steps(log, baselines, rules)
    bets = bets_of(rules)
    accepted = v * ~np.isnan(log.values) * rules.margin
    low = _last_refuted(towards - accepted, v, bets.promote, np.log(1 / rules.promote_alpha))
    return low, -_last_refuted(away, v, bets.harm, np.log(1 / rules.alpha))


def _last_refuted(drawn: Float64, v: Float64, bets: Mixture, limit: float) -> float:
    """The largest mean effect that the bets on `drawn` (fills, n) refute; -1 if there is none."""
    # Index 0 is an effect of -1, the trivial bound. 0 is tried first: see `Mixture.against`.
    low, high = 0, round(2 / GRID)
    while high - low > 1:
        middle = (low + high) // 2
        mean = np.array([middle * GRID - 1])
        refuted = min(float(bets.against(fill, v, mean)[0]) for fill in drawn) >= limit
        low, high = (middle, high) if refuted else (low, middle)
    return low * GRID - 1


def _two_sided(up: Float64, down: Float64) -> Float64:
    """Logarithm of half the capital on each side."""
    return np.asarray(np.logaddexp(up, down) - np.log(2))


def _baselines(values: Float64, first: float) -> Float64:
    """Pooled exponentially weighted mean before each value and after the last, (n + 1,)."""
    share = 1 - 0.5 ** (1 / HALF_LIFE)
    found, now = [first], first
    for value in values.tolist():
        if value == value:
            now += share * (value - now)
        found.append(now)
    return np.array(found)


def _counted(before: ArmCount, log: Log, arm: int) -> ArmCount:
    values = log.values[log.arms == arm]
    known = values[~np.isnan(values)]
    return ArmCount(
        before.episodes + len(values),
        before.missing + len(values) - len(known),
        sum(known.tolist(), before.total),  # one by one, so that parts of a log give the same sum
    )
