"""Starts and outcomes as a server writes them: a group in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError

from serving.control.episodes import Ended
from serving.registry import groups, samples, schema
from serving.registry.episodes import UnknownEpisode
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Outcome, Start, StartRow
from serving.trial.tokens import Episode
from srghn.errors import LedgerError, TransitionRefused

BOTH_DATABASES = True
SAMPLE = samples.Sample(1, 1, "a", 0, 1.5, b"\0\0\0\0")


def start(name: str, version: int = 1) -> Start:
    return Start(name, version, arm=1, weight=0.25, trial=7, started_at=1.5, deadline=100.0)


def begin(ledger: Ledger, *starts: Start) -> list[StartRow]:
    with ledger.database().write() as connection:
        return groups.begin(connection, starts)


def ended(name: str, return_: float, **more: object) -> Ended:
    said = {"trial": 7, "start": 1, "steps": 10, **more}
    episode = Episode(name, POLICY, 1, 1, generation=0, began=1.5, **said)  # type: ignore[arg-type]
    return Ended(episode, return_, True, "ann")


def end(ledger: Ledger, *endings: Ended) -> Sequence[Outcome | Exception]:
    with ledger.database().write() as connection:
        return groups.end(connection, endings, 50.0)


def test_the_rows_that_hold_are_what_the_ledger_keeps(ledger: Ledger) -> None:
    rows = begin(ledger, start("a"), start("b"), start("a", version=2))
    assert rows == [ledger.find_episode(name) for name in "aba"]
    assert [row.version for row in rows] == [1, 1, 1]  # the first start of an episode holds
    assert rows[0].n < rows[1].n
    assert (rows[0].moved, rows[0].arrived, rows[0].terminated) == (False, None, None)


def test_numbers_go_on_beyond_32_bits(ledger: Ledger) -> None:
    last = 2**31 - 1
    begin(ledger, start("a"))
    end(ledger, ended("a", 1.0))
    samples.keep(ledger.database(), POLICY, [SAMPLE], 9)
    with ledger.database().write() as connection:
        connection.execute(update(schema.starts).values(n=last, arrived=last))
        connection.execute(update(schema.samples).values(n=last))
        for table in ("starts", "samples"):
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT setval('{table}_n_seq', {last})")
            else:
                change = f"UPDATE sqlite_sequence SET seq = {last} WHERE name = '{table}'"
                connection.exec_driver_sql(change)
    assert begin(ledger, start("b"))[0].n == last + 1
    (stored,) = end(ledger, ended("b", 1.0))
    assert isinstance(stored, Outcome)
    assert stored.n == last + 1
    assert ledger.advance_trial(POLICY, 7, 0, last + 1, {})
    assert ledger.advance_watch(POLICY, 0, last + 1, {})
    samples.keep(ledger.database(), POLICY, [SAMPLE], 9)
    assert samples.newest(ledger.database(), POLICY) == last + 1


def test_a_name_that_the_database_cannot_hold_is_no_server_that_is_away(ledger: Ledger) -> None:
    if ledger.database().file is not None:
        assert ledger.find_episode("a\0b") is None
        return
    with pytest.raises(LedgerError, match="NUL") as told:
        ledger.find_episode("a\0b")
    assert type(told.value) is LedgerError
    assert ledger.find_episode("a") is None


def test_outcomes_are_numbered_as_they_arrive_and_count_once(ledger: Ledger) -> None:
    begin(ledger, start("a"), start("b"))
    first, none, second, again, other = end(
        ledger, ended("b", 2.5), ended("x", 0.0), ended("a", -1.0), ended("b", 2.5), ended("b", 3.0)
    )
    assert isinstance(first, Outcome)
    assert isinstance(second, Outcome)
    assert (first.n, first.return_, first.counted, first.poster) == (1, 2.5, True, "ann")
    assert (second.n, second.return_, second.terminated) == (2, -1.0, True)
    assert again == first
    assert isinstance(none, UnknownEpisode)
    assert isinstance(other, TransitionRefused)
    assert ledger.outcomes() == [first, second]
    found = ledger.find_episode("b")
    assert found is not None
    assert (found.ended_at, found.length, found.counted) == (50.0, 10, True)


def test_an_episode_that_moved_is_no_evidence(ledger: Ledger) -> None:
    begin(ledger, start("a"))
    (stored,) = end(ledger, ended("a", 1.0, moved=True))
    assert isinstance(stored, Outcome)
    assert not stored.counted


def test_what_the_driver_raises_is_told_as_the_ledgers(ledger: Ledger) -> None:
    with pytest.raises(LedgerError) as told:
        begin(ledger, start("a", version=None))  # type: ignore[arg-type]
    assert isinstance(told.value.__cause__, SQLAlchemyError)
    assert ledger.find_episode("a") is None


def test_starts_and_endings_share_a_transaction_and_keep_their_places(ledger: Ledger) -> None:
    begin(ledger, start("a"))
    with ledger.database().write() as connection:
        outcome, row, none = groups.write(
            connection, [ended("a", 2.0), start("b"), ended("x", 1.0)], 50.0
        )
    assert outcome == ledger.outcomes()[0]
    assert row == ledger.find_episode("b")
    assert isinstance(none, UnknownEpisode)


def test_a_spoilt_start_is_no_evidence_and_one_that_ended_stays_as_it_is(ledger: Ledger) -> None:
    begin(ledger, start("a"), start("b"), start("c"))
    end(ledger, ended("b", 1.0))
    with ledger.database().write() as connection:
        spoilt = groups.Spoilt(POLICY, ("a", "b", "unknown"))
        none, stored = groups.write(connection, [spoilt, ended("a", 2.0)], 50.0)
    assert none is None
    assert isinstance(stored, Outcome)
    assert not stored.counted  # though its token says nothing of it
    found = [ledger.find_episode(name) for name in "abc"]
    assert [row.moved for row in found if row] == [True, False, False]
    assert [row.counted for row in found if row] == [False, True, None]
