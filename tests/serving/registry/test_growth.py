"""What a server asks often never reads a whole table; `tests.benchmarks.ledger_growth` times it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from serving.control.watch import Watch
from serving.registry.database import Database
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Start, Who
from serving.registry.states import State
from serving.registry.trial_view import Views, view
from srghn.config import CanaryParams

#: Tables that grow without end.
GROWING = (
    "versions", "events", "evidence", "starts", "outbox", "requests", "deliveries", "samples",
)  # fmt: skip
CALLS: dict[str, Callable[[Ledger, int], object]] = {
    "poll": lambda ledger, trial: (ledger.expire(), ledger.served()),
    "shadow": lambda ledger, trial: ledger.shadow(),
    "holdback": lambda ledger, trial: ledger.holdback(),
    "compared": lambda ledger, trial: ledger.compared(POLICY, 2),
    "mode": lambda ledger, trial: ledger.service_mode(),
    "version": lambda ledger, trial: ledger.version(2),
    "pass": lambda ledger, trial: ledger.passed(2),
    "verdict": lambda ledger, trial: ledger.verdict(2),
    "page of versions": lambda ledger, trial: ledger.versions(newest=True, limit=20),
    "next page": lambda ledger, trial: ledger.versions(after=1, limit=20),
    "waiting": lambda ledger, trial: ledger.versions(POLICY, states=(State.PASSED,), limit=20),
    "of a digest": lambda ledger, trial: ledger.versions(POLICY, digest="d", newest=True, limit=1),
    "former champions": lambda ledger, trial: ledger.former(),
    "events of a policy": lambda ledger, trial: ledger.events(
        newest=True, limit=20, policy=POLICY, before=99
    ),
    "page of events": lambda ledger, trial: ledger.events(newest=True, limit=40),
    "new events": lambda ledger, trial: ledger.events(since=5, limit=40),
    "a version's events": lambda ledger, trial: ledger.events(2),
    "start": lambda ledger, trial: ledger.start_episodes([Start("x", 1, trial=trial)]),
    "episode": lambda ledger, trial: ledger.find_episode("e"),
    "outcome": lambda ledger, trial: ledger.record_outcome(POLICY, "e", 1.0, 1, True),
    "outcomes": lambda ledger, trial: ledger.outcomes(since=0, policy=POLICY, limit=100),
    "evidence": lambda ledger, trial: ledger.resolved(POLICY, trial, 0, 1.0, limit=100),
    "decision": lambda ledger, trial: ledger.advance_trial(POLICY, trial, 0, 1, {}),
    "watch": lambda ledger, trial: Watch(ledger).look(),
    "step": lambda ledger, trial: ledger.set_canary_weight(0.3, who=Who("ann", "more", "key")),
    "plan": lambda ledger, trial: ledger.propose_trial(
        2, CanaryParams(return_low=0.0, return_high=500.0)
    ),
    "pending": lambda ledger, trial: ledger.pending(),
    "start of a server": lambda ledger, trial: ledger.verify_served(),
}


@contextmanager
def recorded(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """The statements that reach the database."""
    seen: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def plan(database: Database, statement: str, parameters: Any) -> list[str]:
    with database.read() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return [str(row[-1]) for row in rows]


def whole_tables(database: Database, seen: list[tuple[str, Any]]) -> list[str]:
    """Statements that read a growing table from end to end, with what SQLite says of them."""
    found = []
    for statement, parameters in seen:
        if not statement.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE")):
            continue
        steps = plan(database, statement, parameters)
        sorts = any("TEMP B-TREE" in step for step in steps)
        bounded = " LIMIT " in statement.replace("\n", " ").upper() and not sorts
        for step in steps:
            words = step.split()
            if words[0] == "SCAN" and words[1] in GROWING and not bounded:
                found.append(f"{step}: {statement}")
    return found


@pytest.fixture
def on_trial(ledger: Ledger, steps: Any) -> int:
    steps.first()
    trial: int = steps.canary(steps.approved()).epoch
    ledger.start_episodes([Start("e", 1, weight=0.05, trial=trial, deadline=9e9)])
    return trial


@pytest.mark.parametrize("call", CALLS)
def test_no_call_of_a_server_reads_a_whole_table(ledger: Ledger, on_trial: int, call: str) -> None:
    database = ledger.database()
    with recorded(database._engine) as seen:
        CALLS[call](ledger, on_trial)
    assert seen
    assert whole_tables(database, seen) == []


def test_a_query_that_reads_a_whole_table_would_be_found(
    ledger: Ledger, on_trial: int, tmp_path: Path
) -> None:
    database = ledger.database()
    with recorded(database._engine) as seen, database.read() as connection:
        connection.execute(text("SELECT * FROM events WHERE actor = 'ann'"))
        connection.execute(text("SELECT * FROM starts ORDER BY poster LIMIT 1"))
    assert len(whole_tables(database, seen)) == 2


def test_a_page_of_a_trial_goes_on_from_the_one_before(
    ledger: Ledger, steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the starts that are new alone, and says what a whole look says."""
    steps.first()
    canary, views = steps.canary(steps.approved()), Views(ledger)
    asked: list[int] = []
    whole = ledger.resolved

    def resolved(policy: str, trial: int, after: int, *more: Any) -> Any:
        asked.append(after)
        return whole(policy, trial, after, *more)

    for count in (0, 5, 7, 0):
        steps.play(canary, 300.0, 320.0, count)
        monkeypatch.setattr(ledger, "resolved", resolved)
        shown = views.view(canary, 2e9)
        monkeypatch.setattr(ledger, "resolved", whole)
        afresh = view(ledger, canary, 2e9)
        assert (shown.low, shown.high, shown.decision) == (afresh.low, afresh.high, afresh.decision)
        assert shown.outside == 0
    assert asked == [0, 0, 10, 24]
    steps.play(canary, 300.0, 501.0, 3)  # the range is 0 to 500
    assert [views.view(canary, 2e9).outside, view(ledger, canary, 2e9).outside] == [3, 3]
