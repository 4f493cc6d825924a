"""A run's folder: the record it may only be resumed under, its lock, and how to read it back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from srghn.config import RunParams
from srghn.envs.version import EnvVersion
from srghn.errors import ArchitectureMismatch, CheckpointError, FingerprintMismatch
from srghn.evolution import checkpoint as checkpoints
from srghn.evolution import lineage, plot, tables
from srghn.evolution.ancestry import Ancestry, Told, genome_digest
from srghn.evolution.base import F32, F64, I64, Population, Strategy, same_architecture
from srghn.evolution.ending import FINALISTS, End, ended
from srghn.evolution.progress import CHECKPOINTS, TABLES, Progress, restore
from srghn.evolution.registry import make_strategy
from srghn.files import atomic_write, lock, seal, unseal
from srghn.notebook import card
from srghn.provenance import platform_note

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1
RECORD, WORLD, LOCK = "run.json", "env_version.json", ".lock"
#: The sections of the parameters that evolution depends on; the others may change under a run.
SECTIONS = {"env", "network", "ghn", "evolution"}


@dataclass(frozen=True)
class Founder:
    """The candidate that a lineage continues: its genome, where it stood, and where it is from.

    `digest` is the candidate's; `generation` the lineage generation in which it was chosen.
    `companions` are further candidates of the same architecture that found the run beside it.
    """

    genome: F32
    generation: int
    digest: str
    ancestry: Ancestry
    companions: tuple[Founder, ...] = ()

    def __repr__(self) -> str:
        beside = f", {len(self.companions)} companions" if self.companions else ""
        return f"Founder({self.digest[:12]}, generation {self.generation}{beside})"

    @property
    def genomes(self) -> F32:
        """Its genome (G,), or with companions all of them (n, G), its own first."""
        if not self.companions:
            return self.genome
        return np.stack([self.genome, *(each.genome for each in self.companions)])


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the run's folder; raises `CheckpointError` if another process does."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / LOCK).open("w", encoding="utf-8") as file:
        if not lock(file):
            raise CheckpointError(
                f"another process is evolving in {run_dir}; wait for it, or use another folder"
            )
        yield


def describe(
    params: RunParams, version: EnvVersion, strategy: Strategy[Any], founder: Founder | None
) -> dict[str, Any]:
    """The record of a run: everything its bytes depend on."""
    return {
        "format": FORMAT,
        "params": params.model_dump(mode="json", include=SECTIONS),
        "fingerprint": version.fingerprint,
        "strategy": strategy.name,
        "architecture": strategy.digest,
        "nodes": list(strategy.node_names),
        "platform": platform_note(),
        "founder": None if founder is None else _founder_record(founder),
        **_companions(founder),
    }


def _companions(founder: Founder | None) -> dict[str, Any]:
    """Left out where there are none, so that older records stay what they are."""
    if founder is None or not founder.companions:
        return {}
    return {"companions": [_founder_record(each) for each in founder.companions]}


def _founder_record(founder: Founder) -> dict[str, Any]:
    return {
        "digest": founder.digest,
        "generation": founder.generation,
        "genome_digest": genome_digest(founder.genome),
        "ancestry": founder.ancestry.to_json(),
    }


def check_founder(params: RunParams, strategy: Strategy[Any], founder: Founder | None) -> None:
    """Raise unless the founder is the ancestor the parameters name, of this architecture."""
    digest = None if founder is None else founder.digest
    if params.evolution.ancestor != digest:
        raise CheckpointError(
            f"evolution.ancestor is {params.evolution.ancestor}, the founder given is {digest}; "
            "give the candidate that the parameters name"
        )
    if founder is None:
        return
    given = tuple(each.digest for each in founder.companions)
    if params.evolution.companions != given:
        raise CheckpointError(
            f"evolution.companions is {params.evolution.companions}, those given are {given}; "
            "give the candidates that the parameters name"
        )
    for each in (founder, *founder.companions):
        if not same_architecture(each.ancestry.architecture, strategy.digest):
            raise ArchitectureMismatch(
                f"the ancestor was evolved under architecture {each.ancestry.architecture}, this "
                f"run has {strategy.digest}; keep its strategy, network and ghn parameters, or "
                "start a new lineage without an ancestor (srghn run --from scratch)"
            )


def open_run(run_dir: Path, record: Mapping[str, Any], version: EnvVersion) -> None:
    """Write the record of a run that has nothing yet, or check that one is resumed unchanged.

    Raises `FingerprintMismatch` for another world, `CheckpointError` for other parameters, another
    founder or another platform.
    """
    path = run_dir / RECORD
    begun = bool(checkpoints.steps(run_dir / CHECKPOINTS)) or (run_dir / FINALISTS).exists()
    begun |= any(any((run_dir / name).glob("*.parquet")) for name in TABLES)
    if begun and not path.exists():
        raise CheckpointError(f"{path} is missing beside what was evolved; restore it (dvc pull)")
    if not begun:  # a record alone is of a start that was refused
        version.save(run_dir / WORLD)
        atomic_write(path, seal(record))
        return
    old = read_record(run_dir)
    if old["fingerprint"] != record["fingerprint"]:
        version.check_not_fuller(run_dir / WORLD)
        raise FingerprintMismatch(
            f"{run_dir} was evolved in environment {old['fingerprint']}, this is "
            f"{record['fingerprint']} ({version.id}); fitness in one says nothing about the "
            "other. Pin the new environment (srghn env pin) and start a new lineage in it "
            "(srghn run --from scratch)"
        )
    if same_architecture(old["architecture"], record["architecture"]):
        old["architecture"] = record["architecture"]
    if moved := list(_differences(old, record)):
        raise CheckpointError(
            f"{run_dir} cannot be resumed: {'; '.join(moved)}. Resume it with its own parameters, "
            "or start a new run"
        )


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield f"{path.removeprefix('params.')} was {old!r}, now is {new!r}"


def read_record(run_dir: Path) -> dict[str, Any]:
    """The record of a run; raises `CheckpointError` naming the file."""
    path = run_dir / RECORD
    try:
        record = unseal(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read the run's record {path}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} was torn or changed: {error}; restore it") from error
    if record["format"] != FORMAT:
        raise CheckpointError(f"{path}: expected format {FORMAT}, found {record['format']!r}")
    whole = RunParams.model_validate(record["params"])  # with the parameters that came after it
    record["params"] = whole.model_dump(mode="json", include=SECTIONS)
    return record


@dataclass(frozen=True)
class Run:
    """A run as later stages read it. `finalists` are best first, `fitness` (n,) theirs in `mode`.

    `generation` is the last lineage generation that was played, `done` how many this run has.
    """

    run_dir: Path
    record: Mapping[str, Any]
    params: RunParams
    version: EnvVersion
    strategy: Strategy[Any]
    progress: Progress

    @property
    def generation(self) -> int:
        return self.progress.state.generation - 1

    @property
    def finalists(self) -> Population:
        return self.progress.finalists

    @property
    def fitness(self) -> F64:
        return self.progress.fitness

    @property
    def mode(self) -> str:
        return self.progress.mode

    @property
    def end(self) -> End | None:
        """Why the run is finished, where it is before its last generation: see `ending.End`."""
        return self.progress.end or ended(self.run_dir)

    @cached_property
    def lineage(self) -> lineage.Lineage:
        """Up to the checkpoint, though the run may be going on."""
        parts, pending = self.progress.parts["lineage"], self.progress.pending["lineage"]
        return lineage.load(self.run_dir, parts, *pending)

    def plot(self) -> Figure:
        """Fitness, mutation rate and diversity over the generations, as a Matplotlib figure.

        A notebook shows it; `run.plot().savefig("run.png")` keeps it.
        """
        return plot.draw(self.generations)

    @cached_property
    def generations(self) -> pa.Table:
        """A row for each generation up to the checkpoint: `.to_pandas()` makes a data frame of it.

        Its columns are those of `metrics.SCHEMA`.
        """
        parts, pending = self.progress.parts["generations"], self.progress.pending["generations"]
        return tables.read(self.run_dir / "generations", parts, *pending)

    def __repr__(self) -> str:
        return (
            f"Run({self.strategy.name} in {self.version.id}, {self.progress.done} of "
            f"{self.params.evolution.generations} generations, {self.run_dir})"
        )

    def _repr_html_(self) -> str:
        rows = {
            "strategy": self.strategy.name,
            "environment": f"{self.version.id}, mode {self.mode}",
            "generations": f"{self.progress.done} of {self.params.evolution.generations}",
            "evaluations": f"{self.progress.evaluations:,}",
            "best fitness in training": float(self.fitness.max()) if len(self.fitness) else None,
            "ended": self.end,
            "folder": self.run_dir,
        }
        return card("Run", rows)

    def ancestry(self, individual: int) -> Ancestry:
        """Of a finalist by id; raises `CheckpointError` for another id.

        A line that begins at an ancestor of the run goes on with that one's; one that begins at
        an individual drawn afresh, as newcomers are, begins there. A search goes on with its
        founder's searches.
        """
        row = _row_of(self.finalists.ids, individual)
        chain = tuple(self.lineage.chain(individual))
        told: tuple[Told, ...] = ()
        founder = self.record["founder"]
        if self.strategy.encoding is None:
            earlier = Ancestry.from_json(founder["ancestry"]) if founder else None
            chain = (*(earlier.chain if earlier else ()), chain[-1])
            told = (*(earlier.told if earlier else ()), self._told())
        else:
            founders = [founder, *self.record.get("companions", ())] if founder else []
            if (first := chain[0].id) < len(founders):  # theirs are 0, 1, ...
                chain = Ancestry.from_json(founders[first]["ancestry"]).chain + chain[1:]
        digest = genome_digest(self.finalists.genomes[row])
        return Ancestry(self.strategy.digest, chain, digest, told)

    def _told(self) -> Told:
        """What the strategy was told before it drew the finalists."""
        generations, starts = np.unique(self.lineage.generation, return_index=True)
        rows = np.split(self.lineage.fitness, starts[1:])[:-1]
        fitness = (tuple(f if math.isfinite(f) else None for f in row.tolist()) for row in rows)
        return Told(self.record["params"], int(generations[0]), tuple(fitness))


def _row_of(ids: I64, individual: int) -> int:
    rows = (ids == individual).nonzero()[0]
    if len(rows) == 0:
        raise CheckpointError(f"individual {individual} is no finalist; finalists: {ids.tolist()}")
    return int(rows[0])


def load_run(run_dir: Path | str) -> Run:
    """Read a run that has at least one checkpoint; raises `CheckpointError` otherwise.

    Raises `ArchitectureMismatch` where the parameters now make another network than the run's: its
    genomes fit one of the same shapes, and would be another policy in it.
    """
    run_dir = Path(run_dir)
    record = read_record(run_dir)
    params = RunParams.model_validate(record["params"])
    version = EnvVersion.load(run_dir / WORLD)
    if version.fingerprint != record["fingerprint"]:
        raise FingerprintMismatch(
            f"{run_dir / WORLD} is environment {version.fingerprint}, the run was evolved in "
            f"{record['fingerprint']}; restore the file (dvc pull)"
        )
    strategy = make_strategy(params, version.interface)
    if not same_architecture(record["architecture"], strategy.digest):
        raise ArchitectureMismatch(
            f"{run_dir} was evolved with architecture {record['architecture']}, network "
            f"{params.network.module} and strategy {strategy.name} now make {strategy.digest}; "
            "put the network's code back as it was, or start a new run"
        )
    progress = restore(run_dir, strategy)
    if progress is None:
        raise CheckpointError(f"{run_dir} has no checkpoint yet: nothing was evolved in it so far")
    past = ended(run_dir)
    last = past.done if past is not None else params.evolution.generations
    if progress.done < last and (run_dir / FINALISTS).exists():
        raise CheckpointError(
            f"{run_dir} is finished, but its last checkpoint was refused; the newest valid one is "
            f"of generation {progress.done}: evolve again to write the last one again (srghn "
            "run)"
        )
    return Run(run_dir, record, params, version, strategy, progress)
