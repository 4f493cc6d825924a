"""Sends events to sinks as signed webhooks: each sink gets them in order and at least once.

The body is a CloudEvent (cloudevents.io, 1.0, structured JSON). The signature is that of Standard
Webhooks (standardwebhooks.com, 1.0.0): headers webhook-id, webhook-timestamp and webhook-signature,
an HMAC-SHA256 over id, timestamp and body. A retry has the same id. Nothing is sent unless a sink
was added. A link in a message only shows a page; it approves nothing.
"""

from __future__ import annotations

import base64
import hmac
import http.client
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from serving.registry.ledger import Ledger
from serving.registry.names import base_of, page_of
from serving.registry.records import Event
from serving.registry.sinks import MOST_SECONDS, Sink, Sinks
from srghn.errors import LedgerError, ServiceError

logger = logging.getLogger(__name__)

#: A receiver must have answered within `TIMEOUT` seconds, even one that sends a byte at a time. The
#: pause after a failed attempt doubles each time, from `FIRST` to `LAST` seconds.
TIMEOUT, FIRST, LAST = 15.0, 1.0, MOST_SECONDS
LOOK_SECONDS = 1.0
TEST = "test"


@dataclass(frozen=True)
class Message:
    """A message: its id, the same in each retry, and the body's bytes."""

    id: str
    body: bytes


def message(event: Event) -> Message:
    """An event as a CloudEvent. Links are relative to the server's page."""
    name = f"{event.seq}-{event.hash[:16]}"
    links = {"page": page_of(event.policy)}
    if event.version is not None:
        links["report"] = f"{base_of(event.policy)}/versions/{event.version}/report"
    told = ("seq", "hash", "version", "from_state", "to_state", "actor", "reason", "generation")
    data = {key: getattr(event, key) for key in told}
    return Message(name, _cloud(name, event.action, event.policy, event.at, {**data, **links}))


def trial_message(now: str) -> Message:
    """The message of `srghn notify test`; it is about no event."""
    name = f"test-{now}"
    return Message(name, _cloud(name, TEST, "policy", now, {"reason": "srghn notify test"}))


def _cloud(name: str, action: str, policy: str, at: str, data: dict[str, Any]) -> bytes:
    return json.dumps(
        {
            "specversion": "1.0",
            "id": name,
            "source": f"/policies/{policy}",
            "type": f"srghn.{action}",
            "time": at,
            "datacontenttype": "application/json",
            "data": {"policy": policy, **data},
        },
        sort_keys=True,
    ).encode()


def sign(secret: str, message: Message, timestamp: int) -> str:
    """The value of webhook-signature. `secret` is `whsec_` and base64; `timestamp` Unix seconds."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{message.id}.{timestamp}.".encode() + message.body
    return "v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode()


def send(sink: Sink, message: Message, timestamp: int) -> None:
    """Post it; raises `ServiceError` unless the receiver answers 2xx in time.

    A redirect is not followed; it counts as a failure like any answer other than 2xx.
    """
    headers = {
        "Content-Type": "application/cloudevents+json",
        "User-Agent": "srghn",
        "webhook-id": message.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(sink.secret, message, timestamp),
    }
    try:
        status = _post(sink.url, message.body, headers)
    except (OSError, ValueError, http.client.HTTPException) as error:
        late = isinstance(error, TimeoutError)
        why = f"did not answer in {TIMEOUT:g} s" if late else f"cannot be reached: {error!r}"
        raise ServiceError(f"{sink.url} {why}") from error
    if not 200 <= status < 300:
        raise ServiceError(f"{sink.url} answered {status}")


def _post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """The status of the answer. A URL that nothing can be sent to raises `ValueError`."""
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _connection(parts.scheme, parts.hostname or "", parts.port)
    timer = threading.Timer(TIMEOUT, connection.hang_up)
    timer.start()
    try:
        connection.request("POST", path, body, headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        if connection.late:
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
        connection.close()


class _Line(http.client.HTTPConnection):
    """A connection that another thread may close at any time.

    A socket's own timeout restarts with each byte, so a very slow receiver could hold it for ever.
    """

    late = False
    _under: socket.socket | None = None

    def connect(self) -> None:
        super().connect()
        self._under = self.sock.dup()  # the TCP connection itself, TLS or not
        if self.late:
            raise TimeoutError("connected too late")

    def hang_up(self) -> None:
        self.late = True
        if self._under is not None:
            with suppress(OSError):  # it has ended already
                self._under.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        super().close()
        if self._under is not None:
            self._under.close()


class _SecureLine(http.client.HTTPSConnection, _Line):
    """The same over TLS, whose handshake begins when `_Line` has connected."""


def _connection(scheme: str, host: str, port: int | None) -> _Line:
    if scheme == "https":
        context = ssl.create_default_context()
        return _SecureLine(host, port, timeout=TIMEOUT, context=context)
    return _Line(host, port, timeout=TIMEOUT)


class Sender:
    """Sends the due events, each sink in its own thread, so a slow one does not delay others.

    Every worker of every server may have a sender; the ledger lets only one send a delivery.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.time) -> None:
        self._sinks, self._clock = Sinks(ledger), clock
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="notify")
        self._busy: dict[str, Future[None]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop. A message that is being sent now may be sent again by the next server."""
        self._over.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def look(self) -> None:
        """Start sending the due events; returns at once."""
        for name in self._sinks.due(self._clock()):
            if name not in self._busy or self._busy[name].done():
                self._busy[name] = self._pool.submit(self.drain, name)
                self._busy[name].add_done_callback(_tell)

    def drain(self, name: str) -> None:
        """Send a sink its due events, in order, until none is left or an attempt fails."""
        while not self._over.is_set():
            delivery = self._sinks.claim(name, self._clock())
            if delivery is None:
                return
            try:
                send(delivery.sink, message(delivery.event), int(self._clock()))
            except Exception as error:  # noqa: BLE001  whatever it is, the sink says it
                pause = min(FIRST * 2 ** min(delivery.attempts, 32), LAST)
                logger.warning("sink %s: %s; next attempt in %g s", name, error, pause)
                self._sinks.failed(delivery, str(error), self._clock() + pause)
                return
            self._sinks.delivered(delivery)

    def _run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001  the next look may succeed
                _log(error)


def _tell(ended: Future[None]) -> None:
    """Log how sending to a sink failed, which nobody else looks at."""
    error = None if ended.cancelled() else ended.exception()
    if error is not None:
        _log(error)


def _log(error: BaseException) -> None:
    bug = None if isinstance(error, LedgerError) else error
    logger.error("cannot deliver to sinks: %s", error, exc_info=bug)
