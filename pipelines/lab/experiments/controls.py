"""The controls, at settings that suit them, and other parts that experiments share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

METHOD = "self-referential"
Arms = Mapping[str, Mapping[str, Any]]

#: Evolution without a response to a drop of fitness, until 0.3 the default. It is nearer to the
#: paper, and still has the other deviations that docs/method.md lists.
PLAIN: Mapping[str, Any] = {"memory": 0, "newcomers": 0.0}
#: The controls have plain truncation: no limit on families, and parents win ties.
TRUNCATION = {**PLAIN, "parents": 8, "children": 7, "ties": "parents", "family_limit": 0}
#: Settings at which each control did best on CartPole-Switch.
CONTROLS: Arms = {
    "constant-rate": {
        "evolution": {**TRUNCATION, "strategy": "constant-rate"},
    },
    "ga": {"evolution": {**TRUNCATION, "strategy": "ga", "options": {"sigma": 0.3}}},
    "self-adaptive-ga-plus": {"evolution": {**TRUNCATION, "strategy": "self-adaptive-ga"}},
    "self-adaptive-ga-comma": {
        "evolution": {
            **TRUNCATION,
            "strategy": "self-adaptive-ga",
            "selection": "comma",
            "elites": 0,
            "children": 8,  # (8, 64): as many evaluations as the others
        }
    },
    "gesmr": {"evolution": {**TRUNCATION, "strategy": "gesmr"}},
    "immigrants": {
        "evolution": {**TRUNCATION, "strategy": "immigrants", "options": {"share": 1.0}}
    },
    "restart": {"evolution": {**TRUNCATION, "strategy": "restart"}},
    "openes": {
        "evolution": {"strategy": "openes", "options": {"sigma": 0.5, "learning_rate": 0.1}}
    },
    "snes": {"evolution": {"strategy": "snes", "options": {"sigma": 0.5}}},
    "cmaes": {"evolution": {"strategy": "cmaes", "options": {"sigma": 0.5}}},
}
#: Constant rates to compare; only trying them shows which is best.
RATES = (0.1, 0.2, 0.35)
HELD: Arms = {
    f"constant-rate {rate:g}": {
        "evolution": {**TRUNCATION, "strategy": "constant-rate", "options": {"rate": rate}},
    }
    for rate in RATES
}
#: All of them: the constant rate at each of these.
ALL: Arms = {**HELD, **{name: arm for name, arm in CONTROLS.items() if name != "constant-rate"}}
#: The settings against wear, one by one and together; newcomers with memory are the default.
KEPT, STRESS = {"keep_spread": True}, {"stress": True}
NEWCOMERS = {**PLAIN, "newcomers": 0.5}
LASTING: Arms = {
    "plain": {"evolution": PLAIN},
    "newcomers alone": {"evolution": NEWCOMERS},
    "kept spread and newcomers": {"ghn": KEPT, "evolution": NEWCOMERS},
    "kept spread, newcomers, memory": {"ghn": KEPT},
    "kept spread and stress": {"ghn": {**KEPT, **STRESS}, "evolution": PLAIN},
    "kept spread": {"ghn": KEPT, "evolution": PLAIN},
    "stress": {"ghn": STRESS, "evolution": PLAIN},
    "both, with memory": {"ghn": {**KEPT, **STRESS}, "evolution": {**PLAIN, "memory": 8}},
}
