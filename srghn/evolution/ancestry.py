"""An individual as its lineage: a founder's seed and a chain of mutation seeds, a few kilobytes.

The chain spans runs: a run that starts from an earlier candidate goes on with that one's chain,
but where the individual descends from a founder drawn during the run (a newcomer, an immigrant, a
restart). The worlds in which the ancestors were played are named, because fitness means nothing
without them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from srghn.errors import ArtefactError, ReplayMismatch
from srghn.evolution.base import F32, Encoding, same_architecture
from srghn.files import canonical_json, sha256_bytes

FORMAT = 1
_ROW = ("generation", "id", "noise_seed", "fitness", "rate")


@dataclass(frozen=True)
class Ancestor:
    """One birth: its lineage generation, id within its run, seed, and first fitness and rate.

    `noise_seed` of the first in a chain is the seed of its genome. `rate` is the median over nodes.
    `fitness` is None where it was not finite.
    """

    generation: int
    id: int
    noise_seed: int
    fitness: float | None
    rate: float
    fingerprint: str
    mode: str


@dataclass(frozen=True)
class Ancestry:
    """All that is needed to make a genome again, and the digests that prove that it is the one.

    architecture   digest of the encoding under which the seeds have their meaning
    genome_digest  of the genome's bytes (little-endian float32)
    """

    architecture: str
    chain: tuple[Ancestor, ...]
    genome_digest: str

    def __repr__(self) -> str:
        return f"Ancestry({len(self.chain)} births, genome {self.genome_digest[:12]})"

    def to_json(self) -> str:
        """One line per ancestor; worlds are named once."""
        worlds = list(dict.fromkeys((a.fingerprint, a.mode) for a in self.chain))
        rows = [
            [*(asdict(a)[name] for name in _ROW), worlds.index((a.fingerprint, a.mode))]
            for a in self.chain
        ]
        head = {
            "format": FORMAT,
            "architecture": self.architecture,
            "genome_digest": self.genome_digest,
            "worlds": [list(world) for world in worlds],
            "columns": [*_ROW, "world"],
        }
        lines = ",\n".join(canonical_json(row).decode() for row in rows)
        return f'{canonical_json(head).decode()[:-1]},"chain":[\n{lines}\n]}}\n'

    @classmethod
    def from_json(cls, text: str) -> Ancestry:
        """Read `to_json`'s form; raises `ArtefactError` for anything else."""
        try:
            data: Mapping[str, Any] = json.loads(text)
            if data["format"] != FORMAT:
                raise ArtefactError(
                    f"an ancestry of format {data['format']!r}, expected {FORMAT}; "
                    "it was written by another version"
                )
            chain = tuple(Ancestor(*row[:5], *data["worlds"][row[5]]) for row in data["chain"])
            return cls(data["architecture"], chain, data["genome_digest"])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ArtefactError(f"not an ancestry: {error!r}") from error


def genome_digest(genome: F32) -> str:
    """SHA-256 of a genome's little-endian float32 bytes."""
    return sha256_bytes(np.ascontiguousarray(genome, dtype="<f4").tobytes())


def rebuild(ancestry: Ancestry, encoding: Encoding) -> F32:
    """The genome (G,), made again birth by birth.

    Raises `ReplayMismatch` if the encoding or the resulting genome differs.
    """
    if not same_architecture(ancestry.architecture, encoding.digest):
        raise ReplayMismatch(
            f"this lineage has architecture {ancestry.architecture}, got {encoding.digest}; use "
            "the parameters it was evolved with"
        )
    genome = grow(encoding, [a.noise_seed for a in ancestry.chain])
    if (found := genome_digest(genome)) != ancestry.genome_digest:
        raise ReplayMismatch(
            f"the rebuilt genome has digest {found}, recorded is {ancestry.genome_digest}; "
            "the platform or a package differs from the recorded one, or the lineage was changed"
        )
    return genome


def grow(encoding: Encoding, noise_seeds: Sequence[int]) -> F32:
    """The genome (G,) that a founder's seed and then each birth's seed lead to."""
    genome = encoding.init(noise_seeds[0])[None]
    for seed in noise_seeds[1:]:
        genome, _ = encoding.mutate(genome, np.array([seed], dtype=np.int64))
    first: F32 = genome[0]
    return first
