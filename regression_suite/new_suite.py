"""A suite file to begin with: the suite in use, and every other generic kind at a mild severity."""

from __future__ import annotations

from regression_suite.suite import suite_of
from srghn.config import GateParams
from srghn.envs import EnvVersion
from srghn.envs.cells import idle
from srghn.envs.perturb import GENERIC, Perturbation
from srghn.suites import Suite
from srghn.yaml_files import dump_yaml

#: A mild severity of each generic kind.
MILD = {
    "observation_noise": 0.05,
    "observation_bias": 0.05,
    "observation_scaling": 1.1,
    "sensor_dropout": 0.02,
    "observation_delay": 1,
    "action_delay": 1,
    "action_drop": 0.05,
    "action_noise": 0.05,
    "action_repeat": 2,
}


def begin(params: GateParams, version: EnvVersion, name: str) -> str:
    """The text of a suite file for this world; the kinds that were added are commented out."""
    used = suite_of(params, version)
    suite = Suite.model_validate(
        {**used.model_dump(mode="json"), "name": name, "version": 1, "worlds": [version.id]}
    )
    there = {cell.perturbation for cell in suite.cells}
    others = [
        f"# - perturbation: {kind} # {about.what}; severity: {about.severity}\n"
        f"#   severities: [{MILD[kind]:g}]\n"
        for kind, about in GENERIC.items()
        if kind not in there and not idle(Perturbation(kind, MILD[kind]), version)
    ]
    head = (
        "# What the gate plays. Raise `version` with every change; `srghn suite check` tries it.\n"
        "# A cell may have: modes, metrics, binding, episodes, margin, failure_margin,\n"
        "# min_return, max_failure_rate. Your own perturbation is written module:Class.\n"
    )
    more = "# Others that any environment has; remove a line's first two characters to use it:\n"
    tail = [more, *others] if others else []
    return head + dump_yaml(suite.model_dump(mode="json")) + "".join(tail)
