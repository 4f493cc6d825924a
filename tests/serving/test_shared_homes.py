"""A server on another host than the home that made its champion: one ledger, one artefact store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.registry.artefacts import store_of
from serving.registry.database import Database
from serving.settings import Settings
from serving.tokens import Tokens
from tests.serving.test_serving_app import FAST, OBSERVATION, wait_for
from tests.serving.test_serving_review import headers, passed


@pytest.fixture
def shared(home: Any, tmp_path: Path) -> Path:
    """The store of both, as a mounted folder; `home` puts what it makes there."""
    folder = tmp_path / "shared"
    folder.mkdir()
    home.settings = home.settings.model_copy(update={"store_url": folder.as_uri()})
    home.store = store_of(home.settings, patience=0.0)
    return folder


@pytest.fixture
def there(home: Any, shared: Path, tmp_path: Path) -> Settings:
    """Another home, which shares the ledger and the store and nothing else."""
    url = home.settings.database_url
    return Settings(home=tmp_path / "there", database_url=url, store_url=shared.as_uri()).resolved()


@pytest.fixture
def client(home: Any, there: Settings) -> Iterator[TestClient]:
    home.first()
    with TestClient(create_app(there, FAST), raise_server_exceptions=False) as opened:
        yield opened


def acts(client: TestClient) -> int:
    answer = client.post("/v1/act", json={"observation": OBSERVATION})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["version"])


def ready(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/health/ready").json()
    return found


def test_while_the_store_is_away_it_serves_what_it_has(
    client: TestClient, home: Any, shared: Path, there: Settings
) -> None:
    assert ready(client)["version"] == acts(client) == 1
    made = home._new(bias=2.0)
    shared.rename(shared.with_name("unmounted"))
    second = home.steps.second(**made)
    reason = wait_for(lambda: ready(client).get("reason"))
    assert f"the artefact store {shared.as_uri()} does not answer" in reason
    assert "version 1 is still served" in reason
    assert acts(client) == 1
    shared.with_name("unmounted").rename(shared)
    wait_for(lambda: ready(client).get("version") == second)
    assert acts(client) == second
    shared.rename(shared.with_name("unmounted"))  # and a server that begins anew has its copy
    with TestClient(create_app(there, FAST)) as again:
        assert ready(again)["version"] == acts(again) == second


def test_a_changed_object_is_named_and_not_served(
    client: TestClient, home: Any, shared: Path
) -> None:
    made = home._new(bias=2.0)
    (shared / "artefacts" / made["digest"] / "policy.onnx").write_bytes(b"junk")
    home.steps.second(**made)
    reason = wait_for(lambda: ready(client).get("reason"))
    assert f"{made['digest']}/policy.onnx was changed" in reason
    assert acts(client) == 1
    home.store.push(made["digest"])
    wait_for(lambda: ready(client)["ready"])
    assert acts(client) == 2


def test_a_report_is_shown_wherever_its_version_was_judged(
    client: TestClient, home: Any, shared: Path
) -> None:
    assert client.get("/v1/versions/1/report").status_code == 503
    digest = home.ledger.version(1).report_digest
    home.store.push_report(digest)
    page = (home.settings.reports / digest / "report.html").read_bytes()
    assert client.get("/v1/versions/1/report").content == page
    (shared / "reports" / digest / "report.html").write_bytes(b"junk")
    assert client.get("/v1/versions/1/report").content == page  # its own copy is whole
    (client.app.state.service.reports / digest / "report.html").write_bytes(b"junk")  # type: ignore[attr-defined]
    answer = client.get("/v1/versions/1/report")
    assert answer.status_code == 503
    assert "was changed" in answer.json()["error"]


def test_a_decision_that_needs_the_store_is_put_off_while_it_is_away(
    client: TestClient, home: Any, shared: Path
) -> None:
    version, token = passed(home), Tokens(Database(home.settings.database_url)).add("a", ["review"])
    found = home.ledger.version(version)
    home.store.push_report(found.report_digest)
    body = {"reason": "read it all", "report_digest": found.report_digest}
    path, before = f"/v1/versions/{version}/approve", len(home.ledger.events())
    shared.rename(shared.with_name("unmounted"))
    answer = client.post(path, json=body, headers=headers(token))
    assert answer.status_code == 503
    assert "does not answer" in answer.json()["error"]
    assert len(home.ledger.events()) == before
    shared.with_name("unmounted").rename(shared)
    answer = client.post(path, json=body, headers=headers(token))
    assert answer.json()["version"]["state"] == "CANARY"
