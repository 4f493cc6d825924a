"""What was changed behind the ledger's back is found, named, and not served; on both databases.

Each column that decides what is served has its own case in test_explain.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.limits import Limits
from serving.registry import chain, schema
from serving.registry.database import Database
from serving.registry.ledger import Ledger
from serving.registry.records import Event, Who
from serving.settings import Settings
from srghn.errors import LedgerError
from tests.serving.conftest import Home, Steps, maker
from tests.serving.registry import postgres
from tests.serving.registry.conftest import _ON_POSTGRES

ANN = Who("ann", "because")
OBSERVATION = [0.0, 0.0, 0.1, 0.0]


class BothHome(Home):
    """A home whose ledger may be on PostgreSQL."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder, maker(folder.parent))
        self.ledger.close()
        if url:
            for file in folder.glob("*"):
                file.unlink()
            self.settings = Settings(home=folder, database_url=url).resolved()
        database = Database(self.settings.database_url, home=folder)
        self.ledger = Ledger(database)
        self.steps = Steps(self.ledger)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=_ON_POSTGRES)])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BothHome]:
    on_postgres = request.param == "postgres"
    url = postgres.new_database(request.getfixturevalue("cluster")) if on_postgres else ""
    home = BothHome(tmp_path / "home", url)
    yield home
    home.ledger.close()


Tamper = Callable[[Any], None]


def tampered(home: BothHome, change: Tamper) -> None:
    """As somebody with the database's password would: guards lifted and put back."""
    with home.ledger._database.write() as connection:
        schema.unguard(connection)
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        change(connection)
        schema.guard(connection)


def sql(*statements: str) -> Tamper:
    def change(connection: Any) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)

    return change


def wind_back(connection: Any) -> None:
    """Take the last event out, and the row with it: version 2 was never approved."""
    last = connection.exec_driver_sql("SELECT max(seq) FROM events").scalar()
    for table in ("outbox", "events"):
        connection.exec_driver_sql(f"DELETE FROM {table} WHERE seq = {last}")
    connection.exec_driver_sql("UPDATE versions SET state = 'PASSED' WHERE version = 2")


def compute_anew(connection: Any) -> None:
    """Another actor in the first event, and every hash after it made to fit."""
    table, previous = schema.events, chain.GENESIS
    for event in list(chain.read_events(connection)):
        fields = {**vars(event), "prev_hash": previous, "hash": ""}
        fields["actor"] = "mallory" if event.seq == 1 else event.actor
        previous = chain.event_hash(Event(**fields))
        change = table.update().where(table.c.seq == event.seq)
        connection.execute(change.values(**{**fields, "hash": previous}))


CASES: dict[str, tuple[Tamper, str]] = {
    "a history wound back": (wind_back, "the ledger was wound back"),
    "a history computed anew": (compute_anew, "the history was rewritten"),
    "an exchanged champion": (sql("UPDATE champion SET version = 2"), "champion's pointer"),
    "a trial added by hand": (
        sql("INSERT INTO trial VALUES ('policy', 2, 6, 0.5, 'running', '{}', '2027')"),
        "trial's row",
    ),
    "a shadow added by hand": (
        sql("UPDATE versions SET state = 'SHADOW' WHERE version = 2"),
        "version 2 is recorded as SHADOW",
    ),
    "evidence of the pass deleted": (
        sql(
            "DELETE FROM evidence WHERE sha256 = (SELECT evidence_sha256 FROM events "
            "WHERE version = 1 AND to_state = 'PASSED')"
        ),
        "evidence .* missing",
    ),
    "another digest": (
        sql(f"UPDATE versions SET digest = '{'0' * 64}' WHERE version = 1"),
        "digest|recorded with",
    ),
    "another report": (
        sql(f"UPDATE versions SET report_digest = '{'0' * 64}' WHERE version = 1"),
        "report_digest",
    ),
    "a quarantine that no event made": (
        sql("UPDATE versions SET quarantined = true WHERE version = 1"),
        "quarantined",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_tampering_is_found_named_and_not_served(both: BothHome, case: str) -> None:
    both.first()
    both.approved(bias=1.0)
    both.ledger.verify_served()
    change, words = CASES[case]
    tampered(both, change)
    for look in (both.ledger.verify, both.ledger.verify_served):
        with pytest.raises(LedgerError, match=words):
            look()


@pytest.mark.parametrize(
    "case", ["an exchanged champion", "a trial added by hand", "evidence of the pass deleted"]
)
def test_a_server_answers_with_nothing_that_the_history_does_not_explain(
    both: BothHome, case: str
) -> None:
    both.first()
    both.approved(bias=1.0)
    tampered(both, CASES[case][0])
    limits = Limits(poll_seconds=0.05, blind_seconds=0)
    with TestClient(create_app(both.settings, limits)) as client:
        answer = client.post("/v1/act", json={"observation": OBSERVATION})
        assert answer.status_code == 503, answer.text
        assert client.get("/health/ready").status_code == 503


def test_a_shadow_added_by_hand_answers_no_copy(both: BothHome) -> None:
    both.first()
    both.approved(bias=1.0)
    tampered(both, CASES["a shadow added by hand"][0])
    limits = Limits(poll_seconds=0.05, blind_seconds=0)
    with TestClient(create_app(both.settings, limits)) as client:
        client.post("/v1/act", json={"observation": OBSERVATION})
        service = client.app.state.service  # type: ignore[attr-defined]
        assert service.follower.served.tried == ()
