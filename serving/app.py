"""The HTTP application: serves the champion, tries the canary, shows the reports."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.description import describe
from serving.door import Auth
from serving.eager import in_task
from serving.hot import HotPath
from serving.http import RequestIds, host_header, host_of, path_of, without_body
from serving.limits import Limits
from serving.pages.refusals import fail, refuse
from serving.policy import PolicyService
from serving.registry.texts import written_out
from serving.routes import act, decide, docs, health, home, oip, policies, review, versions
from serving.schemas import BadRequest
from serving.service import ASKED, OF, Service, service_of
from serving.settings import Settings, load_settings
from serving.tracing import Tracing, tracing_of
from srghn.errors import ArtefactError, LedgerError

logger = logging.getLogger(__name__)

#: Most headers Host, as they were written, that are known to be right.
_HOSTS = 100
#: What a header Host may be (RFC 3986, 3.2.2): an address in brackets or a name, and a port.
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(:\d*)?", re.ASCII)


class Application(FastAPI):
    """FastAPI with the hot path, which bypasses its middleware and its router and needs no task."""

    service: Service
    _hosts: set[bytes]
    tracing: Tracing | None = None
    _hot: dict[str, HotPath]
    _described: tuple[dict[str, str], dict[str, Any]] | None = None
    _drawn: dict[str, str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
        elif self.tracing is None:
            await self._answer(scope, receive, send)
        else:
            await self.tracing.run(self._answer, scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            host = host_header(scope)
            if host not in self._hosts:
                self._check_host(host, host_of(scope))
            if scope["path"].endswith("\n"):  # which a route's pattern takes for nothing
                raise BadRequest(404, "path", "one without a line break", repr(scope["path"][:80]))
            scope = self.service.direct(scope)
        except BadRequest as error:
            await self._refuse(error, scope, receive, send)
            return
        hot = self._hot_of(scope.get(OF) or self.service.default)
        path = path_of(scope)
        handler = hot.find(scope["method"], path)
        if handler is not None:
            await hot.answer(handler, path, scope, receive, send)
            return
        scope = self.service.sessions.alone(scope)
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
            await in_task(super().__call__(scope, receive, without_body(send)))
        else:
            await in_task(super().__call__(scope, receive, send))

    def _check_host(self, host: bytes, name: str) -> None:
        """Raise `BadRequest` if a header Host is no host (400) or names one not served (421)."""
        if not _HOST.fullmatch(host.strip(b" \t")):  # the parser leaves spaces at its end
            got = repr(host[:80].decode("latin-1"))
            raise BadRequest(400, "Host", "a name or an address, and maybe a port", got)
        if not self.service.settings.serves(name):
            hint = "SRGHN_HOSTS sets the names that this server answers to"
            raise BadRequest(421, "Host", "one that is served here", repr(name[:80]), hint=hint)
        if len(self._hosts) < _HOSTS:
            self._hosts.add(host)

    async def _refuse(self, error: BadRequest, scope: Scope, receive: Receive, send: Send) -> None:
        scope = self.service.sessions.alone(scope)
        said = await refuse(Request(scope), error, self.service.sessions)
        await said(scope, receive, send)

    def _hot_of(self, policy: PolicyService) -> HotPath:
        found = self._hot.get(policy.name)
        if found is None:
            found = self._hot[policy.name] = HotPath(self.service, policy)
        return found

    def openapi(self) -> dict[str, Any]:
        """The description of all routes, with the observations of the current champions."""
        policies = sorted(self.service.policies.items())
        champions = {name: policy.follower.served.champion for name, policy in policies}
        served = {name: found for name, found in champions.items() if found is not None}
        known = {name: found.digest for name, found in served.items()}
        if self._described is None or self._described[0] != known:
            self.openapi_schema = None
            self._described, self._drawn = (known, describe(super().openapi(), served)), {}
        return self._described[1]

    def drawn(self, kind: str, draw: Callable[[dict[str, Any]], str]) -> str:
        """The description as text, drawn once: that takes milliseconds of the event loop."""
        description = self.openapi()
        if kind not in self._drawn:
            self._drawn[kind] = draw(description)
        return self._drawn[kind]


def create_app(settings: Settings | None = None, limits: Limits | None = None) -> FastAPI:
    """One worker's application. Raises `LedgerError` if the ledger cannot be opened.

    It reads the ledger once before it takes requests, so the first request already gets the
    champion.
    """
    service = Service((settings or load_settings()).resolved(), limits or Limits())
    app = Application(
        title="srghn",
        version="1",
        description="The champion, its canary, and the reports that promoted them.",
        docs_url=None,  # FastAPI's page loads scripts from elsewhere; ours is at /docs
        openapi_url=None,  # and it encodes the description anew for each request
        redoc_url=None,
        redirect_slashes=False,  # a redirect is built from the Host that the client names
        lifespan=_lifespan,
    )
    app.state.service = app.service = service
    app._hot, app._hosts = {}, set()
    app.tracing = tracing_of(service.settings)
    app.add_middleware(Auth, keeper=service.keeper, sessions=service.sessions)
    app.add_middleware(RequestIds)
    for module in (act, oip, policies, versions, review, health, home, decide, docs):
        app.include_router(module.router)
    app.add_exception_handler(BadRequest, _refused)
    app.add_exception_handler(LedgerError, _unavailable)
    app.add_exception_handler(ArtefactError, _unstored)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    await asyncio.to_thread(service.poll)
    following = asyncio.create_task(service.run())
    service.sender.start()
    yield
    service.sender.close()
    service.draining = True
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
    service.close()
    if isinstance(app, Application) and app.tracing is not None:
        await asyncio.to_thread(app.tracing.close)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadRequest)
    return await refuse(request, error, service_of(request).sessions)


async def _unavailable(request: Request, error: Exception) -> Response:
    logger.error("%s %s: %s", request.method, _asked(request), error)
    said = f"the ledger cannot be used now: {error}"
    return await fail(request, 503, said, service_of(request).sessions)


async def _unstored(request: Request, error: Exception) -> Response:
    """The answer if a candidate or report is damaged, or its store does not answer."""
    logger.error("%s %s: %s", request.method, _asked(request), error)
    return await fail(request, 503, str(error), service_of(request).sessions)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = f"{request.method} {_asked(request)}: {error.detail}"
    headers = dict(error.headers or {})
    return await fail(request, error.status_code, said, service_of(request).sessions, headers)


def _asked(request: Request) -> str:
    """The path as the caller wrote it, without what would steer the terminal that shows the log."""
    return written_out(str(request.scope.get(ASKED, request.url.path)))


async def _bug(request: Request, error: Exception) -> Response:
    return await fail(request, 500, "an error of the server; its log has the cause", None)
