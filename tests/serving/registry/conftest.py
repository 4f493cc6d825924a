"""Ledgers on SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.registry.database import Database
from serving.registry.ledger import Ledger
from tests.serving.registry import postgres

_ON_POSTGRES = [
    pytest.mark.services,
    pytest.mark.skipif(not postgres.BINARIES, reason="PostgreSQL is not installed"),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module with `BOTH_DATABASES = True` has each test with a ledger run on both."""
    if "ledger" in metafunc.fixturenames and getattr(metafunc.module, "BOTH_DATABASES", False):
        both = ["sqlite", pytest.param("postgres", marks=_ON_POSTGRES)]
        metafunc.parametrize("ledger", both, indirect=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The URL of a PostgreSQL server that ends with the tests."""
    with postgres.cluster() as url:
        yield url


@pytest.fixture(scope="session")
def empty(cluster: str) -> str:
    """The URL of an empty ledger on PostgreSQL: copying it is quicker than making its tables."""
    url = postgres.new_database(cluster)
    Ledger(url).close()
    return url


@pytest.fixture
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger; its home is the test's folder."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if getattr(request, "param", "sqlite") == "postgres":
        cluster, empty = map(request.getfixturevalue, ("cluster", "empty"))
        url = postgres.new_database(cluster, empty)
    opened = Ledger(Database(url, home=tmp_path))
    yield opened
    opened.close()
