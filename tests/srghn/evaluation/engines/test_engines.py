"""Process pool and Dask: the bytes of one process, whatever happens to the workers."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from srghn.config import EngineSettings, EnvParams, NetworkParams, RunParams
from srghn.envs import EnvVersion, pin
from srghn.errors import ConfigError, EvaluationError, FingerprintMismatch, ServiceError
from srghn.evaluation.base import (
    Crash,
    Evaluation,
    Evaluator,
    Float32,
    Int64,
    WeightedPolicies,
    make_evaluator,
)
from srghn.evaluation.engines import processes
from srghn.evaluation.engines.processes import Pool, ProcessEvaluator, WorkerProcess
from srghn.evaluation.engines.shards import Board, Shard, Work
from srghn.evaluation.task import Task
from srghn.evolution.genetic import Genetic
from srghn.evolution.registry import make_strategy
from srghn.evolution.self_referential import BirthRecipe
from srghn.graph.frozen import evolved_size
from srghn.networks import build_network
from srghn.seeding import seeds, stream
from tests.srghn.evaluation.alike import same

POLICY = NetworkParams(kwargs={"hidden": [3], "activation": "tanh"})
SEEDS = seeds(4, "test", 3)
#: The individual whose actions are above 0.9, and that no other comes near.
GUILTY = 5
#: More than a socket takes that nobody reads.
BALLAST = bytes(4_000_000)
RECURRENT = NetworkParams(module="srghn.policies:GRU", kwargs={"width": 4})
DASK = [sys.executable, "-m", "dask"]


@pytest.fixture(scope="session")
def here() -> Iterator[None]:
    """Make `perilous` importable here and in every process that is started from here."""
    folder = str(Path(__file__).parents[1])
    before = os.environ.get("PYTHONPATH")
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *([before] if before else [])])
    yield
    sys.path.remove(folder)


def perilous(peril: str = "none", flag: str = "", sleep: float = 0.0) -> EnvVersion:
    kwargs = {"peril": peril, "spared": os.getpid(), "flag": flag, "sleep": sleep}
    return pin(EnvParams(id="perilous:world", kwargs=kwargs))


@dataclass(frozen=True)
class Seeded:
    """A recipe: each individual is a seed."""

    count: int
    ballast: bytes = b""

    def __len__(self) -> int:
        return self.count

    def rebuild(self, indices: Int64) -> Float32:
        rows = [stream(8, "weights", int(i)).normal(size=13) for i in indices]
        weights = np.array(rows, dtype=np.float32).reshape(-1, 13) * np.float32(0.1)
        weights[indices == GUILTY, -1] = 3.0
        return weights


def population(
    version: EnvVersion, count: int = 12, recipe: bool = True, ballast: bytes = b""
) -> WeightedPolicies:
    seeded = Seeded(count, ballast)
    if recipe:
        return WeightedPolicies(POLICY, version.interface, recipe=seeded)
    weights = seeded.rebuild(np.arange(count))
    return WeightedPolicies(POLICY, version.interface, weights)


def evaluator(version: EnvVersion, engine: str, **settings: object) -> Evaluator:
    made = EngineSettings.model_validate({"engine": engine, **settings})
    return make_evaluator(made, version, POLICY)


@pytest.fixture(scope="module")
def version(here: None) -> EnvVersion:
    return perilous()


@pytest.fixture(scope="module")
def expected(version: EnvVersion) -> Evaluation:
    with evaluator(version, "inprocess") as one:
        return one.evaluate(population(version), Task(version, "normal", SEEDS))


def test_processes_give_the_bytes_of_one_process(version: EnvVersion, expected: Evaluation) -> None:
    seen: list[tuple[int, int]] = []
    with evaluator(version, "processes", workers=3) as pool:
        for recipe in (True, False):
            result = pool.evaluate(
                population(version, recipe=recipe),
                Task(version, "normal", SEEDS),
                lambda done, total: seen.append((done, total)),
            )
            assert same(result, expected)
            assert result.retries == 0
        workers = [worker.process for worker in pool.workers]  # type: ignore[attr-defined]
        assert "3 processes" in pool.describe()
        assert all(worker.poll() is None for worker in workers)
    assert len(workers) == 3
    assert all(worker.poll() is not None for worker in workers)
    assert seen[-1] == (36, 36)


def test_an_order_of_episodes_changes_no_byte_of_any_engine() -> None:
    """It is of all the episodes of a call, of which a worker has some."""
    world, network = pin(EnvParams(id="Acrobot-v1", max_episode_steps=20)), NetworkParams()
    size = evolved_size(build_network(network, world.interface))
    weights = stream(3, "test").normal(size=(40, size)).astype(np.float32)
    policies = WeightedPolicies(network, world.interface, weights)
    order = stream(4, "test").permutation(len(policies) * len(SEEDS))
    found = []
    for settings in (
        EngineSettings(engine="inprocess"),
        EngineSettings(engine="processes", workers=2),
    ):
        for task in (Task(world, "normal", SEEDS), Task(world, "normal", SEEDS, None, order)):
            with make_evaluator(settings, world, network) as evaluator:
                found.append(evaluator.evaluate(policies, task))
    assert all(same(each, found[0]) for each in found)


def recurrent() -> tuple[EnvVersion, WeightedPolicies, Evaluation]:
    """CartPole, networks that keep a state between steps, and how they fare in one process."""
    version = pin(EnvParams(id="CartPole-v1", max_episode_steps=60))
    size = evolved_size(build_network(RECURRENT, version.interface))
    weights = stream(2, "test").normal(size=(9, size)).astype(np.float32)
    policies = WeightedPolicies(RECURRENT, version.interface, weights)
    with make_evaluator(EngineSettings(engine="inprocess"), version, RECURRENT) as one:
        expected = one.evaluate(policies, Task(version, "normal", SEEDS))
    assert len(np.unique(expected.lengths)) > 5
    return version, policies, expected


def test_memory_in_processes_gives_the_bytes_of_one_process(here: None) -> None:
    version, policies, expected = recurrent()
    settings = EngineSettings(engine="processes", workers=2)
    with make_evaluator(settings, version, RECURRENT) as pool:
        assert same(expected, pool.evaluate(policies, Task(version, "normal", SEEDS)))


def test_compiled_cartpole_in_processes(here: None) -> None:
    version = pin(EnvParams(id="CartPoleSwitch-v1"))
    weights = stream(1, "test").normal(size=(30, 5 * 3 + 4 * 2)).astype(np.float32)
    policies = WeightedPolicies(POLICY, version.interface, weights)
    with evaluator(version, "inprocess") as one, evaluator(version, "processes", workers=2) as two:
        assert two.describe() == "cartpole-mlp, 2 processes"
        a = one.evaluate(policies, Task(version, "flipped", SEEDS))
        assert same(a, two.evaluate(policies, Task(version, "flipped", SEEDS)))
    assert len(np.unique(a.lengths)) > 5


@pytest.mark.parametrize("peril", ["die", pytest.param("hang", marks=pytest.mark.slow)])
def test_a_worker_lost_once_costs_a_retry(
    expected: Evaluation, here: None, tmp_path: Path, peril: str
) -> None:
    version = perilous(peril, flag=str(tmp_path / "struck"))
    with evaluator(version, "processes", workers=2, shard_deadline=10.0) as pool:
        result = pool.evaluate(population(version), Task(version, "normal", SEEDS))
    assert (tmp_path / "struck").exists()
    assert result.retries == 1
    assert same(result, expected)


def test_an_individual_that_ends_every_worker_is_given_up(expected: Evaluation, here: None) -> None:
    version = perilous("die")
    with evaluator(version, "processes", workers=1) as pool:
        result = pool.evaluate(population(version, 6), Task(version, "normal", SEEDS))
    assert np.isneginf(result.returns[GUILTY]).all()
    assert np.array_equal(result.returns[:GUILTY], expected.returns[:GUILTY])
    assert [(c.individual, c.seed) for c in result.crashes] == [(GUILTY, s) for s in SEEDS.tolist()]
    assert "exit code -9" in result.crashes[0].message


@pytest.mark.parametrize("guilty", range(0, 11, 5))
def test_a_shard_that_fails_again_is_halved_down_to_the_guilty(
    version: EnvVersion, guilty: int
) -> None:
    board = Board(population(version, 11), SEEDS, None)
    board.waiting.append(Shard(np.arange(11)))
    failures = 0
    while board.waiting:
        shard = board.waiting.popleft()
        if guilty in shard.indices:
            failures += 1
            board.failed(shard, "its worker ended")
        else:
            shape = (len(shard.indices), 3)
            board.done(shard, Evaluation(np.ones(shape), np.ones(shape, dtype=np.int64), 3))
    result = board.result()
    assert np.flatnonzero(np.isneginf(result.fitness)).tolist() == [guilty]
    assert {crash.individual for crash in result.crashes} == {guilty}
    assert failures == result.retries + 1 <= 7


def test_a_users_mistake_is_told_at_once(version: EnvVersion) -> None:
    wrong = WeightedPolicies(POLICY, version.interface, np.zeros((4, 12), dtype=np.float32))
    with (
        evaluator(version, "processes", workers=1) as pool,
        pytest.raises(EvaluationError, match="13 parameters"),
    ):
        pool.evaluate(wrong, Task(version, "normal", SEEDS))


def test_a_worker_with_another_version_of_a_package_plays_nothing(version: EnvVersion) -> None:
    """On another host of a cluster, say: its returns would be of another environment."""
    other = dataclasses.replace(version, packages={**version.packages, "numpy": "0.1"})
    with (
        evaluator(other, "processes", workers=1) as pool,
        pytest.raises(FingerprintMismatch, match=r"pinned with numpy 0\.1, .* has .*pip install"),
    ):
        pool.evaluate(population(other), Task(other, "normal", SEEDS))


def test_workers_of_a_killed_parent_end_too(version: EnvVersion, tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_engines as t\n"
        "version = t.perilous(sleep=0.02)\n"
        "pool = t.evaluator(version, 'processes', workers=1)\n"
        "import threading, time\n"
        "def report():\n"
        "    while not (pool.workers and pool.workers[0].shard): time.sleep(0.05)\n"
        "    print(pool.workers[0].process.pid, flush=True)\n"
        "threading.Thread(target=report, daemon=True).start()\n"
        "pool.evaluate(t.population(version), t.Task(version, 'normal', t.SEEDS))\n"
    )
    parent = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 4  # its shard alone would take seven seconds
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _runs(worker)


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_an_answer_of_nan_is_a_failure_and_not_a_result(version: EnvVersion) -> None:
    board = Board.plan(population(version, 2), SEEDS, None, 2)
    first, second = board.waiting.popleft(), board.waiting.popleft()
    good = Evaluation(np.ones((1, 3)), np.ones((1, 3), dtype=np.int64), 3)
    bad = Evaluation(np.full((1, 3), np.nan), np.ones((1, 3), dtype=np.int64), 3)
    board.done(first, bad)
    board.done(second, good)
    board.done(board.waiting.popleft(), good)
    assert board.finished
    assert board.result().retries == 1
    assert np.array_equal(board.result().returns, np.ones((2, 3)))


@dataclass(frozen=True)
class Cluster:
    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]


def start_worker(
    address: str, folder: Path, nanny: str = "--no-nanny", **process: Any
) -> subprocess.Popen[bytes]:
    options = ["--nthreads", "1", "--host", "127.0.0.1", nanny, "--no-dashboard"]
    return subprocess.Popen(
        [*DASK, "worker", address, *options, "--local-directory", str(folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **process,
    )  # fmt: skip


@contextmanager
def running(folder: Path, workers: int, nanny: str = "--no-nanny") -> Iterator[Cluster]:
    """A scheduler and workers, each a process of its own, on loopback."""
    file = folder / "scheduler.json"
    options = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file)]
    scheduler = subprocess.Popen(
        [*DASK, "scheduler", "--no-dashboard", *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    started: list[subprocess.Popen[bytes]] = []
    try:
        while not file.exists() or not file.stat().st_size:  # it is created, then written
            assert scheduler.poll() is None
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        started += [start_worker(address, folder / str(n), nanny) for n in range(workers)]
        yield Cluster(address, scheduler, started)
    finally:
        for process in (*started, scheduler):
            process.kill()
        for process in (*started, scheduler):
            process.wait()


@pytest.fixture(scope="module")
def cluster(here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three workers that several tests share; the last of these kills one."""
    with running(tmp_path_factory.mktemp("cluster"), 3) as cluster:
        yield cluster


@pytest.mark.parametrize(("count", "killed"), [(1, [0]), (2, [0]), (3, [0, 2]), (2, [0, 1])])
def test_workers_that_died_between_two_calls_are_replaced(
    version: EnvVersion, expected: Evaluation, count: int, killed: list[int]
) -> None:
    with evaluator(version, "processes", workers=count) as pool:
        pool.evaluate(population(version, 4), Task(version, "normal", SEEDS))
        for worker in [pool.workers[place].process for place in killed]:  # type: ignore[attr-defined]
            worker.kill()
            worker.wait()
        assert same(pool.evaluate(population(version), Task(version, "normal", SEEDS)), expected)


def ready(pool: Evaluator, version: EnvVersion) -> list[WorkerProcess]:
    """The workers of a pool, when all of them have said that they are ready."""
    assert isinstance(pool, ProcessEvaluator)
    while not (pool.workers and all(worker.ready for worker in pool.workers)):
        pool.evaluate(population(version, 4), Task(version, "normal", SEEDS))
    return list(pool.workers)


@pytest.mark.parametrize("strikes", ["before the call", "before the shard is read"])
def test_an_individual_is_not_blamed_for_workers_that_were_killed_idle(
    version: EnvVersion, expected: Evaluation, monkeypatch: pytest.MonkeyPatch, strikes: str
) -> None:
    with evaluator(version, "processes", workers=2) as pool:
        workers = ready(pool, version)
        for worker in workers:
            worker.process.send_signal(signal.SIGSTOP)  # it reads no more

        def kill() -> None:
            for worker in workers:
                worker.process.kill()
                worker.process.wait()

        collect = Pool._collect

        def collected(self: Pool, *args: Any) -> None:
            kill()
            collect(self, *args)

        if strikes == "before the call":
            kill()
        else:
            monkeypatch.setattr(Pool, "_collect", collected)
        found = pool.evaluate(population(version, 1), Task(version, "normal", SEEDS))
    assert np.array_equal(found.returns, expected.returns[:1])
    assert (found.retries, found.crashes) == (0, ())


def test_a_worker_that_is_stuck_holds_up_no_large_message(
    version: EnvVersion, expected: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STALL", 1)
    with evaluator(version, "processes", workers=2) as pool:
        stuck, _ = ready(pool, version)
        stuck.process.send_signal(signal.SIGSTOP)
        policies = population(version, ballast=BALLAST)
        found = pool.evaluate(policies, Task(version, "normal", SEEDS))
        assert stuck.process.poll() is not None
    assert same(found, expected)
    assert found.retries == 0


def program(path: Path, code: str) -> str:
    """A program that takes a worker's place; `connection` is its socket."""
    path.write_text(
        f"#!{sys.executable}\nimport os, sys, time\n"
        "from multiprocessing.connection import Connection\n"
        f"connection = Connection(int(sys.argv[-1]))\n{code}"
    )
    path.chmod(0o755)
    return str(path)


def test_a_worker_that_is_stuck_in_its_answer_is_ended(
    version: EnvVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = "for word in 'here', 'ready':\n    connection.send(word)\n    connection.recv_bytes()\n"
    begins = "os.write(connection.fileno(), bytes([0, 0, 1, 0]))\ntime.sleep(60)\n"
    monkeypatch.setattr(sys, "executable", program(tmp_path / "stuck", says + begins))
    monkeypatch.setattr(processes, "STALL", 1)
    begun = time.monotonic()
    with evaluator(version, "processes", workers=1) as pool:
        found = pool.evaluate(population(version, 1), Task(version, "normal", SEEDS))
    assert time.monotonic() - begun < 30
    assert np.isneginf(found.returns).all()


@pytest.mark.parametrize("ballast", [b"", BALLAST])
def test_workers_that_do_not_start_are_given_up_in_every_call(
    version: EnvVersion, expected: Evaluation, monkeypatch: pytest.MonkeyPatch, ballast: bytes
) -> None:
    starts: list[WorkerProcess] = []
    start = WorkerProcess.__init__

    def started(self: WorkerProcess, *args: Any) -> None:
        starts.append(self)
        assert len(starts) < 20, "it would try for ever"
        start(self, *args)

    monkeypatch.setattr(WorkerProcess, "__init__", started)
    policies, task = population(version, ballast=ballast), Task(version, "normal", SEEDS)
    with evaluator(version, "processes", workers=2) as pool:
        for broken in ("/bin/false", "/bin/false", "/nowhere/python"):
            starts.clear()
            with monkeypatch.context() as patch:
                patch.setattr(sys, "executable", broken)
                with pytest.raises(EvaluationError, match="3 worker processes in a row"):
                    pool.evaluate(policies, task)
            assert 3 <= len(starts) <= 4
        starts.clear()
        assert same(pool.evaluate(policies, task), expected)


@pytest.mark.parametrize("says", ["", "connection.send('here')\n"])
def test_workers_that_never_get_ready_are_given_up_by_their_deadline(
    version: EnvVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    """However much there is to send them, and all at once."""
    monkeypatch.setattr(sys, "executable", program(tmp_path / "idle", says + "time.sleep(60)\n"))
    monkeypatch.setattr(processes, "START_DEADLINE", 2.0)
    monkeypatch.setattr(processes, "STALL", 1)
    policies, begun = population(version, ballast=BALLAST), time.monotonic()
    with (
        evaluator(version, "processes", workers=3) as pool,
        pytest.raises(EvaluationError, match="3 worker processes in a row"),
    ):
        pool.evaluate(policies, Task(version, "normal", SEEDS))
    assert time.monotonic() - begun < 30


def breeding(strategy: str, module: str) -> tuple[EnvVersion, NetworkParams, WeightedPolicies]:
    """CartPole, a network, and a population of it as a recipe."""
    world = pin(EnvParams(id="CartPole-v1", max_episode_steps=60))
    network = NetworkParams(module=module, kwargs={})
    evolution = {"strategy": strategy, "parents": 3, "children": 5, "newcomers": 0, "memory": 0}
    params = RunParams.model_validate({"network": network, "evolution": evolution})
    genetic = make_strategy(params, world.interface)
    assert isinstance(genetic, Genetic)
    state = genetic.init(3)
    born = genetic.ask(state)
    state = genetic.tell(state, born, np.arange(len(born), dtype=np.float64))
    recipe = BirthRecipe.of(genetic.encoding, state, genetic.ask(state))
    return world, network, WeightedPolicies(network, world.interface, recipe=recipe)


@pytest.mark.parametrize("module", ["closed:Squashed", "closed:local", "closed:normed"])
@pytest.mark.parametrize("strategy", ["ga", "self-adaptive-ga"])
def test_recipes_of_networks_that_do_not_pickle_do(here: None, strategy: str, module: str) -> None:
    world, _, policies = breeding(strategy, module)
    work = Work.of("cartpole", policies, Task(world, "normal", SEEDS))
    sent = pickle.loads(pickle.dumps(work))  # noqa: S301  our own bytes
    everyone = np.arange(len(policies))
    assert sent.recipe.rebuild(everyone).tobytes() == policies.take(everyone).tobytes()


def test_networks_that_do_not_pickle_are_played_in_processes(here: None) -> None:
    world, network, policies = breeding("ga", "closed:Squashed")
    task, found = Task(world, "normal", SEEDS), []
    for settings in (EngineSettings(), EngineSettings(engine="processes", workers=2)):
        with make_evaluator(settings, world, network) as each:
            found.append(each.evaluate(policies, task))
    assert same(*found)
    assert len(np.unique(found[0].lengths)) > 2


@pytest.mark.slow
@pytest.mark.services
def test_memory_over_dask_gives_the_bytes_of_one_process(cluster: Cluster, here: None) -> None:
    version, policies, expected = recurrent()
    settings = EngineSettings(engine="dask", dask_address=cluster.address)
    with make_evaluator(settings, version, RECURRENT) as dask:
        assert same(expected, dask.evaluate(policies, Task(version, "normal", SEEDS)))


@pytest.mark.slow
@pytest.mark.services
def test_a_dask_worker_holds_one_shard_at_a_time(
    cluster: Cluster, version: EnvVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    from srghn.evaluation.engines.dask import DaskEvaluator

    busy: list[str] = []
    dealt: list[int] = []
    submit, take = DaskEvaluator._submit, DaskEvaluator._take

    def submitted(self: Any, shared: Any, board: Board, shard: Shard, worker: str) -> Any:
        assert worker not in busy
        busy.append(worker)
        dealt.append(len(shard.indices))
        return submit(self, shared, board, shard, worker)

    def taken(self: Any, *answer: Any) -> str:
        worker = take(self, *answer)
        busy.remove(worker)
        return worker

    monkeypatch.setattr(DaskEvaluator, "_submit", submitted)
    monkeypatch.setattr(DaskEvaluator, "_take", taken)
    with evaluator(version, "dask", dask_address=cluster.address) as dask:
        dask.client.wait_for_workers(3, timeout=60)  # type: ignore[attr-defined]
        dask.evaluate(population(version, 90), Task(version, "normal", SEEDS))
    assert not busy
    assert len(dealt) > 3
    assert dealt == sorted(dealt, reverse=True)  # the large ones first


@pytest.mark.slow
@pytest.mark.services
def test_dask_survives_a_killed_worker(cluster: Cluster, here: None) -> None:
    version = perilous(sleep=0.01)
    policies = population(version, 24)
    with evaluator(version, "inprocess") as one:
        undisturbed = one.evaluate(policies, Task(version, "normal", SEEDS))
    with evaluator(version, "dask", dask_address=cluster.address) as dask:
        dask.client.wait_for_workers(3, timeout=60)  # type: ignore[attr-defined]
        calm = dask.evaluate(policies, Task(version, "normal", SEEDS))
        (playing,) = psutil.Process(cluster.workers[1].pid).children()
        killer = threading.Timer(0.3, cluster.workers[1].send_signal, [signal.SIGKILL])
        killer.start()
        begun = time.monotonic()
        result = dask.evaluate(policies, Task(version, "normal", SEEDS))
        took = time.monotonic() - begun
        killer.join()
        assert len(dask.client.nthreads()) == 2  # type: ignore[attr-defined]
    playing.wait(4)  # it ends with the worker that started it
    assert took > 0.3, "the worker was to die in the middle"
    assert same(calm, undisturbed)
    assert same(result, undisturbed)


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.parametrize(
    ("nanny", "peril", "reason"),
    [("--nanny", "die", "exit code -9"), ("--no-nanny", "hang", "no answer within 5 s")],
)
def test_an_individual_ends_or_hangs_no_dask_worker(
    expected: Evaluation, here: None, tmp_path: Path, nanny: str, peril: str, reason: str
) -> None:
    version, others = perilous(peril), np.arange(6) != GUILTY
    with running(tmp_path, 2, nanny) as cluster:
        with evaluator(version, "dask", dask_address=cluster.address, shard_deadline=5.0) as dask:
            client = dask.client  # type: ignore[attr-defined]
            client.wait_for_workers(2, timeout=60)
            before = client.run(os.getpid)
            found = dask.evaluate(population(version, 6), Task(version, "normal", SEEDS))
            assert client.run(os.getpid) == before
        assert np.array_equal(found.returns[others], expected.returns[:6][others])
        assert np.isneginf(found.returns[GUILTY]).all()
        assert {crash.individual for crash in found.crashes} == {GUILTY}
        assert all(reason in crash.message for crash in found.crashes)
        players = [one for pid in before.values() for one in psutil.Process(pid).children()]
        for worker in cluster.workers:
            worker.terminate()
            worker.wait(60)
        for player in players:
            player.wait(10)


@pytest.mark.slow
@pytest.mark.services
def test_a_scheduler_that_goes_away_is_told(here: None, tmp_path: Path) -> None:
    version = perilous(sleep=0.01)
    with (
        running(tmp_path, 1) as cluster,
        evaluator(version, "dask", dask_address=cluster.address) as dask,
    ):
        dask.evaluate(population(version, 3), Task(version, "normal", SEEDS))  # all are there
        killer = threading.Timer(0.3, cluster.scheduler.kill)
        killer.start()
        with pytest.raises(ServiceError, match=r"went away.*checkpoint"):
            dask.evaluate(population(version, 24), Task(version, "normal", SEEDS))
        killer.join()


@pytest.mark.slow
@pytest.mark.services
def test_a_worker_without_this_package_is_told(version: EnvVersion, tmp_path: Path) -> None:
    old = tmp_path / "old" / "srghn"
    old.mkdir(parents=True)
    (old / "__init__.py").write_text("raise ImportError('of another time')\n")
    env = {**os.environ, "PYTHONPATH": str(old.parent)}
    with running(tmp_path, 0) as cluster:
        lame = start_worker(cluster.address, tmp_path / "lame", cwd=old.parent, env=env)
        try:
            with (
                evaluator(version, "dask", dask_address=cluster.address) as dask,
                pytest.raises(ServiceError, match=r"of another time.*install this version"),
            ):
                dask.evaluate(population(version), Task(version, "normal", SEEDS))
        finally:
            lame.kill()
            lame.wait()


@pytest.mark.parametrize("address", ["nonsense", "foo://127.0.0.1:1"])
def test_an_address_that_is_none_is_told(version: EnvVersion, address: str) -> None:
    with (
        evaluator(version, "dask", dask_address=address) as dask,
        pytest.raises(ConfigError, match=f"tcp://HOST:8786, got '{address}'"),
    ):
        dask.evaluate(population(version), Task(version, "normal", SEEDS))


def test_dask_needs_an_address(version: EnvVersion) -> None:
    with pytest.raises(ConfigError, match="SRGHN_DASK_ADDRESS"):
        evaluator(version, "dask")


def test_a_crash_names_the_individual_of_the_population(version: EnvVersion) -> None:
    board = Board.plan(population(version, 4), SEEDS, None, 4)
    for shard in list(board.waiting):
        returns = np.full((1, 3), -np.inf)
        crash = Crash(0, int(SEEDS[0]), 1, "broken")
        board.done(shard, Evaluation(returns, np.ones((1, 3), dtype=np.int64), 3, 0, (crash,)))
    assert [crash.individual for crash in board.result().crashes] == [0, 1, 2, 3]


def test_each_worker_gets_an_equal_shard_of_half_of_what_is_left(version: EnvVersion) -> None:
    board = Board.plan(population(version, 64), np.arange(16), None, 2)
    sizes = [len(shard.indices) for shard in board.waiting]
    assert sizes == [16, 16, 8, 8, 4, 4, 2, 2, 1, 1, 1, 1]


@pytest.mark.parametrize(("count", "workers"), [(1, 4), (5, 2), (64, 2), (64, 3), (1000, 7)])
def test_shards_shrink_towards_the_end_and_hold_everyone_once(
    version: EnvVersion, count: int, workers: int
) -> None:
    board = Board.plan(population(version, count), SEEDS, None, workers)
    sizes = [len(shard.indices) for shard in board.waiting]
    assert np.array_equal(
        np.concatenate([shard.indices for shard in board.waiting]), np.arange(count)
    )
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) >= min(count, workers)
