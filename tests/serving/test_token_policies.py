"""A token of one policy opens nothing of another, by whatever route."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.access import ACCESS, OPEN, SESSION, SHARED
from serving.app import create_app
from serving.tokens import Tokens
from srghn.errors import ConfigError, LedgerError
from tests.serving.pages.test_sessions import HERE, fields, sign_in

SCOPES = ["infer", "outcome", "review", "admin"]
#: The default policy's champion is version 1, arm's is 2.
OTHER, OWN = "1", "2"


@pytest.fixture
def client(home: Any, tokens: Tokens) -> Iterator[TestClient]:
    """With a token of arm alone, which has every scope; nothing is open."""
    settings = home.settings.model_copy(update={"auth": "everything"})
    token = tokens.add("ann", SCOPES, policy="arm")
    with TestClient(create_app(settings), raise_server_exceptions=False) as opened:
        opened.headers.update({"Authorization": f"Bearer {token}", "If-Match": "1"})
        yield opened


def filled(path: str, policy: str, version: str) -> str:
    names = {"{policy}": policy, "{model}": policy, "{version}": version, "{episode_id}": "e"}
    for name, value in names.items():
        path = path.replace(name, value)
    asked = dict.fromkeys(("/history", "/versions", "/episode"), f"?policy={policy}")
    return path + asked.get(path, f"?a={version}&b={version}" if path == "/compare" else "")


def guarded() -> list[tuple[str, str]]:
    return [key for key, needed in ACCESS.items() if needed not in (OPEN, SESSION)]


@pytest.mark.parametrize(("method", "path"), guarded())
def test_every_route_of_another_policy_is_closed(
    client: TestClient, method: str, path: str
) -> None:
    answer = client.request(method, filled(path, "policy", OTHER), json={})
    assert answer.status_code == 403, answer.text
    assert "one for policy 'arm' alone" in answer.json()["error"]
    if path in ("/history", "/versions"):
        assert client.get(path).status_code == 403  # those of all


@pytest.mark.parametrize(
    ("method", "path"),
    [key for key in guarded() if key not in SHARED and key[1] != "/"],
)
def test_every_route_of_its_own_policy_is_open(client: TestClient, method: str, path: str) -> None:
    """Whatever it then makes of an empty body."""
    inner = filled(path, "arm", OWN)
    if path.startswith("/v1/") and not path.startswith("/v1/policies"):
        inner = inner.replace("/v1/", "/v1/policies/arm/", 1)
    answer = client.request(method, inner, json={})
    assert answer.status_code not in (401, 403), answer.text


def test_a_version_of_another_policy_is_not_reached_through_ones_own(client: TestClient) -> None:
    for path in (f"/v1/policies/arm/versions/{OTHER}", f"/v2/models/arm/versions/{OTHER}"):
        assert client.get(path).status_code == 404
    said = {"reason": "why not", "report_digest": "0" * 64}
    key = {"Idempotency-Key": "k"}
    answer = client.post(f"/v1/policies/arm/versions/{OTHER}/approve", json=said, headers=key)
    assert answer.status_code == 404


def test_the_page_of_its_policy_says_nothing_of_others(client: TestClient) -> None:
    text = client.get("/policies/arm").text
    assert "version 2" in text
    assert 'href="./"' not in text
    assert "/policies/policy" not in text


def test_the_browser_decides_about_its_own_policy_alone(home: Any, tokens: Tokens) -> None:
    token = tokens.add("ann", ["admin"], policy="arm")
    app = create_app(home.settings)
    with TestClient(app, base_url=HERE, follow_redirects=False) as client:
        sign_in(client, token)
        asked = {"own": "policy=arm", "other": "policy=policy", "through own": "policy=arm"}
        versions = {"own": OWN, "other": OTHER, "through own": OTHER}
        found = {
            name: client.get(f"/decide/reject?version={versions[name]}&{query}").status_code
            for name, query in asked.items()
        }
        assert found == {"own": 200, "other": 403, "through own": 403}
        hidden = client.get(f"/decide/reject?version={OTHER}")
        assert hidden.status_code == 403
        assert f"decide/reject?version={OTHER}" in hidden.text
        assert "policy=policy" not in unescape(hidden.text)
        form = fields(client.get(f"/decide/reject?version={OWN}&policy=arm").text)
        for change in ({"policy": "policy"}, {"version": OTHER}):
            sent = client.post("/decide/reject", data={**form, "reason": "no", **change})
            assert sent.status_code == 403
            assert "for policy arm alone" in sent.text


def test_a_token_of_a_policy_is_kept_so_when_it_is_rotated(home: Any, tokens: Tokens) -> None:
    tokens.add("bot", ["infer"], policy="arm")
    found = tokens.find(tokens.rotate("bot"))
    assert found is not None
    assert (found.policy, found.scopes) == ("arm", {"infer"})
    tokens.add("bot", ["infer"])
    with pytest.raises(ConfigError, match="'bot' has tokens of all policies, arm"):
        tokens.rotate("bot")
    with pytest.raises(LedgerError, match="no policy 'leg'; the ledger holds arm, policy"):
        tokens.add("bot", ["infer"], policy="leg")
