"""The two clients: one for threads and control loops, one for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import httpx

from serving.client.deadline import Deadline, Transport
from serving.client.rules import (
    AGAIN,
    JSON,
    Answer,
    Progress,
    action_in,
    actions_in,
    address_of,
    base_of,
    batch_of,
    body_of,
    cookies,
    encoded,
    given_up,
    headers_of,
    pause,
    read,
)

#: Other forms of an observation by interface or version.
Forms = Mapping[str, Any]


class Episode:
    """One episode; as a context manager it posts its outcome when the block ends without error.

    Add up rewards with `reward`, or give the return to `end`. After a failure the request for an
    action is repeated with the same token, so no step counts twice.
    """

    def __init__(self, client: Client, progress: Progress) -> None:
        self._client, self._progress = client, progress

    @property
    def name(self) -> str:
        return self._progress.name

    @property
    def steps(self) -> int:
        return self._progress.steps

    def act(
        self, observation: Any, deadline: float | None = None, others: Forms | None = None
    ) -> Any:
        """The action for an observation, within `deadline` seconds (else the client's).

        The observation is in the environment's form: numbers, arrays, dicts and tuples of these.
        `others` are further forms of it by interface or version, for the trial of a successor with
        other sensors. Raises `NotAnswered` and `Refused`.
        """
        body = self._progress.body(observation, others)
        path = f"{self._progress.base}/act"
        return self._progress.take(self._client.post(path, body, deadline))

    def reward(self, reward: float) -> None:
        self._progress.return_ += float(reward)

    def end(self, return_: float | None = None, terminated: bool = True) -> dict[str, Any]:
        """Post the outcome, once; a second call sends nothing, nor does one before any step.

        `return_` is the sum of rewards if None. Raises `NotAnswered` and `Refused`.
        """
        progress = self._progress
        if return_ is not None:
            progress.return_ = float(return_)
        if progress.over or progress.token is None:
            return {}
        answer = self._client.post(progress.path, progress.outcome(terminated))
        progress.end(answer)
        return answer

    def __enter__(self) -> Episode:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.end()


class Client:
    """Sends requests to a server at `url`. `deadline`: seconds for a call with all its attempts.

    `token` is the caller's own, if the server needs one. `policy` is a policy's name; None: the
    default policy. Threads may share a client; an episode belongs to one thread. Raises
    `ValueError` for a URL without http:// or https://, and for a text that is no token.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        deadline: float = 5.0,
        policy: str | None = None,
    ) -> None:
        self._deadline, self._base = deadline, base_of(policy)
        self._call, address = Deadline(), address_of(url)
        self._http = httpx.Client(
            base_url=address,
            headers=headers_of(token),
            cookies=cookies(),
            transport=Transport(address, self._call),
        )

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def episode(self, name: str | None = None) -> Episode:
        """A new episode, under a name of its own unless one is given."""
        return Episode(self, _progress(self._base, name))

    def act(self, observation: Any, deadline: float | None = None) -> Any:
        """The action for an observation outside any episode."""
        return action_in(self.post(f"{self._base}/act", body_of(observation), deadline))

    def act_batch(
        self, observations: Any, deadline: float | None = None, others: Forms | None = None
    ) -> list[Any]:
        """Actions for many observations, all of one version.

        `others` are other forms of them by interface or version; see `Episode.act`.
        """
        body = batch_of(observations, others)
        answer = self.post(f"{self._base}/act/batch", body, deadline)
        return actions_in(answer, len(body["observations"]))

    def post(
        self, path: str, body: Mapping[str, Any], deadline: float | None = None
    ) -> dict[str, Any]:
        """Post until it is answered; raises `NotAnswered` and `Refused`."""
        seconds = self._deadline if deadline is None else deadline
        until, attempt = time.monotonic() + seconds, 0
        self._call.until, content = until, encoded(body)
        last: Exception | Answer | None = None
        while (left := until - time.monotonic()) > 0:
            try:
                found = self._http.post(path, content=content, headers=JSON, timeout=left)
            except httpx.TransportError as error:
                last = error
            else:
                last = Answer(found.status_code, found.headers, bytearray(found.content))
                if last.status not in AGAIN:
                    return read(last)
            wait = pause(attempt, last if isinstance(last, Answer) else None)
            time.sleep(max(0.0, min(wait, until - time.monotonic())))
            attempt += 1
        raise given_up(path, seconds, last)


class AsyncEpisode:
    """As `Episode`, for asyncio."""

    def __init__(self, client: AsyncClient, progress: Progress) -> None:
        self._client, self._progress = client, progress

    @property
    def name(self) -> str:
        return self._progress.name

    @property
    def steps(self) -> int:
        return self._progress.steps

    async def act(
        self, observation: Any, deadline: float | None = None, others: Forms | None = None
    ) -> Any:
        """The action for an observation; see `Episode.act`."""
        body = self._progress.body(observation, others)
        path = f"{self._progress.base}/act"
        return self._progress.take(await self._client.post(path, body, deadline))

    def reward(self, reward: float) -> None:
        self._progress.return_ += float(reward)

    async def end(self, return_: float | None = None, terminated: bool = True) -> dict[str, Any]:
        """Post the outcome, once; see `Episode.end`."""
        progress = self._progress
        if return_ is not None:
            progress.return_ = float(return_)
        if progress.over or progress.token is None:
            return {}
        answer = await self._client.post(progress.path, progress.outcome(terminated))
        progress.end(answer)
        return answer

    async def __aenter__(self) -> AsyncEpisode:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.end()


class AsyncClient:
    """As `Client`, for asyncio."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        deadline: float = 5.0,
        policy: str | None = None,
    ) -> None:
        self._deadline, self._base = deadline, base_of(policy)
        self._http = httpx.AsyncClient(
            base_url=address_of(url), headers=headers_of(token), cookies=cookies()
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def episode(self, name: str | None = None) -> AsyncEpisode:
        """A new episode, under a name of its own unless one is given."""
        return AsyncEpisode(self, _progress(self._base, name))

    async def act(self, observation: Any, deadline: float | None = None) -> Any:
        """The action for an observation outside any episode."""
        body = body_of(observation)
        return action_in(await self.post(f"{self._base}/act", body, deadline))

    async def act_batch(
        self, observations: Any, deadline: float | None = None, others: Forms | None = None
    ) -> list[Any]:
        """Actions for many observations; see `Client.act_batch`."""
        body = batch_of(observations, others)
        answer = await self.post(f"{self._base}/act/batch", body, deadline)
        return actions_in(answer, len(body["observations"]))

    async def post(
        self, path: str, body: Mapping[str, Any], deadline: float | None = None
    ) -> dict[str, Any]:
        """Post until it is answered; raises `NotAnswered` and `Refused`."""
        seconds = self._deadline if deadline is None else deadline
        until, attempt = time.monotonic() + seconds, 0
        content = encoded(body)
        last: Exception | Answer | None = None
        while (left := until - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):  # httpx's own is for each operation
                    last = answer = await self._ask(path, content, left)
            except TimeoutError:
                last = httpx.ReadTimeout("the deadline has passed")
            except httpx.TransportError as error:
                last = error
            else:
                if answer.status not in AGAIN:
                    return read(answer)
            wait = pause(attempt, last if isinstance(last, Answer) else None)
            await asyncio.sleep(max(0.0, min(wait, until - time.monotonic())))
            attempt += 1
        raise given_up(path, seconds, last)

    async def _ask(self, path: str, content: bytes, timeout: float) -> Answer:
        asking = self._http.stream("POST", path, content=content, headers=JSON, timeout=timeout)
        async with asking as found:
            answer = Answer(found.status_code, found.headers)
            async for part in found.aiter_raw():
                answer.add(part)
        return answer


def _progress(base: str, name: str | None) -> Progress:
    return Progress(base=base) if name is None else Progress(name, base=base)
