"""Traces of requests by OpenTelemetry, if a collector is named; otherwise nothing is imported.

Each request is a span, named by its route; the caller's `traceparent` is its parent. A span holds
no body and no token. It holds no version either, because a trial must not reveal the arm.
"""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access import template_of
from serving.calls import OwnTrace
from serving.http import path_of
from serving.protocol import REPLY, Reply
from serving.settings import Settings
from srghn.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

_NAMED = re.compile(r"/v1/policies/[^/]+/")


class Tracing:
    """Makes the spans of one worker; a separate thread passes them to the exporter."""

    def __init__(self, exporter: SpanExporter, share: float = 1.0) -> None:
        """`share` is the part of traces that begin here to keep; callers' sampling is respected."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=Resource.create({"service.name": "srghn"}),
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("srghn")
        self._propagator = TraceContextTextMapPropagator()
        # it warns of each wrong context, and callers must not fill the log
        logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request within a span."""
        from opentelemetry.trace import SpanKind

        headers = {n: v for n, v in scope["headers"] if n in (b"traceparent", b"tracestate")}
        carrier = {name.decode(): value.decode("latin-1") for name, value in headers.items()}
        route = _route(scope)
        with self._tracer.start_as_current_span(
            f"{scope['method']} {route}" if route else scope["method"],
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": scope["method"],
                "url.scheme": scope.get("scheme", "http"),
                **({"http.route": route} if route else {}),
            },
        ) as span:
            await app(_within(scope, span), receive, partial(_seen, span, send))

    def close(self) -> None:
        """Send the remaining spans and stop."""
        self._provider.shutdown()


def tracing_of(settings: Settings) -> Tracing | None:
    """Tracing by the settings; None if they name no collector.

    Raises `ConfigError` if OpenTelemetry is not installed.
    """
    if not settings.traces:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigError(
            f"SRGHN_TRACES needs OpenTelemetry ({error}); pip install 'srghn[otel]', or unset it"
        ) from error
    return Tracing(OTLPSpanExporter(endpoint=settings.traces), settings.traces_share)


def _route(scope: Scope) -> str | None:
    """The route's pattern; so span names never hold a caller's own text."""
    path = path_of(scope)
    inner = _NAMED.sub("/v1/", path, count=1) if _NAMED.match(path) else path
    found = template_of(scope["method"], inner)
    if found is None or inner is path:
        return found
    return f"/v1/policies/{{policy}}/{found.removeprefix('/v1/')}"


def _within(scope: Scope, span: Span) -> Scope:
    """The scope with the span as the request's trace context, for logs and the answer."""
    context = span.get_span_context()
    flags = int(context.trace_flags)
    own = OwnTrace(f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}".encode())
    headers = [(name, value) for name, value in scope["headers"] if name != b"traceparent"]
    inner = {**scope, "headers": [*headers, (b"traceparent", own)]}
    short: Reply | None = scope.get("extensions", {}).get(REPLY)
    if short is not None:
        inner["extensions"] = {**scope["extensions"], REPLY: partial(_short, span, short)}
    return inner


async def _seen(span: Span, send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        _status(span, message["status"])
    await send(message)


def _short(span: Span, reply: Reply, status: int, lines: bytes, body: bytes) -> Any:
    _status(span, status)
    return reply(status, lines, body)


def _status(span: Span, status: int) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)
