"""What both clients do alike: bodies, answers, tokens, and when to ask again."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from serving.client.errors import NotAnswered, Refused

#: Answers that say 'not now': the same request is sent again while its deadline allows.
AGAIN = frozenset({408, 429, 502, 503, 504})
#: The first pause before asking again, in seconds; doubled each time, up to the last.
PAUSES = (0.01, 0.5)


@dataclass
class Progress:
    """An episode as its client knows it: the last token, and the rewards so far.

    `base` is where the routes of its policy begin.
    """

    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    token: str | None = None
    steps: int = 0
    return_: float = 0.0
    over: bool = False
    base: str = "/v1"

    def body(self, observation: Any, others: Mapping[str, Any] | None = None) -> dict[str, Any]:
        said = {**body_of(observation, others), "episode_id": self.name}
        return said if self.token is None else {**said, "token": self.token}

    def take(self, answer: Mapping[str, Any]) -> Any:
        """Keep the token of an answer; its action."""
        self.token, self.steps = answer["token"], self.steps + 1
        return answer["action"]

    def outcome(self, terminated: bool) -> dict[str, Any]:
        return {"return": self.return_, "terminated": terminated, "token": self.token}

    @property
    def path(self) -> str:
        return f"{self.base}/episodes/{self.name}/outcome"


def base_of(policy: str | None) -> str:
    """Where the routes of a policy begin; None: of the default one."""
    return "/v1" if policy is None else f"/v1/policies/{policy}"


def body_of(observation: Any, others: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The observation, and its other forms by interface or version, if several are sent."""
    said = {"observation": plain(observation)}
    if others:
        said["observations"] = {str(name): plain(value) for name, value in others.items()}
    return said


def plain(observation: Any) -> Any:
    """An observation as JSON has it.

    A vector or a number becomes a list or a number, an array of more dimensions the base64 of its
    bytes with shape and dtype.
    """
    if hasattr(observation, "tobytes") and getattr(observation, "ndim", 0) > 1:
        little = observation.astype(observation.dtype.newbyteorder("<"))
        return {
            "b64": base64.b64encode(little.tobytes()).decode(),
            "shape": list(observation.shape),
            "dtype": str(observation.dtype.newbyteorder("=")),
        }
    if hasattr(observation, "tolist"):
        return observation.tolist()
    if isinstance(observation, Mapping):
        return {key: plain(value) for key, value in observation.items()}
    if isinstance(observation, Sequence) and not isinstance(observation, str):
        return [plain(value) for value in observation]
    return observation


def plain_batch(observations: Any) -> list[Any]:
    """Observations as JSON has them: one a row of an array, or one an item."""
    if getattr(observations, "ndim", 0) == 2:
        rows: list[Any] = observations.tolist()
        return rows
    return [plain(observation) for observation in observations]


def batch_of(observations: Any, others: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A batch, and its other forms by interface or version, if several are sent."""
    said: dict[str, Any] = {"observations": plain_batch(observations)}
    if others:
        said["forms"] = {str(name): plain_batch(value) for name, value in others.items()}
    return said


def pause(attempt: int, answer: httpx.Response | None) -> float:
    """Seconds before asking again: what the server asks for, else longer each time."""
    first, last = PAUSES
    wanted = answer.headers.get("retry-after", "") if answer is not None else ""
    if wanted.isdigit():
        return float(wanted)
    return float(min(last, first * 2**attempt))


def read(answer: httpx.Response) -> dict[str, Any]:
    """The content of an answer; raises `Refused`."""
    try:
        content = answer.json()
    except ValueError:
        content = {"error": answer.text[:200]}
    if answer.status_code == 200:
        found: dict[str, Any] = content
        return found
    message = content.get("error", answer.text[:200]) if isinstance(content, dict) else str(content)
    named = content.get("field") if isinstance(content, dict) else None
    raise Refused(answer.status_code, str(message), named)


def given_up(path: str, seconds: float, last: Exception | httpx.Response | None) -> NotAnswered:
    """Why a request is no longer repeated."""
    if isinstance(last, httpx.Response):
        why = f"it answered {last.status_code}: {last.text[:200]}"
    else:
        why = f"{type(last).__name__}: {last}" if last is not None else "no time was left"
    return NotAnswered(f"{path} was not answered within {seconds:g} s; {why}")
