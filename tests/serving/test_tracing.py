"""Traces by OpenTelemetry: off without a collector, joined to the caller's, only the route."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serving.app import create_app
from serving.tracing import Tracing, tracing_of
from srghn.errors import ConfigError
from tests.serving.test_serving_process import RIGHT, ready, wait_for

TRACE, PARENT = "a" * 32, "b" * 16
OBSERVATION = {"observation": RIGHT}


@pytest.fixture
def traced(shared_home: Any) -> Iterator[tuple[TestClient, Any]]:
    """A client, and a function that gives the spans so far."""
    exporter = InMemorySpanExporter()
    app: Any = create_app(shared_home.settings)
    app.tracing = Tracing(exporter)
    with TestClient(app, raise_server_exceptions=False) as client:

        def spans() -> Any:
            app.tracing._provider.force_flush()
            found = exporter.get_finished_spans()
            exporter.clear()
            return found

        yield client, spans


def test_a_request_is_a_span_of_the_callers_trace(traced: Any) -> None:
    client, spans = traced
    for path in ("/v1/act", "/v1/policies/policy/act"):  # the hot path
        sent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        answer = client.post(path, json=OBSERVATION, headers=sent)
        (span,) = spans()
        assert f"{span.context.trace_id:032x}" == TRACE
        assert f"{span.parent.span_id:016x}" == PARENT
        assert answer.headers["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
        assert span.attributes["http.response.status_code"] == 200
    client.get("/v1/versions/1", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})  # the router
    (span,) = spans()
    assert (span.name, f"{span.context.trace_id:032x}") == ("GET /v1/versions/{version}", TRACE)


def test_without_a_caller_it_begins_a_trace_and_a_wrong_context_is_none(traced: Any) -> None:
    client, spans = traced
    for given in ({}, {"traceparent": "nonsense"}):
        answer = client.post("/v1/act", json=OBSERVATION, headers=given)
        (span,) = spans()
        assert span.parent is None
        assert f"{span.context.trace_id:032x}" in answer.headers["traceparent"]


def test_a_wrong_context_is_not_logged(traced: Any, caplog: pytest.LogCaptureFixture) -> None:
    client, _ = traced
    whole = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    for given in (
        {"traceparent": "0" * 1000},
        {**whole, "tracestate": "a" * 9000},
        {**whole, "tracestate": "no member"},
        {**whole, "tracestate": "a=b,a=c"},
    ):
        assert client.post("/v1/act", json=OBSERVATION, headers=given).status_code == 200
    assert [record.name for record in caplog.records if record.levelname == "WARNING"] == []


def test_a_caller_that_does_not_sample_is_followed(traced: Any) -> None:
    client, spans = traced
    sent = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    answer = client.post("/v1/act", json=OBSERVATION, headers=sent)
    assert spans() == ()
    assert answer.headers["traceparent"].startswith(f"00-{TRACE}-")


def test_a_span_tells_a_route_and_nothing_that_was_sent(traced: Any) -> None:
    client, spans = traced
    secret = "srghn_secret"
    headers = {"Authorization": f"Bearer {secret}"}
    client.post("/v1/episodes/who-am-i/outcome", json={"token": secret}, headers=headers)
    client.get(f"/v1/versions/{secret}?token={secret}", headers=headers)
    client.get(f"/{secret}", headers=headers)
    client.post("/v1/policies/policy/rollback", json={}, headers=headers)
    found = spans()
    assert [span.name for span in found] == [
        "POST /v1/episodes/{episode_id}/outcome",
        "GET /v1/versions/{version}",
        "GET",
        "POST /v1/policies/{policy}/rollback",
    ]
    told = " ".join(span.to_json() for span in found)
    assert secret not in told
    assert "who-am-i" not in told
    assert {name for span in found for name in span.attributes} == {
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "url.scheme",
    }
    codes = [span.attributes["http.response.status_code"] for span in found]
    assert codes == [422, 422, 404, 401]


def test_a_failure_is_an_error_of_the_span(traced: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client, spans = traced
    monkeypatch.setattr(client.app.service.ledger, "served", None)
    assert client.get("/v1/champion").status_code == 500
    (span,) = spans()
    assert span.status.status_code.name == "ERROR"


def test_it_is_off_without_a_collector_and_says_what_it_lacks(
    shared_home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracing_of(shared_home.settings) is None
    name = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    monkeypatch.setitem(sys.modules, name, None)
    settings = shared_home.settings.model_copy(update={"traces": "http://127.0.0.1:4318"})
    with pytest.raises(ConfigError, match=r"pip install 'srghn\[otel\]'"):
        tracing_of(settings)


@pytest.mark.services
def test_a_real_server_sends_them_to_the_collector(home: Any, running: Any) -> None:
    got: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *said: Any) -> None:
            pass

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    home.first()
    where = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    log = {"SRGHN_TRACES": where, "SRGHN_LOG": "json"}
    with running(home, environment=log) as (url, process):
        wait_for(ready(url))
        sent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        assert httpx.post(f"{url}/v1/act", json=OBSERVATION, headers=sent).status_code == 200
        process.terminate()
        assert process.wait(30) == 0  # what is left is sent at the end
    collector.shutdown()
    collector.server_close()
    told = [body for path, body in got if path == "/v1/traces" and b"POST /v1/act" in body]
    assert any(bytes.fromhex(TRACE) in body for body in told)
    assert json.loads((home.settings.home / "server.log").read_text().splitlines()[0])
