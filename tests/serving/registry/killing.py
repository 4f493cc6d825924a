"""Ledgers whose writer is killed at a named boundary: of a statement, a commit, a line, a rename.

The writer is forked from a process that has imported everything. It says aloud what it was
acknowledged, so that nothing acknowledged may be missing afterwards.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from serving.registry import backup, comparisons, groups
from serving.registry.database import Database
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Start, Who
from serving.registry.rules import DeploymentRules, HoldbackTerms
from serving.registry.states import State
from serving.registry.upgrade import upgrade
from serving.registry.witness import Witness
from serving.trial.compared import Compared
from srghn.files import sha256_bytes
from tests.serving.conftest import Steps

_fork = multiprocessing.get_context("fork")
WRITER = Who("writer", "it is its work")
Work = Callable[[], None]


class Boundaries:
    """Counts the boundaries that a process passes, and dies at the `fatal`-th; 0: never."""

    def __init__(self, fatal: int, names: Path, kind: str = "") -> None:
        """`kind`: those alone are counted whose name begins with it."""
        self._fatal, self._names, self._count, self._kind = fatal, names, 0, kind
        self._written: set[int] = set()

    def hit(self, name: str) -> None:
        if not name.startswith(self._kind):
            return
        self._count += 1
        if self._fatal == 0:
            with self._names.open("a") as file:
                file.write(name + "\n")
        if self._count == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """In the child alone: every engine, the witness, and what moves files into place."""
        event.listen(Engine, "after_cursor_execute", self._statement)
        event.listen(Engine, "commit", self._commit)
        self._around(groups._Driver, "run", "around a group's statement")
        self._around(Database, "require", "around a transaction")
        self._around(Witness, "append", "around a line of the witness")
        self._around(os, "replace", "around a rename")
        self._around(os, "link", "around a link")
        self._around(os, "fsync", "around a sync")
        self._around(Path, "rename", "around a move aside")

    def _statement(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        words = statement.split()
        if words[0].upper() in ("SELECT", "BEGIN", "PRAGMA"):
            return
        self._written.add(threading.get_ident())
        self.hit(f"after {' '.join(words[:3])}")

    def _commit(self, connection: Any) -> None:
        """Of a transaction that wrote: what only read has nothing to lose."""
        if threading.get_ident() in self._written:
            self._written.discard(threading.get_ident())
            self.hit("before commit")

    def _around(self, owner: Any, name: str, what: str) -> None:
        call = getattr(owner, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.hit(f"{what}: before")
            result = call(*arguments, **named)
            if owner is groups._Driver:
                self._written.add(threading.get_ident())
            self.hit(f"{what}: after")
            return result

        setattr(owner, name, wrapped)


@dataclass(frozen=True)
class Yard:
    """A folder with one ledger, and what its writers were acknowledged."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "ledger.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.file}"

    @property
    def heard(self) -> Path:
        return self.folder / "acknowledged.jsonl"

    def names(self, work: Work) -> list[str]:
        """The boundaries of an undisturbed run."""
        path = self.folder / "boundaries"
        path.unlink(missing_ok=True)
        assert self.run(work, 0) == 0
        return path.read_text().splitlines()

    def run(self, work: Work, fatal: int) -> int | None:
        """Work in a child that dies at a boundary; its exit code."""

        def child() -> None:
            Boundaries(fatal, self.folder / "boundaries").install()
            work()

        process = _fork.Process(target=child)
        process.start()
        process.join()
        return process.exitcode

    def say(self, **fact: Any) -> None:
        with self.heard.open("a") as file:
            file.write(json.dumps(fact) + "\n")

    # --------------------------------------------------------------------------- work

    def live(self) -> None:
        """A version's whole way, with episodes, over and over the same states."""
        ledger = Ledger(self.url)
        steps, count = Steps(ledger), ledger.count()
        steps.count = 1000 * count
        self._end_what_a_killed_one_left(ledger)
        ledger.set_deployment_rules(DeploymentRules(holdback=HoldbackTerms(share=0.5)), who=WRITER)
        self._said(ledger)
        digest = sha256_bytes(f"{os.getpid()} {count}".encode())
        version = steps.approved(digest)
        self._said(ledger)
        if ledger.champion() is None:
            ledger.promote(version, expected_generation=0, who=WRITER)
            self._said(ledger)
            version = steps.approved(sha256_bytes(digest.encode()))
        loaded = {"digest": ledger.version(version).digest, "golden": 8}
        ledger.start_shadow(version, loaded=loaded, who=WRITER)
        self._said(ledger)
        self._copies(ledger, version)
        ledger.stop_shadow(version, who=WRITER)
        self._said(ledger)
        trial = steps.canary(version).epoch
        self._said(ledger)
        self._episodes(ledger, trial, digest)
        steps.play(ledger.canary(), 10.0, 490.0, 12)
        champion = ledger.champion()
        assert champion is not None
        ledger.promote(version, expected_generation=champion.generation, who=WRITER)
        self._said(ledger)
        self._held_back(ledger, digest)
        ledger.rollback_held(who=WRITER)
        self._said(ledger)
        ledger.close()

    def _end_what_a_killed_one_left(self, ledger: Ledger) -> None:
        shadow = ledger.shadow()
        if shadow is not None:
            ledger.reject(shadow.version, who=WRITER)
            self._said(ledger)
        if ledger.canary() is not None:
            ledger.abort_canary(who=WRITER)
            self._said(ledger)
        if ledger.holdback() is not None:
            ledger.end_holdback(who=WRITER)
            self._said(ledger)

    def _copies(self, ledger: Ledger, version: int) -> None:
        epoch, seen = ledger.compared(POLICY, version)
        for n in (1, 2):
            ledger.add_compared(POLICY, epoch, Compared(copies=10, timed=10))
            self.say(epoch=epoch, copies=seen.copies + 10 * n)

    def _held_back(self, ledger: Ledger, name: str) -> None:
        """Episodes of a window that show harm."""
        window = ledger.holdback()
        assert window is not None
        versions = (window.version, window.predecessor)
        arms = [(n % 2, f"{name}-held-{n}") for n in range(40)]
        starts = [
            Start(episode, versions[held], 2 * held, 0.5, window.epoch, deadline=9e9)
            for held, episode in arms
        ]
        for start, n in zip(starts, ledger.start_episodes(starts), strict=True):
            self.say(episode=start.episode, n=n)
        for held, episode in arms:
            ledger.record_outcome(POLICY, episode, 490.0 if held else 10.0, 10, True, "client")

    def _said(self, ledger: Ledger) -> None:
        self.say(event=ledger.events(newest=True, limit=1)[0].hash)

    def _episodes(self, ledger: Ledger, trial: int, name: str) -> None:
        starts = [Start(f"{name}-{n}", 1, n % 2, 0.5, trial, deadline=9e9) for n in range(4)]
        for start, n in zip(starts, ledger.start_episodes(starts), strict=True):
            self.say(episode=start.episode, n=n)
        for n, start in enumerate(starts):
            ledger.record_outcome(POLICY, start.episode, float(n), 10, True, "client")
            self.say(episode=start.episode, ret=float(n))
        for n in (2, 4):
            state = ledger.trial_state(POLICY, trial)
            assert state is not None
            if ledger.advance_trial(POLICY, trial, state.n, state.n + n, {"n": state.n + n}):
                self.say(trial=trial, to=state.n + n)

    def migrate(self) -> None:
        upgrade(self.url, self.folder / "backups")

    def put_back(self, copy: Path) -> None:
        backup.restore(self.url, copy, self.folder, WRITER).ledger.close()

    # -------------------------------------------------------------------------- lawful

    def check(self) -> int:
        """Everything verifies, and what was acknowledged is there; the number of events."""
        ledger = Ledger(self.url)
        count = ledger.verify()
        ledger.verify_served()
        champion, canary = ledger.served()
        assert (champion is None) == (canary is None and ledger.champion() is None)
        holders = ledger.versions(states=(State.CHAMPION,))
        assert [v.version for v in holders] == ([champion.version] if champion else [])
        hashes = {event.hash for event in ledger.events()}
        facts = self.heard.read_text().splitlines() if self.heard.exists() else []
        for fact in map(json.loads, facts):
            self._held(ledger, fact, hashes)
        ledger.close()
        return count

    def _held(self, ledger: Ledger, fact: dict[str, Any], hashes: set[str]) -> None:
        if "event" in fact:
            assert fact["event"] in hashes
        elif "key" in fact:
            keys = [event.idempotency_key or "" for event in ledger.events()]
            assert any(fact["key"] in key for key in keys), fact
        elif "copies" in fact:
            with ledger.database().read() as connection:
                found = comparisons.find(connection, POLICY, fact["epoch"])
            assert found.copies >= fact["copies"]
        elif "trial" in fact:
            state = ledger.trial_state(POLICY, fact["trial"])
            assert state is not None
            assert state.n >= fact["to"]
        else:
            row = ledger.find_episode(fact["episode"])
            assert row is not None
            assert row.n == fact.get("n", row.n)
            assert row.return_ == fact.get("ret", row.return_)


def kill_live(yard: Yard, numbers: list[int]) -> int:
    """Kill a writer at those boundaries, one after the other, on one ledger; how many died."""
    killed, before = 0, 0
    for number in numbers:
        killed += yard.run(yard.live, number) == -signal.SIGKILL
        count = yard.check()
        assert count >= before
        before = count
    return killed


def kill_upgrade(yard: Yard, old: Path, number: int) -> bool:
    """Kill an upgrade at a boundary, then finish it; whether it died."""
    for path in yard.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copyfile(old, yard.file)
    killed = yard.run(yard.migrate, number) == -signal.SIGKILL
    done = upgrade(yard.url, yard.folder / "backups")
    assert (done.after, done.events) == (2, 45)
    assert yard.check() == 45
    return killed


def kill_restore(yard: Yard, copy: Path, number: int) -> bool:
    """Kill a restore at a boundary, then do it again; whether it died."""
    killed = yard.run(lambda: yard.put_back(copy), number) == -signal.SIGKILL
    yard.heard.unlink(missing_ok=True)
    yard.put_back(copy)
    yard.check()
    return killed


def spread(total: int, wanted: int) -> list[int]:
    """So many numbers of 1 to total: each once, in an order that jumps, and then again."""
    step = next(n for n in itertools.count(max(2, total // 3)) if _coprime(n, total))
    return [1 + (n * step) % total for n in range(wanted)]


def _coprime(a: int, b: int) -> bool:
    while b:
        a, b = b, a % b
    return a == 1
