"""The decision on outcomes in order of arrival, until starts are recorded: see `decision`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from srghn.config import CanaryParams
from srghn.inference.sequences import Interval, interval


@dataclass(frozen=True)
class Decision:
    """An action and the evidence for it. `low`, `high`: canary's mean return minus champion's."""

    action: Literal["wait", "promote", "abort"]
    reason: str
    champion: Interval
    canary: Interval
    low: float
    high: float
    clipped: int

    def to_json(self) -> dict[str, Any]:
        """For the ledger; a mean of nothing is None."""
        data = asdict(self)
        for arm in (data["champion"], data["canary"]):
            arm["mean"] = None if arm["n"] == 0 else arm["mean"]
        return data


def decide(
    champion: NDArray[np.float64], canary: NDArray[np.float64], params: CanaryParams
) -> Decision:
    """Judge a trial by the returns of both arms, shapes (n,) and (k,), in order of arrival.

    Each arm's confidence sequence (`srghn.inference.sequences`) holds at `1 - alpha / 2`, so the
    difference of the two holds at `1 - alpha = params.confidence` (union bound), at every moment
    at once: it may be looked at after each outcome. Returns beyond the range of `params` are
    clipped to it, and counted. An outcome that is not finite raises `ValueError`.
    """
    if not (np.isfinite(champion).all() and np.isfinite(canary).all()):
        raise ValueError("outcomes must be finite")
    bottom, top = params.return_low, params.return_high
    outside = [np.count_nonzero((arm < bottom) | (arm > top)) for arm in (champion, canary)]
    alpha = (1 - params.confidence) / 2
    held = interval(np.clip(champion, bottom, top), bottom, top, alpha)
    tried = interval(np.clip(canary, bottom, top), bottom, top, alpha)
    low, high = tried.low - held.high, tried.high - held.low
    action, reason = _rule(held, tried, low, high, params)
    return Decision(action, reason, held, tried, low, high, int(sum(outside)))


def _rule(
    held: Interval, tried: Interval, low: float, high: float, params: CanaryParams
) -> tuple[Literal["wait", "promote", "abort"], str]:
    margin = params.margin * (params.return_high - params.return_low)
    span = f"difference between {low:.1f} and {high:.1f}"
    fewest, total = min(held.n, tried.n), held.n + tried.n
    if high < 0:
        return "abort", f"the canary is worse: {span}"
    if fewest < params.min_episodes and total < params.max_episodes:
        return "wait", (
            f"{tried.n} outcomes of the canary and {held.n} of the champion, "
            f"{params.min_episodes} of each are needed; {span}"
        )
    if fewest >= params.min_episodes and low > 0:
        return "promote", f"the canary is better: {span}"
    if fewest >= params.min_episodes and low >= -margin:
        return "promote", f"the canary is not worse than the margin of {margin:.1f}: {span}"
    if total >= params.max_episodes:
        return "abort", f"given up without a decision after {total} outcomes: {span}"
    return "wait", f"neither better nor worse is shown: {span}, margin {margin:.1f}"
