"""Signing in to the pages, and what no other page, person or cookie can do there."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
import starlette.requests
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.registry.database import Database
from serving.sessions import SECONDS
from serving.tokens import Tokens

HERE = "http://127.0.0.1:8000"


@pytest.fixture
def tokens(home: Any) -> Tokens:
    return Tokens(Database(home.settings.database_url))


@pytest.fixture
def browse(home: Any) -> Iterator[Any]:
    """`browse(**settings)`: a browser on this machine, and a server with those settings."""
    opened: list[TestClient] = []

    def begin(base_url: str = HERE, at: str = "127.0.0.1", **settings: Any) -> TestClient:
        app = create_app(home.settings.model_copy(update=settings))
        client = TestClient(app, base_url=base_url, client=(at, 50_000), follow_redirects=False)
        opened.append(client.__enter__())
        return client

    yield begin
    for client in opened:
        client.__exit__(None, None, None)


def fields(text: str) -> dict[str, str]:
    """The hidden fields of a page's last form."""
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', text)
    return {name: unescape(value) for name, value in found}


def sign_in(client: TestClient, token: str) -> Any:
    return client.post("/sign-in", data={"token": token})


def test_a_session_comes_from_a_token_and_the_cookie_holds_none_of_it(
    home: Any, tokens: Tokens, browse: Any
) -> None:
    home.first()
    token = tokens.add("ann", ["review"])
    client = browse()
    answer = sign_in(client, token)
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert "Path" not in cookie  # the browser takes the folder, whatever a proxy put before it
    assert token not in cookie
    assert "ann" in client.get("/").text
    left = client.post("/sign-out", data=fields(client.get("/").text))
    assert "Max-Age=0" in left.headers["set-cookie"]
    assert "sign in" in client.get("/").text


def test_over_tls_the_cookie_is_secure(home: Any, tokens: Tokens, browse: Any) -> None:
    client = browse("https://127.0.0.1")
    cookie = sign_in(client, tokens.add("ann", ["review"])).headers["set-cookie"]
    assert cookie.endswith("; Secure")


@pytest.mark.parametrize(("scopes", "status"), [(["outcome"], 403), (["infer"], 303)])
def test_who_may_look_may_sign_in(
    home: Any, tokens: Tokens, browse: Any, scopes: list[str], status: int
) -> None:
    assert sign_in(browse(), tokens.add("bot", scopes)).status_code == status


def test_a_wrong_token_is_refused_and_shown_again(home: Any, tokens: Tokens, browse: Any) -> None:
    tokens.add("ann", ["review"])
    answer = sign_in(browse(), "srghn_guess")
    assert answer.status_code == 401
    assert "unknown, revoked or expired" in answer.text
    assert "srghn_guess" not in answer.text


def test_a_revoked_token_or_an_old_cookie_ends_the_session(
    home: Any, tokens: Tokens, browse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.auth.BELIEVED_SECONDS", 0.0)
    home.first()
    client = browse()
    tokens.add("root", ["admin"])
    sign_in(client, tokens.add("ann", ["review"]))
    assert client.get("/episode").status_code == 200
    now = time.time()
    monkeypatch.setattr("serving.sessions.time.time", lambda: now + SECONDS + 1)
    assert client.get("/episode").status_code == 401
    monkeypatch.undo()
    monkeypatch.setattr("serving.auth.BELIEVED_SECONDS", 0.0)
    assert client.get("/episode").status_code == 200
    tokens.revoke("ann")
    assert client.get("/episode").status_code == 401


@pytest.mark.parametrize("change", ["", "x", "A" * 80, "ä"])
def test_a_cookie_that_is_not_ours_is_none(
    home: Any, tokens: Tokens, browse: Any, change: str
) -> None:
    client = browse()
    tokens.add("root", ["admin"])
    sign_in(client, tokens.add("ann", ["admin"]))
    name, sealed = next(iter(client.cookies.items()))
    client.cookies.clear()
    said = f"{name}={change or sealed[:-4] + 'AAAA'}".encode()
    assert client.get("/episode", headers={b"cookie": said}).status_code == 401


def test_no_cookie_but_the_session_s_is_parsed(
    home: Any, tokens: Tokens, browse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quoted one of 32 KB stopped the worker for seconds, on any route but the hot path's."""
    client, parsed = browse(), list[str]()
    tokens.add("root", ["admin"])
    sign_in(client, tokens.add("ann", ["review"]))
    name, sealed = next(iter(client.cookies.items()))
    client.cookies.clear()
    parse = starlette.requests.cookie_parser
    noted = lambda said: parsed.append(said) or parse(said)  # noqa: E731
    monkeypatch.setattr("starlette.requests.cookie_parser", noted)
    bad, own = 'a="' + "\\" * 100 + '"', f"{name}={sealed}"
    for cookies in (f"{bad}; {own}; b=c", f"{own};{bad}", f"x{own}; {bad}"):
        status = 200 if cookies != f"x{own}; {bad}" else 401
        assert client.get("/episode", headers={"cookie": cookies}).status_code == status
        for path in ("/", "/health/live", "/v1/champion", "/nothing", "/v1/policies/none/act"):
            client.get(path, headers={"cookie": cookies, "accept": "text/html"})
        client.get("/", headers={"cookie": cookies, "accept": "text/html", "host": "a.example"})
        client.post("/v1/rollback", json={"reason": "why"}, headers={"cookie": cookies})
    assert own in parsed
    assert set(parsed) == {own}


def test_a_session_reads_what_is_closed_and_changes_nothing_over_the_api(
    home: Any, tokens: Tokens, browse: Any
) -> None:
    home.first()
    client = browse(auth="everything")
    page = client.get("/", headers={"accept": "text/html"})
    assert (page.status_code, "Sign in" in page.text) == (401, True)
    assert client.get("/").json()["field"] == "Authorization"  # no browser: as before
    sign_in(client, tokens.add("root", ["admin"]))
    for path in ("/", "/versions", "/versions/1", "/history", "/v1/versions/1/report", "/docs"):
        assert client.get(path).status_code == 200, path
    headers = {"If-Match": "1", "Idempotency-Key": "k"}
    answer = client.post("/v1/rollback", json={"reason": "by cookie"}, headers=headers)
    assert answer.status_code == 401


def test_without_a_reviewers_token_this_machine_decides(home: Any, browse: Any) -> None:
    home.first()
    client = browse()
    assert "Continue as cli:" in client.get("/sign-in").text
    assert client.post("/sign-in", data={"here": "yes"}).status_code == 303
    assert client.get("/decide/approve?version=1").status_code == 200


@pytest.mark.parametrize(
    ("how", "settings"),
    [
        ({}, {"auth": "inference"}),
        ({}, {"host": "0.0.0.0", "without_tokens": True}),
        ({}, {"root_path": "/policies"}),
        ({}, {"trusted_proxies": "127.0.0.1"}),
        ({"at": "10.0.0.7"}, {}),
        # a name that another site may have, too
        ({"base_url": "http://rebound.example:8000"}, {"hosts": "rebound.example"}),
    ],
)
def test_elsewhere_nobody_decides_without_a_token(
    home: Any, browse: Any, how: dict[str, str], settings: dict[str, Any]
) -> None:
    home.first()
    client = browse(**how, **settings)
    assert "Continue as" not in client.get("/sign-in").text
    answer = client.post("/sign-in", data={"here": "yes"})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_behind_a_proxy_or_from_the_first_token_on_it_needs_one(
    home: Any, tokens: Tokens, browse: Any
) -> None:
    home.first()
    client = browse()
    assert client.post("/sign-in", data={"here": "yes"}).status_code == 303
    assert client.get("/episode").status_code == 200
    for name in ("X-Forwarded-For", "Forwarded", "Via"):
        assert client.get("/episode", headers={name: "10.0.0.7"}).status_code == 401, name
    tokens.add("ann", ["review"])
    client.app.state.service.keeper.look()
    assert client.get("/episode").status_code == 401
