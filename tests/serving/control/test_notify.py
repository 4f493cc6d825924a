"""Webhooks to a real receiver: in order, at least once, verifiable, whatever it does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import update

from serving.control import notify
from serving.control.notify import LAST, Sender, message, send
from serving.registry import schema
from serving.registry.ledger import Ledger
from serving.registry.records import Who
from serving.registry.sinks import CLAIM_SECONDS, Sinks
from srghn.errors import ConfigError, LedgerError, ServiceError
from tests.serving.test_serving_process import wait_for

ANN = Who("ann", "because")


class Receiver:
    """Answers what `answers` says, then 204, once `go` is set; keeps every request it took."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.taken: list[tuple[int, dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.go.wait()
                status = receiver.answers.pop(0) if receiver.answers else 204
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.taken.append((status, headers, body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *given: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook?team=a"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def events(self) -> list[dict[str, Any]]:
        """The events that it said yes to."""
        return [json.loads(body) for status, _, body in self.taken if status < 300]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.go.set()
        receiver.server.shutdown()
        receiver.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def tell(ledger: Ledger, *reasons: str) -> None:
    for reason in reasons:
        ledger.note("drift", {"of": reason}, who=Who("watch", reason))


def sender(ledger: Ledger) -> tuple[Sender, Clock]:
    clock = Clock()
    clock.now = time.time() + 1
    return Sender(ledger, clock), clock


def ended(*senders: Sender) -> None:
    """Close them once all that was begun is sent, and written down as sent."""
    for each in senders:
        each._pool.shutdown()  # `close` cancels what has not begun
        each.close()


def verified(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """As a receiver does it, by the words of Standard Webhooks."""
    key = base64.b64decode(secret.split("_", 1)[1])
    signed = b".".join(
        [headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body]
    )
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return headers["webhook-signature"] == f"v1,{expected}"


def test_events_arrive_in_order_signed_as_cloud_events(ledger: Ledger, receiver: Receiver) -> None:
    sink = Sinks(ledger).add("ops", receiver.url, ("drift",), ANN)
    tell(ledger, "one", "two", "three")
    ledger.note("diagnosis", {}, who=Who("watch", "not asked for"))
    sender(ledger)[0].drain("ops")
    assert [event["data"]["reason"] for event in receiver.events()] == ["one", "two", "three"]
    status, headers, body = receiver.taken[0]
    event = json.loads(body)
    assert (status, headers["content-type"]) == (204, "application/cloudevents+json")
    assert {name: event[name] for name in ("specversion", "type", "source")} == {
        "specversion": "1.0",
        "type": "srghn.drift",
        "source": "/policies/policy",
    }
    assert event["id"] == headers["webhook-id"]
    assert all(verified(sink.secret, headers, body) for _, headers, body in receiver.taken)
    assert not verified(sink.secret, headers, body.replace(b"one", b"two"))
    assert Sinks(ledger).find("ops").pending == 0
    assert ledger.verify()


def test_nobody_is_told_of_what_was_before_or_after(ledger: Ledger, receiver: Receiver) -> None:
    tell(ledger, "before")
    sinks = Sinks(ledger)
    sinks.add("ops", receiver.url, (), ANN)
    tell(ledger, "one")
    assert sinks.find(receiver.url).pending == 1
    sinks.remove("ops", ANN)
    tell(ledger, "after")
    sender(ledger)[0].drain("ops")
    assert receiver.taken == []
    assert [e.action for e in ledger.events()] == [
        "drift", "add_sink", "drift", "remove_sink", "drift",
    ]  # fmt: skip


def test_a_receiver_that_answers_500_gets_each_event_again_in_order(
    ledger: Ledger, receiver: Receiver
) -> None:
    Sinks(ledger).add("ops", receiver.url, ("drift",), ANN)
    tell(ledger, "one", "two")
    receiver.answers = [500, 503, 204, 302]
    sends, clock = sender(ledger)
    for _ in range(6):
        sends.drain("ops")
        clock.now += 8
    assert [event["data"]["reason"] for event in receiver.events()] == ["one", "two"]
    ids = [headers["webhook-id"] for _, headers, _ in receiver.taken]
    assert len(set(ids)) == 2
    assert [status for status, _, _ in receiver.taken] == [500, 503, 204, 302, 204]


def test_a_failed_attempt_waits_twice_as_long_as_the_one_before(
    ledger: Ledger, receiver: Receiver
) -> None:
    sinks = Sinks(ledger)
    sinks.add("ops", receiver.url, ("drift",), ANN)
    tell(ledger, "one")
    receiver.answers = [500] * 3
    sends, clock = sender(ledger)
    waited = []
    for _ in range(3):
        sends.drain("ops")
        start = clock.now
        while not sinks.due(clock.now):
            clock.now += 0.25
        waited.append(clock.now - start)
    assert waited == [1.0, 2.0, 4.0]
    with ledger.database().write() as connection:  # down for months
        connection.execute(update(schema.deliveries).values(attempts=5000))
    receiver.answers = [500]
    sends.drain("ops")
    assert not sinks.due(clock.now + LAST - 1)
    assert sinks.due(clock.now + LAST)
    assert sinks.find("ops").failure == f"{receiver.url} answered 500"


def test_a_receiver_that_was_down_gets_all_of_it_later(ledger: Ledger) -> None:
    with receiving() as gone:
        url = gone.url
    sinks = Sinks(ledger)
    sink = sinks.add("ops", url, ("drift",), ANN)
    tell(ledger, "one", "two")
    sends, clock = sender(ledger)
    sends.drain("ops")
    assert "cannot be reached" in str(sinks.find("ops").failure)
    with receiving() as again:  # on another port: this one's may be taken by now
        with ledger.database().write() as connection:
            connection.exec_driver_sql("UPDATE sinks SET url = ?", (again.url,))
        clock.now += 2
        sends.drain("ops")
        assert [event["data"]["reason"] for event in again.events()] == ["one", "two"]
        assert all(verified(sink.secret, headers, body) for _, headers, body in again.taken)


def test_two_servers_send_each_event_once(ledger: Ledger, receiver: Receiver) -> None:
    Sinks(ledger).add("ops", receiver.url, ("drift",), ANN)
    tell(ledger, *map(str, range(12)))
    first, clock = sender(ledger)
    second = Sender(ledger, clock)

    def looked() -> bool:
        first.look()
        second.look()
        return len(receiver.events()) >= 12

    wait_for(looked)
    ended(first, second)
    assert [event["data"]["reason"] for event in receiver.events()] == list(map(str, range(12)))


def test_a_sender_that_was_killed_in_the_middle_is_followed_by_another(
    ledger: Ledger, receiver: Receiver
) -> None:
    sinks = Sinks(ledger)
    sinks.add("ops", receiver.url, ("drift",), ANN)
    tell(ledger, "one")
    sends, clock = sender(ledger)
    assert sinks.claim("ops", clock.now) is not None  # and then nothing was heard of it
    sends.drain("ops")
    assert receiver.taken == []
    clock.now += CLAIM_SECONDS
    sends.drain("ops")
    assert len(receiver.events()) == 1


def test_a_slow_receiver_keeps_no_other_waiting(ledger: Ledger, receiver: Receiver) -> None:
    receiver.go.clear()
    with receiving() as quick:
        sinks = Sinks(ledger)
        sinks.add("slow", receiver.url, ("drift",), ANN)
        sinks.add("quick", quick.url, ("drift",), ANN)
        tell(ledger, "one", "two")
        sends, _ = sender(ledger)
        sends.look()
        wait_for(lambda: len(quick.events()) == 2)
        assert receiver.events() == []
        receiver.go.set()
        ended(sends)
        assert [event["data"]["reason"] for event in receiver.events()] == ["one", "two"]


class Dripping:
    """Sends a byte at a time, for ever; never a whole answer, nor a TLS handshake."""

    def __init__(self, scheme: str) -> None:
        answer = b"HTTP/1.1 204 No Content\r\n" + b"a: b\r\n" * 10_000
        record = b"\x16\x03\x03\x40\x00" + bytes(0x4000)
        self.bytes = {"http": answer, "https": record}[scheme]
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.over = threading.Event()
        threading.Thread(target=self._drip, daemon=True).start()

    def _drip(self) -> None:
        with suppress(OSError):
            while True:
                line, _ = self.socket.accept()
                threading.Thread(target=self._answer, args=(line,), daemon=True).start()

    def _answer(self, line: socket.socket) -> None:
        with suppress(OSError), line:
            for place in range(len(self.bytes)):
                line.send(self.bytes[place : place + 1])
                if self.over.wait(0.05):
                    return


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_receiver_that_drips_its_answer_is_hung_up_on(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """A byte comes before each of the socket's timeouts; the whole answer has one deadline."""
    monkeypatch.setattr(notify, "TIMEOUT", 0.5)
    dripping, sinks = Dripping(scheme), Sinks(ledger)
    sinks.add("slow", f"{scheme}://127.0.0.1:{dripping.port}/", ("drift",), ANN)
    tell(ledger, "one")
    started = time.monotonic()
    sender(ledger)[0].drain("slow")
    assert 0.4 < time.monotonic() - started < 5
    assert "did not answer in 0.5 s" in str(sinks.find("slow").failure)
    dripping.over.set()
    dripping.socket.close()


@pytest.mark.parametrize("step", ["add", "remove"])
def test_a_sink_and_its_event_are_one_transaction(ledger: Ledger, step: str) -> None:
    """Where the row cannot be written, the ledger says nothing of it."""
    sinks = Sinks(ledger)
    if step == "remove":
        sinks.add("ops", "http://127.0.0.1:1/", (), ANN)
    before = len(ledger.events())
    kind = {"add": "INSERT", "remove": "DELETE"}[step]
    with ledger.database().write() as connection:
        connection.exec_driver_sql(
            f"CREATE TRIGGER full BEFORE {kind} ON sinks BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    does = {
        "add": lambda: sinks.add("ops", "http://127.0.0.1:1/", (), ANN),
        "remove": lambda: sinks.remove("ops", ANN),
    }
    with pytest.raises(LedgerError):
        does[step]()
    assert len(ledger.events()) == before
    assert len(sinks.all()) == (step == "remove")


def test_the_server_sends(
    home: Any, receiver: Receiver, running: Callable[..., AbstractContextManager[Any]]
) -> None:
    """Started as it is in service; the receiver answers 500 first."""
    home.first()
    sink = Sinks(home.ledger).add("ops", receiver.url, (), ANN)
    receiver.answers = [500]
    with running(home):
        tell(home.ledger, "one", "two")
        wait_for(lambda: len(receiver.events()) >= 2)
    assert [event["data"]["reason"] for event in receiver.events()] == ["one", "two"]
    assert all(verified(sink.secret, headers, body) for _, headers, body in receiver.taken)


@pytest.mark.parametrize(
    ("url", "kinds", "said"),
    [
        ("ftp://example.org", (), "http:// or https:// URL"),
        ("http:///hook", (), "http:// or https:// URL"),
        ("http://127.0.0.1:99999/hook", (), "Port out of range"),
        ("http://example.org:80a/hook", (), "Port could not be cast"),
        ("http://[::1/hook", (), "Invalid IPv6 URL"),
        (f"http://{'a' * 70}.org/", (), "no host has such a name"),
        ("http://a..b/", (), "no host has such a name"),
        ("http://exa mple/", (), "no host has such a name"),
        ("http://example.org/hö", (), r"written as %XX"),
        ("http://example.org/hook?a b", (), r"written as %XX"),
        ("http://example.org", ("drfit",), "unknown kinds of events: drfit"),
    ],
)
def test_what_is_no_sink_is_refused(
    ledger: Ledger, url: str, kinds: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Sinks(ledger).add("ops", url, kinds, ANN)


@pytest.mark.parametrize(
    "url", ["http://münchen.example/hook", "https://[::1]:8443/a%C3%B6?b=1", "http://example.org"]
)
def test_an_unusual_url_that_can_be_sent_to_is_taken(ledger: Ledger, url: str) -> None:
    assert Sinks(ledger).add("ops", url, (), ANN).url == url


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999/hook", f"http://{'a' * 70}.org/", "http://127.0.0.1:9/hö"]
)
def test_a_sink_of_before_that_nothing_can_be_sent_to_says_so(ledger: Ledger, url: str) -> None:
    sinks = Sinks(ledger)
    sinks.add("ops", "http://example.org", (), ANN)
    with ledger.database().write() as connection:
        connection.execute(update(schema.sinks).values(url=url))
    tell(ledger, "one")
    sends, clock = sender(ledger)
    sends.drain("ops")
    assert f"{url} cannot be reached" in str(sinks.find("ops").failure)
    assert not sinks.due(clock.now)
    assert sinks.due(clock.now + 1.0)
    [event] = ledger.events(newest=True, limit=1)
    with pytest.raises(ServiceError, match="cannot be reached"):  # as srghn notify test sends
        send(sinks.find("ops"), message(event), 1)


def test_a_failure_of_the_sender_itself_is_an_attempt_that_failed(
    ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    sinks = Sinks(ledger)
    sinks.add("ops", receiver.url, ("drift",), ANN)
    tell(ledger, "one")

    def broken(event: Any) -> None:
        raise KeyError("a bug")

    sends, clock = sender(ledger)
    with monkeypatch.context() as patch:
        patch.setattr(notify, "message", broken)
        sends.drain("ops")
    assert "a bug" in str(sinks.find("ops").failure)
    clock.now += 2
    sends.drain("ops")
    assert len(receiver.events()) == 1


def test_a_clock_that_was_put_back_holds_nothing_up(ledger: Ledger) -> None:
    """One event was told while it was a year ahead."""
    sinks, year = Sinks(ledger), 365 * 86_400
    ahead = Ledger(ledger.database(), clock=lambda: time.time() + year)
    sinks.add("team", "http://127.0.0.1:9", (), ANN)
    tell(ahead, "a year ahead")
    tell(ledger, "now")
    now = time.time()
    assert sinks.due(now) == ["team"]
    delivery = sinks.claim("team", now)
    assert delivery is not None
    assert delivery.event.reason == "a year ahead"
    sinks.failed(delivery, "away", now + LAST)
    assert sinks.due(now) == []
    assert sinks.due(now - 5) == []  # the clock of another host is a moment behind
    assert sinks.claim("team", now - 5) is None


def test_a_ledger_that_cannot_be_written_while_sending_is_said(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Sinks(ledger).add("team", "http://127.0.0.1:9", (), ANN)
    tell(ledger, "one")

    def locked(*_: Any) -> None:
        raise LedgerError("the ledger is locked")

    monkeypatch.setattr(Sinks, "claim", locked)
    sending, _ = sender(ledger)
    sending.look()
    ended(sending)
    assert "cannot deliver to sinks: the ledger is locked" in caplog.text


def test_a_name_is_given_once(ledger: Ledger) -> None:
    sinks = Sinks(ledger)
    sinks.add("ops", "http://127.0.0.1:1/", (), ANN)
    with pytest.raises(ConfigError, match="there is a sink 'ops' already"):
        sinks.add("ops", "http://127.0.0.1:2/", (), ANN)
    with pytest.raises(ConfigError, match="no sink 'dev'; there are: ops"):
        sinks.find("dev")


def test_a_message_is_the_same_at_every_attempt(ledger: Ledger) -> None:
    tell(ledger, "one")
    [event] = ledger.events()
    assert message(event) == message(event)
    sink = Sinks(ledger).add("ops", "http://127.0.0.1:1/", (), ANN)
    with pytest.raises(ServiceError, match="cannot be reached"):
        send(sink, message(event), 1)
