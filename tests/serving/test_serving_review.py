"""Decisions over HTTP: only by a token with the scope, on the generation that was seen, once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from pipelines.cli import app
from serving.access import ACCESS
from serving.app import create_app
from serving.auth import BELIEVED_SECONDS, Keeper
from serving.limits import Limits
from serving.registry.database import Database
from serving.registry.records import Who
from serving.registry.rules import DeploymentRules, HoldbackTerms
from serving.serve import require_tokens
from serving.tokens import Tokens
from srghn.config import CanaryParams
from srghn.errors import ConfigError, TransitionRefused

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
    new = home._new(bias=5.0)
    canary = CanaryParams(weight=0.4, return_low=0.0, return_high=500.0).model_dump(mode="json")
    version = home.steps.register(new["digest"], manifest={**new["manifest"], "canary": canary})
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
    assert answer.json()["version"]["state"] == "CANARY"  # as from the command line
    assert answer.json()["served"] == {"version": 1, "generation": 1}
    for event in home.ledger.events(version)[-2:]:
        assert (event.actor, event.reason) == ("ann", "read it all")
    count = len(home.ledger.events())
    assert client.post(path, json=body, headers=headers(token)).status_code == 200
    assert len(home.ledger.events()) == count
    other = client.post(path, json={**body, "reason": "x"}, headers=headers(token, key="k2"))
    assert other.status_code == 409
    assert "CANARY and cannot become APPROVED" in other.json()["error"]


def test_a_shadow_and_a_window_are_begun_and_ended(
    client: TestClient, home: Any, tokens: Tokens
) -> None:
    admin = tokens.add("root", ["admin"])
    rules = DeploymentRules(shadow_first=True, holdback=HoldbackTerms())
    home.ledger.set_deployment_rules(rules, who=Who("ann", "careful"))
    version, token = passed(home), tokens.add("ann", ["review"])
    report = home.ledger.version(version).report_digest
    body = {"reason": "read it", "report_digest": report}
    path = f"/v1/versions/{version}"
    answer = client.post(f"{path}/approve", json=body, headers=headers(token))
    assert answer.json()["version"]["state"] == "SHADOW"  # where the rules want one first
    body = {"reason": "enough"}
    assert client.post(f"{path}/shadow", json=body, headers=headers(token)).status_code == 403
    answer = client.post(f"{path}/shadow/stop", json=body, headers=headers(admin, key="2"))
    assert answer.json()["version"]["state"] == "APPROVED"
    answer = client.post(f"{path}/shadow", json=body, headers=headers(admin, key="3"))
    assert answer.json()["version"]["state"] == "SHADOW"
    refused = client.post("/v1/holdback/stop", json=body, headers=headers(admin, key="4"))
    assert refused.status_code == 409
    home.ledger.set_deployment_rules(
        DeploymentRules(holdback=HoldbackTerms()), who=Who("ann", "quick")
    )
    home.second(bias=3.0)
    ended = client.post("/v1/holdback/stop", json=body, headers=headers(admin, 2, "5"))
    assert ended.status_code == 200
    assert home.ledger.holdback() is None
    assert home.ledger.events()[-1].actor == "root"


def test_the_other_steps_of_a_person(client: TestClient, home: Any, tokens: Tokens) -> None:
    admin = tokens.add("root", ["admin"])
    trial = home.approved(bias=1.0)
    home.steps.canary(trial)

    def post(path: str, key: str, generation: int = 1, **said: Any) -> Any:
        body = {"reason": "because", **said}
        return client.post(path, json=body, headers=headers(admin, generation, key))

    assert post("/v1/canary/weight", "1", weight=0.3).status_code == 200
    assert home.ledger.canary().weight == 0.3
    follower = client.app.state.service.follower  # type: ignore[attr-defined]
    assert follower.served.epoch == home.ledger.canary().epoch
    assert post("/v1/canary/weight", "0", weight=0).status_code == 200
    assert follower.served.weight == 0  # nothing is drawn at 0, so nothing is evidence
    assert post("/v1/canary/weight", "2", generation=7, weight=0.4).status_code == 412
    assert post("/v1/canary/weight", "3", weight=1.5).status_code == 422
    assert post("/v1/canary/status", "4", status="held").status_code == 200
    assert home.ledger.canary().status == "held"
    assert post("/v1/canary/status", "5", status="asleep").status_code == 422
    assert post(f"/v1/versions/{trial}/stale", "7").json()["version"]["state"] == "STALE"
    assert home.ledger.canary() is None
    assert post("/v1/mode", "6", mode="flipped").status_code == 200
    assert home.ledger.service_mode("policy") == "flipped"
    assert post("/v1/mode", "10", mode="normal").status_code == 200
    unknown = post("/v1/mode", "11", mode="fliped")
    assert (unknown.status_code, unknown.json()["field"]) == (422, "mode")
    assert "no mode 'fliped'; modes: normal, flipped" in unknown.json()["error"]
    assert home.ledger.service_mode("policy") == "normal"
    home.ledger.ack(home.ledger.count())
    assert post("/v1/sync", "9").status_code == 200
    assert len(home.ledger.pending()) == home.ledger.count()
    home.second(bias=2.0)
    assert post("/v1/versions/1/revoke", "8", generation=2).json()["version"]["state"] == "REVOKED"


def test_a_step_on_another_generation_is_refused_whatever_it_is(
    client: TestClient, home: Any, tokens: Tokens
) -> None:
    """Held in the step's own transaction: no other step gets between the look and the step."""
    admin, trial = tokens.add("root", ["admin"]), home.approved(bias=1.0)
    home.steps.canary(trial)
    bodies = {
        "/v1/canary/weight": {"weight": 0.3},
        "/v1/canary/status": {"status": "held"},
        "/v1/mode": {"mode": "flipped"},
        f"/v1/versions/{trial}/stale": {},
        f"/v1/versions/{trial}/revoke": {},
        f"/v1/versions/{trial}/reject": {},
        "/v1/canary/abort": {},
        "/v1/rollback": {},
        "/v1/sync": {},
    }
    before = home.ledger.count()
    for key, (path, body) in enumerate(bodies.items()):
        answer = client.post(
            path, json={"reason": "late", **body}, headers=headers(admin, 7, f"late-{key}")
        )
        assert (answer.status_code, answer.json()["field"]) == (412, "If-Match"), path
    assert home.ledger.count() == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/canary/weight", {"weight": 0.3}),
        ("/v1/canary/status", {"status": "held"}),
        ("/v1/canary/abort", {}),
    ],
)
def test_a_step_is_never_taken_on_another_trial_than_the_one_that_was_seen(
    client: TestClient, home: Any, tokens: Tokens, path: str, body: dict[str, Any]
) -> None:
    admin, trial = tokens.add("root", ["admin"]), home.approved(bias=1.0)
    home.steps.canary(trial)

    def post(key: str, version: Any) -> Any:
        said = {"reason": "the one I see", "version": version, **body}
        return client.post(path, json=said, headers=headers(admin, 1, key))

    before = home.ledger.count()
    late = post("late", trial + 1)
    assert (late.status_code, late.json()["field"]) == (409, "version")
    assert f"version {trial + 1} is not on trial, version {trial} is" in late.json()["error"]
    assert post("none", 0).status_code == 422
    assert home.ledger.count() == before
    assert post("seen", trial).status_code == 200
    assert home.ledger.count() == before + 1


def test_a_step_of_a_trial_that_is_over_is_refused(home: Any) -> None:
    home.first()
    trial = home.approved(bias=1.0)
    home.steps.canary(trial)
    who = Who("ann", "the one I see")
    for step in (
        lambda: home.ledger.set_trial_status("held", who=who, version=trial + 1),
        lambda: home.ledger.set_canary_weight(0.3, who=who, version=trial + 1),
        lambda: home.ledger.abort_canary(who=who, version=trial + 1),
    ):
        with pytest.raises(TransitionRefused, match=f"version {trial + 1} is not on trial"):
            step()
    home.ledger.set_trial_status("held", who=who, version=trial)
    assert home.ledger.canary().status == "held"


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
    assert "read the current report" in answer.json()["error"]


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
        ({"Authorization": "srghn_guess"}, 401),
        ({"Authorization": "Bearer srghn_guess"}, 401),
        (headers(gone), 401),
        (headers(infer), 403),
    ):
        answer = client.post(path, json=body, headers=given)
        assert answer.status_code == status, answer.text
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["field"] == "Authorization"
        assert "srghn_" not in answer.text  # clients log refusals
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
        ("changes", "POST", "/v1/episodes/x/outcome", None),
        ("changes", "GET", "/v1/episodes/x", "review"),
        ("changes", "POST", "/v1/rollback", "admin"),
        ("changes", "GET", "/no/such/path", None),
        ("inference", "POST", "/v1/act", "infer"),
        ("inference", "POST", "/v2/models/policy/infer", "infer"),
        ("inference", "POST", "/v1/episodes/x/outcome", "outcome"),
        ("inference", "GET", "/", None),
        ("everything", "GET", "/", "read"),
        ("everything", "HEAD", "/v1/versions/1/report", "read"),
        ("everything", "GET", "/health/live", None),
        ("everything", "GET", "/v2/health/ready", None),
        ("everything", "POST", "/v1/versions/1/approve", "review"),
    ],
)
def test_what_is_closed_follows_the_setting(
    home: Any, tokens: Tokens, closed: Any, method: str, path: str, needed: str | None
) -> None:
    app = create_app(home.settings)
    scope = {"type": "http", "method": method, "path": path, "headers": [], "app": app}
    assert Keeper(tokens, closed, public=False).closed(scope) == needed


def test_every_route_is_listed_and_one_that_is_not_is_closed(home: Any, tokens: Tokens) -> None:
    app = create_app(home.settings)
    routes = {(m, route.path) for route in app.routes for m in getattr(route, "methods", ()) or ()}
    assert {(m, path) for m, path in routes if m != "HEAD"} <= set(ACCESS)

    async def forgotten() -> dict[str, bool]:
        return {"done": True}

    app.post("/v1/forgotten")(forgotten)
    with TestClient(app) as client:
        assert client.post("/v1/forgotten").status_code == 401
        for scope, status in (("review", 403), ("admin", 200)):
            allowed = {"Authorization": f"Bearer {tokens.add('x', [scope])}"}
            assert client.post("/v1/forgotten", headers=allowed).status_code == status


def test_a_review_token_reads_what_it_reviews_and_an_outcome_token_reads_nothing(
    home: Any, tokens: Tokens
) -> None:
    home.first()
    settings = home.settings.model_copy(update={"auth": "everything"})
    with TestClient(create_app(settings)) as client:
        for scope, status in (("review", 200), ("infer", 200), ("admin", 200), ("outcome", 403)):
            allowed = {"Authorization": f"Bearer {tokens.add('x', [scope])}"}
            for path in ("/", "/v1/versions", "/v1/versions/1", "/metrics"):
                assert client.get(path, headers=allowed).status_code == status, (scope, path)
        assert client.get("/health/ready").status_code == 200


def test_outcomes_need_their_scope_as_soon_as_a_token_has_it(home: Any, tokens: Tokens) -> None:
    home.first()
    limits = Limits(poll_seconds=0.02)
    with TestClient(create_app(home.settings, limits)) as client:

        def end(name: str, **headers: str) -> int:
            said = {**OBSERVATION, "episode_id": name}
            post = {"return": 1, "terminated": True}
            post["token"] = client.post("/v1/act", json=said).json()["token"]
            path = f"/v1/episodes/{name}/outcome"
            return client.post(path, json=post, headers=headers).status_code

        assert end("a") == 200  # on loopback the episode's own token is enough
        infer, outcome = tokens.add("bot", ["infer"]), tokens.add("plant", ["outcome"])
        keeper = client.app.state.service.keeper  # type: ignore[attr-defined]
        deadline = time.monotonic() + 10
        while not keeper.outcomes and time.monotonic() < deadline:
            time.sleep(0.02)
        assert end("b") == 401
        assert end("c", Authorization=f"Bearer {infer}") == 403
        assert end("d", Authorization=f"Bearer {outcome}") == 200
        assert home.ledger.find_episode("d").poster == "plant"
        assert client.get("/v1/episodes/d").status_code == 401
        review = {"Authorization": f"Bearer {tokens.add('ann', ['review'])}"}
        found = client.get("/v1/episodes/d", headers=review).json()
        assert (found["arm"], found["version"], found["return"]) == (0, 1, 1.0)
        assert client.get("/v1/episodes/none", headers=review).status_code == 404


def test_tokens_expire_and_are_rotated(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    old, other = tokens.add("ann", ["review"], days=30), tokens.add("bob", ["infer"])
    new = tokens.rotate("ann", days=90, overlap_hours=1)
    assert tokens.find(new).scopes == {"review"}  # type: ignore[union-attr]
    assert tokens.find(old) is not None
    now = time.time()
    monkeypatch.setattr("serving.tokens.time.time", lambda: now + 3700)
    assert tokens.find(old) is None
    assert tokens.find(new) is not None
    monkeypatch.setattr("serving.tokens.time.time", lambda: now + 91 * 86_400)
    assert tokens.find(new) is None
    assert tokens.find(other) is not None
    with pytest.raises(ConfigError, match="no valid token to rotate"):
        tokens.rotate("ann")


def test_wrong_tokens_are_slowed_by_their_caller_alone(tokens: Tokens) -> None:
    keeper = Keeper(tokens, "inference", public=False)
    waits = [keeper._slow("10.0.0.1") for _ in range(10)]
    assert waits[:3] == [0.05, 0.1, 0.2]
    assert waits[-1] == 2.0
    assert keeper._slow("10.0.0.2") == 0.05


@pytest.mark.parametrize(
    ("host", "without", "public"),
    [
        ("127.0.0.1", False, False),
        ("::1", False, False),
        ("localhost", False, False),
        ("0.0.0.0", False, True),
        ("10.1.2.3", False, True),
        ("policies.example", False, True),
        ("0.0.0.0", True, False),
    ],
)
def test_beyond_loopback_a_server_wants_tokens(
    home: Any, tokens: Tokens, host: str, without: bool, public: bool
) -> None:
    chosen = {"host": host, "without_tokens": without}
    settings = home.settings.model_copy(update=chosen)
    assert settings.public is public
    if public:
        with pytest.raises(ConfigError, match="srghn token add"):
            require_tokens(settings)
        tokens.add("bot", ["infer"])
    require_tokens(settings)
    assert Keeper(tokens, "changes", settings.public).outcomes is public


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
    now = time.monotonic()
    clock = SimpleNamespace(monotonic=lambda: now, time=time.time)
    monkeypatch.setattr("serving.auth.time", clock)  # a busy machine takes its own time
    settings = home.settings.model_copy(update={"auth": "everything"})
    allowed = {"Authorization": f"Bearer {tokens.add('bot', ['infer'])}"}
    with TestClient(create_app(settings)) as client:
        assert client.get("/v1/champion", headers=allowed).status_code == 200
        tokens.revoke("bot")
        assert client.get("/v1/champion", headers=allowed).status_code == 200  # from memory
        clock.monotonic = lambda: now + BELIEVED_SECONDS
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
    with pytest.raises(ConfigError, match="infer, outcome, review, admin"):
        tokens.add(owner, scopes)
    assert tokens.list() == []


def test_the_command_makes_lists_rotates_and_revokes(
    home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRGHN_HOME", str(home.settings.home))
    run = CliRunner()

    def token(*arguments: str) -> Any:
        return run.invoke(app, ["token", *arguments])

    assert "no token yet" in token("list").stdout
    made = token("add", "ann", "--scopes", "review,infer", "--days", "3", "--json")
    found = Tokens(Database(home.settings.database_url)).find(json.loads(made.stdout)["token"])
    assert found is not None
    assert found.scopes == {"review", "infer"}
    assert token("rotate", "ann", "--overlap-hours", "0").exit_code == 0
    listed = json.loads(token("list", "--json").stdout)
    assert [(t["owner"], t["expires_at"] is None) for t in listed] == [
        ("ann", False),
        ("ann", True),
    ]
    assert "ann" in token("list").stdout
    assert token("revoke", "ann").stdout == "2 tokens revoked\n"
    wrong = token("add", "ann", "--scopes", "root")
    assert isinstance(wrong.exception, ConfigError)
    assert "got owner 'ann' and scopes root" in str(wrong.exception)
