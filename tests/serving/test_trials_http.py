"""A trial over HTTP by 50 clients: decided as the simulator decides on the same log.

`make trials-http` does 20 of each of three kinds (docs/results/trials-http.csv).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from serving.registry.records import Who
from serving.registry.rules import DeploymentRules
from tests.benchmarks.trials_http import PATIENT, one


@pytest.mark.parametrize(("kind", "action"), [(("long-bad", -0.2), "abort")])
def test_fifty_clients_end_a_trial_as_the_simulator_does(
    home: Any, running: Any, kind: tuple[str, float], action: str
) -> None:
    home.ledger.set_deployment_rules(DeploymentRules(), who=Who("ann", "plain"))
    home.first()
    with running(home, environment=PATIENT) as (url, _):
        told = one(home, url, kind, 0, 50)
    assert told.server["action"] == action
    assert told.equal
    other = {**told.server, "episodes": told.server["episodes"] + 1}
    assert not replace(told, server=other).equal
