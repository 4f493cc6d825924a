"""One case of `make worlds` goes the whole way here; the others take minutes."""

from __future__ import annotations

from srghn.config import EnvParams, NetworkParams
from tests.matrix import run


def test_a_world_asked_natively_and_a_network_with_memory_go_all_the_way() -> None:
    params = run.BASE.model_copy(
        update={
            "env": EnvParams(id="FrozenLake-v1", max_episode_steps=40),
            "network": NetworkParams(module="srghn.policies:GRU", kwargs={"width": 4}),
        }
    )
    row, fine = run.attempt(params, "")
    assert fine, row
    observations, actions, parameters, verdict, steps = row
    assert (observations, actions, verdict) == ("16, native", "discrete", "passed")
    assert parameters.endswith("state 4")
    assert int(steps) > 0


def test_what_should_have_been_refused_is_a_failure() -> None:
    params = run.BASE.model_copy(update={"env": EnvParams(id="NoSuch-v0")})
    assert run.attempt(params, "no such reason")[1] is False
    assert run.attempt(params, "NoSuch")[1] is True
