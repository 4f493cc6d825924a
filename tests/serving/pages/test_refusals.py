"""Where signing in leads, and what a browser is told if a page is refused: why, and a way back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.tokens import Tokens
from srghn.errors import LedgerError
from tests.serving.pages.test_sessions import HERE, fields, sign_in
from tests.serving.test_serving_review import passed

#: What a browser says that it takes.
PAGE = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def browse(home: Any, tokens: Tokens) -> Iterator[Any]:
    """`browse(**settings)`: a browser of a server with those settings."""
    opened: list[TestClient] = []

    def begin(**settings: Any) -> TestClient:
        app = create_app(home.settings.model_copy(update=settings))
        client = TestClient(
            app, base_url=HERE, headers=PAGE, follow_redirects=False, raise_server_exceptions=False
        )
        opened.append(client.__enter__())
        return client

    yield begin
    for client in opened:
        client.__exit__(None, None, None)


def lead(client: TestClient, path: str, token: str) -> str:
    """Open a page that is closed, sign in there, and say where that leads."""
    asked = client.get(path)
    assert asked.status_code == 401
    answer = client.post("/sign-in", data={**fields(asked.text), "token": token})
    assert answer.status_code == 303
    return str(answer.headers["location"])


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/", False),
        ("/policies/arm", True),
        ("/policies/policy", False),
        ("/versions?before=9&policy=arm", True),
        ("/versions?before=9", False),
        ("/history?policy=policy", False),
        ("/versions/2", True),
        ("/versions/1", False),
        ("/versions/99", False),
        ("/compare?a=2&b=2", True),
        ("/compare?a=2&b=1", False),
        ("/episode?id=client.1:2", True),
        ("/v1/policies/arm/versions/2/report", True),
        ("/v1/versions/1/report", False),
        ("/v1/policies/policy/versions/1/report", False),
        ("/decide/reject?version=2", True),
        ("/decide/reject?version=1&policy=policy", False),
        ("/docs", False),
        ("/metrics", False),
    ],
)
def test_signing_in_leads_to_the_page_or_to_the_one_of_the_tokens_policy(
    browse: Any, tokens: Tokens, path: str, own: bool
) -> None:
    arm = tokens.add("arno", ["review"], policy="arm")
    client = browse(auth="everything")
    assert lead(client, path, tokens.add("ann", ["review"])) == f".{path}"
    client.cookies.clear()
    to = lead(client, path, arm)
    assert to == (f".{path}" if own else "./policies/arm")
    shown = client.get(to.removeprefix("."))
    assert shown.status_code == 200
    for link in re.findall(r'href="((?:\.\./|\./)[^"]*)"', shown.text.partition("<footer>")[2]):
        found = client.get("/" + link.lstrip("./").replace("&amp;", "&"))
        assert found.status_code == 200, link


def test_the_link_to_sign_in_leads_back(browse: Any, tokens: Tokens) -> None:
    client = browse()
    text = client.get("/history?policy=arm&before=9").text
    link = re.search(r'href="\./(sign-in\?next=[^"]*)"', text)
    assert link is not None
    form = fields(client.get(f"/{link[1]}").text)
    token = tokens.add("arno", ["infer"], policy="arm")
    answer = client.post("/sign-in", data={**form, "token": token})
    assert answer.headers["location"] == "./history?policy=arm&before=9"
    text = client.get("/history").text  # open to all, whatever the token
    assert "sign out" in text


def test_a_session_that_is_not_enough_is_told_why(browse: Any, tokens: Tokens) -> None:
    client = browse(auth="everything")
    sign_in(client, tokens.add("look", ["infer"]))
    refused = client.get("/episode")
    assert refused.status_code == 403
    assert "The token of look has scope infer; this page needs review." in refused.text
    assert client.get("/episode", headers={"accept": "*/*"}).json()["field"] == "Authorization"
    sign_in(client, tokens.add("arno", ["review"], policy="arm"))
    for path in ("/", "/versions/1", "/docs", "/history"):
        refused = client.get(path)
        assert refused.status_code == 403, path
        assert "is good for policy arm alone" in refused.text
        assert 'href="./policies/arm"' in refused.text.replace("../", "./")


def test_no_button_is_shown_that_the_session_may_not_use(
    browse: Any, home: Any, tokens: Tokens
) -> None:
    waiting = passed(home)
    client = browse()
    sign_in(client, tokens.add("arno", ["review", "admin"], policy="arm"))
    assert "decide/" not in client.get("/").text
    sign_in(client, tokens.add("look", ["infer"]))
    text = client.get("/").text
    assert "decide/" not in text
    assert "look an episode up" not in text
    sign_in(client, tokens.add("ann", ["review"]))
    assert f"decide/approve?version={waiting}" in client.get("/").text


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/nope", 404, "GET /nope: Not Found"),
        ("/versions/99", 404, "expected a version of the ledger, got 99"),
        ("/versions/x", 422, "expected a version&#39;s number"),
        ("/policies/leg", 404, "one that is served here"),
        ("/v1/policies/leg/champion", 404, "one that is served here"),
        ("/v1/policies/arm/versions/99/report", 404, "a version of the ledger"),
        ("/history?before=x", 422, "before: expected a number"),
        ("/v1/rollback", 405, "Method Not Allowed"),
        ("/decide/nothing", 404, "step: expected"),
    ],
)
def test_an_error_is_a_page_with_a_way_back(
    browse: Any, path: str, status: int, words: str
) -> None:
    client = browse()
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src" in answer.headers["content-security-policy"]
    assert words in answer.text
    back = re.search(r'class="button" href="([./]+)"', answer.text)
    assert back is not None
    assert back[1].count("../") == max(0, path.count("/") - 1)
    plain = client.get(path, headers={"accept": "*/*"})
    assert (plain.status_code, "error" in plain.json()) == (status, True)


def test_a_form_that_is_refused_is_a_page_and_keeps_the_reason(browse: Any, tokens: Tokens) -> None:
    client = browse()
    sign_in(client, tokens.add("ann", ["admin"]))
    form = {"form": "x", "reason": "because", "policy": "policy"}
    for path, body, status in (
        ("/decide/approve", form, 403),
        ("/decide/nothing", form, 404),
        ("/sign-out", form, 403),
        ("/decide/rollback", {**form, "reason": "é" * 40_000}, 413),
    ):
        answer = client.post(path, data=body)
        assert answer.status_code == status, path
        assert answer.headers["content-type"].startswith("text/html")
        assert "Nothing was changed." in answer.text
        assert "because" in answer.text or status == 413
        plain = client.post(path, data=body, headers={"accept": "*/*"})
        assert plain.status_code == status


def test_a_ledger_that_cannot_be_read_is_a_page_and_keeps_the_reason(
    browse: Any, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = browse(auth="everything")
    sign_in(client, tokens.add("ann", ["admin"]))
    form = fields(client.get("/versions").text)

    def away(*given: Any) -> None:
        raise LedgerError("the ledger is gone")

    monkeypatch.setattr("serving.registry.reader.Reader.served", away)
    service = client.app.state.service
    monkeypatch.setattr(service.ledger, "served", away)
    monkeypatch.setattr(service.keeper, "known_by", away)
    for answer in (
        client.get("/versions"),
        client.post("/decide/pause", data={**form, "reason": "a storm", "version": "1"}),
    ):
        assert answer.status_code == 503
        assert answer.headers["content-type"].startswith("text/html")
        assert "the ledger is gone" in answer.text
        assert "Nothing was changed" not in answer.text
        assert "sign-in" not in answer.text  # whether one is signed in is unknown
    assert "a storm" in answer.text
    assert client.get("/versions", headers={"accept": "*/*"}).json()["error"]


def test_an_episode_is_found_in_each_policy_that_the_token_is_good_for(
    browse: Any, home: Any, tokens: Tokens
) -> None:
    """It was said that the ledger has none of that name."""
    client = browse()
    begun = client.post(
        "/v1/policies/arm/act", json={"observation": [0] * 6, "episode_id": "arm-1"}
    )
    assert begun.json()["token"]
    none = "no episode of that name"
    sign_in(client, tokens.add("ann", ["review"]))
    for query, found in (("", True), ("&policy=arm", True), ("&policy=policy", False)):
        text = client.get(f"/episode?id=arm-1{query}").text
        assert (none in text, "versions/2" in text) == (not found, found), query
    assert "<option>arm</option>" in client.get("/episode").text
    assert f"{none} of policy policy" in client.get("/episode?id=arm-1&policy=policy").text
    assert client.get("/episode?id=arm-1&policy=leg").status_code == 404
    sign_in(client, tokens.add("arno", ["review"], policy="arm"))
    text = client.get("/episode?id=arm-1").text
    assert "versions/2" in text
    assert "<option" not in text
    sign_in(client, tokens.add("pol", ["review"], policy="policy"))
    assert none in client.get("/episode?id=arm-1").text
    assert client.get("/episode?id=arm-1&policy=arm").status_code == 403


@pytest.mark.parametrize("control", ["\x1b[2J", "\r", "\x9b31m", "\0"])
def test_programs_may_not_steer_a_terminal_either(
    browse: Any, home: Any, tokens: Tokens, control: str
) -> None:
    client, count = browse(), home.ledger.count()
    token = tokens.add("bot", ["review", "admin"])
    headers = {"Authorization": f"Bearer {token}", "If-Match": "1", "Idempotency-Key": "k"}
    for path, body, field in (
        ("/v1/versions/1/stale", {"reason": f"a{control}b"}, "reason"),
        ("/v1/mode", {"reason": "rewired", "mode": f"flipped{control}"}, "mode"),
    ):
        answer = client.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["field"]) == (422, field)
        assert "no control characters but tabs and line breaks" in answer.json()["expected"]
    assert home.ledger.count() == count


def test_programs_may_end_lines_as_windows_does(browse: Any, home: Any, tokens: Tokens) -> None:
    home.steps.canary(home.approved(bias=1.0))
    client, token = browse(), tokens.add("bot", ["admin"])
    headers = {"Authorization": f"Bearer {token}", "If-Match": "1", "Idempotency-Key": "k"}
    said = {"reason": "a\r\nb", "status": "paused"}
    answer = client.post("/v1/canary/status", json=said, headers=headers)
    assert answer.status_code == 200, answer.text
    assert home.ledger.events(newest=True, limit=1)[0].reason == "a\nb"
