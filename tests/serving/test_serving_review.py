"""Decisions over HTTP: only by a token with the scope, on the generation that was seen, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving import tokens as cli
from serving.app import create_app
from serving.auth import scope_of
from serving.limits import Limits
from serving.registry.database import Database
from serving.tokens import Tokens
from srghn.errors import ConfigError

OBSERVATION = {"observation": [0.0, 0.0, 1.0, 0.0]}


@pytest.fixture
def tokens(home: Any) -> Tokens:
    return Tokens(Database(home.settings.database_url))


@pytest.fixture
def client(home: Any) -> Iterator[TestClient]:
    home.first()
    app = create_app(home.settings, Limits(poll_seconds=5))
    with TestClient(app, raise_server_exceptions=False) as opened:
        yield opened


def headers(token: str, generation: int = 1, key: str = "k1") -> dict[str, str]:
    return {
        "Authorization": f"Bearer {token}",
        "If-Match": f'"{generation}"',
        "Idempotency-Key": key,
    }


def passed(home: Any) -> int:
    version = home.steps.register()
    home.steps.begin(version)
    home.steps.judge(version)
    return int(version)


def test_a_person_approves_and_is_named(client: TestClient, home: Any, tokens: Tokens) -> None:
    version, token = passed(home), tokens.add("ann", ["review"])
    report = home.ledger.version(version).report_digest
    body = {"reason": "read it all", "report_digest": report}
    path = f"/v1/versions/{version}/approve"
    answer = client.post(path, json=body, headers=headers(token))
    assert answer.status_code == 200, answer.text
    assert answer.json()["version"]["state"] == "APPROVED"
    assert answer.json()["served"] == {"version": 1, "generation": 1}
    event = home.ledger.events(version)[-1]
    assert (event.actor, event.reason) == ("ann", "read it all")
    count = len(home.ledger.events())
    assert client.post(path, json=body, headers=headers(token)).status_code == 200
    assert len(home.ledger.events()) == count
    other = client.post(path, json={**body, "reason": "x"}, headers=headers(token, key="k2"))
    assert other.status_code == 409
    assert "APPROVED and cannot become APPROVED" in other.json()["error"]


def test_the_approver_is_never_a_field(client: TestClient, home: Any, tokens: Tokens) -> None:
    version, token = passed(home), tokens.add("ann", ["review"])
    body = {"reason": "me", "report_digest": "0" * 64, "actor": "the boss"}
    answer = client.post(f"/v1/versions/{version}/approve", json=body, headers=headers(token))
    assert answer.status_code == 422
    assert answer.json()["field"] == "actor"


def test_an_approval_of_another_report_is_refused(
    client: TestClient, home: Any, tokens: Tokens
) -> None:
    version, token = passed(home), tokens.add("ann", ["review"])
    body = {"reason": "read", "report_digest": "0" * 64}
    answer = client.post(f"/v1/versions/{version}/approve", json=body, headers=headers(token))
    assert answer.status_code == 409
    assert "read the report that is there" in answer.json()["error"]


def test_reject_abort_and_rollback(client: TestClient, home: Any, tokens: Tokens) -> None:
    admin = tokens.add("root", ["admin"])
    version = passed(home)
    reason = {"reason": "no"}
    done = client.post(
        f"/v1/versions/{version}/reject", json=reason, headers=headers(admin, key="1")
    )
    assert done.json()["version"]["state"] == "REJECTED"
    trial = home.approved(bias=1.0)
    home.steps.canary(trial)
    done = client.post("/v1/canary/abort", json=reason, headers=headers(admin, key="2"))
    assert done.json()["version"]["state"] == "ABORTED"
    second = home.second(bias=2.0)
    stale = client.post("/v1/rollback", json=reason, headers=headers(admin, key="3"))
    assert stale.status_code == 412
    assert home.ledger.champion().version == second
    done = client.post("/v1/rollback", json=reason, headers=headers(admin, 2, key="3"))
    assert done.json()["served"] == {"version": 1, "generation": 3}
    assert client.post("/v1/act", json=OBSERVATION).json()["version"] == 1
    again = client.post("/v1/rollback", json=reason, headers=headers(admin, 3, key="4"))
    assert again.status_code == 409
    assert "no retired champion is left" in again.json()["error"]
    assert home.ledger.verify()


PATHS = ["/v1/versions/1/approve", "/v1/versions/1/reject", "/v1/canary/abort", "/v1/rollback"]


@pytest.mark.parametrize("path", PATHS)
def test_without_the_right_token_nothing_moves(
    client: TestClient, home: Any, tokens: Tokens, path: str
) -> None:
    before = len(home.ledger.events())
    body = {"reason": "please", "report_digest": "0" * 64}
    infer, gone = tokens.add("bot", ["infer"]), tokens.add("eve", ["admin"])
    assert tokens.revoke("eve") == 1
    for given, status in (
        ({}, 401),
        ({"Authorization": "Basic abc"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Bearer srghn_guess"}, 401),
        (headers(gone), 401),
        (headers(infer), 403),
    ):
        answer = client.post(path, json=body, headers=given)
        assert answer.status_code == status, answer.text
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["field"] == "Authorization"
    if not path.endswith(("approve", "reject")):
        reviewer = tokens.add("ann", ["review"])
        assert client.post(path, json=body, headers=headers(reviewer)).status_code == 403
    assert len(home.ledger.events()) == before


@pytest.mark.parametrize("path", PATHS)
def test_key_generation_and_reason_are_needed(
    client: TestClient, tokens: Tokens, path: str
) -> None:
    token = tokens.add("root", ["admin"])
    body: dict[str, Any] = {"reason": "please"}
    if path.endswith("approve"):
        body["report_digest"] = "0" * 64
    for missing in ("If-Match", "Idempotency-Key"):
        given = {k: v for k, v in headers(token).items() if k != missing}
        answer = client.post(path, json=body, headers=given)
        assert (answer.status_code, answer.json()["field"]) == (428, missing)
    answer = client.post(path, json=body, headers={**headers(token), "If-Match": "*"})
    assert answer.status_code == 428
    answer = client.post(path, json={**body, "reason": "  "}, headers=headers(token))
    assert (answer.status_code, answer.json()["field"]) == (422, "reason")


@pytest.mark.parametrize(
    ("closed", "method", "path", "needed"),
    [
        ("changes", "POST", "/v1/act", None),
        ("changes", "GET", "/metrics", None),
        ("changes", "POST", "/v1/rollback", "admin"),
        ("inference", "POST", "/v1/act", "infer"),
        ("inference", "POST", "/v2/models/policy/infer", "infer"),
        ("inference", "POST", "/v1/episodes/x/outcome", "infer"),
        ("inference", "GET", "/", None),
        ("everything", "GET", "/", "infer"),
        ("everything", "GET", "/health/live", "infer"),
        ("everything", "POST", "/v1/versions/1/approve", "review"),
    ],
)
def test_what_is_closed_follows_the_setting(
    closed: Any, method: str, path: str, needed: str | None
) -> None:
    assert scope_of(method, path, closed) == needed


def test_inference_can_be_closed(home: Any, tokens: Tokens) -> None:
    home.first()
    settings = home.settings.model_copy(update={"auth": "inference"})
    token = tokens.add("bot", ["infer"])
    with TestClient(create_app(settings)) as client:
        assert client.post("/v1/act", json=OBSERVATION).status_code == 401
        infer = client.post("/v2/models/policy/infer", json={})
        assert (infer.status_code, set(infer.json())) == (401, {"error"})
        allowed = {"Authorization": f"Bearer {token}"}
        assert client.post("/v1/act", json=OBSERVATION, headers=allowed).status_code == 200
        assert client.get("/health/ready").status_code == 200


def test_a_revoked_token_is_soon_forgotten(
    home: Any, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.first()
    settings = home.settings.model_copy(update={"auth": "everything"})
    allowed = {"Authorization": f"Bearer {tokens.add('bot', ['infer'])}"}
    with TestClient(create_app(settings)) as client:
        assert client.get("/v1/champion", headers=allowed).status_code == 200
        tokens.revoke("bot")
        monkeypatch.setattr("serving.auth.time.monotonic", lambda: 1e12)
        assert client.get("/v1/champion", headers=allowed).status_code == 401


def test_only_hashes_are_kept(home: Any, tokens: Tokens) -> None:
    token = tokens.add("ann", ["review", "infer"])
    home.ledger.close()
    for file in home.settings.home.glob("ledger.db*"):
        assert token.removeprefix("srghn_").encode() not in file.read_bytes()
    assert tokens.find(token).owner == "ann"  # type: ignore[union-attr]


@pytest.mark.parametrize(("owner", "scopes"), [("ann", ["root"]), ("ann", []), (" ", ["review"])])
def test_a_token_needs_an_owner_and_known_scopes(
    tokens: Tokens, owner: str, scopes: list[str]
) -> None:
    with pytest.raises(ConfigError, match="infer, review, admin"):
        tokens.add(owner, scopes)
    assert tokens.list() == []


def test_the_command_makes_lists_and_revokes(
    home: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SRGHN_HOME", str(home.settings.home))
    assert cli.main(["add", "ann", "--scopes", "review,infer"]) == 0
    token = capsys.readouterr().out.strip()
    found = Tokens(Database(home.settings.database_url)).find(token)
    assert found is not None
    assert found.scopes == {"review", "infer"}
    assert cli.main(["list"]) == 0
    assert "ann  infer,review" in capsys.readouterr().out
    assert cli.main(["revoke", "ann"]) == 0
    assert capsys.readouterr().out == "1 tokens revoked\n"
    assert cli.main(["add", "ann", "--scopes", "root"]) != 0
    assert "got owner 'ann' and scopes root" in capsys.readouterr().err
