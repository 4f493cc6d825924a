"""Which arm of a trial an episode falls on: decided by its name and a secret, chosen by nobody."""

from __future__ import annotations

import hashlib
import hmac

BUCKETS = 10_000


def trial_key(secret: bytes, policy: str, trial: int) -> bytes:
    """The key of one trial; `trial` is its epoch."""
    return hmac.digest(secret, f"trial\x1f{policy}\x1f{trial}".encode(), hashlib.sha256)


def bucket(key: bytes, episode: str) -> int:
    """Where an episode falls, in [0, 10000). Raising a weight never moves an episode back."""
    digest = hmac.digest(key, episode.encode(), hashlib.sha256)
    return int.from_bytes(digest[:8], "little") % BUCKETS


def exact_weight(weight: float) -> float:
    """The probability of the canary that buckets give: a weight in steps of 1 / 10000."""
    return round(weight * BUCKETS) / BUCKETS


def arm_of(key: bytes, episode: str, weight: float) -> int:
    """0 for the champion, 1 for the canary, the latter with probability `exact_weight(weight)`."""
    return int(bucket(key, episode) < round(weight * BUCKETS))
