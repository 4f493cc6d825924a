"""The states of a version and the only steps between them."""

from __future__ import annotations

from enum import StrEnum

from srghn.errors import TransitionRefused


class State(StrEnum):
    """The state of a version.

    Served are CHAMPION and, for its share of a trial, CANARY. A SHADOW answers a copy of the
    traffic; its answers go to nobody.
    """

    REGISTERED = "REGISTERED"
    EVALUATING = "EVALUATING"
    PASSED = "PASSED"
    FAILED = "FAILED"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    SHADOW = "SHADOW"
    CANARY = "CANARY"
    EXPIRED = "EXPIRED"
    CHAMPION = "CHAMPION"
    RETIRED = "RETIRED"
    ABORTED = "ABORTED"
    STALE = "STALE"
    REVOKED = "REVOKED"


S = State

#: from -> to. `None` is an unregistered digest. Further conditions are in `guards`.
TRANSITIONS: dict[State | None, frozenset[State]] = {
    None: frozenset({S.REGISTERED}),
    S.REGISTERED: frozenset({S.EVALUATING}),
    S.EVALUATING: frozenset({S.PASSED, S.FAILED, S.INCONCLUSIVE, S.ERROR}),
    # a retry is a new evaluation on fresh seeds; the number of attempts is limited
    S.INCONCLUSIVE: frozenset({S.EVALUATING}),
    S.ERROR: frozenset({S.EVALUATING}),
    S.STALE: frozenset({S.EVALUATING}),
    S.PASSED: frozenset({S.APPROVED, S.REJECTED, S.STALE}),
    # directly to champion only while there is none
    S.APPROVED: frozenset({S.SHADOW, S.CANARY, S.CHAMPION, S.REJECTED, S.STALE}),
    # back to approved: the shadow ends, without consequences for the version
    S.SHADOW: frozenset({S.CANARY, S.APPROVED, S.ABORTED, S.REJECTED, S.STALE}),
    # to itself: weight or status changed; to stale: its incumbent was rolled back
    S.CANARY: frozenset({S.CANARY, S.CHAMPION, S.ABORTED, S.EXPIRED, S.STALE}),
    # undecided is not harmful: it may be tried again while its pass is valid
    S.EXPIRED: frozenset({S.CANARY, S.ABORTED, S.REJECTED, S.STALE}),
    S.CHAMPION: frozenset({S.RETIRED, S.REVOKED}),
    S.RETIRED: frozenset({S.CHAMPION, S.REVOKED}),
    S.FAILED: frozenset(),
    S.REJECTED: frozenset(),
    S.ABORTED: frozenset(),
    S.REVOKED: frozenset(),
}

#: States that are valid only while the champion is the one they were judged against.
WON = (S.PASSED, S.APPROVED, S.SHADOW, S.CANARY, S.EXPIRED)
#: States that end at their `deadline`.
DATED = (S.EVALUATING, S.PASSED, S.EXPIRED)

#: Verdict -> new state of the version that was evaluated.
VERDICTS = {
    "passed": S.PASSED,
    "failed": S.FAILED,
    "inconclusive": S.INCONCLUSIVE,
    "error": S.ERROR,
}


def check_step(version: int, start: State | None, end: State) -> None:
    """Raise `TransitionRefused` unless the state machine has the step."""
    if end not in TRANSITIONS[start]:
        known = ", ".join(sorted(TRANSITIONS[start])) or "nothing: this is its final state"
        raise TransitionRefused(
            f"version {version} is {start} and cannot become {end}; from there it can become "
            f"{known}"
        )
