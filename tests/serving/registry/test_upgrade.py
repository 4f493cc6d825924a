"""A ledger that version 0.2.0 wrote: refused, backed up, upgraded, and its trial goes on."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from serving.registry import schema
from serving.registry.database import Database
from serving.registry.ledger import POLICY, Ledger
from serving.registry.records import Start, Who
from serving.registry.upgrade import upgrade
from serving.tokens import Tokens
from srghn.config import CanaryParams
from srghn.errors import LedgerError
from tests import old_homes
from tests.serving.registry import postgres

ANN = Who("ann", "because")
NOW = datetime(2026, 11, 27, 17, 31, tzinfo=UTC).timestamp()


@dataclass(frozen=True)
class Old:
    """A home that 0.2.0 left, and the URL of its ledger."""

    home: Path
    url: str
    tokens: str

    def open(self) -> Ledger:
        """As three minutes after it was written: its one lease still runs."""
        return Ledger(Database(self.url, home=self.home), clock=lambda: NOW)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.services)])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Old]:
    home = old_homes.unpack("home-ledger", tmp_path)
    if request.param == "sqlite":
        yield Old(home, f"sqlite:///{home / 'ledger.db'}", "tokens.txt")
        return
    if not postgres.BINARIES:
        pytest.skip("PostgreSQL is not installed")
    (home / "ledger.db").unlink()
    url = postgres.new_database(request.getfixturevalue("cluster"))
    load = [shutil.which("psql") or "psql", "--quiet", "--set=ON_ERROR_STOP=1", url]
    subprocess.run(
        load, input=old_homes.postgres_dump(), text=True, check=True, stdout=subprocess.DEVNULL
    )
    yield Old(home, url, "tokens-postgres.txt")


def test_another_schema_is_refused_in_one_line_with_the_command(old: Old) -> None:
    with pytest.raises(LedgerError) as caught:
        old.open()
    assert "holds a ledger of schema 1" in str(caught.value)
    assert str(caught.value).endswith("srghn ledger upgrade")
    assert "\n" not in str(caught.value)


def test_an_old_ledger_is_upgraded_and_its_chain_verifies(old: Old, tmp_path: Path) -> None:
    done = upgrade(old.url, tmp_path / "backups")
    assert (done.before, done.after, done.events) == (1, 2, 45)
    assert done.backup is not None
    assert done.backup.stat().st_size > 10_000
    ledger = old.open()
    assert ledger.verify() == 45
    assert {event.format for event in ledger.events()} == {1}
    champion, canary = ledger.served()
    assert champion is not None
    assert canary is not None
    assert (champion.version, champion.generation, canary.version) == (3, 4, 10)
    states = {version.version: str(version.state) for version in ledger.versions()}
    assert states[5] == "ABORTED"
    assert [policy.name for policy in ledger.policies()] == [POLICY]
    known = Tokens(ledger.database())
    for owner, token in old_homes.tokens(old.home, old.tokens).items():
        found = known.find(token)
        assert (found.owner if found else None) == (None if owner == "gone" else owner)
    again = upgrade(old.url, tmp_path / "backups")
    assert (again.before, again.after, again.backup) == (2, 2, None)
    ledger.close()


def test_the_trial_under_way_goes_on_with_its_evidence(old: Old, tmp_path: Path) -> None:
    upgrade(old.url, tmp_path / "backups")
    ledger = old.open()
    canary = ledger.canary()
    assert canary is not None
    rows = ledger.resolved(POLICY, canary.epoch, 0, now=NOW)
    assert [sum(bool(row.counted) for row in rows if row.arm == arm) for arm in (0, 1)] == [8, 8]
    assert canary.rules.weight == 0.25
    assert (len(rows), sum(row.arrived is None for row in rows)) == (22, 6)
    assert {row.weight for row in rows} == {0.25}
    open_ = next(row.episode for row in rows if row.arrived is None)
    outcome = ledger.record_outcome(POLICY, open_, 300.0, 30, True)
    assert (outcome.epoch, outcome.counted) == (canary.epoch, True)
    assert outcome.n == max(row.n for row in ledger.outcomes())
    [new] = ledger.start_episodes([Start("new", 3, trial=canary.epoch, generation=4)])
    assert new > max(row.n for row in rows)
    ledger.set_canary_weight(0.5, who=ANN)
    assert ledger.abort_canary(who=ANN) == 10
    assert ledger.verify() == 47
    assert [event.format for event in ledger.events(since=45)] == [2, 2]
    ledger.close()


def test_a_later_trial_of_its_genome_begins_without_that_evidence(old: Old, tmp_path: Path) -> None:
    """All its rows have the first weight, and those without an outcome may be gone."""
    upgrade(old.url, tmp_path / "backups")
    ledger = old.open()
    ledger.expire_canary(who=ANN)
    loaded = {"digest": ledger.version(10).digest, "golden": 8}
    params = CanaryParams(return_low=0.0, return_high=500.0)
    epoch = ledger.start_canary(10, params=params, loaded=loaded, who=ANN).epoch
    begun = ledger.trial_state(POLICY, epoch)
    assert begun is not None
    assert begun.state == {}
    ledger.close()


def test_attempts_and_quarantine_of_old_versions_hold(old: Old, tmp_path: Path) -> None:
    upgrade(old.url, tmp_path / "backups")
    ledger = old.open()
    failed = ledger.version(4)
    again = ledger.register(
        "a" * 64,
        env_fingerprint=failed.env_fingerprint,
        mode=failed.mode,
        run_id="salted",
        manifest={**failed.manifest, "salt": 1},
        who=ANN,
    )
    champion = ledger.champion()
    assert champion is not None
    with pytest.raises(LedgerError, match="the genome of version 4"):
        ledger.begin_evaluation(
            again,
            suite_version="1",
            policy_digest="p" * 64,
            incumbent_digest=champion.digest,
            who=ANN,
        )
    ledger.close()


def test_an_upgraded_ledger_is_as_a_new_one(old: Old, tmp_path: Path) -> None:
    upgrade(old.url, tmp_path / "backups")
    ledger = old.open()
    with ledger.database().read() as connection, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an index over an expression cannot be compared
        context = MigrationContext.configure(
            connection, opts={"version_table": schema.REVISION_TABLE}
        )
        assert compare_metadata(context, schema.metadata) == []
        found = connection.execute(text(f"SELECT version_num FROM {schema.REVISION_TABLE}"))
        assert found.scalar() == schema.REVISION
    with pytest.raises(LedgerError, match="append-only"), ledger.database().write() as connection:
        connection.execute(text("UPDATE events SET actor = 'x'"))
    ledger.register("a" * 64, env_fingerprint="e" * 64, mode="m", run_id="r", manifest={}, who=ANN)
    with ledger.database().read() as connection:
        query = schema.versions.select().where(schema.versions.c.version == 11)
        twin = {**connection.execute(query).one()._mapping, "version": 99}
    with pytest.raises(LedgerError, match=r"(?i)unique"), ledger.database().write() as connection:
        connection.execute(schema.versions.insert().values(twin))
    ledger.close()


def test_what_cannot_be_migrated_is_left_as_it_was(old: Old, tmp_path: Path) -> None:
    """One broken event: the migration and its verification are one transaction."""
    _forge(old)
    with pytest.raises(LedgerError, match="event 7 of the ledger is broken"):
        upgrade(old.url, tmp_path / "backups")
    with pytest.raises(LedgerError, match="of schema 1"):
        old.open()


def _forge(old: Old) -> None:
    if old.url.startswith("sqlite"):
        with closing(sqlite3.connect(old.home / "ledger.db")) as raw:
            raw.execute("DROP TRIGGER events_no_UPDATE")
            raw.execute("UPDATE events SET actor = 'mallory' WHERE seq = 7")
            raw.execute(
                "CREATE TRIGGER events_no_UPDATE BEFORE UPDATE ON events "
                "BEGIN SELECT RAISE(ABORT, 'x'); END"
            )
            raw.commit()
        return
    import psycopg

    with psycopg.connect(old.url) as connection:
        connection.execute("ALTER TABLE events DISABLE TRIGGER ALL")
        connection.execute("UPDATE events SET actor = 'mallory' WHERE seq = 7")
        connection.execute("ALTER TABLE events ENABLE TRIGGER ALL")


def test_nothing_is_upgraded_while_a_process_has_the_ledger_open(old: Old, tmp_path: Path) -> None:
    """A server of the version before would write by a schema that is gone."""
    if old.url.startswith("sqlite"):
        program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1])\n"
        program += "c.execute('SELECT 1 FROM events'); print('open', flush=True); input()"
        words = [sys.executable, "-c", program, str(old.home / "ledger.db")]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"open\n"
            refused = _refused(old, tmp_path)
            server.communicate(b"\n")
    else:
        import psycopg

        with psycopg.connect(old.url):  # as 0.2.0 did
            refused = _refused(old, tmp_path)
        assert "it is a process without a name, as srghn 0.2.0 (sessions " in refused
    assert not (tmp_path / "backups").exists()
    assert "is in use, so nothing was upgraded: stop the server" in refused
    assert upgrade(old.url, tmp_path / "backups").before == 1


def _refused(old: Old, tmp_path: Path) -> str:
    with pytest.raises(LedgerError) as caught:
        upgrade(old.url, tmp_path / "backups")
    return str(caught.value)


def test_a_backup_of_the_old_ledger_is_one(old: Old, tmp_path: Path) -> None:
    done = upgrade(old.url, tmp_path / "backups")
    assert done.backup is not None
    if old.url.startswith("sqlite"):
        with closing(sqlite3.connect(done.backup)) as raw:
            assert raw.execute("SELECT schema_version FROM srghn_meta").fetchone() == (1,)
    else:
        listed = subprocess.run(
            ["pg_restore", "--list", done.backup], capture_output=True, text=True, check=True
        )
        assert "TABLE DATA public events" in listed.stdout


def test_where_there_is_no_ledger_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no such file"):
        upgrade(f"sqlite:///{tmp_path / 'none.db'}", tmp_path)
    with closing(sqlite3.connect(tmp_path / "other.db")) as raw:
        raw.execute("CREATE TABLE notes (id INTEGER)")
    with pytest.raises(LedgerError, match="holds no ledger"):
        upgrade(f"sqlite:///{tmp_path / 'other.db'}", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.db"]


def test_a_later_schema_is_left_to_its_own_version(tmp_path: Path, ledger: Ledger) -> None:
    ledger.close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as raw:
        raw.execute("UPDATE srghn_meta SET schema_version = 99")
        raw.commit()
    with pytest.raises(LedgerError, match="use the version of srghn that wrote it"):
        upgrade(f"sqlite:///{tmp_path / 'ledger.db'}", tmp_path)


def test_reports_of_an_old_home_are_as_their_verdicts_name_them(old: Old, tmp_path: Path) -> None:
    upgrade(old.url, tmp_path / "backups")
    ledger = old.open()
    assert ledger.report_problems() == []
    assert ledger.verify_served() == 45
    (old.home / "reports" / str(ledger.version(6).report_digest) / "verdict.json").unlink()
    [problem] = ledger.report_problems()
    assert problem.startswith("the report of version 6: ")
    ledger.close()
