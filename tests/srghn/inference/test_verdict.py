"""A verdict follows from its checks, and anyone can decide again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from srghn.inference.verdict import Check, Sense, Verdict, contradiction, decide, summarise

GOOD = Check(
    "primary", "passed", "better", value=5.0, threshold=0.0, low=1.0, high=9.0, sense="low >"
)
RARE = Check(
    "failures", "passed", "few", value=0.0, threshold=0.05, low=0.0, high=0.04, sense="high <="
)


def verdict(*checks: Check, **changes: Any) -> dict[str, Any]:
    outcome, bound = decide(checks)
    made = Verdict(
        outcome,
        checks,
        bound.name,
        summarise(outcome, bound),
        "c",
        "w",
        "normal",
        "2",
        "p",
        None,
        1,
    )
    return replace(made, **changes).to_dict()


READ = verdict(GOOD)["checks"][0]


def test_a_verdict_survives_json_and_follows_from_its_checks() -> None:
    data = verdict(GOOD, RARE, evidence={"report.json": "abc"})
    assert contradiction(data) is None
    read = Verdict.from_dict(data)
    assert read.to_dict() == data
    assert Verdict.from_json(read.to_json()) == read


def test_the_closest_check_binds_a_pass_on_either_side() -> None:
    assert RARE.slack == pytest.approx(0.01)
    assert decide([GOOD, RARE])[1].name == "failures"


@pytest.mark.parametrize(
    ("sense", "low", "high", "cleared"),
    [
        ("low >", 0.1, 1.0, True),
        ("low >", 0.0, 1.0, False),
        ("low >=", 0.0, 1.0, True),
        ("high <=", -1.0, 0.0, True),
        ("high <", -1.0, 0.0, False),
        ("low >", None, 1.0, False),
        ("", None, None, None),
    ],
)
def test_an_interval_clears_its_threshold_or_not(
    sense: Sense, low: float | None, high: float | None, cleared: bool | None
) -> None:
    assert (
        Check("c", "passed", "", threshold=0.0, low=low, high=high, sense=sense).cleared is cleared
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            verdict(GOOD, replace(RARE, outcome="failed"), verdict="passed"),
            "its checks give 'failed'",
        ),
        (verdict(GOOD, bound_by="size"), "decided it"),
        (verdict(replace(GOOD, low=-1.0)), "does not clear"),
        (verdict(replace(GOOD, low=float("nan"))), "empty"),
        (verdict(replace(GOOD, low=9.5)), "empty"),
        (verdict(GOOD, GOOD), "twice"),
        (verdict(replace(GOOD, binding=False), verdict="passed", bound_by="primary"), "'error'"),
        (verdict(verdict="passed", bound_by="primary"), "'error'"),
        ({"verdict": "passed"}, "not a verdict"),
        ({**verdict(GOOD), "checks": [{"name": "x", "outcome": "great", "reason": ""}]}, "outcome"),
        ({**verdict(GOOD), "checks": [{"surprise": 1}]}, "not a check"),
        ({**verdict(GOOD), "checks": [{**READ, "low": "1"}]}, "not numbers"),
        ({**verdict(GOOD), "checks": [{**READ, "sense": 5}]}, "not a sense"),
        ({**verdict(GOOD), "checks": [{**READ, "name": []}] * 2}, "not a name"),
        ({**verdict(GOOD), "checks": 3}, "not a verdict"),
    ],
)
def test_what_does_not_follow_is_found(data: dict[str, Any], words: str) -> None:
    problem = contradiction(data)
    assert problem is not None
    assert words in problem
