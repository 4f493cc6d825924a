"""The parts that both clients share: bodies, answers, tokens, and when to repeat a request."""

from __future__ import annotations

import base64
import json
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from serving.client.errors import NotAnswered, Refused

#: Status codes of temporary refusals: the request is repeated until its deadline.
AGAIN = frozenset({408, 429, 502, 503, 504})
#: What a body is, and what an answer may be: none is decompressed, which can take any memory.
JSON = {"content-type": "application/json", "accept-encoding": "identity"}
#: How compressed data begins, and the largest number that is no infinity.
_GZIP, _LARGEST = b"\x1f\x8b", sys.float_info.max
#: Most dimensions of an action, which are those of a numpy array.
_DIMENSIONS = 32
#: Most bytes of an answer; a longer one is refused.
LONGEST = 64 * 2**20
#: Most characters of an error's text that the server wrote, and bytes of an answer of another.
_SHOWN, _SEEN = 500, 200
#: First and longest pause before a repetition, in seconds; it doubles each time.
PAUSES = (0.01, 0.5)


@dataclass
class Progress:
    """A client's record of an episode: the last token, and the rewards so far.

    `base` is the path prefix of its policy's routes.
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
        """Keep the token of an answer; returns its action. Raises `Refused` without both."""
        action = action_in(answer)
        self.token, self.steps = _field(answer, "token", "a text", str), self.steps + 1
        return action

    def outcome(self, terminated: bool) -> dict[str, Any]:
        return {"return": self.return_, "terminated": terminated, "token": self.token}

    def end(self, answer: Mapping[str, Any]) -> None:
        """Note that the outcome is posted. Raises `Refused` if something else took it."""
        _field(answer, "counted", "true or false", bool)
        self.over = True

    @property
    def path(self) -> str:
        return f"{self.base}/episodes/{self.name}/outcome"


def address_of(url: str) -> httpx.URL:
    """A server's URL; raises `ValueError` for one that no request can be sent to."""
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is no URL: {error}") from error
    if found.scheme not in ("http", "https") or not found.host:
        raise ValueError(f"expected a URL such as http://127.0.0.1:8000, got {url!r}")
    return found


def headers_of(token: str | None) -> dict[str, str]:
    """The headers of a caller's token; raises `ValueError` for a text that is none.

    What surrounds it is removed, such as the line end of the file that it was read from.
    """
    if token is None:
        return {}
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("expected a token as `srghn token add` printed it, got another text")
    return {"Authorization": f"Bearer {token}"}


def base_of(policy: str | None) -> str:
    """The path prefix of a policy's routes; None: of the default policy's."""
    return "/v1" if policy is None else f"/v1/policies/{policy}"


def body_of(observation: Any, others: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A body with the observation, and with its other forms by interface or version, if any."""
    said = {"observation": plain(observation)}
    if others:
        said["observations"] = {str(name): plain(value) for name, value in others.items()}
    return said


def plain(observation: Any) -> Any:
    """An observation as JSON.

    A vector becomes a list and a number a number. An array of more dimensions becomes the base64
    of its bytes with shape and dtype.
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
    """Observations as JSON: the rows of an array, or the items of a list."""
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


def encoded(body: Mapping[str, Any]) -> bytes:
    """A body as JSON. NaN and infinity are sent as they are: the server names them and refuses."""
    return json.dumps(body, separators=(",", ":")).encode()


@dataclass
class Answer:
    """An answer while it arrives: its status, its headers and its body, as it was sent."""

    status: int
    headers: Mapping[str, str]
    content: bytearray = field(default_factory=bytearray)

    def add(self, part: bytes) -> None:
        """Add a part of the body; raises `Refused` beyond `LONGEST` bytes."""
        self.content += part
        if len(self.content) > LONGEST:
            said = f"expected an answer of at most {LONGEST} bytes, got a longer one"
            raise Refused(self.status, said, None)

    @property
    def text(self) -> str:
        """The beginning of the body, whatever encoding the headers claim."""
        return clear(self.content[:_SEEN].decode(errors="replace"))


def cookies() -> CookieJar:
    """A jar that keeps no cookie: the server sends none."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def pause(attempt: int, answer: Answer | None) -> float:
    """Seconds before the next attempt: longer each time, and no less than the server asks for."""
    first, last = PAUSES
    wanted = answer.headers.get("retry-after", "") if answer is not None else ""
    own = float(min(last, first * 2 ** min(attempt, 32)))
    return max(own, float(wanted)) if wanted.isdecimal() else own  # "²" is a digit, but no number


def read(answer: Answer) -> dict[str, Any]:
    """The content of an answer; raises `Refused`."""
    content = _decoded(answer)
    if answer.status == 200 and isinstance(content, dict):
        return content
    if 200 <= answer.status < 300:
        packed = answer.content.startswith(_GZIP)
        got = "gzip data, which was not asked for" if packed else answer.text or "nothing"
        raise _not_ours("a JSON object", got, None, answer.status)
    raise Refused(answer.status, *_said(answer, content))


def _decoded(answer: Answer) -> Any:
    try:
        return _DECODER.decode(answer.content.decode())
    except (ValueError, RecursionError):
        return None


def _said(answer: Answer, content: Any) -> tuple[str, str | None]:
    """The reason of a refusal, and the field it is about if there is one."""
    said = content if isinstance(content, dict) else {}
    message, named = said.get("error"), said.get("field")
    if 300 <= answer.status < 400:
        to = answer.headers.get("location", "nowhere")
        message = f"expected an answer, got a redirect to {to}; use the URL of the server itself"
    return (
        clear(message) if isinstance(message, str) else answer.text or "without a reason",
        clear(named) if isinstance(named, str) else None,
    )


def action_in(answer: Mapping[str, Any]) -> Any:
    """The action in an answer; raises `Refused`."""
    return _action(answer.get("action"), "action")


def actions_in(answer: Mapping[str, Any], count: int) -> list[Any]:
    """The `count` actions in an answer; raises `Refused`."""
    found: list[Any] = _field(answer, "actions", "a list", list)
    if len(found) != count:
        raise _not_ours(f"{count} actions", str(len(found)), "actions")
    return [_action(action, "actions") for action in found]


def _action(found: Any, name: str) -> Any:
    if not _is_action(found):
        expected = f"`{name}`, a number or a list" + ("" if name == "action" else " each")
        raise _not_ours(expected, _written(found), name)
    return found


def _is_action(found: Any, depth: int = _DIMENSIONS) -> bool:
    """Whether it is a finite number, or a list of such or of lists; 1e999 is infinite."""
    if type(found) is list:
        return depth > 0 and bool(found) and all(_is_action(one, depth - 1) for one in found)
    return type(found) in (int, float) and -_LARGEST <= found <= _LARGEST


def given_up(path: str, seconds: float, last: Exception | Answer | None) -> NotAnswered:
    """The error of a request whose deadline has passed."""
    if isinstance(last, Answer):
        why = f"it answered {last.status}: {_said(last, _decoded(last))[0]}"
    else:
        why = f"{type(last).__name__}: {last}" if last is not None else "no time was left"
    return NotAnswered(f"{path} was not answered within {seconds:g} s; {why}")


def clear(text: str) -> str:
    """The beginning of a text that somebody else wrote, without what steers a terminal."""
    text = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(letter: str) -> str:
    return letter if letter.isprintable() else repr(letter)[1:-1]


def _field(answer: Mapping[str, Any], name: str, expected: str, *kinds: type) -> Any:
    found = answer.get(name)
    if type(found) not in kinds:  # JSON's true is an int to `isinstance`
        raise _not_ours(f"`{name}`, {expected}", _written(found), name)
    return found


def _written(found: Any) -> str:
    try:
        return clear(json.dumps(found))
    except RecursionError:  # whoever reads JSON is not as deep in calls as who writes it here
        return "lists in lists"


def _not_ours(expected: str, got: str, name: str | None, status: int = 200) -> Refused:
    said = f"expected {expected}, got {got}; is this the URL of an srghn server?"
    return Refused(status, said, name)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number)
