"""Guards beside returns: errors, invalid actions and latency of two versions on the same requests.

A copy of a request is answered by the champion and by the version that is tried, in one thread and
in random order, off the request path; nobody gets these answers. Each copy is a pair, so whatever
makes a request hard makes it hard for both, and load slows both. Three tests, each with steps x:
- errors, invalid actions: x = 1 where only the version tried failed, -1 where only the champion
  did;
- latency: x = 1 where the version tried took longer than `latency` times the champion's time plus
  `slack_ms`, -1 where it did not: refuted is that it does so on at most half of the copies.
The capital of constant bets on x refutes "the mean of x so far is at most 0" at whatever moment one
looks and whatever drifts (Ville's inequality; theorem and sources in `srghn.inference.capital`). As
the bets are constant and x is 1, 0 or -1, counts are all that it takes: log K = n_up log(1 + k) +
n_down log(1 - k) for each bet k. So workers add what they counted, in any order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from serving.trial.bets import guard
from serving.trial.compared import Compared
from serving.trial.rules import GuardTerms


@dataclass(frozen=True)
class Guarded:
    """One guard: the capital against "no worse", the capital that breaks it, and the counts."""

    name: str
    capital: float
    needed: float
    said: str

    @property
    def broken(self) -> bool:
        return self.capital >= self.needed


def guarded(seen: Compared, terms: GuardTerms) -> tuple[Guarded, ...]:
    """The three guards; alpha is split between them, as each alone ends a trial."""
    tests = (
        (
            "errors",
            seen.errors,
            seen.champion_errors,
            f"it failed on {seen.errors} of {seen.copies} copies of requests that the champion "
            f"answered, the champion on {seen.champion_errors} that it answered",
        ),
        (
            "invalid actions",
            seen.invalid,
            seen.champion_invalid,
            f"{seen.invalid} of {seen.copies} actions were none that the interface has, of the "
            f"champion's {seen.champion_invalid}",
        ),
        (
            "latency",
            seen.slower,
            seen.timed - seen.slower,
            f"on {seen.slower} of {seen.timed} copies of requests it took more than "
            f"{terms.latency:g} times as long as the champion and {terms.slack_ms:g} ms",
        ),
    )
    needed = len(tests) / terms.alpha
    return tuple(Guarded(name, _capital(up, down), needed, said) for name, up, down, said in tests)


def broken(seen: Compared, terms: GuardTerms) -> Guarded | None:
    """The first guard that is broken."""
    return next((one for one in guarded(seen, terms) if one.broken), None)


def _capital(up: int, down: int) -> float:
    bets = guard()
    logs = up * np.log1p(bets.bets) + down * np.log1p(-bets.bets)
    return math.exp(min(float(bets.log_capital(logs)), 700.0))
