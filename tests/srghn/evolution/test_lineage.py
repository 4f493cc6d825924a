from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from srghn.errors import ArchitectureMismatch, ArtefactError, CheckpointError, ReplayMismatch
from srghn.evolution import (
    Ancestor,
    Ancestry,
    Founder,
    Run,
    again,
    lineage,
    load_run,
    one_thread,
    rebuild,
    tables,
)
from srghn.evolution.ancestry import genome_digest, grow
from srghn.evolution.base import F32
from tests.tiny import record_of

Play = Callable[..., None]


def generation(
    number: int, episodes: int = 8, count: int = 64, survivors: int = 8, level: float = 0
) -> pa.Table:
    """A generation as a run writes it: incompressible seeds, rates and returns."""
    rng = np.random.default_rng(number)
    born = np.arange(count - survivors) + survivors + number * (count - survivors)
    ids = np.append(rng.integers(0, born[0], survivors), born)
    returns = rng.normal(size=(count, episodes)) * 100 + level
    played = record_of(
        number,
        returns,
        rates=rng.random((count, 12), np.float32),
        ids=ids,
        parents=np.where(ids >= born[0], ids[0], ids - 1),
        noise_seeds=rng.integers(0, 2**63, count),
        births=np.full(count, number),
    )
    return lineage.table([played], "f" * 64)


def rebuilt(run: Run, ancestry: Ancestry) -> F32:
    return rebuild(ancestry, run.params, run.version.interface)


def rows(*numbers: int) -> pa.Table:
    return pa.table({"generation": [number for number in numbers for _ in range(2)]})


def numbers(table: pa.Table) -> list[int]:
    return list(table["generation"].to_pylist()[::2])


def test_parts_are_named_by_their_generations_and_read_back_in_order(tmp_path: Path) -> None:
    parts = [tables.write(tmp_path, [rows(g, g + 1), rows(g + 2)]) for g in range(7, 40, 3)]
    assert (parts[0].name, parts[0].last) == ("00000007-00000009.parquet", 9)
    tables.verify(tmp_path, parts)
    assert numbers(tables.read(tmp_path)) == list(range(7, 40))
    assert numbers(tables.read(tmp_path, parts[:2], rows(13))) == list(range(7, 14))
    assert numbers(tables.read(tmp_path, [], rows(13))) == [13]
    tables.prune(tmp_path, parts[:2])
    assert numbers(tables.read(tmp_path)) == list(range(7, 13))


def test_how_rows_came_together_is_not_in_a_parts_bytes(tmp_path: Path) -> None:
    made = [generation(g) for g in range(5)]
    split = [[pa.concat_tables(made)], made, [pa.concat_tables(made[:3]), *made[3:]]]
    assert len({tables.write(tmp_path, each).digest for each in split}) == 1


def test_an_empty_folder_has_no_table(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no table yet"):
        tables.read(tmp_path)


def test_a_thousand_generations_of_64_stay_under_10_megabytes(tmp_path: Path) -> None:
    for first in range(0, 1000, 250):
        tables.write(tmp_path / "lineage", [generation(g) for g in range(first, first + 250)])
    size = sum(p.stat().st_size for p in (tmp_path / "lineage").iterdir())
    assert 2_000_000 < size < 10_000_000
    assert len(lineage.load(tmp_path)) == 64_000


def test_everyone_ever_born_is_there_with_every_episode(finished: Path, small_run: Any) -> None:
    found = lineage.load(finished)
    params = small_run().evolution
    assert len(found) == params.generations * 6
    assert found.returns.shape == (len(found), params.episodes)
    assert np.array_equal(np.unique(found.id), np.arange(2 + 4 * params.generations))
    assert np.allclose(found.fitness, found.returns.mean(axis=1))
    assert found.fingerprint == load_run(finished).version.fingerprint
    switched = found.generation >= 4
    assert set(found.mode[switched]) == {"flipped"}
    assert set(found.mode[~switched]) == {"normal"}


def test_any_individual_is_its_lineage(finished: Path) -> None:
    run = load_run(finished)
    for i, genome in zip(run.finalists.ids, run.finalists.genomes, strict=True):
        ancestry = Ancestry.from_json(run.ancestry(int(i)).to_json())
        assert ancestry == run.ancestry(int(i))
        assert rebuilt(run, ancestry).tobytes() == genome.tobytes()
        births = [a.generation for a in ancestry.chain]
        assert births[0] == 0
        assert births == sorted(births)


def test_a_lineage_spans_runs(small_run: Any, play: Play, finished: Path, tmp_path: Path) -> None:
    first = load_run(finished)
    best = int(first.finalists.ids[0])
    ancestry = first.ancestry(best)
    founder = Founder(first.finalists.genomes[0], first.generation, "d" * 64, ancestry)
    params = small_run(ancestor="d" * 64, generations=3, seed=8)
    play(params, tmp_path, founder)
    second = load_run(tmp_path)
    assert second.generation == 9
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["00000002", "00000003"]
    assert second.mode == "flipped"  # the schedule goes on: its switch was at 4
    for row, i in enumerate(second.finalists.ids):
        whole = second.ancestry(int(i))
        assert whole.chain[: len(ancestry.chain)] == ancestry.chain
        assert rebuilt(second, whole).tobytes() == second.finalists.genomes[row].tobytes()
    assert max(len(second.ancestry(int(i)).chain) for i in second.finalists.ids) > len(
        ancestry.chain
    )


@pytest.mark.parametrize(
    "own",
    [
        {"strategy": "immigrants", "options": {"share": 1.0}},
        {"strategy": "restart", "options": {"patience": 1}},
    ],
)
def test_a_line_that_begins_during_a_run_is_no_ancestors(
    own: dict[str, Any], small_run: Any, play: Play, tmp_path: Path
) -> None:
    """Immigrants and restarts begin lines in a run that goes on from two candidates."""
    play(small_run(**own, generations=4), tmp_path / "first")
    first = load_run(tmp_path / "first")
    founders = [
        Founder(genome, first.generation, name * 64, first.ancestry(int(i)))
        for genome, i, name in zip(first.finalists.genomes, first.finalists.ids, "de", strict=True)
    ]
    whole = dataclasses.replace(founders[0], companions=(founders[1],))
    named: dict[str, Any] = {"ancestor": "d" * 64, "companions": ("e" * 64,)}
    asked = small_run(**own, **named, generations=8, seed=1, selection="comma", elites=0)
    play(asked, tmp_path / "second", whole)
    second = load_run(tmp_path / "second")
    births = [second.ancestry(int(i)).chain[0].generation for i in second.finalists.ids]
    assert min(births) > first.generation
    for i, genome in zip(second.finalists.ids, second.finalists.genomes, strict=True):
        assert rebuilt(second, second.ancestry(int(i))).tobytes() == genome.tobytes()


@pytest.mark.parametrize("name", ["snes", "openes", "cmaes", "gesmr"])
def test_an_individual_of_a_search_is_what_the_search_was_told(
    name: str, small_run: Any, play: Play, tmp_path: Path
) -> None:
    """Of a run cut off and resumed, and of one that goes on from its candidate, told otherwise."""
    play(small_run(strategy=name, generations=5), tmp_path / "first")
    first = load_run(tmp_path / "first")
    best = int(first.finalists.ids[0])
    told = first.ancestry(best)
    assert Ancestry.from_json(told.to_json()) == told
    assert str(told) == "5 generations of search"
    assert rebuilt(first, told).tobytes() == first.finalists.genomes[0].tobytes()
    founder = Founder(first.finalists.genomes[0], first.generation, "d" * 64, told)
    steps = {} if name == "gesmr" else {"options": {"sigma": 0.07}}
    play(
        small_run(strategy=name, ancestor="d" * 64, generations=3, seed=8, **steps),
        tmp_path / "second",
        founder,
    )
    second = load_run(tmp_path / "second")
    for i, genome in zip(second.finalists.ids, second.finalists.genomes, strict=True):
        whole = Ancestry.from_json(second.ancestry(int(i)).to_json())
        assert [run.start for run in whole.told] == [0, 5]
        assert (len(whole.chain), str(whole)) == (2, "8 generations of search")
        assert rebuilt(second, whole).tobytes() == genome.tobytes()
    last = whole.told[-1]
    forged = dataclasses.replace(last, fitness=(last.fitness[0][::-1], *last.fitness[1:]))
    with pytest.raises(ReplayMismatch, match="rebuilt genome has digest"):
        rebuilt(second, dataclasses.replace(whole, told=(whole.told[0], forged)))
    for strange in (last.fitness[0][1:], tuple("abcdef"), (10**400,) * 6):
        forged = dataclasses.replace(last, fitness=(strange,))  # type: ignore[arg-type]
        with pytest.raises(ReplayMismatch, match="cannot be told what this lineage says"):
            rebuilt(second, dataclasses.replace(whole, told=(whole.told[0], forged)))
    with pytest.raises(ArtefactError, match="2 searches lead to 1 individuals"):
        Ancestry.from_json(dataclasses.replace(whole, chain=whole.chain[1:]).to_json())
    stranger = dataclasses.replace(whole.chain[-1], id=10**6)
    with pytest.raises(ReplayMismatch, match="has no individual 1000000"):
        rebuilt(second, dataclasses.replace(whole, chain=(whole.chain[0], stranger)))
    with pytest.raises(ReplayMismatch, match="does not say what its search was told"):
        rebuilt(second, dataclasses.replace(whole, chain=(), told=()))


def test_an_individual_is_made_again_in_one_thread_as_in_its_run(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search of one's own that multiplies matrices would draw another one in several."""
    inside: list[int] = []

    def grown(*given: Any) -> F32:
        inside.append(len(one_thread._INSIDE))
        return grow(*given)

    monkeypatch.setattr(again, "grow", grown)
    run = load_run(finished)
    rebuilt(run, run.ancestry(int(run.finalists.ids[0])))
    assert inside == [1]


def test_a_founder_must_be_the_ancestor_that_the_parameters_name(
    small_run: Any, play: Play, finished: Path, tmp_path: Path
) -> None:
    run = load_run(finished)
    ancestry = run.ancestry(int(run.finalists.ids[0]))
    founder = Founder(run.finalists.genomes[0], run.generation, "d" * 64, ancestry)
    with pytest.raises(CheckpointError, match=r"evolution\.ancestor is None"):
        play(small_run(), tmp_path, founder)
    with pytest.raises(CheckpointError, match="founder given is None"):
        play(small_run(ancestor="d" * 64), tmp_path)
    other = small_run(ancestor="d" * 64)
    other = other.model_copy(update={"ghn": other.ghn.model_copy(update={"hidden": 5})})
    with pytest.raises(ArchitectureMismatch, match="keep its strategy, network and ghn parameters"):
        play(other, tmp_path, founder)


def test_a_changed_chain_or_architecture_does_not_rebuild(finished: Path) -> None:
    run = load_run(finished)
    ancestry = run.ancestry(int(run.finalists.ids[0]))
    last = dataclasses.replace(ancestry.chain[-1], noise_seed=ancestry.chain[-1].noise_seed ^ 1)
    forged = dataclasses.replace(ancestry, chain=(*ancestry.chain[:-1], last))
    with pytest.raises(ReplayMismatch, match="rebuilt genome has digest"):
        rebuilt(run, forged)
    with pytest.raises(ReplayMismatch, match="architecture"):
        rebuilt(run, dataclasses.replace(ancestry, architecture="0" * 64))


def test_unknown_individuals_are_refused(finished: Path) -> None:
    run = load_run(finished)
    with pytest.raises(CheckpointError, match="is no finalist"):
        run.ancestry(10**6)
    with pytest.raises(ArtefactError, match="not in this lineage"):
        run.lineage.chain(10**6)


def test_a_hundred_births_are_a_few_kilobytes() -> None:
    chain = tuple(
        Ancestor(g, 56 * g, 2**62 + g, 123.456, 0.0625, "f" * 64, "normal") for g in range(100)
    )
    ancestry = Ancestry("a" * 64, chain, genome_digest(np.zeros(3, np.float32)))
    text = ancestry.to_json()
    assert len(text) < 6000
    assert Ancestry.from_json(text) == ancestry


def test_fitness_that_was_not_finite_is_kept_as_none() -> None:
    chain = (Ancestor(0, 0, 1, None, 0.1, "f" * 64, "normal"),)
    ancestry = Ancestry("a" * 64, chain, "d" * 64)
    assert Ancestry.from_json(ancestry.to_json()).chain[0].fitness is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format":1,"chain":[[1]]}', '{"format":9,"chain":[]}']
)
def test_what_is_no_ancestry_is_refused(text: str) -> None:
    with pytest.raises(ArtefactError, match="ancestry"):
        Ancestry.from_json(text)


def test_minus_infinity_survives_the_table(tmp_path: Path) -> None:
    tables.write(tmp_path / "lineage", [generation(0, level=-math.inf)])
    assert np.isneginf(lineage.load(tmp_path).returns).all()
    assert np.isneginf(lineage.load(tmp_path).fitness).all()
