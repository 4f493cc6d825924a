"""The server's limits and intervals: environment variables `SRGHN_LIMIT_*`."""

from __future__ import annotations

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from srghn.config import explain
from srghn.errors import ConfigError

PREFIX = "SRGHN_LIMIT_"
#: Bytes that one number of an observation may take in JSON, with a comma and a space.
_NUMBER = 28
#: Bytes of the rest of a body: names of fields, an episode's name and its token.
_BESIDE = 4096
#: No body may be longer by default, unless a single observation needs it.
_LONGEST = 16 * 2**20


class Limits(BaseSettings):
    """What one worker accepts, waits for and remembers."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    body_bytes: int | None = Field(
        None,
        ge=1,
        description="longest body, in bytes; default: what the policy's observations need, at most "
        "16 MiB or one observation",
    )
    buffered_bytes: int = Field(
        256 * 2**20,
        ge=1,
        description="bytes of long bodies that one worker holds at once; others get 503",
    )
    batch: int = Field(4096, ge=1, description="most observations in a batch")
    poll_seconds: float = Field(0.5, gt=0, description="seconds between two reads of the ledger")
    episode_seconds: float = Field(
        3600.0, gt=0, description="seconds after which an episode without an outcome counts as lost"
    )
    pin_seconds: float = Field(
        7 * 24 * 3600.0,
        ge=0,
        description="seconds after which starts are deleted and their outcomes refused",
    )
    starts: int = Field(
        1_000_000,
        ge=1000,
        description="newest episodes of a policy; earlier ones without an outcome are deleted once "
        "their deadline is past",
    )
    shadow_queue: int = Field(
        64, ge=1, description="most copies of requests that wait for a shadow or canary"
    )
    shadow_rate: float = Field(
        100.0, gt=0, description="most copies of requests that one worker answers a second"
    )
    prune_seconds: float = Field(3600.0, gt=0, description="seconds between two such clean-ups")
    pins: int = Field(100_000, ge=1, description="episodes that one worker remembers")
    start_seconds: float = Field(
        1.0, gt=0, description="seconds that a new episode waits for the ledger"
    )
    outcome_seconds: float = Field(
        10.0, gt=0, description="seconds that an outcome waits for the ledger"
    )
    retry_seconds: float = Field(
        5.0, ge=0, description="seconds after which a champion that failed to load is tried again"
    )
    blind_seconds: float = Field(
        10.0, ge=0, description="seconds after which an unreadable ledger makes the server unready"
    )
    lock_seconds: float = Field(
        1.0,
        gt=0,
        description="seconds that a write waits for the ledger's lock",
    )
    connections: int = Field(
        1000, ge=1, description="concurrent connections of one worker; others get 503"
    )
    reserved_connections: int = Field(
        50, ge=0, description="further connections, for health requests only"
    )
    headers: int = Field(100, ge=1, description="headers of a request")
    head_bytes: int = Field(32_768, ge=256, description="URL and headers of a request")
    head_seconds: float = Field(10.0, gt=0, description="seconds for a request's head to arrive")
    body_seconds: float = Field(30.0, gt=0, description="seconds for a request's body to arrive")
    answer_seconds: float = Field(
        15.0, gt=0, description="seconds for a client to take the next 64 KiB of its answers"
    )
    keep_alive_seconds: int = Field(
        75, ge=1, description="seconds that an idle connection is kept open"
    )
    drain_seconds: int = Field(
        30, ge=0, description="seconds that running requests may take when the server stops"
    )
    stuck_seconds: float = Field(
        10.0,
        gt=0,
        description="seconds without a sign of life after which one of several workers is replaced",
    )

    def of_body(self, observations: int, size: int, beside: int = 0) -> int:
        """Most bytes of a body with `observations` observations of `size` numbers each.

        `beside`: further bytes that each observation may take (names, brackets).
        """
        if self.body_bytes is not None:
            return self.body_bytes
        each = 2 + size * _NUMBER + beside
        return _BESIDE + max(each, min(observations * each, _LONGEST))

    def fitting(self, size: int, beside: int = 0) -> int:
        """Observations, at least one, that a body has room for however long their numbers are."""
        room = self.of_body(self.batch, size, beside) - _BESIDE
        return max(1, min(self.batch, room // (2 + size * _NUMBER + beside)))

    @property
    def small_body(self) -> int:
        """Most bytes of a body without observations."""
        return min(65_536, self.body_bytes or 65_536)

    @property
    def room(self) -> int:
        """Bytes of long bodies held at once: one of the longest always has room."""
        return max(self.buffered_bytes, self.body_bytes or 0)


def load_limits() -> Limits:
    """Limits from the environment; raises `ConfigError` with the variable's name."""
    try:
        return Limits()
    except ValidationError as error:
        raise ConfigError(explain(error, f"setting {PREFIX}")) from error
