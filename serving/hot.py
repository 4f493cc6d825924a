"""The hot path: actions, without the framework's own handling, which takes longer than the policy.

The same endpoints stand in the application's router for its description in /openapi.json.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import orjson
from numpy.typing import NDArray
from starlette.types import Receive, Scope, Send

from serving.batches import quick_batch
from serving.calls import JSON, Call
from serving.control.pins import NotReady
from serving.control.routing import Face, Served
from serving.explain import parse
from serving.predictor import Predictor
from serving.schemas import (
    EPISODE_PATTERN,
    ActRequest,
    BadRequest,
    BatchRequest,
    check_one,
    observations,
)
from serving.service import MODEL, Service
from serving.tensors import DATATYPES, OUTPUT, InferRequest, batch, read
from srghn.errors import LedgerError

logger = logging.getLogger(__name__)

_ACT = msgspec.json.Decoder(ActRequest)
_BATCH = msgspec.json.Decoder(BatchRequest)
_EPISODE = re.compile(EPISODE_PATTERN)
_BINARY_TYPES = {"i": "<i8", "f": "<f4"}
#: A longer body is parsed in a thread of its own, so that others are answered meanwhile.
LONG = 65_536

#: Who answered, the body, and header lines beside those of who answered.
Said = tuple[Face, bytes, bytes]
Handler = Callable[[Call], Awaitable[Said]]


class HotPath:
    """Answers inference requests of one worker."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._follower, self._counts = service.follower, service.metrics.counts
        self._handlers: dict[str, Handler] = {
            "/v1/act": self._act,
            "/v1/act/batch": self._batch,
            f"/v2/models/{MODEL}/infer": self._infer,
        }

    def find(self, scope: Scope) -> Handler | None:
        """The handler of a request, or None if it is not for the hot path."""
        if scope["method"] != "POST":
            return None
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        found = self._handlers.get(path)
        if found is None and path.startswith("/v2/models/") and path.endswith("/infer"):
            return self._infer_version
        return found

    async def answer(self, handler: Handler, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: counted, timed, and refused in words."""
        counts, begun = self._counts, time.perf_counter()
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        call = Call(scope, receive, send, path)
        route, status = "none", 500
        counts.inflight(1)
        try:
            if self._service.keeper.closed("POST", path):
                await self._service.keeper.admit(call.header(b"authorization"), "infer")
            face, body, more = await handler(call)
            route, status = face.route, 200
            await call.reply(200, body, face.lines + more)
        except BadRequest as error:
            status = error.status
            await call.refuse(error)
        except LedgerError as error:
            status = 503
            logger.error("POST %s: %s", path, error)
            await call.refuse(NotReady(f"the ledger cannot be used now: {error}"))
        finally:
            counts.inflight(-1)
            counts.request(route, status, time.perf_counter() - begun)

    async def _act(self, call: Call) -> Said:
        body = await call.body(self._limit(1))
        said = parse(_ACT, body)
        episode = episode_of(said.episode_id or None, call.header(b"x-episode-id"))
        if episode is not None:
            served, predictor = await self._service.pins.choose(episode)
        else:
            served, predictor = self._service.choose(call.header(b"x-client-key"))
        check_one(said.observation, predictor.observation_size)
        predictor, action = self._service.act_one(served, predictor, said.observation)
        face = served.face(predictor)
        if type(action) is int:
            return face, b'{"action":%d%b}' % (action, face.fields), JSON
        return face, b'{"action":%b%b}' % (orjson.dumps(action), face.fields), JSON

    async def _batch(self, call: Call) -> Said:
        limits = self._service.limits
        body = await call.body(self._limit(limits.batch))
        served, predictor = self._service.choose(call.header(b"x-client-key"))
        array = await _aside(len(body), _observations, body, predictor, limits.batch)
        predictor, actions = await _aside(
            len(body), self._service.predict, served, predictor, array
        )
        face = served.face(predictor)
        shown = orjson.dumps(actions, option=orjson.OPT_SERIALIZE_NUMPY)
        return face, b'{"actions":%b%b}' % (shown, face.fields), JSON

    async def _infer(self, call: Call) -> Said:
        return await self._answer_tensors(call, None)

    async def _infer_version(self, call: Call) -> Said:
        """By the path: any model's name, a version's number."""
        parts = call.path.split("/")[3:-1]
        wanted = parts[2] if len(parts) == 3 and parts[1] == "versions" else None
        if len(parts) not in (1, 3) or (len(parts) == 3 and wanted is None):
            raise BadRequest(404, "path", "/v2/models/MODEL/infer", repr(call.path[:80]))
        return await self._answer_tensors(call, self._service.find(parts[0], wanted))

    async def _answer_tensors(self, call: Call, found: tuple[Served, Predictor] | None) -> Said:
        limits = self._service.limits
        body = await call.body(self._limit(limits.batch))
        head = call.header(b"inference-header-content-length")
        said, binary = await _aside(len(body) if head is None else 0, read, body, head)
        served, predictor = found or await self._route(call, said)
        size = predictor.observation_size
        array = await _aside(len(body), batch, said, binary, size, limits.batch)
        predictor, actions = await _aside(
            len(body), self._service.predict, served, predictor, array
        )
        face = served.face(predictor)
        content, more = tensor_answer(said, predictor, actions, face)
        return face, content, more

    async def _route(self, call: Call, said: InferRequest) -> tuple[Served, Predictor]:
        """As `/v1/act` does: by episode, by client, or by chance."""
        episode = episode_of(said.episode, call.header(b"x-episode-id"))
        if episode is not None:
            return await self._service.pins.choose(episode)
        return self._service.choose(call.header(b"x-client-key"))

    def _limit(self, count: int) -> int:
        champion = self._follower.served.champion
        if champion is None:
            raise NotReady(self._follower.served.problem)
        return self._service.limits.of_body(count, champion.observation_size)


async def _aside(length: int, work: Callable[..., Any], *arguments: Any) -> Any:
    """Do the work here if the body is short, else in a thread."""
    if length <= LONG:
        return work(*arguments)
    return await asyncio.to_thread(work, *arguments)


def _observations(body: bytes, predictor: Predictor, limit: int) -> NDArray[Any]:
    found = quick_batch(body, predictor.observation_size, limit)
    if found is not None:
        return found
    rows = parse(_BATCH, body).observations
    return observations(rows, predictor.observation_size, limit, "observations[{}]")


def tensor_answer(
    said: InferRequest, predictor: Predictor, actions: NDArray[Any], face: Face
) -> tuple[bytes, bytes]:
    """The protocol's answer: all JSON, or JSON and then the tensor's bytes, as was asked."""
    output: dict[str, Any] = {
        "name": OUTPUT,
        "shape": list(actions.shape),
        "datatype": DATATYPES[predictor.action_kind],
    }
    content: dict[str, Any] = {"model_name": MODEL, "model_version": face.version}
    if isinstance(said.id, str):
        content["id"] = said.id
    content["outputs"] = [output]
    if not said.wants_binary:
        output["data"] = actions.ravel()
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), JSON
    data = actions.astype(_BINARY_TYPES[predictor.action_kind], copy=False).tobytes()
    output["parameters"] = {"binary_data_size": len(data)}
    head = orjson.dumps(content)
    lines = b"content-type: application/octet-stream\r\n"
    return head + data, lines + b"inference-header-content-length: %d\r\n" % len(head)


def episode_of(in_body: str | None, in_header: str | None) -> str | None:
    """The episode a request belongs to; raises `BadRequest` if header and body differ."""
    if in_header is None:
        return in_body
    if not _EPISODE.match(in_header):
        raise bad_episode("X-Episode-Id", in_header)
    if in_body not in (None, in_header):
        raise BadRequest(422, "X-Episode-Id", f"the body's {in_body!r}", repr(in_header))
    return in_header


def bad_episode(field: str, got: str) -> BadRequest:
    return BadRequest(
        422, field, "1 to 200 of the characters A-Z a-z 0-9 . _ : @ = + -", repr(got[:80])
    )
