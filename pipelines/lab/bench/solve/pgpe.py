# mypy: ignore-errors
# Runs in the environment of the peer, whose packages are not here.
"""EvoTorch's PGPE until it has solved the goal: `python pgpe.py SPEC.json`.

Settings are those of its own CartPole-v1 example (examples/notebooks/Functional_API/problem.ipynb):
PGPE with ClipUp, 100 individuals, one episode each, normalised observations. The centre of the
search is tested in each generation whose best individual reaches the bar.
"""

from __future__ import annotations

import torch
from evotorch.algorithms import PGPE
from evotorch.neuroevolution import GymNE
from gymnasium.spaces import Discrete
from watch import Watch, spec

MAX_SPEED = 0.15


def actor(problem, policy):
    """The policy as a function, with normalised observations and clipped actions."""
    discrete = isinstance(problem._get_env().action_space, Discrete)

    def act(row):
        with torch.no_grad():
            outputs = policy(torch.as_tensor(row, dtype=torch.float32))
        return int(outputs.argmax()) if discrete else outputs.numpy()

    return act


def main():
    torch.set_num_threads(1)
    asked = spec()
    torch.manual_seed(asked["seed"])
    width = asked["hidden"]
    problem = GymNE(
        asked["env"],
        f"Linear(obs_length, {width}) >> Tanh() >> Linear({width}, act_length)",
        observation_normalization=True,
    )
    watch = Watch(asked)
    searcher = PGPE(
        problem,
        popsize=100,
        center_init=torch.zeros(problem.solution_length),
        center_learning_rate=0.75 * MAX_SPEED,
        radius_init=15 * MAX_SPEED,
        stdev_learning_rate=0.1,
        stdev_max_change=0.2,
        ranking_method="centered",
        optimizer="clipup",
        optimizer_config={"max_speed": MAX_SPEED},
    )
    steps = 0
    while not watch.over:
        searcher.step()
        steps = problem.status["total_interaction_count"]
        if float(searcher.status["pop_best_eval"]) >= asked["bar"]:
            policy = problem.to_policy(searcher.status["center"])
            watch.test(actor(problem, policy), steps)
    watch.tell(steps)


main()
