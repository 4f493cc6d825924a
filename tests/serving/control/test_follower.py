"""The follower reads the ledger often, and looks rarely at what nobody waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from serving.control import follower as following
from serving.control.follower import SURVEY_POLLS, Follower
from serving.limits import Limits
from serving.metrics import Metrics
from serving.policy import PolicyService
from serving.registry import schema
from serving.registry.artefacts import ArtefactStore
from serving.registry.database import Database
from serving.registry.faults import LedgerFull, LedgerGone, LedgerLocked, LedgerReadOnly, fault
from serving.registry.ledger import Ledger
from serving.registry.records import Start, Who
from serving.registry.rules import DeploymentRules, HoldbackTerms
from serving.registry.schema import POLICY
from serving.registry.states import State
from serving.trial.compared import Compared
from srghn.config import CanaryParams
from srghn.errors import LedgerError
from tests.serving.registry.test_holdbacks import play

ANN = Who("ann", "because")


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


def test_a_history_that_is_wound_back_under_a_server_is_not_followed(home: Any) -> None:
    """A copy over the file, or a replica that was behind: what was withdrawn was served again."""
    first, second = home.first(), home.second(bias=0.3)
    follower = Follower(home.ledger, home.store, Metrics(POLICY), Limits())
    follower.poll()
    seen = home.ledger.count()
    champion = home.ledger.champion()
    with home.ledger._database.write() as connection:
        schema.unguard(connection)
        for table in (schema.outbox, schema.events):
            connection.execute(table.delete().where(table.c.seq > seen - 1))
        row = update(schema.champion).where(schema.champion.c.policy == POLICY)
        connection.execute(row.values(version=first))
        schema.guard(connection)
    follower.poll()
    problem = str(follower.problem)
    assert f"event {seen}, which was seen, is gone or another: it was wound back" in problem
    assert follower.served.champion is not None
    assert follower.served.champion.version == champion.version == second
    with pytest.raises(LedgerGone, match="it was wound back"), home.ledger.database().write():
        pass  # an outcome now would be one of the next version of that number
    follower.close()

    opened = Database(
        f"sqlite:///{home.ledger.database().file}"
    )  # by a worker that takes its place
    begun = Follower(Ledger(opened), home.store, Metrics(POLICY), Limits())
    begun.poll()
    assert f"event {seen}, which was seen, is gone" in str(begun.problem)
    assert begun.served.champion is None
    begun.close()
    opened.close()


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


def polled(service: PolicyService, seconds: float) -> None:
    """Polls for longer than a blind follower stays ready, and at least four times."""
    until, polls = time.monotonic() + seconds, 0
    while time.monotonic() < until or polls < 4:
        service.follower.poll()
        time.sleep(0.05)
        polls += 1


def closed(service: PolicyService) -> None:
    service.follower.close()
    service.episodes.close()


def refusing(kind: type[LedgerError]) -> Callable[[], AbstractContextManager[Any]]:
    @contextmanager
    def write() -> Iterator[Any]:
        raise fault("ledger.db", kind, "it cannot be written")
        yield

    return write


@pytest.mark.parametrize("kind", [LedgerFull, LedgerReadOnly])
def test_a_ledger_that_can_be_read_but_not_written_leaves_the_server_ready(
    home: Any, monkeypatch: pytest.MonkeyPatch, kind: type[LedgerError]
) -> None:
    """Whatever is to be written: old starts to delete, a trial's state, counts of copies."""
    home.first()
    canary = home.steps.canary(home.approved(bias=0.2))
    limits = Limits(blind_seconds=0.1, prune_seconds=0.01)
    service = PolicyService(POLICY, home.ledger, home.store, limits, unblind=False)
    service.follower.poll()
    home.steps.play(canary, 10.0, 12.0, 3)
    service.shadow._keep(canary.epoch, Compared(copies=1))
    told: list[str] = []
    service.follower.looks.append(lambda: told.append("look"))
    monkeypatch.setattr(home.ledger.database(), "write", refusing(kind))
    polled(service, 0.4)
    assert service.problem is None
    assert len(told) >= 3  # a look that fails takes no other with it
    assert service.metrics.counts.total().counter("ledger_errors") >= 3
    monkeypatch.undo()
    service.follower.poll()
    assert home.ledger.compared(POLICY, canary.version)[1].copies == 1
    assert home.ledger.trial_state().n == 6
    closed(service)


class FullDisk:
    """A database without room, but for one transaction for each slice of its reserve."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self._room, self.spent, self._write = 0, 0, ledger.database().write
        monkeypatch.setattr(ledger.database(), "write", self.write)
        monkeypatch.setattr(ledger.database(), "spend_reserve", self.spend)

    @contextmanager
    def write(self) -> Iterator[Any]:
        if not self._room:
            raise fault("ledger.db", LedgerFull, "database or disk is full")
        self._room -= 1
        with self._write() as connection:
            yield connection

    def spend(self) -> bool:
        self._room, self.spent = 1, self.spent + 1
        return True


def test_on_a_full_disk_a_harmful_canary_is_aborted(
    home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.first()
    version = home.approved(bias=0.2)
    canary = home.steps.canary(version)
    follower = Follower(home.ledger, home.store, Metrics(POLICY), Limits())
    follower.poll()
    home.steps.play(canary, 490.0, 10.0, 40)
    full = FullDisk(home.ledger, monkeypatch)
    follower.poll()
    assert home.ledger.version(version).state is State.ABORTED
    assert full.spent == 1
    assert follower.served.canary is None
    follower.close()


def test_on_a_full_disk_a_holdback_that_shows_harm_rolls_back(
    home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = DeploymentRules(holdback=HoldbackTerms(share=0.3))
    home.ledger.set_deployment_rules(rules, who=ANN)
    first, second = home.first(), home.second(bias=0.2)
    follower = Follower(home.ledger, home.store, Metrics(POLICY), Limits())
    follower.poll()
    play(home.ledger, 200, champion=100.0, predecessor=400.0)
    FullDisk(home.ledger, monkeypatch)
    follower.poll()
    assert home.ledger.version(second).quarantined
    assert follower.served.champion is not None
    assert follower.served.champion.version == first
    follower.close()


def test_a_shadow_whose_artefact_is_damaged_leaves_the_server_ready(home: Any) -> None:
    """Its trial would begin by itself."""
    home.first()
    rules = DeploymentRules(shadow_first=True, shadow_copies=10, shadow_then="trial")
    home.ledger.set_deployment_rules(rules, who=ANN)
    digest = home.candidate(bias=0.4)
    params = CanaryParams(min_episodes=5, return_low=0.0, return_high=500.0)
    manifest = {**home.store.load(digest).manifest, "canary": params.model_dump(mode="json")}
    version = home.steps.approved(digest=digest, manifest=manifest)
    home.ledger.start_shadow(version, loaded={"digest": digest, "golden": 8}, who=ANN)
    limits = Limits(blind_seconds=0.1)
    service = PolicyService(POLICY, home.ledger, home.store, limits, unblind=False)
    epoch, _ = home.ledger.compared(POLICY, version)
    home.ledger.add_compared(POLICY, epoch, Compared(copies=50))
    file = home.store.folder / digest / "policy.onnx"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    polled(service, 0.4)
    assert service.problem is None
    assert home.ledger.version(version).state is State.SHADOW
    assert [view.version for view in service.metrics.ledger.tried] == [version]
    file.write_bytes(whole)
    service.follower.poll()
    assert home.ledger.version(version).state is State.CANARY
    closed(service)


@contextmanager
def hanging(home: Any, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A follower whose second look hangs in that method of `owner` until the block ends."""
    monkeypatch.setattr(following, "SLACK", 0.2)
    limits = Limits(poll_seconds=0.02, blind_seconds=0.1)
    follower = Follower(home.ledger, home.store, Metrics(POLICY), limits)
    follower.poll()
    reached, goes_on, work = threading.Event(), threading.Event(), getattr(owner, name)

    def hangs(asked: str) -> Any:
        reached.set()
        goes_on.wait(20)
        return work(asked)

    home.second(bias=0.3)
    monkeypatch.setattr(owner, name, hangs)
    look = threading.Thread(target=follower.poll)
    follower._seen = time.monotonic()  # a busy machine took its time for those steps
    look.start()
    assert reached.wait(20)
    time.sleep(0.6)
    assert look.is_alive()
    yield follower
    goes_on.set()
    look.join()
    assert follower.problem is None
    assert follower.served.champion is not None
    assert follower.served.champion.version == 2
    follower.close()


def test_an_episode_outside_a_trial_may_last_as_long_as_the_limit_says(home: Any) -> None:
    """The watch counts no outcome that is later; in a trial its rules decide."""
    home.first()
    limits = Limits(episode_seconds=7200.0)
    service = PolicyService(POLICY, home.ledger, home.store, limits, unblind=False)
    service.follower.poll()
    assert service.follower.served.deadline == 7200.0
    canary = home.steps.canary(home.approved(bias=0.2))
    service.follower.poll()
    assert service.follower.served.deadline == canary.rules.deadline != 7200.0
    closed(service)


def test_a_store_that_does_not_answer_is_no_silence_of_the_ledger(
    home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.first()
    with hanging(home, home.store, "load", monkeypatch) as follower:
        assert follower.problem is None


def test_a_ledger_that_does_not_answer_makes_the_server_unready(
    home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that hangs raises no error, so the time since the last one tells it."""
    home.first()
    with hanging(home, home.ledger, "served", monkeypatch) as follower:
        assert "it does not answer" in str(follower.problem)
        assert follower.served.champion is not None  # which still answers


def test_what_is_forgotten_takes_no_poll_longer_than_a_few(
    home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million starts took 19 seconds, in which no start was recorded and no ledger read."""
    monkeypatch.setattr("serving.control.follower.FORGOTTEN", 2)
    home.first()
    limits = Limits(pin_seconds=0.0, prune_seconds=60)
    service = PolicyService(POLICY, home.ledger, home.store, limits, unblind=False)
    names = [f"e{number}" for number in range(5)]
    home.ledger.start_episodes([Start(name, 1, deadline=time.time()) for name in names])

    def left() -> int:
        service.follower.poll()
        return sum(home.ledger.find_episode(name) is not None for name in names)

    assert left() == 5
    service.follower._pruned -= 61
    assert [left() for _ in range(4)] == [3, 1, 0, 0]
    home.ledger.start_episodes([Start("late", 1, deadline=time.time())])
    left()
    assert home.ledger.find_episode("late") is not None  # until the next time
    closed(service)
