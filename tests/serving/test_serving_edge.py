"""At the edge: hosts, prefixes, HEAD, the description, and a ledger that goes away."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.limits import Limits
from serving.routes import docs

OBSERVATION = {"observation": [0.0, 0.0, 1.0, 0.0]}


@pytest.fixture(scope="module")
def client(shared_home: Any) -> Iterator[TestClient]:
    with TestClient(create_app(shared_home.settings)) as opened:
        yield opened


def test_a_host_that_is_not_served_is_refused(shared_home: Any) -> None:
    settings = shared_home.settings.model_copy(update={"hosts": "policies.example,::1"})
    with TestClient(create_app(settings), base_url="http://policies.example:8000") as client:
        assert client.get("/health/live").status_code == 200
        assert client.post("/v1/act", json=OBSERVATION).status_code == 200
        for host in ("evil.example", "policies.example.evil", ""):
            for send in (
                lambda h: client.get("/health/live", headers={"Host": h}),
                lambda h: client.post("/v1/act", json=OBSERVATION, headers={"Host": h}),
            ):
                assert send(host).status_code == 421
        for host in ("[::1]:8000", "127.0.0.1:8000", "localhost", "Policies.example.:8000"):
            assert client.get("/health/live", headers={"Host": host}).status_code == 200


def test_on_loopback_no_site_s_own_name_is_served(shared_home: Any, client: TestClient) -> None:
    """A page of a site whose name resolves to this machine could else act and post outcomes."""
    home = shared_home.settings
    ours = ("localhost:8000", "127.0.0.1", "127.1:8000", "[::1]:8000", "a.localhost", "robot", "")
    ours += ("localhost.:8000", "127.0.0.1.")  # what DNS writes at the end of a whole name
    theirs = ("evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "1.example")
    theirs += ("evil.example.", "localhost.evil.example.")

    def asked(client: TestClient, host: str) -> set[int]:
        headers = {"Host": host}
        return {
            client.get("/v1/champion", headers=headers).status_code,
            client.post("/v1/act", json=OBSERVATION, headers=headers).status_code,
        }

    for host in ours:
        assert asked(client, host) == {200}, host
    for host in theirs:
        assert asked(client, host) == {421}, host
    refused = client.post("/v1/act", json=OBSERVATION, headers={"Host": theirs[0]})
    assert "SRGHN_HOSTS sets the names" in refused.json()["error"]
    for change in ({"host": "10.0.0.1"}, {"root_path": "/a"}, {"trusted_proxies": "10.0.0.1"}):
        app = create_app(home.model_copy(update={**change, "without_tokens": True}))
        with TestClient(app) as other:
            assert asked(other, theirs[0]) == {200}, change


def posted(
    client: TestClient,
    path: str,
    headers: list[tuple[bytes, bytes]],
    messages: list[dict[str, Any]],
    version: str = "1.1",
) -> tuple[int, bytes]:
    """Status and body of the answer to a request that no HTTP library would send."""
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    scope |= {"http_version": version, "query_string": b"", "scheme": "http"}
    got: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        got.append(message)

    asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type]
    return got[0]["status"], got[1]["body"]


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/decide/approve"])
def test_a_form_that_is_cut_off_is_no_error_of_the_server(client: TestClient, path: str) -> None:
    """Anyone could write tracebacks into its log."""
    headers = [(b"host", b"localhost"), (b"content-type", b"application/x-www-form-urlencoded")]
    half = {"type": "http.request", "body": b"token=", "more_body": True}
    status, body = posted(client, path, headers, [half, {"type": "http.disconnect"}])
    assert status == 400
    assert b"body: expected to be sent whole, got a closed connection" in body


BROKEN = ([], [b"localhost", b"localhost"], [b"localhost", b"evil.example"], [b"["], [b"[::1"])
BROKEN += ([b"localhost:80@evil.example"], [b"localhost/a"], [b"local host"], [b"\xff"], [b"a:b"])


@pytest.mark.parametrize("path", ["/v1/act", "/health/live", "/", "/v2/models/policy/infer"])
@pytest.mark.parametrize("hosts", BROKEN)
def test_a_request_without_exactly_one_host_is_wrong(
    client: TestClient, hosts: list[bytes], path: str
) -> None:
    """The first of several counted, while a proxy may have looked at the last."""

    def asked(version: str) -> tuple[int, bytes]:
        headers = [(b"host", host) for host in hosts]
        whole = {"type": "http.request", "body": json.dumps(OBSERVATION).encode()}
        return posted(client, path, headers, [whole], version)

    status, body = asked("1.1")
    assert (status, json.loads(body)["error"][:15]) == (400, "Host: expected ")
    if not hosts:  # which HTTP/1.0 does not have
        assert asked("1.0")[0] == {"/v1/act": 200, "/v2/models/policy/infer": 422}.get(path, 405)


def test_spaces_after_a_host_are_no_part_of_it(client: TestClient) -> None:
    whole = {"type": "http.request", "body": json.dumps(OBSERVATION).encode()}
    assert posted(client, "/v1/act", [(b"host", b"localhost:80 \t")], [whole])[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
def test_a_page_of_another_site_can_send_no_body(client: TestClient, origin: str) -> None:
    """A browser sends a body without a type anywhere, and asks before it sends one of JSON."""
    body = json.dumps(OBSERVATION | {"episode_id": "theirs"})
    tensor = {"name": "obs", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 1, 0]}
    for path, content in (
        ("/v1/act", body),
        ("/v1/episodes/theirs/outcome", '{"return": 1, "terminated": true, "token": "A"}'),
        ("/v2/models/policy/infer", json.dumps({"inputs": [tensor]})),
    ):
        said = client.post(path, content=content, headers={"Origin": origin})
        assert said.status_code == 415, path
        assert "application/json from a web page, got none" in said.json()["error"]
    assert client.options("/v1/act", headers={"Origin": origin}).status_code == 405
    typed = {"Origin": origin, "Content-Type": "application/json"}
    assert client.post("/v1/act", content=body, headers=typed).status_code == 200
    assert client.post("/v1/act", content=body).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/act", "/v1/policies/policy/act/batch", "/v2/models/policy/infer"]
)
def test_a_path_that_ends_with_a_line_break_is_another_one(client: TestClient, path: str) -> None:
    """It was an error of the server, with a traceback in its log."""
    said = client.post(f"{path}%0A", json=OBSERVATION)
    assert said.status_code == 404
    assert "expected one without a line break" in said.json()["error"]
    assert client.get("/v1/champion%0A").status_code == 404


@pytest.mark.parametrize("path", ["/health/live", "/v1/champion", "/", "/metrics", "/v2"])
def test_head_gives_the_headers_of_get_and_no_body(client: TestClient, path: str) -> None:
    got, headed = client.get(path), client.head(path)
    assert headed.status_code == got.status_code == 200
    assert headed.content == b""
    assert headed.headers["content-type"] == got.headers["content-type"]
    assert client.head("/v1/act").status_code == 405


def test_it_works_behind_a_path_prefix(shared_home: Any) -> None:
    app = create_app(shared_home.settings)
    with TestClient(app, root_path="/policies") as client:
        for path in ("/policies/health/ready", "/policies/v1/champion"):
            assert client.get(path).status_code == 200, path
        assert client.post("/policies/v1/act", json=OBSERVATION).json()["action"] == 1
        described = client.get("/policies/openapi.json").json()
        assert described["servers"] == [{"url": "/policies"}]


def test_the_description_has_every_route_and_resolves(client: TestClient) -> None:
    found = client.get("/openapi.json").json()
    assert set(found["paths"]) >= {"/v1/act", "/v1/episodes/{episode_id}/outcome", "/v1/rollback"}
    references = re.findall(r'"\$ref":\s*"([^"]+)"', client.get("/openapi.json").text)
    assert len(references) > 10
    for reference in references:
        part: Any = found
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
        assert part
    for path, methods in found["paths"].items():
        for operation in methods.values():
            assert {"200", "503"} <= set(operation["responses"])
            named = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))
            assert operation["security"]
    assert found["paths"]["/v1/rollback"]["post"]["security"] == [{"token": []}]


def test_its_examples_run(client: TestClient) -> None:
    found = client.get("/openapi.json").json()
    ran = 0
    for path, methods in found["paths"].items():
        body = methods.get("post", {}).get("requestBody", {}).get("content", {})
        example = body.get("application/json", {}).get("example")
        if example is not None:
            assert client.post(path, json=example).status_code == 200, path
            ran += 1
    assert ran == 2


def test_the_page_of_the_description_loads_nothing(client: TestClient) -> None:
    text = client.get("/docs").text
    assert "POST /v1/act/batch" in text
    assert "<script" not in text
    assert re.findall(r"https?://[^\s\"'<)]+", text) == []


def test_the_description_is_drawn_once_for_each_champion(
    home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing it for each request kept the actions of others waiting."""
    home.first()
    drawn: list[int] = []
    draw = docs.page
    monkeypatch.setattr(docs, "page", lambda said: drawn.append(1) or draw(said))
    with TestClient(create_app(home.settings)) as client:
        assert len({client.get("/docs").text for _ in range(3)}) == 1
        assert len({client.get("/openapi.json").content for _ in range(3)}) == 1
        assert len(drawn) == 1
        home.second(bias=2.0)
        client.app.state.service.poll()
        assert client.get("/docs").status_code == 200
        assert len(drawn) == 2


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_ledger_that_goes_away_makes_it_unready_within_a_second(home: Any, how: str) -> None:
    home.first()
    file = home.settings.home / "ledger.db"
    with TestClient(create_app(home.settings, Limits()), raise_server_exceptions=False) as client:
        said = {**OBSERVATION, "episode_id": "begun"}
        token = client.post("/v1/act", json=said).json()["token"]
        aside = file.with_name("aside.db")
        if how == "removed":
            file.unlink()
        else:
            shutil.copy(file, aside)
            aside.rename(file)
        begun = time.monotonic()
        while client.get("/health/ready").status_code == 200:
            assert time.monotonic() - begun < 1.5
            time.sleep(0.02)
        assert "removed or replaced" in client.get("/health/ready").json()["reason"]
        post = {"return": 1.0, "terminated": True, "token": token}
        lost = client.post("/v1/episodes/begun/outcome", json=post)
        assert lost.status_code == 503  # nothing is acknowledged into the void
        assert client.post("/v1/act", json={**OBSERVATION, "token": token}).status_code == 200
        fresh = client.post("/v1/act", json={**OBSERVATION, "episode_id": "fresh"})
        assert fresh.json()["recorded"] is False


def test_a_path_with_a_slash_too_many_is_not_found(client: TestClient) -> None:
    """A redirect would lead to the host that the client names."""
    for method, path in (("POST", "/v1/act/"), ("GET", "/v2/"), ("GET", "/versions/")):
        answer = client.request(method, path, headers={"Host": "elsewhere"}, follow_redirects=False)
        assert answer.status_code == 404, path
        assert answer.json() == {"error": f"{method} {path}: Not Found"}


@pytest.mark.parametrize("name", ["e\n", "\ne", "e\n\n", "\n"])
def test_an_episode_s_name_ends_with_no_line_break(client: TestClient, name: str) -> None:
    tensor = {"name": "obs", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 1, 0]}
    for answer in (
        client.post("/v1/act", json={**OBSERVATION, "episode_id": name}),
        client.post("/v1/act", json=OBSERVATION, headers={"X-Episode-Id": name.encode()}),
        client.post(
            "/v2/models/policy/infer", json={"inputs": [tensor], "parameters": {"episode_id": name}}
        ),
        client.post(
            f"/v1/episodes/{name.replace(chr(10), '%0A')}/outcome",
            json={"return": 1, "terminated": True, "token": "A"},
        ),
    ):
        assert answer.status_code == 422, answer.text
        assert "1 to 200 of the characters" in answer.json()["error"]
    shown = client.get("/openapi.json").json()["components"]["schemas"]
    said = shown["ActRequest"]["properties"]["episode_id"]["anyOf"][0]
    assert said["pattern"] == r"^(?!\.{1,2}$)[A-Za-z0-9._:@=+-]{1,200}$"  # ECMA has no \\Z
    assert r"\\Z" not in json.dumps(shown)


@pytest.mark.parametrize("name", [".", ".."])
def test_an_episode_has_no_name_that_a_path_loses(client: TestClient, name: str) -> None:
    """Its outcome would be posted to another route: clients and proxies resolve such a path."""
    for given in (
        {"json": {**OBSERVATION, "episode_id": name}},
        {"headers": {"X-Episode-Id": name}},
    ):
        answer = client.post("/v1/act", **{"json": OBSERVATION, **given})
        assert answer.status_code == 422
        assert "not . or .. alone" in answer.json()["error"]
    for fine in (f"...{name}", f"{name}a", f"a{name}"):
        said = client.post("/v1/act", json={**OBSERVATION, "episode_id": fine})
        assert said.status_code == 200
        outcome = {"return": 1, "terminated": True, "token": said.json()["token"]}
        assert client.post(f"/v1/episodes/{fine}/outcome", json=outcome).status_code == 200
