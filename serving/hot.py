"""The hot path: answers inference requests without the framework, which is slower than a policy.

The application's router has the same endpoints, for the description in /openapi.json.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.types import Receive, Scope, Send

from serving.access import INFER, OUTCOME
from serving.aside import LONG, aside
from serving.auth import caller_of
from serving.batches import quick_batch
from serving.calls import JSON, Call, trace_of
from serving.control.episodes import Ended, NotReady
from serving.control.routing import Face, Served
from serving.explain import parse
from serving.forms import Forms
from serving.leaves import are_leaves, form_for, forms_of, leaf_batch
from serving.logs import REQUEST
from serving.native import (
    NativeRequest,
    batches_of,
    check_marks,
    forms_of_one,
    native_batch,
    read_act,
    read_batch,
)
from serving.policy import PolicyService
from serving.predictor import Predictor
from serving.registry.episodes import UnknownEpisode
from serving.schemas import (
    EPISODE_PATTERN,
    EPISODE_TEXT,
    ActRequest,
    BadRequest,
    BatchRequest,
    OutcomeRequest,
    check_count,
    check_one,
    observations,
)
from serving.service import ASKED, Service
from serving.tensors import DATATYPES, OUTPUT, InferRequest, batch, one, plain, read, rows, split
from serving.trial.tokens import Episode
from srghn.errors import LedgerError, TransitionRefused

logger = logging.getLogger(__name__)

_OUTCOME = msgspec.json.Decoder(OutcomeRequest)
_BATCH = msgspec.json.Decoder(BatchRequest)
_EPISODE = re.compile(EPISODE_PATTERN)
_BINARY_TYPES = {"i": "<i8", "f": "<f4"}
#: A request may have so many forms of its observation, before its body is looked at closely.
FORMS = 16

#: Who answered, the body, and further header lines.
Said = tuple[Face, bytes, bytes]
#: Observations (n, d) in tensors; one alone is a list, for which no array is made.
Tensors = list[float] | NDArray[np.float32]
Handler = Callable[[Call], Awaitable[Said]]


class HotPath:
    """Answers the inference requests for one policy in one worker."""

    def __init__(self, service: Service, policy: PolicyService) -> None:
        self._limits, self._keeper, self._policy = service.limits, service.keeper, policy
        self._room = service.room
        self._follower, self._counts = policy.follower, policy.metrics.counts
        self._handlers: dict[str, Handler] = {
            "/v1/act": self._act,
            "/v1/act/batch": self._batch,
            f"/v2/models/{policy.name}/infer": self._infer,
        }

    def find(self, method: str, path: str) -> Handler | None:
        """The handler of a request, or None if it is not for the hot path."""
        if method != "POST":
            return None
        found = self._handlers.get(path)
        if found is not None:
            return found
        if path.startswith("/v1/episodes/") and path.endswith("/outcome"):
            return self._outcome
        if path.startswith("/v2/models/") and path.endswith("/infer"):
            return self._infer_version
        return None

    async def answer(
        self, handler: Handler, path: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer one request, count it and time it. Errors become answers with a text."""
        counts, begun = self._counts, time.perf_counter()
        call = Call(scope, receive, send, path, self._room)
        route, status = "none", 500
        counts.inflight(1)
        try:
            keeper, ends = self._keeper, handler == self._outcome
            if keeper.outcomes if ends else keeper.infer:
                found, needed = call.header(b"authorization"), OUTCOME if ends else INFER
                caller = caller_of(scope)
                call.token = await keeper.admit(found, needed, caller, self._policy.name)
            face, body, more = await handler(call)
            route, status = face.route, 200
            await call.reply(200, body, face.lines + more)
        except BadRequest as error:
            status = error.status
            await call.refuse(error)
        except LedgerError as error:
            status = 503
            REQUEST.set((call.id.decode(), trace_of(call.headers.get(b"traceparent"))))
            logger.error("POST %s: %s", scope.get(ASKED, path), error)
            text = f"the ledger cannot be used now: {error}"
            await call.refuse(BadRequest.said(503, "ledger", text))
        except Exception:  # a bug; the client still gets an answer
            REQUEST.set((call.id.decode(), trace_of(call.headers.get(b"traceparent"))))
            logger.exception("POST %s", scope.get(ASKED, path))
            await call.reply(
                500, b'{"error":"an error of the server; its log has the cause"}', JSON
            )
        finally:
            if call.held:
                call.release()
            counts.inflight(-1)
            counts.request(route, status, time.perf_counter() - begun)

    async def _act(self, call: Call) -> Said:
        body = await call.body(self._limit(1), self._smaller)
        served, long = self._follower.served, len(body) > LONG
        said = await aside(partial(_read_long, body, served)) if long else read_act(body, served)
        name = episode_of(said.episode_id or None, call.header(b"x-episode-id"))
        token = said.token or call.header(b"x-episode-token")
        flat = said.observation if isinstance(said, ActRequest) else []
        forms: Forms[list[float]] | None = None
        if flat and len(flat) == served.size:
            check_one(flat, len(flat))  # once, for whichever arm
        else:
            forms = forms_of_one(said, served, long)
        served, predictor, episode = await self._choose(call, served, name, token, forms)
        if forms is None and len(flat) != predictor.observation_size:  # it is no arm
            forms = forms_of_one(said, served, long)
        if forms is not None and long:  # it is known then
            await aside(partial(forms, predictor))
        observation = flat if forms is None else forms(predictor)
        self._copy(served, observation, episode, call.owner)
        if episode is None:
            answered, action = self._policy.act_one(served, predictor, observation, forms)
            face = served.face(answered)
            fields = face.fields
        else:
            answered, action, memory = self._policy.step_one(
                served, predictor, observation, episode.memory, forms
            )
            if answered is predictor:  # else the champion answered, maybe with another form of it
                self._policy.samples.offer(episode, observation)
            face = served.face(answered)
            fields = face.fields + self._sealed(episode, answered, memory)
        shown = b"%d" % action if type(action) is int else orjson.dumps(action)
        return face, b'{"action":%b%b}' % (shown, fields), JSON

    async def _choose(
        self,
        call: Call,
        served: Served,
        name: str | None,
        token: str | None,
        forms: Forms[Any] | None,
    ) -> tuple[Served, Predictor, Episode | None]:
        """The version that answers: by the episode's token, its name, the client, or at random.

        `forms` are the observation's, not yet checked; None: it was, for all arms alike. They are
        checked before the start of an episode is written, and for both arms while no answer may
        tell its arm.
        """
        episodes = self._policy.episodes
        joins = not served.asked if forms is None else forms.joins
        if token is not None:
            episode = episodes.open(token)
            if name is not None and name != episode.name:
                raise BadRequest(422, "token", f"one of episode {name!r}", "another episode's")
            if forms is not None and served.hides(episode.trial):
                await _check(forms, served.arms)
            return await episodes.go_on(episode)
        if name is not None:
            if forms is not None and not episodes.knows(name):
                await _check(forms, served.arms if joins else served.arms[:1])
            served, predictor, episode = await episodes.begin(served, name, joins)
            if episode.loose and (predictor.state_size or served.stateful):
                raise BadRequest(
                    422, "token", "the token of this episode's last answer", "nothing",
                    hint="the policy keeps a state from step to step, which the token carries; "
                    "return it, or begin another episode",
                )  # fmt: skip
            return served, predictor, episode
        return served, self._policy.choose(served, call.header(b"x-client-key"), joins), None

    def _sealed(self, episode: Episode, answered: Predictor, memory: bytes) -> bytes:
        """The answer's last fields: the episode's next token, and whether its outcome is kept."""
        recorded = b"" if episode.recorded else b',"recorded":false'
        token = self._policy.episodes.seal(episode, answered.version, memory)
        return b'%b,"token":"%b"' % (recorded, token.encode())

    async def _outcome(self, call: Call) -> Said:
        """Record how an episode ended, as evidence in a trial. An outcome counts once."""
        limit = self._limits.small_body + 2 * self._follower.served.memory_bytes
        said = parse(_OUTCOME, await call.body(limit))
        episode = self._of_path(call, said.token or call.header(b"x-episode-token"))
        served = self._follower.served
        shown: dict[str, Any] = {"episode_id": episode.name, "length": episode.steps}
        if not episode.recorded:
            shown |= {"counted": False, "recorded": False}
            return served.nobody(), orjson.dumps(shown), JSON
        try:
            ended = Ended(episode, said.return_, said.terminated, call.owner)
            stored = await self._policy.episodes.end(ended)
        except UnknownEpisode as error:
            raise BadRequest(404, "episode_id", "an episode of this server", str(error)) from error
        except TransitionRefused as error:
            raise BadRequest(409, "episode_id", "one outcome per episode", str(error)) from error
        shown["counted"] = stored.counted
        if served.blind and stored.epoch is not None:  # a paused trial stays blind too
            shown["route"] = "trial"
        else:
            shown |= {"version": stored.version, "route": stored.route}
        return served.nobody(), orjson.dumps(shown), JSON

    def _of_path(self, call: Call, token: str | None) -> Episode:
        """The episode in the path, proven by its token; raises `BadRequest`."""
        parts = call.path.split("/")
        if len(parts) != 5 or not _EPISODE.fullmatch(parts[3]):
            raise bad_episode("episode_id", "/".join(parts[3:-1]))
        if not token:
            raise BadRequest(
                422, "token", "the token of this episode's last answer", "nothing",
                hint="every answer of an episode has one; return it with the next request",
            )  # fmt: skip
        episode = self._policy.episodes.open(token)
        if episode.name != parts[3]:
            raise BadRequest(422, "token", f"one of episode {parts[3]!r}", "another episode's")
        return episode

    async def _batch(self, call: Call) -> Said:
        limits = self._limits
        body = await call.body(self._limit(limits.batch), self._smaller)
        work = partial(self._act_batch, body, call.header(b"x-client-key"), call.owner)
        served, predictor, actions = work() if len(body) <= LONG else await aside(work)
        face = served.face(predictor)
        if actions.dtype.kind == "f":  # the digits that /v1/act writes
            actions = actions.astype(np.float64)
        shown = orjson.dumps(actions, option=orjson.OPT_SERIALIZE_NUMPY)
        return face, b'{"actions":%b%b}' % (shown, face.fields), JSON

    def _act_batch(
        self, body: bytes, client: str | None, owner: str | None
    ) -> tuple[Served, Predictor, NDArray[Any]]:
        limit, served = self._limits.batch, self._follower.served
        several = b'"forms"' in body
        if several or not served.flat:
            check_marks(body, served.marks, limit)
        if several:
            forms = batches_of(read_batch(body), served, limit)
        else:
            forms = Forms(served, partial(_observations, body, served, limit=limit))
        predictor = self._policy.choose(served, client, forms.joins)
        array = forms(predictor)
        self._copy(served, array[0], None, owner)
        return served, *self._policy.predict(served, predictor, array, forms)

    async def _infer(self, call: Call) -> Said:
        return await self._answer_tensors(call, None)

    async def _infer_version(self, call: Call) -> Said:
        """Answer with the version whose number is in the path."""
        parts = call.path.split("/")[3:-1]
        if len(parts) != 3 or parts[1] != "versions":
            raise BadRequest(404, "path", "/v2/models/MODEL/infer", repr(call.path[:80]))
        return await self._answer_tensors(call, self._policy.find(parts[2]))

    async def _answer_tensors(self, call: Call, found: tuple[Served, Predictor] | None) -> Said:
        limits = self._limits
        body = await call.body(self._limit(limits.batch), self._smaller)
        head, binary = split(body, call.header(b"inference-header-content-length"))
        said = read(head) if len(head) <= LONG else await aside(partial(read, head))
        name, token = None, None
        if found is None:
            name = episode_of(said.episode, call.header(b"x-episode-id"))
            token = said.token or call.header(b"x-episode-token")
        served, predictor = found or (self._follower.served, None)
        alone = (name or token) is not None
        read_for = partial(self._tensors, said, binary, served, alone)
        forms = Forms(served, read_for, *forms_of(said), long=len(body) > LONG)
        episode: Episode | None = None
        if predictor is None:
            served, predictor, episode = await self._choose(call, served, name, token, forms)
        work = partial(self._act_tensors, forms, served, predictor, episode, call.owner)
        answered, actions, memory = await aside(work) if forms.long else work()
        face, sealed = served.face(answered), None
        if episode is not None:
            sealed = self._policy.episodes.seal(episode, answered.version, memory)
        content, more = tensor_answer(self._policy.name, said, answered, actions, face, sealed)
        return face, content, more

    def _act_tensors(
        self,
        forms: Forms[Tensors],
        served: Served,
        predictor: Predictor,
        episode: Episode | None,
        owner: str | None,
    ) -> tuple[Predictor, Any, bytes]:
        """Who answered; the actions, an array or (for one observation) a list; the new state."""
        taken = forms(predictor)
        if not isinstance(taken, list):
            self._copy(served, taken[0], episode, owner)
            afresh = partial(_many, forms)
            return *self._policy.predict(served, predictor, taken, afresh), b""
        self._copy(served, taken, episode, owner)
        again = partial(_only, forms)
        if episode is None:
            answered, action = self._policy.act_one(served, predictor, taken, again)
            return answered, [action], b""
        answered, action, after = self._policy.step_one(
            served, predictor, taken, episode.memory, again
        )
        return answered, [action], after

    def _tensors(
        self,
        said: InferRequest,
        binary: bytes,
        served: Served,
        alone: bool,
        predictor: Predictor,
    ) -> Tensors:
        """The observations (n, d) of a request in a predictor's form; a list (d,) if it is one.

        `alone`: it must be one if an arm keeps a state. Raises `BadRequest`.
        """
        layout, limit = predictor.layout, self._limits.batch
        size = predictor.observation_size
        tensor = plain(said, size, limit) if layout is None else None
        one_only = None if tensor is None else one(tensor, binary, size)
        if one_only is not None:
            return one_only
        if tensor is not None:
            array = rows(tensor, binary, size)
        else:
            said, binary = form_for(said, binary, served.names(predictor), predictor)
            if layout is not None and are_leaves(said, layout):
                array = leaf_batch(said, binary, layout, limit)
            else:
                array = batch(said, binary, size, limit)
        if len(array) == 1:
            found: list[float] = array[0].tolist()
            return found
        if alone and (predictor.state_size or served.stateful):
            expected = "one observation: the policy keeps a state from step to step"
            raise BadRequest(422, "inputs[0].shape[0]", expected, str(len(array)))
        return array

    def _copy(
        self,
        served: Served,
        observation: list[float] | NDArray[np.float32],
        episode: Episode | None,
        owner: str | None,
    ) -> None:
        """Offer an observation to the shadow, before any policy has answered or failed on it."""
        champion = served.champion
        if served.tried and champion and len(observation) == champion.observation_size:
            name, step = (None, 0) if episode is None else (episode.name, episode.steps)
            listed = observation if isinstance(observation, list) else observation.tolist()
            self._policy.shadow.offer(served, listed, name, step, owner)

    def _limit(self, count: int) -> int:
        served = self._follower.served
        if served.champion is None:
            raise NotReady(served.problem)
        return self._limits.of_body(count, *served.sizes) + 2 * served.memory_bytes

    def _smaller(self) -> str:
        """What to do about a body that is too long."""
        sizes = self._follower.served.sizes
        count = self._limits.fitting(*sizes)
        many = "one observation" if count == 1 else f"{count} observations"
        return (
            f"{many} of {sizes[0]} numbers always fit: send smaller batches, or let "
            "SRGHN_LIMIT_BODY_BYTES allow more"
        )


def _only(forms: Forms[Tensors], predictor: Predictor) -> list[float]:
    """The first observation of a request, in a predictor's form."""
    taken = forms(predictor)
    found: list[float] = taken if isinstance(taken, list) else taken[0].tolist()
    return found


def _many(forms: Forms[Tensors], predictor: Predictor) -> NDArray[np.float32]:
    """The observations (n, d) of a request, in a predictor's form."""
    return np.atleast_2d(np.asarray(forms(predictor), np.float32))


async def _check(forms: Forms[Any], arms: Iterable[Predictor]) -> None:
    """`Forms.check`, in a separate thread for a long body."""
    work = partial(forms.check, arms)
    await aside(work) if forms.long else work()


def _read_long(body: bytes, served: Served) -> ActRequest | NativeRequest:
    """`read_act` for a long body, whose marks are counted first."""
    check_marks(body, served.marks, FORMS, alone=True)
    return read_act(body, served)


def _observations(
    body: bytes, served: Served, predictor: Predictor, limit: int
) -> NDArray[np.float32]:
    found = quick_batch(body, predictor.observation_size, limit)
    if found is not None:
        return found
    rough = body.count(b"[") - 1  # counted before they are decoded: a list costs much to make
    if rough > limit and predictor.layout is None:
        check_count(rough, limit, "observations")
    if predictor.layout is not None:
        return native_batch(read_batch(body), served, predictor, limit)
    rows = parse(_BATCH, body).observations
    return observations(rows, predictor.observation_size, limit, "observations[{}]")


def tensor_answer(
    model: str,
    said: InferRequest,
    predictor: Predictor,
    actions: Any,
    face: Face,
    token: str | None,
) -> tuple[bytes, bytes]:
    """The protocol's answer and its header lines: JSON, or a JSON head and the tensor's bytes.

    `actions` is an array (n, *action_shape), or a list with one action.
    """
    kind, shape = predictor.action_kind, [len(actions), *predictor.action_shape]
    output: dict[str, Any] = {"name": OUTPUT, "shape": shape, "datatype": DATATYPES[kind]}
    content: dict[str, Any] = {"model_name": model}
    if face.version is not None:
        content["model_version"] = face.version
    if isinstance(said.id, str):
        content["id"] = said.id
    if token is not None:
        content["parameters"] = {"token": token}
    content["outputs"] = [output]
    if not said.wants_binary:
        output["data"] = actions.ravel() if isinstance(actions, np.ndarray) else _flat(actions)
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), JSON
    data = np.asarray(actions, _BINARY_TYPES[kind]).tobytes()
    output["parameters"] = {"binary_data_size": len(data)}
    head = orjson.dumps(content)
    lines = b"content-type: application/octet-stream\r\n"
    return head + data, lines + b"inference-header-content-length: %d\r\n" % len(head)


def _flat(values: list[Any]) -> list[Any]:
    """The numbers in lists of lists, in their order."""
    while isinstance(values[0], list):
        values = [value for part in values for value in part]
    return values


def episode_of(in_body: str | None, in_header: str | None) -> str | None:
    """The episode a request belongs to; raises `BadRequest` if header and body differ."""
    if in_header is None:
        return in_body
    if not _EPISODE.fullmatch(in_header):
        raise bad_episode("X-Episode-Id", in_header)
    if in_body not in (None, in_header):
        raise BadRequest(422, "X-Episode-Id", f"the body's {in_body!r}", repr(in_header))
    return in_header


def bad_episode(field: str, got: str) -> BadRequest:
    return BadRequest(422, field, EPISODE_TEXT, repr(got[:80]))
