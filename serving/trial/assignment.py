"""Assigns episodes to the arms of a trial, by their names and a secret; nobody can choose."""

from __future__ import annotations

import hashlib
import hmac

BUCKETS = 10_000


def trial_key(secret: bytes, policy: str, trial: int) -> bytes:
    """The secret key of one trial; `trial` is its epoch."""
    return hmac.digest(secret, f"trial\x1f{policy}\x1f{trial}".encode(), hashlib.sha256)


def bucket(key: bytes, episode: str) -> int:
    """An episode's bucket in [0, 10000). If the weight rises, no episode leaves the canary."""
    digest = hmac.digest(key, episode.encode(), hashlib.sha256)
    return int.from_bytes(digest[:8], "little") % BUCKETS


def exact_weight(weight: float) -> float:
    """The canary's exact probability: the weight in steps of 1 / 10000."""
    return round(weight * BUCKETS) / BUCKETS


def arm_of(key: bytes, episode: str, weight: float) -> int:
    """0 for the champion, or 1 for the canary, with probability `exact_weight(weight)`."""
    return int(bucket(key, episode) < round(weight * BUCKETS))
