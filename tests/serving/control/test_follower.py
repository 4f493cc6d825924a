"""The follower reads the ledger often, and looks rarely at what nobody waits for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from serving.control.follower import SURVEY_POLLS, Follower
from serving.limits import Limits
from serving.metrics import Metrics
from serving.registry.artefacts import ArtefactStore
from serving.registry.faults import LedgerFull, LedgerLocked, LedgerReadOnly
from serving.registry.ledger import Ledger
from serving.registry.schema import POLICY
from srghn.errors import LedgerError


def test_surveys_are_rarer_than_looks(ledger: Ledger, tmp_path: Path) -> None:
    limits = Limits(poll_seconds=0.1)
    follower = Follower(ledger, ArtefactStore(tmp_path), Metrics(POLICY), limits)
    told: list[str] = []
    follower.looks.append(lambda: told.append("look"))
    follower.surveys.append(lambda: told.append("survey"))
    follower.look()
    assert told == ["look"]
    time.sleep(1.2 * SURVEY_POLLS * limits.poll_seconds)
    follower.look()
    assert told == ["look", "look", "survey"]
    follower.look()  # it has just looked at all
    assert "survey" not in told[3:]
    told.clear()
    follower.poll()
    assert told == ["look", "survey"]  # all of it, for who asks
    follower.close()


def test_a_survey_that_fails_leaves_the_server_ready(ledger: Ledger, tmp_path: Path) -> None:
    limits = Limits(poll_seconds=0.02, blind_seconds=0.1)
    follower = Follower(ledger, ArtefactStore(tmp_path), Metrics(POLICY), limits)

    def failing() -> None:
        raise LedgerError("this key was used")

    follower.poll(survey=False)
    before = follower.served.problem
    follower.surveys.append(failing)
    for _ in range(3):
        time.sleep(1.5 * limits.blind_seconds)
        follower.poll()
    assert follower.served.problem == before
    assert "this key was used" not in str(before)
    follower.close()


@pytest.mark.parametrize("fault", [LedgerFull, LedgerReadOnly, LedgerLocked])
def test_where_nothing_can_be_written_the_champion_is_still_followed(
    home: Any, monkeypatch: pytest.MonkeyPatch, fault: type[LedgerError]
) -> None:
    version = home.first()

    def refused(*_: Any) -> None:
        raise fault("a lease is overdue and cannot be ended")

    monkeypatch.setattr(home.ledger, "expire", refused)
    follower = Follower(home.ledger, home.store, Metrics(POLICY), Limits())
    follower.poll()
    assert follower.served.problem is None
    assert follower.served.champion is not None
    assert follower.served.champion.version == version
    follower.close()
