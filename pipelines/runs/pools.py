"""Which Prefect work pool a home's runs go to, and from which queues its worker takes them."""

from __future__ import annotations

import socket

from serving.settings import Settings
from srghn.files import sha256_bytes

POOL = "srghn"
#: The queue of a pool that every worker takes runs from.
DEFAULT_QUEUE = "default"


def pool_of(settings: Settings) -> str:
    """The work pool of this home's runs.

    On a server by URL, which other homes may use, it is this home's alone unless a setting names
    one that hosts share: a run has the settings of the home that made it.
    """
    if settings.work_pool or not settings.prefect_api_url:
        return settings.work_pool or POOL
    return f"{POOL}-{own_queue(settings)}"


def queues_of(settings: Settings) -> list[str]:
    """The queues that this home's worker takes runs from; none named: all there are.

    In a pool that hosts share, each has a queue of its own: a run that was cut off goes on where
    its workspace is.
    """
    return [DEFAULT_QUEUE, own_queue(settings)] if settings.work_pool else []


def own_queue(settings: Settings) -> str:
    """A name for this home that no other one has, on this host or another."""
    host = socket.gethostname()
    return f"{host}-{sha256_bytes(f'{host}:{settings.home}'.encode())[:8]}"
