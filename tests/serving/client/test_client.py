"""The client: episodes with their tokens, retries that count once, deadlines, clear errors."""

from __future__ import annotations

import asyncio
import copy
import gzip
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
import pytest

from docs.examples import control_loop
from serving.client import AsyncClient, Client, NotAnswered, Refused, rules
from serving.client.rules import cookies, pause

Answer = Callable[[httpx.Request], httpx.Response]


def client_of(answer: Answer, **options: Any) -> Client:
    client = Client("http://test", **options)
    client._http = httpx.Client(base_url="http://test", transport=httpx.MockTransport(answer))
    return client


def test_it_needs_httpx_alone() -> None:
    check = (
        "import sys, serving.client; "
        "found = {'torch', 'numpy', 'msgspec', 'fastapi', 'srghn', 'pydantic'} & set(sys.modules); "
        "sys.exit(f'imported: {found}' if found else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_episode_returns_its_tokens_and_posts_its_outcome_once() -> None:
    seen: list[tuple[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.path, json.loads(request.content)))
        return httpx.Response(200, json={"action": 1, "token": f"t{len(seen)}", "counted": True})

    client = client_of(answer)
    with client.episode("e1") as episode:
        assert episode.act(np.array([0.5, 1.0])) == 1
        episode.reward(2.0)
        assert episode.act([0.5, 1.0]) == 1
        episode.reward(0.5)
        assert episode.end()["counted"] is True
    assert episode.steps == 2
    assert seen == [
        ("/v1/act", {"observation": [0.5, 1.0], "episode_id": "e1"}),
        ("/v1/act", {"observation": [0.5, 1.0], "episode_id": "e1", "token": "t1"}),
        ("/v1/episodes/e1/outcome", {"return": 2.5, "terminated": True, "token": "t2"}),
    ]


def test_an_outcome_that_something_else_took_is_told_and_can_be_posted_again() -> None:
    """It was lost without a word."""
    answers = [{"action": 1, "token": "t"}, {"ok": True}, {"counted": True}]
    client = client_of(lambda request: httpx.Response(200, json=answers.pop(0)))
    episode = client.episode()
    episode.act([0.0])
    with pytest.raises(Refused, match="expected `counted`, true or false, got null; is this the"):
        episode.end(1.0)
    assert episode.end() == {"counted": True}
    assert episode.end() == {}


def test_a_block_that_fails_posts_no_outcome() -> None:
    paths: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(200, json={"action": 1, "token": "t"})

    def fail() -> None:
        with client_of(answer).episode() as episode:
            episode.act([0.0])
            raise KeyError("the plant")

    with pytest.raises(KeyError):
        fail()
    with client_of(answer).episode():
        pass  # no step: there is nothing to say
    assert paths == ["/v1/act"]


def test_what_is_not_answered_now_is_sent_again_with_the_same_token() -> None:
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        if len(bodies) == 2:
            raise httpx.ConnectError("refused")
        if len(bodies) == 3:
            return httpx.Response(503, json={"error": "starting"})
        return httpx.Response(200, json={"action": 1, "token": f"t{len(bodies)}"})

    episode = client_of(answer).episode("e")
    episode.act([0.0])
    episode.act([0.0])
    assert bodies[1] == bodies[2] == bodies[3]
    assert episode.steps == 2


def test_a_deadline_ends_all_attempts() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503, json={"error": "draining"}, headers={"Retry-After": "60"})

    begun = time.monotonic()
    with pytest.raises(NotAnswered, match=r"within 0\.1 s; it answered 503: draining$"):
        client_of(answer).act([0.0], deadline=0.1)
    assert time.monotonic() - begun < 5


class Dripping:
    """Answers a byte at a time: each comes before httpx's timeouts, the whole answer does not."""

    def __init__(self, head: bytes) -> None:
        self.answer = head + b"x" * 1000
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                line, _ = self.socket.accept()
                threading.Thread(target=self._drip, args=(line,), daemon=True).start()

    def _drip(self, line: socket.socket) -> None:
        with suppress(OSError), line:
            line.recv(65_536)
            for at in range(len(self.answer)):
                line.sendall(self.answer[at : at + 1])
                time.sleep(0.02)


def asked(url: str) -> None:
    with Client(url, deadline=0.2) as client:
        client.act([0.0])


def asked_in_asyncio(url: str) -> None:
    async def ask() -> None:
        async with AsyncClient(url, deadline=0.2) as client:
            await client.act([0.0])

    asyncio.run(ask())


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"


@pytest.mark.parametrize("head", [HEAD, b"HTTP/1.1 200 OK\r\nname: "])
@pytest.mark.parametrize("ask", [asked, asked_in_asyncio])
def test_a_deadline_ends_a_call_whose_answer_drips(ask: Callable[[str], None], head: bytes) -> None:
    dripping = Dripping(head)
    begun = time.monotonic()
    with pytest.raises(NotAnswered, match=r"not answered within 0\.2 s; ReadTimeout: \w"):
        ask(dripping.url)
    assert time.monotonic() - begun < 2.0
    dripping.socket.close()


def test_a_deadline_ends_a_call_whose_request_is_taken_slowly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def read() -> None:
            line, _ = server.accept()
            with suppress(OSError), line:
                while line.recv(65_536):
                    time.sleep(0.02)

        threading.Thread(target=read, daemon=True).start()
        begun = time.monotonic()
        with Client(url) as client, pytest.raises(NotAnswered, match="Timeout"):
            client.act_batch(["x" * 2**20] * 16, deadline=1.0)
        assert time.monotonic() - begun < 3.0


def test_a_refusal_is_said_and_not_repeated() -> None:
    count = []

    def answer(request: httpx.Request) -> httpx.Response:
        count.append(1)
        said = {"error": "observation: expected 4 numbers, got 1", "field": "observation"}
        return httpx.Response(422, json=said)

    with pytest.raises(Refused, match="expected 4 numbers") as caught:
        client_of(answer).act([0.0])
    assert (caught.value.status, caught.value.field, len(count)) == (422, "observation", 1)
    again = copy.copy(caught.value)
    assert (str(again), again.status, again.field) == (str(caught.value), 422, "observation")


def test_however_often_it_has_tried_a_client_waits_no_longer_than_its_longest_pause() -> None:
    assert [pause(attempt, None) for attempt in (0, 1, 100, 5000)] == [0.01, 0.02, 0.5, 0.5]


def test_a_server_that_asks_for_no_pause_is_not_asked_without_one() -> None:
    asked = [rules.Answer(503, {"retry-after": seconds}) for seconds in ("0", "1", "9" * 5000)]
    assert [pause(1, answer) for answer in asked] == [0.02, 1.0, float("inf")]


def played(url: str) -> None:
    with Client(url, deadline=20) as client:
        client.episode().act([0.0])


def played_in_asyncio(url: str) -> None:
    async def play() -> None:
        async with AsyncClient(url, deadline=20) as client:
            await client.episode().act([0.0])

    asyncio.run(play())


def answered(content: bytes, head: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (head, content)


#: A whole answer of something that is no srghn server, and how the client says so.
LIES = {
    "login page": (
        answered(b"<p>Sign in"),
        r"answered \(200\): .* got <p>Sign in; is this the URL",
    ),
    "nothing": (answered(b""), "expected a JSON object, got nothing"),
    "list": (answered(b"[]"), r"got \[\]"),
    "no UTF-8": (answered(b'{"action":1,"token":"\xff"}'), "expected a JSON object"),
    "NaN": (answered(b'{"action":NaN,"token":"t"}'), "expected a JSON object"),
    "deep": (answered(b"[" * 20_000), r"expected a JSON object, got \[{200};"),
    "no action": (answered(b'{"token":"t"}'), "expected `action`, a number or a list, got null"),
    "true": (answered(b'{"action":true,"token":"t"}'), "`action`, .*, got true"),
    "no token": (answered(b'{"action":1}'), "expected `token`, a text, got null"),
    "packed": (
        answered(gzip.compress(b" " * 10_000_000), b"content-encoding: gzip\r\n"),
        "expected a JSON object, got gzip data, which was not asked for; is this the URL",
    ),
    "204": (
        b"HTTP/1.1 204 No Content\r\n\r\n",
        r"answered \(204\): expected a JSON object, got nothing; is this the URL",
    ),
    "202": (
        b'HTTP/1.1 202 Later\r\n\r\n{"action":1,"token":"t"}',
        r"answered \(202\): expected a JSON object, got \{",
    ),
    "infinite": (answered(b'{"action":1e999,"token":"t"}'), "`action`, .*, got Infinity"),
    "too large": (
        answered(b'{"action":[[0],[%b]],"token":"t"}' % (b"9" * 400)),
        r"`action`, a number or a list, got \[\[0\], \[9+\]\]; is this",
    ),
    "texts": (answered(b'{"action":["1"],"token":"t"}'), r"`action`, .*, got \[\"1\"\]"),
    "nobody": (answered(b'{"action":[],"token":"t"}'), r"`action`, .*, got \[\]"),
    "long": (answered(b" " * 70_000), "expected an answer of at most 65536 bytes, got a longer"),
    "moved": (
        b"HTTP/1.1 302 Found\r\nlocation: /login\r\n\r\n",
        r"refused \(302\): .*a redirect to /login; use the URL",
    ),
    "charset": (
        b"HTTP/1.1 500 No\r\ncontent-type: text/html; charset=zlib\r\n\r\n\x1b[2Jno",
        r"refused \(500\): \\x1b\[2Jno",
    ),
    "long reason": (
        b'HTTP/1.1 400 No\r\n\r\n{"error":"a\\n%b","field":{}}' % (b"a" * 10_000),
        r"refused \(400\): a\\na{495}\.\.\.$",
    ),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("play", [played, played_in_asyncio])
def test_what_no_server_of_ours_says_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, play: Callable[[str], None], lie: str
) -> None:
    monkeypatch.setattr("serving.client.rules.LONGEST", 65_536)
    answer, said = LIES[lie]

    def serve() -> None:
        line, _ = server.accept()
        with suppress(OSError), line:
            line.recv(65_536)
            line.sendall(answer)
            line.shutdown(socket.SHUT_WR)
            line.recv(65_536)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(Refused, match=said):
            play(url)


def test_a_batch_has_as_many_actions_as_observations_and_no_cookie_is_kept() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert "cookie" not in request.headers
        return httpx.Response(200, json={"actions": [1]}, headers={"set-cookie": "a=b"})

    client = client_of(answer)
    client._http.cookies = cookies()
    assert client.act_batch([[0.0]]) == [1]
    with pytest.raises(Refused, match="expected 2 actions, got 1"):
        client.act_batch([[0.0], [1.0]])
    answers = [b'{"actions":[[1.5],[-1e999]]}', b'{"actions":[1,null]}']
    client = client_of(lambda request: httpx.Response(200, content=answers.pop(0)))
    for got in (r"\[-Infinity\]", "null"):
        with pytest.raises(
            Refused, match=f"expected `actions`, a number or a list each, got {got}"
        ):
            client.act_batch([[0.0], [1.0]])


def test_lists_in_lists_of_any_depth_are_refused_in_words() -> None:
    for opened, closed in ((b"[", b"]"), (b'{"a":', b"}")):
        for depth in (33, 400, *range(900, 1000, 3)):
            deep = opened * depth + b"1" + closed * depth
            answer = httpx.Response(200, content=b'{"action":%b}' % deep)
            with pytest.raises(Refused, match="is this the URL of"):
                client_of(lambda request, answer=answer: answer).act([0.0])  # type: ignore[misc]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_token_from_a_file_may_end_its_line_and_is_in_no_error(kind: Any) -> None:
    """Such a header cannot be sent: it was tried until the deadline, and the error had it."""
    assert kind("http://test", token="srghn_a\n")._http.headers["authorization"] == "Bearer srghn_a"
    for wrong in ("", " \n", "srghn_\u00e9", "srghn_a\nb", "Bearer srghn_a"):
        with pytest.raises(ValueError, match="as `srghn token add` printed it, got another text"):
            kind("http://test", token=wrong)


class Played:
    """A client, and each of its episodes: `act` gives these, or raises them, one after the other.

    Then it stops the loop, as Ctrl-C does.
    """

    def __init__(self, *given: Any, end: Exception | None = None) -> None:
        self.given, self.begun, self._end = [*given], 0, end
        self.reward = float

    def __call__(self, url: str) -> Played:
        return self

    def __enter__(self) -> Played:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def episode(self) -> Played:
        self.begun += 1
        return self

    def act(self, observation: Any, deadline: float) -> Any:
        found = self.given.pop(0) if self.given else KeyboardInterrupt()
        if isinstance(found, BaseException):
            raise found
        return found

    def end(self) -> None:
        if self._end is not None:
            raise self._end


@pytest.mark.parametrize(("hold", "held"), [(1000.0, 1), (-1.0, 7)])
def test_the_control_loop_goes_on_safely_whatever_the_server_says(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, hold: float, held: int
) -> None:
    """An engineer's copy of it ended at the first refusal, with the plant under way."""
    late, wrong = NotAnswered("late"), Refused(422, "observation[2]: expected", "observation")
    played, applied = Played(late, 1, late, late, wrong, wrong, late, 2, late), []
    monkeypatch.setattr(control_loop, "Client", played)
    monkeypatch.setattr(control_loop, "HOLD", hold)
    monkeypatch.setattr(control_loop, "apply", lambda action: applied.append(action) or 1.0)
    with pytest.raises(KeyboardInterrupt):
        control_loop.run("http://test", seconds=60, hertz=1000, size=4, fallback=7)
    assert applied == [7, 1, held, held, 7, 7, 7, 2, held * 2 if held == 1 else 7]
    assert played.begun == 3
    said = [record.message.split(":")[0] for record in caplog.records]
    again, refused = "the server answers again", "the server refused (422)"
    assert said == ["late", again, "late", refused, "late", again, "late"]


def test_the_control_loop_reports_though_its_outcome_is_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control_loop, "Client", Played(1, end=NotAnswered("nobody answered")))
    found = control_loop.run("http://test", seconds=1e-9, hertz=1000, size=4)
    assert (found["steps"], found["missed"], found["refused"]) == (1, 0, 0)
    assert caplog.messages == ["the outcome is lost: nobody answered"]


@pytest.mark.services
def test_both_clients_and_the_control_loop_against_a_real_server(home: Any, running: Any) -> None:
    home.first()
    with running(home) as (url, _):
        with Client(url, deadline=60) as client:
            assert client.act_batch([[0, 0, 1, 0], [0, 0, -1, 0]]) == [1, 0]
            for bad in (float("nan"), -float("inf")):  # one bad reading ends no control loop
                with pytest.raises(Refused, match=r"observation\[2\]") as refused:
                    client.act([0, 0, bad, 0])
                assert refused.value.status == 422
            with client.episode("sync") as episode:
                for _ in range(3):
                    episode.reward(episode.act(np.array([0, 0, 1, 0])))
        row = home.ledger.find_episode("sync")
        assert (row.length, row.return_) == (3, 3.0)

        async def play() -> None:
            async with (
                AsyncClient(url, deadline=60) as client,
                client.episode("async") as episode,
            ):
                for _ in range(2):
                    episode.reward(await episode.act([0, 0, 1, 0]))
                assert await client.act([0, 0, -1, 0]) == 0
                assert await client.act_batch([[0, 0, 1, 0]]) == [1]
                with pytest.raises(Refused, match=r"observation\[0\]"):
                    await episode.act([float("nan"), 0, 1, 0])

        asyncio.run(play())
        assert home.ledger.find_episode("async").length == 2
        # a busy machine loses steps, which are not made up
        found = control_loop.run(url, seconds=2.0, hertz=50, size=4)
        assert found["steps"] >= 20
        assert found["call_p50_ms"] > 0
