"""Guards beside returns: errors, invalid actions and latency of two versions on the same requests.

The champion and the tried version answer a copy of a request, in one thread and in random order,
off the request path; these answers go to nobody. Each copy is a pair: a hard request is hard for
both, and load slows both. There are three tests, each with steps x:
- errors, invalid actions: x = 1 if only the tried version failed, -1 if only the champion did;
- latency: x = 1 if the tried version took longer than `latency` times the champion's time plus
  `slack_ms`, else -1. The test refutes "it does so on at most half of the copies".
The capital of constant bets on x refutes "the mean of x so far is at most 0" at any moment and
under any drift (Ville's inequality; theorem and sources in `srghn.inference.capital`). Bets are
constant and x is 1, 0 or -1, so counts are sufficient: log K = n_up log(1 + k) + n_down log(1 - k)
for each bet k. So workers add their counts in any order.
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
    """The three guards; alpha is split between them, because each alone can end a trial."""
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
            f"{seen.invalid} of {seen.copies} actions were not actions of the interface, of the "
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
    """The first broken guard; None if none is."""
    return next((one for one in guarded(seen, terms) if one.broken), None)


def _capital(up: int, down: int) -> float:
    bets = guard()
    logs = up * np.log1p(bets.bets) + down * np.log1p(-bets.bets)
    return math.exp(min(float(bets.log_capital(logs)), 700.0))
