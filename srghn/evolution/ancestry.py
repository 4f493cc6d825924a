"""An individual as its lineage: a founder's seed and a chain of mutation seeds, a few kilobytes.

Of a strategy that draws individuals from a distribution it is the fitness that the strategy was
told, generation by generation: asked again and told the same, it draws the same.

The chain spans runs: a run that starts from an earlier candidate goes on with that one's chain,
but where the individual descends from a founder drawn during the run (a newcomer, an immigrant, a
restart). The worlds in which the ancestors were played are named, because fitness means nothing
without them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from srghn.errors import ArtefactError
from srghn.evolution.base import F32, Encoding
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
class Told:
    """A run of a strategy that draws individuals from a distribution.

    params   those that its evolution depended on, as plain data; the seed is among them
    start    the lineage generation that it began with
    fitness  what it was told of each generation from there to the one before the individual's,
             None where it was not finite
    """

    params: Mapping[str, Any]
    start: int
    fitness: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Ancestry:
    """All that is needed to make a genome again, and the digests that prove that it is the one.

    architecture   digest of the encoding under which the seeds have their meaning
    chain          births, founder first; or the individual that each of the runs in `told` led to
    genome_digest  of the genome's bytes (little-endian float32)
    told           empty where individuals are born of parents
    """

    architecture: str
    chain: tuple[Ancestor, ...]
    genome_digest: str
    told: tuple[Told, ...] = ()

    def __repr__(self) -> str:
        return f"Ancestry({self}, genome {self.genome_digest[:12]})"

    def __str__(self) -> str:
        """How long it is: '12 births', or '99 generations of search'."""
        if self.told:
            return f"{sum(len(run.fitness) + 1 for run in self.told)} generations of search"
        return f"{len(self.chain)} births"

    def to_json(self) -> str:
        """One line per ancestor, and per generation that was told; worlds are named once."""
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
        told = ",".join(
            f'{_open({"params": run.params, "start": run.start})},"fitness":{_lines(run.fitness)}}}'
            for run in self.told
        )
        more = f',"told":[{told}]' if told else ""
        return f'{_open(head)},"chain":{_lines(rows)}{more}}}\n'

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
            told = tuple(
                Told(run["params"], run["start"], tuple(tuple(row) for row in run["fitness"]))
                for run in data.get("told", ())
            )
            if told and len(told) != len(chain):
                raise ValueError(f"{len(told)} searches lead to {len(chain)} individuals")
            return cls(data["architecture"], chain, data["genome_digest"], told)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ArtefactError(f"not an ancestry: {error!r}") from error


def _open(fields: Mapping[str, Any]) -> str:
    """A JSON object without its end."""
    return canonical_json(fields).decode()[:-1]


def _lines(rows: Iterable[Sequence[Any]]) -> str:
    """A JSON list with a line for each row."""
    return "[\n" + ",\n".join(canonical_json(row).decode() for row in rows) + "\n]"


def genome_digest(genome: F32) -> str:
    """SHA-256 of a genome's little-endian float32 bytes."""
    return sha256_bytes(np.ascontiguousarray(genome, dtype="<f4").tobytes())


def grow(encoding: Encoding, noise_seeds: Sequence[int]) -> F32:
    """The genome (G,) that a founder's seed and then each birth's seed lead to."""
    genome = encoding.init(noise_seeds[0])[None]
    for seed in noise_seeds[1:]:
        genome, _ = encoding.mutate(genome, np.array([seed], dtype=np.int64))
    first: F32 = genome[0]
    return first
