"""What both clients do alike: bodies, answers, tokens, and when to ask again."""

from __future__ import annotations

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
    """An episode as its client knows it: the last token, and the rewards so far."""

    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    token: str | None = None
    steps: int = 0
    return_: float = 0.0
    over: bool = False

    def body(self, observation: Any) -> dict[str, Any]:
        said: dict[str, Any] = {"observation": plain(observation), "episode_id": self.name}
        return said if self.token is None else {**said, "token": self.token}

    def take(self, answer: Mapping[str, Any]) -> Any:
        """Keep the token of an answer; its action."""
        self.token, self.steps = answer["token"], self.steps + 1
        return answer["action"]

    def outcome(self, terminated: bool) -> dict[str, Any]:
        return {"return": self.return_, "terminated": terminated, "token": self.token}

    @property
    def path(self) -> str:
        return f"/v1/episodes/{self.name}/outcome"


def plain(observation: Any) -> Any:
    """An observation as JSON has it: arrays (anything with `tolist`) become lists."""
    if hasattr(observation, "tolist"):
        return observation.tolist()
    if isinstance(observation, Mapping):
        return {key: plain(value) for key, value in observation.items()}
    if isinstance(observation, Sequence) and not isinstance(observation, str):
        return [plain(value) for value in observation]
    return observation


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
