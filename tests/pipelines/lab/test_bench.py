"""The benchmark measures what it says, and says what it skips."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.lab.bench import _gain_text, engines, loops, peers
from pipelines.lab.bench.growth import Curve, over_population, share_outside_evaluation
from pipelines.lab.bench.plot import draw
from pipelines.lab.bench.table import OURS, PLAIN, Row, measure_work
from pipelines.lab.bench.works import Work, works
from srghn.config import NetworkParams
from srghn.errors import ServiceError

MLP = NetworkParams(kwargs={"hidden": [4], "activation": "tanh"})


@pytest.fixture(scope="module")
def tiny() -> Work:
    return Work("tiny", "CartPole-v1", 4, 2, MLP)


@pytest.fixture(scope="module")
def rows(tiny: Work, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], list[str]]:
    said: list[str] = []
    home = tmp_path_factory.mktemp("home")
    return measure_work(tiny, home, rounds=1, seconds=0.02, say=said.append), said


def test_rows_are_ratios_of_one_run(rows: tuple[list[Row], list[str]]) -> None:
    found = {row.contestant: row for row in rows[0]}
    assert found[PLAIN].ratio_to_plain_loop == 1.0
    ours = found[OURS]
    assert ours.ratio_to_plain_loop == pytest.approx(
        ours.steps_per_cpu_second / found[PLAIN].steps_per_cpu_second, rel=1e-2
    )
    assert ours.ratio_to_plain_loop > 5
    assert found["physics alone"].share_of_limit == 1.0
    assert found["policy alone"].share_of_limit is None
    assert set(json.loads(json.dumps(asdict(ours)))) == {
        "work", "contestant", "steps_per_cpu_second", "ratio_to_plain_loop", "share_of_limit",
    }  # fmt: skip


def test_ratios_are_written_for_people() -> None:
    written = [Row("", "", 0.0, ratio, None).times for ratio in (0.8014, 24.595, 2640.391)]
    assert written == ["0.801x", "24.6x", "2,640x"]


def test_missing_peers_are_skipped_with_a_word(rows: tuple[list[Row], list[str]]) -> None:
    assert {row.contestant for row in rows[0]}.isdisjoint(peer.name for peer in peers.PEERS)
    assert len(rows[1]) == 3
    assert all("not installed" in line and "--install-peers" in line for line in rows[1])


def test_a_peer_that_fails_says_its_last_words(tiny: Work, tmp_path: Path) -> None:
    peer = peers.PEERS[1]
    peer.python(tmp_path).parent.mkdir(parents=True)
    peer.python(tmp_path).symlink_to(sys.executable)
    with pytest.raises(ServiceError, match="evosax failed: ModuleNotFoundError"):
        peers.rate(peer, tiny, tmp_path, 1, 0.01)


def test_loops_count_the_steps_they_take(tiny: Work) -> None:
    for make in (loops.torch_loop, loops.numpy_loop, loops.environment_alone):
        assert 300 <= make(tiny)(300) < 900


def test_half_of_a_population_lasts(tiny: Work) -> None:
    assert len(tiny.population) == tiny.individuals
    assert np.array_equal(tiny.population.dense(), Work(**_fields(tiny)).population.dense())


def _fields(work: Work) -> dict[str, object]:
    names = ("name", "env", "individuals", "episodes", "network", "kwargs")
    return {name: getattr(work, name) for name in names}


def test_every_target_has_its_work() -> None:
    assert {work.name for work in works(quick=True)} < {work.name for work in works(quick=False)}
    assert {(work.env, work.individuals) for work in works(quick=False)} >= {
        ("CartPole-v1", 64), ("CartPole-v1", 512), ("LunarLander-v3", 64), ("Ant-v5", 32),
    }  # fmt: skip


def test_exponent_and_plot(rows: tuple[list[Row], list[str]], tmp_path: Path) -> None:
    curve = Curve("population size", (16, 64, 256), (1.0, 2.0, 4.0))
    assert curve.exponent == pytest.approx(0.5)
    draw(rows[0], [curve], tmp_path / "made" / "bench.png")
    assert (tmp_path / "made" / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_growth_and_shares_run() -> None:
    assert min(over_population((16, 32)).seconds) > 0
    share = share_outside_evaluation(1)
    assert 0 < share.outside_evaluation < 1
    assert share.mean_steps > 5


def _profiled(dask_worker: Any) -> bool:
    return "profile" in dask_worker.periodic_callbacks


@pytest.mark.services
def test_dask_workers_of_the_bench_do_not_profile(tiny: Work) -> None:
    with engines._dask(tiny) as evaluator:
        profiled = evaluator.client.run(_profiled)  # type: ignore[attr-defined]
    assert list(profiled.values()) == [False] * engines.WORKERS


@pytest.mark.services
def test_two_workers_are_measured_against_one(tiny: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    found = engines.gain(tiny, rounds=1)
    assert found.dask is not None
    assert min(found.seconds, found.processes, found.machine, found.dask) > 0
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    without = engines.gain(tiny, rounds=1)
    assert without.dask is None
    assert "not installed" in _gain_text(without)
