"""What is refused before the first run, as it would fail or mean nothing after hours of runs."""

from __future__ import annotations

from dataclasses import replace

from pipelines.lab.experiments.controls import METHOD
from pipelines.lab.experiments.spec import Experiment, episodes_of_a_generation
from srghn.config import RunParams
from srghn.envs import pin
from srghn.envs.interface import Interface
from srghn.errors import ConfigError, SrghnError
from srghn.evolution.registry import make_strategy
from srghn.evolution.selection import check_elites

#: What would end runs early, or let them play something else than their schedule.
NOT_HERE = ("evaluations", "seconds", "until", "mode", "ancestor")


def check(experiment: Experiment) -> None:
    """Raise `ConfigError`, naming the arm, unless every arm can be begun with what is set."""
    faces: dict[str, Interface] = {}
    plain = replace(experiment, sets=())
    for arm in experiment.arms:
        try:
            params = experiment.params(arm, 1)
            if params.evolution.strategy != plain.params(arm, 1).evolution.strategy:
                raise ConfigError(
                    "evolution.strategy: expected none, for every arm has its own, got "
                    f"{params.evolution.strategy}; choose arms with --arms"
                )
            _check(experiment, params, faces)
        except SrghnError as error:
            leave = "" if METHOD in arm else "; or leave this arm out (--arms names the others)"
            raise ConfigError(f"experiment {experiment.name}, arm {arm}: {error}{leave}") from error


def _check(experiment: Experiment, params: RunParams, faces: dict[str, Interface]) -> None:
    evolution = params.evolution
    for name in NOT_HERE:
        value = getattr(evolution, name)
        if value is not None:
            raise ConfigError(
                f"evolution.{name}: expected none, for every run plays its whole schedule, got "
                f"{value}; leave it out"
            )
    if evolution.seed != 1:
        raise ConfigError(
            f"evolution.seed: expected none, for every run has its own, got {evolution.seed}; use "
            "--seeds"
        )
    _check_generations(experiment, params)
    key = params.env.model_dump_json()
    if key not in faces:
        faces[key] = pin(params.env).interface
    make_strategy(params, faces[key])
    check_elites(evolution)


def _check_generations(experiment: Experiment, params: RunParams) -> None:
    count = params.evolution.generations
    last = max((switch.generation for switch in params.env.schedule), default=0)
    if experiment.budget is None:
        if count <= last:
            raise ConfigError(
                f"evolution.generations: expected more than {last}, when the last switch is, got "
                f"{count}; set more, or an env.schedule that ends sooner"
            )
        return
    if any(each.partition("=")[0].strip() == "evolution.generations" for each in experiment.sets):
        raise ConfigError(
            f"evolution.generations: expected none, for every arm has as many as "
            f"{experiment.budget} evaluations allow; leave it out"
        )
    if params.evolution.racing:
        raise ConfigError(
            "evolution.racing: expected 0, for races of different arms spend different numbers of "
            f"evaluations, got {params.evolution.racing}; leave it out"
        )
    if count < 1:
        raise ConfigError(
            f"evolution: expected a generation of at most {experiment.budget} evaluations, got "
            f"{episodes_of_a_generation(params)}; set fewer parents, children or episodes"
        )
