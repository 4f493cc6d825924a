"""How much a server takes, and how often it looks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bytes a body, observations a batch, seconds between looks at the ledger, and so on."""

    body_bytes: int = 4_000_000
    batch: int = 4096
    poll_seconds: float = 0.5
    #: After so long without an outcome an episode is taken for lost, and its pin for free.
    episode_seconds: float = 3600.0
    #: Pins older than this are deleted; an outcome that comes later is refused.
    pin_seconds: float = 7 * 24 * 3600.0
    prune_seconds: float = 3600.0
    #: Pins remembered by one worker; the ledger has them all.
    pins: int = 100_000
    #: A champion that failed to load is tried again after so long.
    retry_seconds: float = 5.0
    #: A ledger that could not be read for so long makes the server unready.
    blind_seconds: float = 10.0
    #: A write waits so long for the ledger's lock, then its caller is told.
    lock_seconds: float = 1.0
    drain_seconds: int = 30
