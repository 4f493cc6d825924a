"""Every random draw has a name.

`stream(root_seed, "birth", generation, individual)` is the same stream on every machine, in every
process and in any order, so a resumed run, a run on another number of workers and a replayed
champion need no saved generator. Purposes are separate: no evolution run can draw a gate's seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

#: A birth's seed may carry a code: its remainder by this number.
CODES = 256
#: Generations whose draws are made together.
AHEAD = 64


class _Key(ISeedSequence):
    """A Philox key as the seed sequence that gives it: `Philox(key=...)` asks the system for
    entropy first, only to throw it away, which takes twice as long as all the rest.
    """

    def __init__(self, key: NDArray[np.uint64]) -> None:
        self.key = key

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> NDArray[np.uint64]:
        assert (n_words, dtype) == (2, np.uint64)
        return self.key


def _named(root_seed: int, purpose: str, ids: tuple[int | str, ...]) -> Any:
    """SHA-256 of a draw's name, to which more may be added."""
    name = "\x1f".join([str(int(root_seed)), purpose, *map(str, ids)])
    return hashlib.sha256(name.encode())


def seed(root_seed: int, purpose: str, *ids: int | str) -> int:
    """One seed in [0, 2**63) for a name such as `(7, "birth", generation, child)`."""
    return int.from_bytes(_named(root_seed, purpose, ids).digest()[:8], "little") >> 1


def ahead(draw: Callable[..., NDArray[np.int64]]) -> Callable[..., NDArray[np.int64]]:
    """`draw(generation, *names)`, a pure function, called for `AHEAD` generations together.

    Four such blocks are kept. Draws one after another take half as long as each would among all
    else that a generation does.
    """

    @lru_cache(maxsize=4)
    def block(first: int, *names: int) -> list[NDArray[np.int64]]:
        return [draw(generation, *names) for generation in range(first, first + AHEAD)]

    @wraps(draw)
    def made(generation: int, *names: int) -> NDArray[np.int64]:
        place = generation % AHEAD
        return block(generation - place, *names)[place].copy()

    return made


def seeds(root_seed: int, purpose: str, count: int, *ids: int | str) -> NDArray[np.int64]:
    """`count` seeds, shape (count,), each in [0, 2**31): what `reset(seed=)` takes."""
    shared, found = _named(root_seed, purpose, ids), np.empty(count, dtype=np.int64)
    # each the lower bits of `seed(root_seed, purpose, *ids, i)`
    for i in range(count):
        name = shared.copy()
        name.update(b"\x1f%d" % i)
        found[i] = int.from_bytes(name.digest()[:4], "little") >> 1
    return found


def stream(root_seed: int, purpose: str, *ids: int | str) -> np.random.Generator:
    """An independent generator (Philox, keyed by SHA-256 of the name)."""
    key = np.frombuffer(_named(root_seed, purpose, ids).digest()[:16], dtype="<u8")
    return np.random.Generator(np.random.Philox(_Key(key)))  # type: ignore[arg-type]


def text_seed(*parts: str) -> int:
    """A root seed from text, for example the gate's (salt, candidate digest, attempt)."""
    joined = "\x1f".join(parts).encode()
    return int.from_bytes(hashlib.sha256(joined).digest()[:8], "little") >> 1
